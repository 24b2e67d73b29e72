"""The starter vocabulary: enough for a first load, gone without a trace after Athena, nobody else's names."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from node.omop import code_map, starter
from node.omop.code_map import CodeMapping
from node.omop.concepts import Concepts, written
from node.omop.errors import VocabularyThere
from node.omop.loading import Again, Source
from node.omop.starter_files import concepts, diagnosis_codes
from node.omop.store import OmopStore
from node.omop.tables import STARTER_VOCABULARY
from node.omop.vocabulary import load, loaded
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from tests.node.athena import VERSION, download

NOW = datetime(2026, 2, 1, tzinfo=UTC)
MAY_SHIP = {"None", "Gender", "Race", "Ethnicity", "Visit", "Type Concept", "Metadata", "UCUM", "RxNorm",
            "CVX", "LOINC", STARTER_VOCABULARY}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        yield opened


def rows(store: OmopStore, query: str) -> list[tuple]:  # type: ignore[type-arg]
    return store.connection.con.execute(query).fetchall()


def mapped(store: OmopStore, *codings: tuple[str, str]) -> list[int]:
    with store.cursor() as cursor:
        return [
            choice.targets[0].concept_id
            for choice in Concepts(cursor).choices([written([c]) for c in codings])
        ]


def test_codes_of_every_shipped_system_lead_to_their_concept(store: OmopStore) -> None:
    starter.install(store, now=NOW)
    assert mapped(
        store,
        ("http://hl7.org/fhir/sid/icd-10-cm", "I21.9"),
        ("ICD10CM", "I219"),  # claims leave out the dot
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "6809"),
        ("http://loinc.org", "8480-6"),
        ("http://hl7.org/fhir/sid/cvx", "140"),
        ("UCUM", "mg/dL"),
        ("ICD10CM", "Z99.Z"),
    ) == [312327, 312327, 1503297, 3004249, 40213154, 8840, 0]


def test_a_second_installation_changes_nothing(store: OmopStore) -> None:
    assert starter.install(store, now=NOW)
    epoch, counts = store.epoch(), store.counts()
    assert not starter.install(store, now=NOW.replace(year=2027))
    assert (store.epoch(), store.counts()) == (epoch, counts)
    found = loaded(store)
    assert found is not None
    assert found.version == starter.VERSION == starter.installed(store)


def test_a_store_with_a_vocabulary_keeps_it(store: OmopStore, tmp_path: Path) -> None:
    load(download(tmp_path / "athena"), store, now=NOW)
    before = store.counts()
    assert starter.ensure(store, now=NOW) is None
    with pytest.raises(VocabularyThere):
        starter.install(store, now=NOW)
    assert store.counts() == before
    assert starter.installed(store) is None


def test_athena_takes_the_place_of_all_of_it_but_for_what_the_hospital_mapped(
    store: OmopStore, tmp_path: Path
) -> None:
    assert starter.ensure(store, now=NOW) == starter.VERSION
    with store.writing() as writer:
        code_map.put(writer, [CodeMapping("lab", "TROP-X", 3021337)], origin="review-1", now=NOW)
        writer.execute(
            "INSERT INTO source_to_concept_map VALUES ('old', 0, 'other tool', '', 5, 'None', '2020-01-01',"
            " '2099-12-31', NULL)"
        )
    load(download(tmp_path / "athena"), store, now=NOW)
    found = loaded(store)
    assert found is not None
    assert found.version == VERSION
    assert rows(store, "SELECT count(*) FROM concept WHERE concept_id = 312327") == [(0,)]
    assert rows(store, "SELECT count(*) FROM concept_synonym") == [(0,)]
    assert rows(store, "SELECT source_code FROM source_to_concept_map ORDER BY 1") == [("TROP-X",), ("old",)]
    assert rows(store, "SELECT count(*) FROM fedtwin_code_map WHERE until IS NULL") == [(1,)]


def test_a_concept_set_does_not_resolve_with_it(store: OmopStore, tmp_path: Path) -> None:
    starter.install(store, now=NOW)
    with closing(DuckDbWarehouse(store).engine(Limits(time_s=30))) as engine:
        assert not engine.has_vocabulary()
    load(download(tmp_path / "athena"), store, now=NOW)
    with closing(DuckDbWarehouse(store).engine(Limits(time_s=30))) as engine:
        assert engine.has_vocabulary()


def test_each_concept_stands_once_and_names_only_what_may_ship() -> None:
    found = concepts()
    assert len({one.concept_id for one in found}) == len(found)
    assert {one.vocabulary_id for one in found} <= MAY_SHIP
    assert all(0 < len(one.name) <= 255 and len(one.code) <= 50 for one in found)
    codes = [mapping.source_code for mapping in diagnosis_codes()]
    assert len(set(codes)) == len(codes)
    known = {one.concept_id for one in found}
    assert all(mapping.target_concept_id in known for mapping in diagnosis_codes())


def test_no_synonym_means_two_things() -> None:
    owners: dict[tuple[str, str], int] = {}
    for one in concepts():
        for word in {one.name.lower(), *(synonym.lower() for synonym in one.synonyms)}:
            assert owners.setdefault((one.domain_id, word), one.concept_id) == one.concept_id, word


def test_it_is_small_and_says_whose_it_is() -> None:
    folder = resources.files("node.omop").joinpath("starter")
    assert sum(len(entry.read_bytes()) for entry in folder.iterdir()) < 1_000_000
    notice = folder.joinpath("NOTICE").read_text(encoding="utf-8")
    for owner in ("LOINC", "UCUM", "National Library of Medicine", "CDC", "OHDSI", "SNOMED CT"):
        assert owner in notice
    assert starter.VERSION in notice


def test_the_cdm_says_which_vocabulary_it_holds(store: OmopStore, tmp_path: Path) -> None:
    def said() -> str:
        return str(rows(store, "SELECT vocabulary_version FROM cdm_source")[0][0])

    def loaded_anew(number: int) -> None:
        source = Source("labs.csv", f"{number}" * 64, "labs", "1")
        with store.load(source, now=NOW, again=Again.REPLACE):
            pass

    loaded_anew(1)
    assert said() == "none"
    starter.install(store, now=NOW)
    assert said() == starter.VERSION
    loaded_anew(2)
    assert said() == starter.VERSION
    load(download(tmp_path / "athena"), store, now=NOW)
    assert said() == VERSION
