"""Published FHIR samples: a golden summary of each, and ten patients against a plain reading of the JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.node.ingest.fhir_resources import Facts

GOLDEN = json.loads((Path(__file__).parent / "fhir_golden.json").read_text(encoding="utf-8"))


def summary(facts: Facts) -> dict[str, Any]:
    """Return what a file gave, in numbers."""
    kinds = Counter(
        row["kind"] if row["action"] == "assert" else f"{row['action']} {row['kind']}" for row in facts.rows
    )
    fields = Counter(away.reason for away in facts.turned_away if not away.whole_record)
    return {
        "records": facts.records,
        "facts": dict(sorted(kinds.items())),
        "turned_away": dict(sorted(facts.reasons.items())),
        "fields_turned_away": dict(sorted(fields.items())),
    }


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_published_file_gives_what_it_gave(shared_data: Path, name: str) -> None:
    path = shared_data / name
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/{name.partition('/')[0]}")
    assert summary(Facts(path)) == GOLDEN[name]


# The plain reading: no code of the reader, every rule written again.


def plain(path: Path) -> Iterator[dict[str, Any]]:
    """Return a file's resources."""
    if path.suffix == ".ndjson":
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
    else:
        for entry in json.loads(path.read_text(encoding="utf-8"))["entry"]:
            yield entry["resource"]


def last(reference: dict[str, Any] | None) -> str | None:
    """Return the id at the end of a reference."""
    return None if reference is None else reference["reference"].replace("urn:uuid:", "/").split("/")[-1]


def utc(text: str | None) -> datetime | None:
    """Return a dateTime with its zone in UTC."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def until(start: str, end: str | None) -> datetime | None:
    """Return an end with the day and time that its source shows, by the clock of the start."""
    if end is None:
        return None
    return datetime.fromisoformat(end).replace(tzinfo=datetime.fromisoformat(start).tzinfo).astimezone(UTC)


def code(concept: dict[str, Any]) -> str:
    """Return the first code."""
    return str(concept["coding"][0]["code"])


def expected(one: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return patient, kind, key, visit, code, start, end, value and unit that one resource should give."""
    kind, key = one["resourceType"], f"{one['resourceType']}/{one['id']}"
    visit = f"Encounter/{last(one['encounter'])}" if "encounter" in one else None
    period = one.get("performedPeriod", one.get("period", {}))
    if kind == "Condition":
        ended = until(one["onsetDateTime"], one.get("abatementDateTime"))
        return (
            last(one["subject"]),
            "condition",
            key,
            visit,
            code(one["code"]),
            utc(one["onsetDateTime"]),
            ended,
        )
    if kind == "MedicationRequest" and "medicationCodeableConcept" in one:
        drug = code(one["medicationCodeableConcept"])
        return last(one["subject"]), "drug", key, visit, drug, utc(one["authoredOn"]), None
    if kind == "Immunization":
        given = utc(one["occurrenceDateTime"])
        return last(one["patient"]), "drug", key, visit, code(one["vaccineCode"]), given, None
    if kind == "Procedure" and one["status"] == "completed":
        start, end = utc(period["start"]), until(period["start"], period.get("end"))
        return last(one["subject"]), "procedure", key, visit, code(one["code"]), start, end
    if kind == "Encounter":
        start, end = utc(period["start"]), until(period["start"], period.get("end"))
        return last(one["subject"]), "visit", key, visit, one["class"]["code"], start, end
    if kind == "Observation" and "valueQuantity" in one:
        start, value = utc(one["effectiveDateTime"]), one["valueQuantity"]
        number, unit = value["value"], value.get("code", value.get("unit"))
        return last(one["subject"]), "measurement", key, visit, code(one["code"]), start, None, number, unit
    return None


def found(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the same of a fact."""
    told = tuple(
        row["codes"][0]["code"] if name == "codes" else row.get(name)
        for name in ("patient", "kind", "key", "encounter", "codes", "start", "end")
    )
    return (*told, row["value_number"], row.get("unit")) if row["kind"] == "measurement" else told


@cache
def both(folder: Path, pattern: str) -> tuple[dict[str, set[Any]], dict[str, set[Any]]]:
    """Return, by patient, what the plain reading and what the reader give."""
    wanted: dict[str, set[Any]] = {}
    given: dict[str, set[Any]] = {}
    for path in sorted(folder.glob(pattern)):
        for one in plain(path):
            if (told := expected(one)) is not None:
                wanted.setdefault(told[0], set()).add(told)
        for row in Facts(path).rows:
            kind = row["place"].partition(".")[0]
            pointing = kind == "MedicationRequest" and "codes" not in row
            if (
                kind in KINDS
                and not pointing
                and not (kind == "Observation" and row["kind"] == "observation")
            ):
                given.setdefault(row["patient"], set()).add(found(row))
    return wanted, given


KINDS = {"Condition", "MedicationRequest", "Immunization", "Procedure", "Encounter", "Observation"}


@pytest.mark.parametrize("number", range(10))
def test_ten_patients_conditions_drugs_procedures_and_visits(shared_data: Path, number: int) -> None:
    folder = shared_data / "fhir_bulk_10"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/fhir_bulk_10")
    wanted, given = both(folder, "*.ndjson")
    assert wanted.keys() == given.keys()
    patient = sorted(wanted)[number]
    assert {told[1] for told in wanted[patient]} >= {"condition", "visit", "procedure"}
    assert given[patient] == wanted[patient]


@pytest.mark.parametrize("number", range(10))
def test_ten_patients_results_and_visits_of_bundles(shared_data: Path, number: int) -> None:
    folder = shared_data / "fhir_bundles"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/fhir_bundles")
    wanted, given = both(folder, "*-*-*.json")
    patient = sorted(wanted)[number]
    assert {told[1] for told in wanted[patient]} >= {"measurement", "visit", "drug"}
    assert given[patient] == wanted[patient]
