"""Stores of any size, made fast: persons and events from a seeded generator, straight through the load."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from node.omop.loading import Source
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_DAY = (date(2010, 1, 1) - date(1970, 1, 1)).days
DAYS = 5_000
TYPE = 32817
SEX = (8507, 8532)
# the share of events that each table gets, and how many concepts it has; concept ids start at `CONCEPT_BASE`
SHARES = {
    "measurement": (0.5, 400),
    "condition_occurrence": (0.2, 600),
    "drug_exposure": (0.15, 300),
    "observation": (0.1, 100),
    "procedure_occurrence": (0.05, 200),
}
CONCEPT_BASE = 3_000_000
_CHUNK = 1_000_000


def make_store(path: Path, persons: int, events: int, seed: int) -> Path:
    """Write a store of `persons` and about `events` records, and return its path. Same seed, same records."""
    rng = np.random.default_rng(seed)
    with OmopStore.open(path) as store:
        ids = np.unique(rng.integers(1, 2**63 - 1, size=persons, dtype=np.int64))
        with store.load(Source(f"made-{seed}", f"{seed}", "made", "made"), now=MOMENT) as load:
            load.add_persons(
                pa.table(
                    {
                        "person_id": ids,
                        "gender_concept_id": np.array(SEX)[rng.integers(0, 2, len(ids))],
                        "year_of_birth": rng.integers(1935, 2005, len(ids)),
                        "race_concept_id": np.zeros(len(ids), dtype=np.int64),
                        "ethnicity_concept_id": np.zeros(len(ids), dtype=np.int64),
                    }
                ),
                np.arange(1, len(ids) + 1),
            )
            for table, (share, concepts) in SHARES.items():
                for start in range(0, int(events * share), _CHUNK):
                    count = min(_CHUNK, int(events * share) - start)
                    load.add_events(
                        table, _events(table, ids, count, concepts, rng), np.arange(count) + start + 1
                    )
            load.rows = len(ids) + events
        store.settle(always=True)
    return path


def concepts_of(table: str, count: int) -> list[int]:
    """Return the `count` most frequent concepts of a table."""
    offset = list(SHARES).index(table) * 10_000
    return [CONCEPT_BASE + offset + rank for rank in range(count)]


def _events(table: str, ids: np.ndarray, count: int, concepts: int, rng: np.random.Generator) -> pa.Table:
    shape = EVENT_TABLES[table]
    rank = np.minimum((concepts * rng.power(0.5, count)[::-1] ** 2).astype(np.int64), concepts - 1)
    days = pa.array((FIRST_DAY + rng.integers(0, DAYS, count)).astype(np.int32)).cast(pa.date32())
    made = {
        "person_id": ids[rng.integers(0, len(ids), count)],
        shape.concept: np.array(concepts_of(table, concepts))[rank],
        shape.start: days,
        shape.type_concept: np.full(count, TYPE, dtype=np.int64),
    }
    if table == "drug_exposure":
        made[shape.end or ""] = days
    if table in ("measurement", "observation"):
        made["value_as_number"] = np.round(rng.normal(100, 20, count), 1)
        made["unit_concept_id"] = np.full(count, 8840, dtype=np.int64)
    return pa.table(made)
