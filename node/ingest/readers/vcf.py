"""VCF and BCF, plain or compressed, of any number of samples: variants and who has which alleles.

Genotypes are no facts of OMOP and go to `node.genomes`, not to the harmonizer. Parsing is htslib's, through
cyvcf2. Nothing of the header is kept but the genome build that its contigs have: no paths, no command lines.
Nor is any INFO, nor an id that is not of dbSNP.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cyvcf2 import VCF
from cyvcf2.cyvcf2 import set_htslib_log_level
from numpy.typing import NDArray

from node.ingest.errors import UnreadableSource
from node.ingest.facts import TurnedAway

MISSING = -1  # the allele was not called
ABSENT = -2  # there is no second allele: one copy of the chromosome
BATCH_GENOTYPES = 2_000_000  # 4 MB of alleles, and some 40 MB on the way into columns
MAX_ALLELE_BASES = 10_000  # longer ones are written out structural variants
_MAX_ALLELES = 127  # what a byte counts
_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_RS = re.compile(r"rs[0-9]{1,12}")
_ALLELE = re.compile(r"[ACGTN]+|\*")
_BASES = frozenset("ACGT")
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
VARIANTS = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),  # number in the file, from 1
        pa.field("chromosome", pa.string(), nullable=False),  # without "chr": "1", "X", "MT"
        pa.field("position", pa.int32(), nullable=False),
        pa.field("rsid", pa.string()),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("alternates", pa.list_(pa.string()), nullable=False),
        pa.field("quality", pa.float32()),
        pa.field("filters", pa.string()),  # "PASS", the failed ones with ";" between, null: none applied
    ]
)
set_htslib_log_level(0)  # its messages quote the file


@dataclass(frozen=True, slots=True)
class VariantBatch:
    """Consecutive records of a file. `alleles` is [variant, sample, copy]: 0 is the reference."""

    variants: pa.Table
    alleles: NDArray[np.int8]
    phased: NDArray[np.bool_]
    turned_away: list[TurnedAway] = field(default_factory=list)
    records: int = 0


class VariantFile:
    """An open file. Read its `batches` once."""

    def __init__(self, path: Path) -> None:
        """Open a local file. Raises: UnreadableSource."""
        self._name = path.name
        if not is_variant_file(path) or _cut_off(path):
            raise UnreadableSource(path.name, "not VCF or BCF, or cut off")
        try:
            self._file: Any = VCF(str(path.resolve()))
            self.samples: tuple[str, ...] = tuple(self._file.samples)
            self.build = _build(self._file)
        except Exception:  # cyvcf2 raises plain ones, whose texts quote the file
            raise UnreadableSource(path.name, "its header cannot be read") from None
        if len(set(self.samples)) != len(self.samples):
            raise UnreadableSource(path.name, "a sample stands twice")

    def batches(self, *, batch_genotypes: int = BATCH_GENOTYPES) -> Iterator[VariantBatch]:
        """Yield the file's variants in order; memory is bounded by `batch_genotypes`, not by the file.

        Raises: UnreadableSource where a line is not VCF: what follows it cannot be trusted either.
        """
        at_once = max(1, batch_genotypes // max(1, len(self.samples)))
        draft = _Draft(len(self.samples))
        lines = iter(self._file)
        while True:
            try:
                line = next(lines, None)
            except Exception:  # as above
                raise UnreadableSource(self._name, f"damaged after record {draft.record}") from None
            if line is None:
                break
            draft.add(line)
            if draft.records >= at_once:
                yield draft.take()
        if draft.records:
            yield draft.take()


class _Draft:
    def __init__(self, samples: int) -> None:
        self._samples = samples
        self.record = 0
        self._start()

    def _start(self) -> None:
        self.records = 0
        self._rows: list[tuple[Any, ...]] = []
        self._calls: list[NDArray[np.int16]] = []
        self._turned_away: list[TurnedAway] = []

    def add(self, line: Any) -> None:
        self.record += 1
        self.records += 1
        reason = self._one(line)
        if reason is not None:
            self._turned_away.append(TurnedAway(self.record, "", reason, True))

    def _one(self, line: Any) -> str | None:
        try:
            alternates = line.ALT
            if not alternates:
                return (
                    "no-alternate"  # nor, in a line cut short, a reference: cyvcf2 must not be asked for it
                )
            chromosome, reference = line.CHROM, line.REF
            rsid, filters = line.ID, line.FILTERS
        except UnicodeDecodeError:
            return "not-text"
        if reference not in _BASES or not _BASES.issuperset(alternates):
            reason = _unusable(reference, alternates)
            if reason is not None:
                return reason
        if not self._samples:
            return "no-genotype"
        try:
            calls = line.genotype.array()
        except Exception:  # cyvcf2 raises a plain one where there is no GT
            return "no-genotype"
        if calls.shape[1] != 3:
            if calls.shape[1] != 2:
                return "ploidy"
            calls = np.insert(calls, 1, ABSENT, axis=1)
        self._calls.append(calls)
        self._rows.append(
            (
                self.record,
                named(chromosome),
                line.POS,
                rsid if rsid is not None and _RS.fullmatch(rsid) else None,
                reference,
                alternates,
                line.QUAL,
                filters[0] if len(filters) == 1 else ";".join(filters) or None,
            )
        )
        return None

    def take(self) -> VariantBatch:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(VARIANTS)
        arrays = [pa.array(values, f.type) for values, f in zip(columns, VARIANTS, strict=True)]
        variants = pa.Table.from_arrays(arrays, schema=VARIANTS)
        calls = np.concatenate([np.empty((0, 3), np.int16), *self._calls]).reshape(
            len(self._calls), self._samples, 3
        )
        alternates = np.array([len(said) for said in columns[5]], dtype=np.int16)
        wrong = calls[:, :, :2].max(axis=(1, 2), initial=0) > alternates
        if wrong.any():
            for record in variants["record"].to_numpy()[wrong].tolist():
                self._turned_away.append(TurnedAway(record, "", "no-such-allele", True))
            variants, calls = variants.filter(pa.array(~wrong)), calls[~wrong]
        batch = VariantBatch(
            variants,
            calls[:, :, :2].astype(np.int8),
            calls[:, :, 2].astype(np.bool_),
            self._turned_away,
            self.records,
        )
        self._start()
        return batch


def _unusable(reference: str, alternates: list[str]) -> str | None:
    if not all(map(_ALLELE.fullmatch, (reference, *alternates))):
        return "symbolic-allele"
    longest = max(map(len, (reference, *alternates)))
    return "too-long" if longest > MAX_ALLELE_BASES or len(alternates) >= _MAX_ALLELES else None


@lru_cache(maxsize=1 << 10)
def named(chromosome: str) -> str:
    """Return a chromosome's name as this package writes it.

    >>> named("chr1"), named("chrM"), named("X")
    ('1', 'MT', 'X')
    """
    short = chromosome.removeprefix("chr")
    return "MT" if short == "M" else short


def is_variant_file(path: Path) -> bool:
    """Return whether the first bytes are those of VCF or BCF, compressed or not."""
    try:
        with path.open("rb") as raw:
            head = raw.read(32)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path, "rb") as unpacked:
                head = unpacked.read(32)
    except (OSError, EOFError, zlib.error):
        return False
    return head.startswith((b"##fileformat=VCF", b"BCF\x02"))


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
