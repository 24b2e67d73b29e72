"""VCF and BCF, plain or compressed, of any number of samples: variants and who has which alleles.

Genotypes are no facts of OMOP and go to `node.genomes`, not to the harmonizer. Headers, and BCF as a whole,
are parsed by htslib through cyvcf2; the lines of a VCF are read in columns (`vcf_text`). Nothing of the
header is kept but the genome build that its contigs have: no paths, no command lines. Nor is any INFO, nor an
id that is not of dbSNP.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyvcf2 import VCF
from cyvcf2.cyvcf2 import set_htslib_log_level

from node.ingest.errors import UnreadableSource
from node.ingest.readers import vcf_records, vcf_text
from node.ingest.readers.variant_batches import DamagedRecord, VariantBatch, named

_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_VCF, _BCF = b"##fileformat=VCF", b"BCF\x02"
_BUILDS = {  # lengths of chromosomes that tell the builds apart
    ("1", 248956422): "GRCh38",
    ("1", 249250621): "GRCh37",
    ("10", 133797422): "GRCh38",
    ("10", 135534747): "GRCh37",
    ("20", 64444167): "GRCh38",
    ("20", 63025520): "GRCh37",
    ("22", 50818468): "GRCh38",
    ("22", 51304566): "GRCh37",
}
_NAMED_BUILD = re.compile(r"##contig=<[^>\n]*assembly=[\"']?(GRCh38|hg38|GRCh37|hg19|b37)", re.IGNORECASE)
set_htslib_log_level(0)  # its messages quote the file


class VariantFile:
    """An open file. Read its `batches` once."""

    def __init__(self, path: Path) -> None:
        """Open a local file. Raises: UnreadableSource."""
        self._path = path
        head = _head(path)
        if not head.startswith((_VCF, _BCF)) or _cut_off(path):
            raise UnreadableSource(path.name, "not VCF or BCF, or cut off")
        self._is_text = head.startswith(_VCF)
        try:
            self._file: Any = VCF(str(path.resolve()))
            self.samples: tuple[str, ...] = tuple(self._file.samples)
            self.build = _build(self._file)
        except Exception:  # cyvcf2 raises plain ones, whose texts quote the file
            raise UnreadableSource(path.name, "its header cannot be read") from None
        if len(set(self.samples)) != len(self.samples):
            raise UnreadableSource(path.name, "a sample stands twice")

    def batches(self) -> Iterator[VariantBatch]:
        """Yield the file's variants in order; memory is bounded by a batch, not by the file.

        Raises: UnreadableSource where a line is not VCF: what follows it cannot be trusted either.
        """
        try:
            if self._is_text:
                self._file.close()
                yield from vcf_text.batches(self._path, samples=len(self.samples))
            else:
                yield from vcf_records.batches(self._file, samples=len(self.samples))
        except DamagedRecord as error:
            raise UnreadableSource(self._path.name, str(error)) from None


def is_variant_file(path: Path) -> bool:
    """Return whether the first bytes are those of VCF or BCF, compressed or not."""
    return _head(path).startswith((_VCF, _BCF))


def _head(path: Path) -> bytes:
    """The first bytes, unpacked; none if they cannot be."""
    try:
        with path.open("rb") as raw:
            head = raw.read(32)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path, "rb") as unpacked:
                head = unpacked.read(32)
    except (OSError, EOFError, zlib.error):
        return b""
    return head


def _cut_off(path: Path) -> bool:
    """Return whether a compressed file lacks its end: htslib only warns of that."""
    with path.open("rb") as raw:
        head = raw.read(18)
        if not head.startswith(b"\x1f\x8b"):
            return False
        if head[12:14] == b"BC":
            raw.seek(0, 2)
            raw.seek(max(0, raw.tell() - len(_END_OF_BGZF)))
            return raw.read() != _END_OF_BGZF
    try:
        with gzip.open(path, "rb") as unpacked:  # plain gzip: its own check, once through
            while unpacked.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return True
    return False


def _build(file: Any) -> str | None:
    try:
        lengths = zip(file.seqnames, file.seqlens, strict=True)
        found = {_BUILDS.get((named(name), length)) for name, length in lengths} - {None}
    except AttributeError:  # contigs without lengths
        found = set()
    said = {"GRCh38" if "38" in word else "GRCh37" for word in _NAMED_BUILD.findall(file.raw_header)}
    builds = found | said
    return builds.pop() if len(builds) == 1 else None
