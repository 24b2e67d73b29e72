"""Small stores whose events the tests of timelines know one by one."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from node.omop.loading import Source
from node.omop.store import OmopStore

ADA, BOB = 11, 22
GLUCOSE, UNIT, ASTHMA, INPATIENT, TYPE = 3004501, 8840, 317009, 9201, 32817
FIRST = datetime(2026, 1, 1, tzinfo=UTC)  # when the first load came
SECOND = datetime(2026, 6, 1, tzinfo=UTC)


def day(text: str) -> date:
    return date.fromisoformat(text)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def glucose(person: int, when: str, value: float | None, time: str | None = None) -> dict[str, Any]:
    return {
        "person_id": person,
        "measurement_concept_id": GLUCOSE,
        "measurement_date": day(when),
        "measurement_datetime": at(f"{when} {time}") if time else None,
        "measurement_type_concept_id": TYPE,
        "value_as_number": value,
        "unit_concept_id": UNIT,
        "measurement_source_value": "GLU",
    }


def asthma(person: int, when: str, until: str | None = None) -> dict[str, Any]:
    return {
        "person_id": person,
        "condition_concept_id": ASTHMA,
        "condition_start_date": day(when),
        "condition_end_date": day(until) if until else None,
        "condition_type_concept_id": TYPE,
        "condition_source_value": "J45",
    }


def people(*ids: int) -> list[dict[str, Any]]:
    return [
        {
            "person_id": person,
            "gender_concept_id": 8532,
            "year_of_birth": 1970,
            "race_concept_id": 0,
            "ethnicity_concept_id": 0,
        }
        for person in ids
    ]


def load(
    store: OmopStore,
    name: str,
    *,
    now: datetime = FIRST,
    persons: tuple[int, ...] = (),
    visits: list[dict[str, Any]] | None = None,
    deaths: list[dict[str, Any]] | None = None,
    **events: list[dict[str, Any]],
) -> int:
    """Load records as one file would bring them; return the load's number."""
    with store.load(Source(name, name.ljust(64, "0"), "made", "m" * 64), now=now) as opened:
        if persons:
            opened.add_persons(pa.Table.from_pylist(people(*persons)), np.arange(1, len(persons) + 1))
        for table, rows in events.items():
            opened.add_events(table, _table(rows), np.arange(1, len(rows) + 1))
        if visits:
            opened.add_unless_there(
                "visit_occurrence", "visit_occurrence_id", _table(visits), np.arange(1, len(visits) + 1)
            )
        if deaths:
            opened.add_unless_there("death", "person_id", _table(deaths), np.arange(1, len(deaths) + 1))
        opened.rows = 1
    return opened.load_id


def recorded(store: OmopStore, table: str, said: Mapping[int, str], *, offset_min: int | None = None) -> None:
    """Say when the source recorded these records, as a reader that knows does."""
    with store.writing() as writer:
        for record, when in said.items():
            writer.execute(
                "UPDATE fedtwin_provenance SET recorded_at = ?, utc_offset_min = ?"
                " WHERE table_name = ? AND record_id = ?",
                [at(when), offset_min, table, record],
            )


def ids(store: OmopStore, table: str) -> list[int]:
    return [
        int(row[0])
        for row in store.connection.con.execute(f"SELECT {table}_id FROM {table} ORDER BY 1").fetchall()
    ]


def visit(number: int, person: int, start: str, end: str) -> dict[str, Any]:
    return {
        "visit_occurrence_id": number,
        "person_id": person,
        "visit_concept_id": INPATIENT,
        "visit_start_date": day(start),
        "visit_end_date": day(end),
        "visit_type_concept_id": TYPE,
    }


def small(path: Path) -> OmopStore:
    """Ada: a visit with two values and asthma, and her death; Bob: one value."""
    store = OmopStore.open(path, threads=1)
    load(
        store,
        "first",
        persons=(ADA, BOB),
        visits=[visit(900, ADA, "2020-01-01", "2020-01-05")],
        deaths=[{"person_id": ADA, "death_date": day("2021-01-01"), "death_type_concept_id": TYPE}],
        measurement=[
            glucose(ADA, "2020-01-02", 90.0, "08:30:00"),
            glucose(ADA, "2020-01-04", 120.0),
            glucose(BOB, "2020-03-01", 100.0),
        ],
        condition_occurrence=[asthma(ADA, "2020-01-02", "2020-02-01")],
    )
    return store


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)
