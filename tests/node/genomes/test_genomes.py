"""Variants come in under pseudonyms, and scores of them are measurements: generated files and shared ones."""

import gzip
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from deid.vault import PseudonymKey, Vault
from node.genomes.positions import OtherBuild, calls_at
from node.genomes.recording import record
from node.genomes.scores import UnfitGenomes, score
from node.genomes.scoring_file import read_scoring_file
from node.genomes.store import GenomeStore
from node.ingest.errors import UnreadableSource
from node.ingest.mapping import parse_mapping
from node.ingest.pipeline import Pipeline
from node.ingest.readers.vcf import VariantFile
from node.omop.store import OmopStore
from protocols.clock import FixedClock
from tests.node.ingest.claim_facts import mutations
from tests.privacy.seeded_bits import SeededBits

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEADER = (
    "##fileformat=VCFv4.2",
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    '##FILTER=<ID=q10,Description="low">',
    "##reference=/home/SECRET/path.fa",
    "##contig=<ID=chr1,length=248956422>",
    "##contig=<ID=chrX,length=156040895>",
)
LINES = (
    "chr1\t100\trs1\tA\tG\t50\tPASS\t.\tGT\t0/0\t0|1\t1/1",
    "chr1\t200\t.\tC\tT,G\t.\tq10\t.\tGT\t0/2\t1/2\t./.",
    "chr1\t300\trs3\tA\tT\t.\t.\t.\tGT\t0/1\t0/1\t0/1",
    "chr1\t400\trs4\tA\t<DEL>\t.\t.\t.\tGT\t0/1\t0/1\t0/1",
    "chr1\t500\trs5\tG\t.\t.\t.\t.\tGT\t0/0\t0/0\t0/0",
    "chrX\t600\tSECRET9\tG\tA\t.\t.\t.\tGT\t0\t1\t0/1",
)
SAMPLES = ("M1", "M2", "M3")
PGS = "#pgs_id=PGS000001\n#HmPOS_build=GRCh38\nhm_chr\thm_pos\teffect_allele\tother_allele\teffect_weight\n"


def write_vcf(path: Path, lines: Sequence[str] = LINES, *, samples: Sequence[str] = SAMPLES) -> Path:
    persons = ("FORMAT", *samples) if samples else ()
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", *persons))
    text = "\n".join((*HEADER, columns, *lines, ""))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_score(path: Path, *lines: str, header: str = PGS) -> Path:
    path.write_text(header + "\n".join(line.replace(" ", "\t") for line in lines) + "\n")
    return path


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(4))


@pytest.fixture
def genomes(tmp_path: Path) -> GenomeStore:
    return GenomeStore(tmp_path / "genomes")


def ids(vault: Vault, *patients: str) -> list[int]:
    return vault.pseudonyms(patients, namespace="mrn").ids.tolist()


@pytest.mark.parametrize("name", ["a.vcf", "a.vcf.gz"])
def test_variants_and_genotypes_are_kept_as_the_file_says(
    tmp_path: Path, vault: Vault, genomes: GenomeStore, name: str
) -> None:
    load = genomes.add(write_vcf(tmp_path / name), vault, namespace="mrn")
    assert (load.records, load.stored, load.build, load.persons) == (6, 4, "GRCh38", 3)
    assert load.turned_away == {"symbolic-allele": 1, "no-alternate": 1}
    (some,) = genomes.genotypes(load.name)
    assert some.persons.tolist() == ids(vault, *SAMPLES)
    written = [[some.written(variant, person) for person in range(3)] for variant in range(4)]
    assert written == [["0/0", "0|1", "1/1"], ["0/2", "1/2", "./."], ["0/1", "0/1", "0/1"], ["0", "1", "0/1"]]
    assert np.array_equal(some.copies(1, 2), [1, 1, np.nan], equal_nan=True)
    variants = genomes.variants(load.name).to_pylist()
    first = {"record": 1, "chromosome": "1", "position": 100, "rsid": "rs1", "reference": "A"}
    assert variants[0] == first | {"alternates": ["G"], "quality": 50.0, "filters": "PASS"}
    assert (variants[1]["filters"], variants[3]["record"], variants[3]["rsid"]) == ("q10", 6, None)


def test_no_sample_id_path_or_header_is_kept(tmp_path: Path, vault: Vault, genomes: GenomeStore) -> None:
    genomes.add(write_vcf(tmp_path / "a.vcf", samples=("SECRET1", "M2", "M3")), vault, namespace="mrn")
    (kept,) = (tmp_path / "genomes").iterdir()
    assert b"SECRET" not in kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_the_same_file_is_taken_in_once_and_a_broken_one_not_at_all(
    tmp_path: Path, vault: Vault, genomes: GenomeStore
) -> None:
    path = write_vcf(tmp_path / "a.vcf")
    assert not genomes.add(path, vault, namespace="mrn").unchanged
    before = [(file.name, file.read_bytes()) for file in (tmp_path / "genomes").iterdir()]
    assert genomes.add(path, vault, namespace="mrn").unchanged
    with pytest.raises(UnreadableSource, match="damaged after record 6"):
        genomes.add(write_vcf(tmp_path / "b.vcf", (*LINES, "chr1\tx")), vault, namespace="mrn")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "genomes").iterdir()] == before


def test_samples_go_to_the_patients_they_are_of_and_to_nobody_else(
    tmp_path: Path, vault: Vault, genomes: GenomeStore
) -> None:
    (withdrawn,) = ids(vault, "P3")
    patients = {"M3": "P3", "M2": "P2"}
    path = write_vcf(tmp_path / "a.vcf")
    load = genomes.add(path, vault, namespace="mrn", patients=patients, without={withdrawn})
    (some,) = genomes.genotypes(load.name)
    assert some.persons.tolist() == ids(vault, "P2")
    assert [some.written(variant, 0) for variant in range(4)] == ["0|1", "1/2", "0/1", "1"]


def test_variants_of_nobody_are_turned_away(tmp_path: Path, vault: Vault, genomes: GenomeStore) -> None:
    lines = [line.split("\tGT\t")[0] for line in LINES[:2]]
    load = genomes.add(write_vcf(tmp_path / "a.vcf", lines, samples=()), vault, namespace="mrn")
    assert (load.records, load.stored, load.turned_away) == (2, 0, {"no-genotype": 2})


def test_a_person_can_be_forgotten(tmp_path: Path, vault: Vault, genomes: GenomeStore) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    (gone,) = ids(vault, "M2")
    assert (genomes.forget(gone), genomes.forget(gone)) == (1, 0)
    (some,) = genomes.genotypes(load.name)
    assert some.persons.tolist() == ids(vault, "M1", "M3")
    assert [some.written(1, person) for person in range(2)] == ["0/2", "./."]
    assert (genomes.about(load.name).persons, genomes.about(load.name).records) == (2, 6)
    assert [file.suffix for file in (tmp_path / "genomes").iterdir()] == [".parquet"]


def test_genotypes_follow_a_person_who_turns_out_to_be_another(
    tmp_path: Path, vault: Vault, genomes: GenomeStore
) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    first, second, other = ids(vault, "M1", "M2", "elsewhere")
    assert (genomes.merge(first, other), genomes.merge(first, other), genomes.merge(other, other)) == (
        1,
        0,
        0,
    )
    (some,) = genomes.genotypes(load.name)
    assert some.persons.tolist() == [other, second, *ids(vault, "M3")]
    assert some.written(1, 0) == "0/2"
    assert genomes.merge(second, other) == 1  # both are there: one stays
    (some,) = genomes.genotypes(load.name)
    assert some.persons.tolist() == [other, *ids(vault, "M3")]
    assert some.written(1, 0) == "0/2"
    assert genomes.about(load.name).persons == 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[GenomeStore, str, list[str]]:
    """Forty persons, some hundred variants, everything called; and a score of all of them."""
    rng = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("many")
    lines, weights = [], []
    for number in range(150):
        reference, alternate = rng.choice(["AC", "AG", "CA", "CT", "GA", "GT", "TC", "TG"])
        calls = "\t".join(rng.choice(["0/0", "0/1", "1/1", "1|0"], 40).tolist())
        lines.append(f"chr1\t{100 + number}\t.\t{reference}\t{alternate}\t.\t.\t.\tGT\t{calls}")
        effect, other = (alternate, reference) if rng.random() < 0.5 else (reference, alternate)
        weights.append(f"1 {100 + number} {effect} {other} {rng.normal():.4f}")
    vault = Vault.open(folder / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(4))
    genomes = GenomeStore(folder / "genomes")
    path = write_vcf(folder / "many.vcf", lines, samples=[f"S{number}" for number in range(40)])
    return genomes, genomes.add(path, vault, namespace="mrn").name, weights


def scored(many: tuple[GenomeStore, str, list[str]], path: Path, weights: list[str]) -> np.ndarray:
    found = score(many[0], many[1], read_scoring_file(write_score(path, *weights)))
    assert found.variants == {"matched": len(weights)}
    return found.values


def test_a_score_is_the_same_on_the_other_strand_and_in_another_order(
    tmp_path: Path, many: tuple[GenomeStore, str, list[str]]
) -> None:
    weights = many[2]
    as_is = scored(many, tmp_path / "a.txt", weights)
    turned = []
    for line in weights:
        place, alleles, weight = line[: line.index(" ", 2)], line.split()[2:4], line.split()[4]
        turned.append(
            " ".join((place, *(text.translate(str.maketrans("ACGT", "TGCA")) for text in alleles), weight))
        )
    assert np.allclose(scored(many, tmp_path / "b.txt", turned[::-1]), as_is)
    assert as_is.std() > 1


def test_weights_of_the_other_allele_mirror_a_score(
    tmp_path: Path, many: tuple[GenomeStore, str, list[str]]
) -> None:
    weights = many[2]
    swapped = [" ".join((*line.split()[:2], *line.split()[3:1:-1], line.split()[4])) for line in weights]
    whole = 2 * sum(float(line.split()[4]) for line in weights)
    both = scored(many, tmp_path / "a.txt", weights) + scored(many, tmp_path / "b.txt", swapped)
    assert np.allclose(both, whole)


def test_a_score_counts_effect_alleles_on_either_strand(
    tmp_path: Path, vault: Vault, genomes: GenomeStore
) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    path = write_score(
        tmp_path / "s.txt",
        "1 100 G A 1.0",  # 0, 1, 2 copies
        "X 600 C T 10",  # the other strand; the reference: 1, 0, 1
        "1 300 A T 100",  # A/T: both strands look the same
        "1 200 A C 100",  # neither A and C, nor T and G, with the reference C
        "1 999 A G 100",
        "1 100 A G nan",
    )
    found = score(genomes, load.name, read_scoring_file(path), min_matched=0.3)
    assert dict(zip(found.persons.tolist(), found.values.tolist(), strict=True)) == dict(
        zip(ids(vault, *SAMPLES), [10.0, 1.0, 12.0], strict=True)
    )
    fates = {"matched": 2, "ambiguous": 1, "alleles-differ": 1, "not-found": 1, "no-weight": 1}
    assert found.variants == fates


def test_whoever_was_not_called_gets_no_score(tmp_path: Path, vault: Vault, genomes: GenomeStore) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    path = write_score(tmp_path / "s.txt", "1 100 G A 1.0", "1 200 T C 2.0")
    found = score(genomes, load.name, read_scoring_file(path))
    assert found.persons.tolist() == ids(vault, "M1", "M2")
    assert (found.values.tolist(), found.too_few_calls) == ([0.0, 3.0], 1)


@pytest.mark.parametrize(
    ("header", "lines", "reason"),
    [
        (PGS.replace("38", "37"), ("1 100 G A 1",), "build-differs"),
        (PGS, ("1 100 G A 1", "1 7 G A 1"), "too-few-matched"),
        (PGS, (), "too-few-matched"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    tmp_path: Path, vault: Vault, genomes: GenomeStore, header: str, lines: tuple[str, ...], reason: str
) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    scoring = read_scoring_file(write_score(tmp_path / "s.txt", *lines, header=header))
    with pytest.raises(UnfitGenomes) as refused:
        score(genomes, load.name, scoring)
    assert refused.value.reason == reason


def test_a_score_becomes_a_measurement_once(tmp_path: Path, vault: Vault, genomes: GenomeStore) -> None:
    mapping = parse_mapping(
        b"""
[source]
name = "labs"
version = 1
files = ["labs.csv"]
[patient]
column = "mrn"
namespace = "mrn"
[person]
year_of_birth = "yob"
[date]
column = "day"
format = "%Y-%m-%d"
[[events]]
table = "measurement"
column = "value"
kind = "number"
concept_id = 3004249
""",
        file="labs.toml",
    )
    (tmp_path / "labs.csv").write_text("mrn,yob,day,value\nM1,1970,2020-01-05,1\nM2,1980,2021-01-05,2\n")
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    path = write_score(tmp_path / "s.txt", "1 100 G A 0.5")
    scores = score(genomes, load.name, read_scoring_file(path))
    with OmopStore.open(tmp_path / "omop.duckdb") as store:
        Pipeline(store, vault, FixedClock(NOW)).ingest([tmp_path / "labs.csv"], mappings=[mapping])
        for _ in range(2):
            outcome = record(store, scores, genomes=load.name, scoring_sha256="a" * 64, now=NOW)
            assert outcome == {"stored": 2, "unknown": 1, "withdrawn": 0}
        rows = store.cursor().execute(
            "SELECT person_id, value_as_number, measurement_concept_id FROM measurement m"
            " JOIN observation_period p USING (person_id)"
            " WHERE measurement_source_value = 'PGS000001'"
            " AND measurement_date = observation_period_start_date"
        )
        expected = zip(ids(vault, "M1", "M2"), (0.0, 0.5), strict=True)
        assert sorted(rows.fetchall()) == sorted((person, value, 0) for person, value in expected)
        with store.writing() as writer:  # the third turns out to be the second
            third, second = ids(vault, "M3", "M2")
            writer.execute("INSERT INTO fedtwin_alias VALUES (?, ?, 0, NULL, 1, 1)", [third, second])
        outcome = record(store, scores, genomes=load.name, scoring_sha256="b" * 64, now=NOW)
        assert outcome == {"stored": 2, "unknown": 0, "withdrawn": 0, "twice": 1}


def test_pharmacogenes_are_looked_up_at_the_positions_of_a_file(
    tmp_path: Path, vault: Vault, genomes: GenomeStore
) -> None:
    load = genomes.add(write_vcf(tmp_path / "a.vcf"), vault, namespace="mrn")
    wanted = ("chr1\t200\trs77\tC\tT\t.\t.\t.\tGT\t0/0", "chr1\t999\trs78\tC\tT\t.\t.\t.\tGT\t0/0")
    positions = write_vcf(tmp_path / "positions.vcf", wanted, samples=("any",))
    calls = calls_at(genomes, load.name, positions).to_pylist()
    assert [call["genotype"] for call in calls] == ["0/2", "1/2", "./."]
    assert [call["person_id"] for call in calls] == ids(vault, *SAMPLES)
    assert {(call["rsid"], *call["alternates"]) for call in calls} == {("rs77", "T", "G")}
    text = positions.read_text().replace("248956422", "249250621")
    positions.write_text(text)
    with pytest.raises(OtherBuild):
        calls_at(genomes, load.name, positions)


def test_damaged_variant_files_end_in_a_reason_or_an_error_and_tell_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_vcf(
        tmp_path / "whole.vcf", LINES * 20, samples=("SECRET1", "SECRET2", "SECRET3")
    ).read_bytes()
    outcomes: Counter[str] = Counter()
    for suffix, content in ((".vcf", whole), (".vcf.gz", gzip.compress(whole))):
        for damaged in mutations(content, np.random.default_rng(7), 200):
            path = tmp_path / f"damaged{suffix}"
            path.write_bytes(damaged)
            try:
                for batch in VariantFile(path).batches():
                    assert batch.records == batch.variants.num_rows + len(batch.turned_away)
                    assert len(batch.alleles) == batch.variants.num_rows
                outcomes["read"] += 1
            except UnreadableSource as error:
                outcomes[str(error)] += 1
    said = capfd.readouterr()
    assert "SECRET" not in said.err + said.out + "".join(outcomes)
    assert outcomes["read"] > 20
    assert outcomes["damaged.vcf.gz: not VCF or BCF, or cut off"] > 50


def test_only_score_files_with_what_is_needed_are_read(tmp_path: Path) -> None:
    for name, text in {
        "PGS000001.txt": "a\tb\n1\t2\n",
        "x.txt": PGS[PGS.index("\n") + 1 :],
        "PGS1.gz": "no",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UnreadableSource):
            read_scoring_file(tmp_path / name)


@pytest.fixture
def shared_loads(shared_data: Path, vault: Vault, genomes: GenomeStore) -> dict[str, tuple]:
    found = {}
    for file in (
        *sorted((shared_data / "vcf").glob("*.vcf*")),
        shared_data / "vcf_1000g" / "tiny1000G.vcf.gz",
    ):
        load = genomes.add(file, vault, namespace="mrn")
        assert load.records == load.stored + sum((load.turned_away or {}).values())
        found[file.name] = (load.records, load.turned_away, load.persons, load.build)
    return found


def test_golden_summary_of_shared_variant_files(shared_loads: dict[str, tuple]) -> None:
    assert shared_loads == {
        "1000G.chr20.10100000.vcf.gz": (17, {}, 2535, "GRCh37"),
        "NA12878.chr20-21.b37.vcf": (1075, {"no-alternate": 1}, 1, "GRCh37"),
        "pharmcat.example.vcf": (1202, {}, 1, "GRCh38"),
        "pharmcat_positions.vcf": (1202, {}, 1, "GRCh38"),
        "tiny1000G.vcf.gz": (1004, {}, 3202, None),
    }


def test_golden_scores_of_the_1000_genomes_subset(
    shared_data: Path, vault: Vault, genomes: GenomeStore
) -> None:
    """Held against the sum worked out line by line with cyvcf2 itself."""
    from cyvcf2 import VCF

    folder = shared_data / "vcf_1000g"
    load = genomes.add(folder / "tiny1000G.vcf.gz", vault, namespace="mrn", build="GRCh38")
    scoring = read_scoring_file(folder / "PGS001229_hmPOS_GRCh38.txt.gz")
    found = score(genomes, load.name, scoring, build="GRCh38", min_matched=0.0)
    weights = {(w.chromosome, w.position): w for w in scoring.weights}
    expected = np.zeros(3202)
    matched = 0
    for line in VCF(str(folder / "tiny1000G.vcf.gz")):
        weight = weights.get((line.CHROM, line.POS))
        alleles = [line.REF, *line.ALT]
        if weight is None or {weight.effect, weight.other} in ({"A", "T"}, {"C", "G"}):
            continue
        effect, other = weight.effect, weight.other
        if {effect, other} != set(alleles):
            effect, other = (str.translate(text, str.maketrans("ACGT", "TGCA")) for text in (effect, other))
        if {effect, other} == set(alleles):
            copies = (line.genotype.array()[:, :2] == alleles.index(effect)).sum(axis=1)
            expected += weight.weight * copies
            matched += 1
    assert matched > 10
    assert found.variants["matched"] == matched
    assert np.allclose(found.values, expected)
