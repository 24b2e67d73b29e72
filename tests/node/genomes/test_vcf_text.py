"""Lines of VCF read in columns say what cyvcf2 says of them, record by record."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cyvcf2 import VCF

from node.ingest.errors import UnreadableSource
from node.ingest.readers import vcf_chunks, vcf_records, vcf_text
from node.ingest.readers.variant_batches import VariantBatch
from node.ingest.readers.vcf import VariantFile

HEADER = (
    "##fileformat=VCFv4.2",
    *(f'##FORMAT=<ID={name},Number=1,Type=String,Description="any">' for name in ("GT", "DP", "PL")),
    *(f'##FILTER=<ID={name},Description="any">' for name in ("q10", "s50")),
    *(f"##contig=<ID={name},length=200000000>" for name in ("chr1", "2", "chrM", "X")),
)
CALLS = ("0/0", "0/1", "1|1", "./.", ".|1", "0", "1", ".", "2/1", "10/0", "0|12", "1/2")


def made_vcf(rng: np.random.Generator, *, samples: int, lines: int) -> str:
    """Records of every form that callers write, some of no use."""

    def one(*from_: str) -> str:
        return from_[int(rng.integers(len(from_)))]

    columns = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
    text = [*HEADER, "\t".join((*columns, *(f"S{number}" for number in range(samples))))]
    for number in range(lines):
        form = one("GT", "GT", "GT:DP", "GT:DP:PL", "DP:GT", "DP")
        alternates = one("A", "G", "GATT", "C,T", "<DEL>", ".", "*", "a", ",".join(["C"] * 13), "G]2:7]")
        ploid = one("0/1/1", "0|1|0") if rng.random() < 0.02 else ""
        plain = rng.random() < 0.5  # whole lines of the common form
        said = []
        for _ in range(samples):
            call = ploid or (one("0/0", "0/1", "1|1") if plain else one(*CALLS))
            rest = {
                "GT": (call,),
                "GT:DP": (f"{call}:31", call),
                "GT:DP:PL": (f"{call}:3:1,2,3", f"{call}:3"),
                "DP:GT": (f"31:{call}",),
                "DP": ("31", "."),
            }
            said.append(one(*rest[form]))
        text.append("\t".join((
            one("chr1", "2", "chrM", "X"), str(7 * number + 1), one(".", "rs12", "rs1;rs2", "OWN-7", "rs"),
            one("A", "C", "GT", "N", "g"), alternates, one(".", "50", "3.25", "0", "1e3"),
            one("PASS", ".", "q10", "q10;s50"), one(".", "DP=3", "SAMPLE=é"), form, *said,
        )))  # fmt: skip
    return "\n".join(text) + "\n"


def whole(batches: Iterator[VariantBatch]) -> tuple[pa.Table, np.ndarray, np.ndarray, list]:
    found = list(batches)
    return (
        pa.concat_tables([batch.variants for batch in found]).combine_chunks(),
        np.concatenate([batch.alleles for batch in found]),
        np.concatenate([batch.phased for batch in found]),
        [turned for batch in found for turned in batch.turned_away],
    )


def check_same(path: Path, samples: int) -> int:
    variants, alleles, phased, away = whole(vcf_text.batches(path, samples=samples))
    theirs = whole(vcf_records.batches(VCF(str(path)), samples=samples))
    assert variants.equals(theirs[0])
    assert np.array_equal(alleles, theirs[1])
    assert np.array_equal(phased, theirs[2])
    assert away == theirs[3]
    return len(alleles)


@pytest.mark.parametrize("samples", [1, 3, 40])
def test_every_form_of_record_is_read_as_cyvcf2_reads_it(
    tmp_path: Path, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcf_chunks, "CHUNK", 3_000)  # lines across chunks, and longer than one
    text = made_vcf(np.random.default_rng(samples), samples=samples, lines=600)
    (tmp_path / "a.vcf").write_text(text)
    with gzip.open(tmp_path / "b.vcf.gz", "wt") as packed:
        packed.write(text)
    (tmp_path / "c.vcf").write_bytes(text.replace("\n", "\r\n").encode())
    (tmp_path / "d.vcf").write_text(text.rstrip("\n"))
    kept = {check_same(tmp_path / name, samples) for name in ("a.vcf", "b.vcf.gz", "c.vcf", "d.vcf")}
    assert len(kept) == 1
    assert kept.pop() > 100


def test_shared_variant_files_are_read_as_cyvcf2_reads_them(shared_data: Path) -> None:
    files = [*sorted((shared_data / "vcf").glob("*.vcf*")), shared_data / "vcf_1000g" / "tiny1000G.vcf.gz"]
    kept = [check_same(file, len(VariantFile(file).samples)) for file in files]
    assert len(kept) == 5
    assert min(kept) > 10


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#chr1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t0/1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t0/1\t0/1\t0/1",
        "chr1\t5x\t.\tA\tG\t.\t.\t.\tGT\t0/1\t0/1",
        "chr1\t-5\t.\tA\tG\t.\t.\t.\tGT\t0/1\t0/1",
        "chr1\t3000000000\t.\tA\tG\t.\t.\t.\tGT\t0/1\t0/1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t0/x\t0/1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t\t0/1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t0/\t0/1",
        "chr1\t5\t.\tA\tG\t.\t.\t.\tGT\t0/-1\t0/1",
    ],
)
def test_a_line_of_another_form_ends_the_reading(tmp_path: Path, line: str) -> None:
    good = "chr1\t4\t.\tA\tG\t.\t.\t.\tGT\t0/1\t0/1"
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "M1", "M2"))
    path = tmp_path / "a.vcf"
    path.write_text("\n".join((*HEADER, columns, good, good, line, good, "")))
    with pytest.raises(UnreadableSource, match="damaged after record 2"):
        list(VariantFile(path).batches())


def test_what_is_not_text_is_turned_away_and_what_is_beside_it_is_not(tmp_path: Path) -> None:
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "M1"))
    lines = [f"chr1\t{place}\t.\tA\tG\t.\t.\t.\tGT\t0/1".encode() for place in range(4)]
    lines[1] = lines[1].replace(b"\t.\tA", b"\t\xe8\tA")
    lines[2] = lines[2].replace(b"\t.\tGT", b"\tX=\xe8\tGT")
    path = tmp_path / "a.vcf"
    path.write_bytes(b"\n".join(("\n".join((*HEADER, columns)).encode(), *lines, b"")))
    variants, _, _, away = whole(VariantFile(path).batches())
    assert variants["record"].to_pylist() == [1, 3, 4]
    assert [(turned.record, turned.reason) for turned in away] == [(2, "not-text")]


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcf_chunks, "CHUNK", 1_000)
    monkeypatch.setattr(vcf_chunks, "MAX_LINE", 5_000)
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "M1"))
    path = tmp_path / "a.vcf.gz"
    with gzip.open(path, "wt") as packed:
        packed.write("\n".join((*HEADER, columns, "chr1\t5\t.\tA\tG\t.\t.\tX=" + "A" * 100_000)))
    with pytest.raises(UnreadableSource, match="damaged after record 0"):
        list(VariantFile(path).batches())


def test_a_sample_that_leaves_gt_out_was_not_called(tmp_path: Path) -> None:
    """Where all leave it out, htslib ends the process: no file may do that to a node."""
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "M1", "M2"))
    lines = [f"chr1\t5\t.\tA\tG\t.\t.\t.\tDP:GT\t7\t{said}" for said in ("8:0|1", "8")]
    path = tmp_path / "a.vcf"
    path.write_text("\n".join((*HEADER, columns, *lines, "")))
    _, alleles, phased, away = whole(VariantFile(path).batches())
    assert alleles.tolist() == [[[-1, -2], [0, 1]], [[-1, -2], [-1, -2]]]
    assert phased.tolist() == [[False, True], [False, False]]
    assert away == []
