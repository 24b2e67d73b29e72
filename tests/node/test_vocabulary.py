"""An Athena download in a store: all or nothing, once, and what cannot be right turned away by line."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.omop.errors import MalformedVocabulary, NoVocabulary
from node.omop.loading import LocalConcept, Source
from node.omop.store import OmopStore
from node.omop.vocabulary import UNKNOWN_VERSION, load, loaded
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.exact_count import counted
from node.queries.limits import Limits
from protocols.circe import CirceCohort
from tests.circe_forms import concept_set, definition
from tests.node.athena import CHILD, FILES, OTHER, PARENT, SOURCE, VERSION, download
from tests.node.patients import DAY, Patient, fill

NOW = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        fill(opened, [Patient(n, conditions=[(CHILD if n <= 3 else OTHER, DAY)]) for n in range(1, 6)])
        yield opened


def rows(store: OmopStore, sql: str) -> list[tuple]:
    return store.connection.con.execute(sql).fetchall()


def persons(store: OmopStore, items: list[int], **flags: bool) -> int:
    sets = [concept_set(0, items)]
    for item in sets[0]["expression"]["items"]:
        item.update(flags)
    value = definition({"ConditionOccurrence": {"CodesetId": 0}}, sets=sets)
    with closing(DuckDbWarehouse(store).engine(Limits(time_s=30))) as engine:
        return counted(CirceCohort.parse(json.dumps(value)), engine)


def test_concept_sets_resolve_once_a_vocabulary_is_loaded(store: OmopStore, tmp_path: Path) -> None:
    with pytest.raises(NoVocabulary):
        persons(store, [PARENT], includeDescendants=True)
    report = load(download(tmp_path / "athena"), store, now=NOW)
    assert report.version == VERSION
    assert report.rows == {"concept": 4, "concept_ancestor": 4, "concept_relationship": 1, "vocabulary": 1}
    assert not report.unchanged
    assert not any(report.quarantined.values())
    assert persons(store, [PARENT], includeDescendants=True) == 3
    assert persons(store, [PARENT]) == 0
    assert persons(store, [OTHER], includeMapped=False) == 2
    assert rows(store, f"SELECT concept_name FROM concept WHERE concept_id = {PARENT}") == [
        ('A "parent", with quotes',)
    ]
    assert rows(store, f"SELECT standard_concept FROM concept WHERE concept_id = {SOURCE}") == [(None,)]


def test_the_same_download_changes_nothing_and_another_replaces_it(store: OmopStore, tmp_path: Path) -> None:
    first = download(tmp_path / "first")
    load(first, store, now=NOW)
    epoch, held = store.epoch(), loaded(store)
    again = load(first, store, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert again.unchanged
    assert again.version == VERSION
    assert (store.epoch(), loaded(store)) == (epoch, held)
    fewer = load(download(tmp_path / "second", CONCEPT=FILES["CONCEPT.csv"][:3]), store, now=NOW)
    assert fewer.rows["concept"] == 2
    assert rows(store, "SELECT count(*) FROM concept") == [(2,)]
    assert store.epoch() != epoch


def test_a_sites_own_concepts_stay(store: OmopStore, tmp_path: Path) -> None:
    with store.load(Source("a", "a", "m", "1"), now=NOW) as opened:
        opened.name_concepts([LocalConcept(2_000_000_001, "a local test", "Measurement")])
    with pytest.raises(NoVocabulary):  # their own are no vocabulary
        persons(store, [PARENT])
    load(download(tmp_path / "athena"), store, now=NOW)
    assert rows(store, "SELECT concept_name FROM concept WHERE concept_id > 2000000000") == [
        ("a local test",)
    ]


def test_lines_that_cannot_be_right_are_turned_away_by_number_and_reason(
    store: OmopStore, tmp_path: Path
) -> None:
    many = [f"{PARENT}\t{n}\t1\t1" for n in range(6_000_000, 6_001_000)]
    header = FILES["CONCEPT_ANCESTOR.csv"][0]
    bad = [f"{PARENT}\tx\t1\t1", f"{PARENT}\t{CHILD}\t1", f"\t{CHILD}\t1\t1", "", f"{PARENT}\t7\t1\t1.5"]
    report = load(download(tmp_path / "athena", CONCEPT_ANCESTOR=[header, *many, *bad]), store, now=NOW)
    assert report.quarantined["concept_ancestor"] == 4
    assert report.rows["concept_ancestor"] == 1_000
    assert rows(
        store,
        "SELECT source_name, source_row, field, reason FROM fedtwin_quarantine ORDER BY source_row",
    ) == [
        ("CONCEPT_ANCESTOR.csv", 1001, "descendant_concept_id", "not a whole number"),
        ("CONCEPT_ANCESTOR.csv", 1002, "line", "number of columns"),
        ("CONCEPT_ANCESTOR.csv", 1003, "ancestor_concept_id", "missing"),
        ("CONCEPT_ANCESTOR.csv", 1005, "max_levels_of_separation", "not a whole number"),
    ]


CONCEPTS = FILES["CONCEPT.csv"]
WRONG = {
    "no ancestors": ({"CONCEPT_ANCESTOR": None}, "CONCEPT_ANCESTOR"),
    "a missing column": ({"CONCEPT": [line.rsplit("\t", 1)[0] for line in CONCEPTS]}, "invalid_reason"),
    "commas": ({"CONCEPT": [line.replace("\t", ",") for line in CONCEPTS]}, "no column"),
    "another kind of date": (
        {"CONCEPT": [line.replace("19700101", "01/01/1970") for line in CONCEPTS]},
        "4 of 4 lines",
    ),
    "a word that is not of the list": (
        {"CONCEPT": [line.replace("\tS\t", "\tstandard\t") for line in CONCEPTS]},
        "3 of 4 lines",
    ),
    "one concept twice": ({"CONCEPT": [*CONCEPTS, CONCEPTS[1].replace("parent", "twin")]}, "twice"),
    "no line": ({"CONCEPT_RELATIONSHIP": FILES["CONCEPT_RELATIONSHIP.csv"][:1]}, "0 of 0 lines"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_folder_that_is_no_download_changes_nothing(store: OmopStore, tmp_path: Path, case: str) -> None:
    instead, words = WRONG[case]
    load(download(tmp_path / "right"), store, now=NOW)
    before = (store.counts(), store.epoch(), rows(store, "FROM fedtwin_quarantine"))
    with pytest.raises(MalformedVocabulary, match=words):
        load(download(tmp_path / "wrong", **instead), store, now=NOW)
    assert (store.counts(), store.epoch(), rows(store, "FROM fedtwin_quarantine")) == before
    assert persons(store, [PARENT], includeDescendants=True) == 3


def test_bytes_that_are_no_text_are_refused_without_repeating_them(store: OmopStore, tmp_path: Path) -> None:
    folder = download(tmp_path / "athena")
    with (folder / "CONCEPT.csv").open("ab") as file:
        file.write(b"7\t\xff\xfe secret\n")
    with pytest.raises(MalformedVocabulary) as wrong:
        load(folder, store, now=NOW)
    assert "secret" not in str(wrong.value)


def test_a_download_without_a_version_is_of_an_unknown_one(store: OmopStore, tmp_path: Path) -> None:
    assert load(download(tmp_path / "athena", VOCABULARY=None), store, now=NOW).version == UNKNOWN_VERSION
    assert loaded(store) is not None


def test_progress_ends_at_the_size_of_each_file(store: OmopStore, tmp_path: Path) -> None:
    folder = download(tmp_path / "athena")
    seen: dict[str, tuple[int, int]] = {}
    load(folder, store, now=NOW, watch=lambda file, done, total: seen.update({file: (done, total)}))
    assert set(seen) == set(FILES) - {"DRUG_STRENGTH.csv"}
    for file, (done, total) in seen.items():
        header = len((folder / file).read_bytes().split(b"\n")[0]) + 1
        assert total == (folder / file).stat().st_size == done + header
