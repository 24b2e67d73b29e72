"""A few patients written straight into a store, as rows a test can read."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from node.omop.loading import Source
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DAY = date(2020, 5, 1)
SBP, MMHG = 3004249, 8876
SMOKER, YES, NO = 4298794, 4188539, 4188540
AF, HEART_FAILURE = 313217, 316139


@dataclass
class Patient:
    """One patient: (concept, value, day) triples of measurements, and so on."""

    person_id: int
    born: int = 1960
    sex: int = 8507
    measurements: list[tuple[int, float | None, date]] = field(default_factory=list)
    observations: list[tuple[int, int, date]] = field(default_factory=list)  # value as concept
    conditions: list[tuple[int, date]] = field(default_factory=list)
    unit: int = MMHG


def fill(store: OmopStore, patients: Iterable[Patient], *, name: str = "made-up") -> None:
    """Load the patients. Each has an observation period from DAY on, whatever else they have."""
    patients = list(patients)
    with store.load(Source(name, name, "made-up", "1"), now=MOMENT) as load:
        count = len(patients)
        load.add_persons(
            pa.table(
                {
                    "person_id": pa.array([p.person_id for p in patients], pa.int64()),
                    "gender_concept_id": pa.array([p.sex for p in patients], pa.int64()),
                    "year_of_birth": pa.array([p.born for p in patients], pa.int64()),
                    "race_concept_id": pa.array([0] * count, pa.int64()),
                    "ethnicity_concept_id": pa.array([0] * count, pa.int64()),
                }
            ),
            np.arange(1, count + 1),
        )
        visits = [(p.person_id, 1, DAY) for p in patients]  # an event that no study reads
        rows: dict[str, list[tuple]] = {"procedure_occurrence": visits}
        rows["measurement"] = [(p.person_id, c, d, v, p.unit) for p in patients for c, v, d in p.measurements]
        rows["observation"] = [(p.person_id, c, d, v) for p in patients for c, v, d in p.observations]
        rows["condition_occurrence"] = [(p.person_id, c, d) for p in patients for c, d in p.conditions]
        for table, found in rows.items():
            if found:
                load.add_events(table, _table(table, found), np.arange(1, len(found) + 1))


_STORES: dict[str, bytes] = {}


def fill_new(path: Path, name: str, patients: Callable[[], Iterable[Patient]]) -> None:
    """Make a store at `path` with patients. Of one `name` there is one store: others are copies of its file.

    To make a store takes longer than what most tests ask of it.
    """
    if name not in _STORES:
        with closing(OmopStore.open(path)) as store:
            fill(store, patients())
        _STORES[name] = path.read_bytes()
    else:
        path.touch(mode=0o600)
        path.write_bytes(_STORES[name])


def _table(name: str, rows: list[tuple]) -> pa.Table:
    shape = EVENT_TABLES[name]
    columns = list(zip(*rows, strict=True))
    if name == "procedure_occurrence":
        columns = [columns[0], columns[1], columns[2]]
    fields = {
        "person_id": pa.array(columns[0], pa.int64()),
        shape.concept: pa.array(columns[1], pa.int64()),
        shape.start: pa.array(columns[2], pa.date32()),
        shape.type_concept: pa.array([32817] * len(rows), pa.int64()),
    }
    if name == "measurement":
        fields["value_as_number"] = pa.array(columns[3], pa.float64())
        fields["unit_concept_id"] = pa.array(columns[4], pa.int64())
    if name == "observation":
        fields["value_as_concept_id"] = pa.array(columns[3], pa.int64())
    return pa.table(fields)
