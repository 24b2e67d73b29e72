"""What sources call things reaches the review file once eleven patients had it, and nobody's own words do."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.concept_maps.accepting import accept
from node.concept_maps.review import Decisions, written
from node.concept_maps.suggestions import suggest
from node.concept_maps.unmapped import SMALL, unmapped
from node.ingest.code_words import COMMON
from node.omop.code_map import CodeMapping
from node.omop.loading import Again
from tests.node.made_facts import Hospital, event, hospital, person

NOW = datetime(2026, 2, 1, tzinfo=UTC)
HEART_CONCEPT = 5_000_010


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    yield made
    made.store.close()
    made.vault.close()


def said(patient: str, words: str, *codes: dict[str, str]) -> list[dict]:  # type: ignore[type-arg]
    return [event("condition", patient, "", text=words, codes=list(codes), key=f"{patient}-{words}")]


def patients(first: int, count: int) -> list[str]:
    return [f"P{number}" for number in range(first, first + count)]


def labels(site: Hospital) -> dict[tuple[str, str], str]:
    return {(one.source_vocabulary_id, one.source_code): one.label for one in unmapped(site.store)}


def everything(site: Hospital) -> str:
    return repr(
        [site.rows(f"SELECT * FROM {table}") for table in ("fedtwin_code_words", "condition_occurrence")]
    )


def test_the_words_of_fewer_patients_are_neither_shown_nor_stored(site: Hospital) -> None:
    people = [[person(patient)] for patient in patients(0, 20)]
    site.write("a", *people, *(said(patient, "Heart  Attack") for patient in patients(0, COMMON - 1)),
               *(said("P3", f"knee of Anna {number}") for number in range(30)))  # fmt: skip
    site.take()
    assert labels(site) == {}
    assert "eart" not in everything(site)
    assert "Anna" not in everything(site)
    site.write("b", said("P2", "heart attack"))  # of somebody who had it before
    site.take()
    assert labels(site) == {}
    site.write("c", said("P15", "heart attack"))
    site.take()
    assert labels(site) == {("local:text", "heart attack"): "heart attack"}
    assert "Anna" not in everything(site)
    review = written(suggest(site.store, codes=10, candidates_each=3, model=False))
    assert "heart attack" in review
    assert f"{SMALL}+" in review
    assert site.rows(
        "SELECT count(*) FROM fedtwin_code_words WHERE words IS NOT NULL AND len(persons) > 0"
    ) == [(0,)]


def test_words_abbreviations_and_codes_come_to_one_concept_when_a_person_says_so(site: Hospital) -> None:
    everyone = patients(0, COMMON)
    code = {"system": "local:lab", "code": "X-17", "display": "Myocardial infarct"}
    records = [[person(patient)] for patient in everyone]
    for patient in everyone:
        records += [said(patient, "heart attack"), said(patient, "MI"), said(patient, "something", code)]
    site.write("a", *records)
    site.take()
    assert labels(site) == {
        ("local:text", "heart attack"): "heart attack",
        ("local:text", "mi"): "mi",
        ("any", "X-17"): "Myocardial infarct",
    }
    decided = Decisions(tuple(CodeMapping(system, code, HEART_CONCEPT) for system, code in labels(site)))
    accept(site.store, decided, now=NOW)
    assert labels(site).keys() == {("any", "X-17")}  # its records stand there until they are loaded again
    site.take(again=Again.REPLACE)
    assert labels(site) == {}
    assert site.rows(
        "SELECT condition_concept_id, condition_source_value, count(*) FROM condition_occurrence"
        " GROUP BY ALL ORDER BY ALL"
    ) == [
        (HEART_CONCEPT, "X-17", COMMON),
        (HEART_CONCEPT, "heart attack", COMMON),
        (HEART_CONCEPT, "mi", COMMON),
    ]


def test_the_order_of_files_and_a_second_load_leave_no_trace(tmp_path: Path) -> None:
    held = []
    for order in (("a", "b"), ("b", "a", "a")):
        made = hospital(tmp_path / "".join(order))
        made.write(
            "a", *([person(one)] for one in patients(0, 12)), *(said(one, "MI") for one in patients(0, 6))
        )
        made.write("b", *(said(one, "MI") for one in patients(4, 6)), said("P1", "gout"))
        for name in order:
            made.take(made.folder / f"{name}.facts")
        held.append(made.rows("SELECT number, len(persons), words FROM fedtwin_code_words ORDER BY number"))
        made.store.close()
        made.vault.close()
    assert held[0] == held[1]
    assert sorted(row[1] for row in held[0]) == [1, 10]


def test_who_withdrew_is_no_longer_among_them(site: Hospital) -> None:
    site.write("a", [person("P1")], said("P1", "gout"))
    site.take()
    assert site.rows("SELECT len(persons) FROM fedtwin_code_words") == [(1,)]
    site.write("b", [{"kind": "person", "action": "withdraw", "patient": "P1", "key": "consent"}])
    site.take(site.folder / "b.facts")
    assert site.rows("SELECT * FROM fedtwin_code_words") == []
