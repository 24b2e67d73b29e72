"""How fast files come in, and how fast a cohort is counted on a million events. Goal: 100,000 events/s."""

import csv
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np

from deid.vault import PseudonymKey, Vault
from node.ingest.mapping import parse_mapping
from node.ingest.pipeline import Pipeline
from node.omop.store import OmopStore
from node.queries import cohort as cohort_queries
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from protocols.cohort import Cohort
from tests.bench.figure import Figure
from tests.bench.stores import concepts_of, make_store

GOAL_EVENTS_PER_S = 100_000
_PERSONS = b"""
[source]
name = "persons"
version = 1
files = ["persons.csv"]
[patient]
column = "mrn"
[person]
year_of_birth = "yob"
sex = { column = "sex", map = { M = 8507, F = 8532 } }
"""
_LABS = """
[source]
name = "labs"
version = 1
files = ["labs.csv"]
[patient]
column = "mrn"
[date]
column = "taken"
format = "%Y-%m-%d %H:%M"
[[events]]
table = "measurement"
column = "value"
kind = "number"
concept = {{ column = "code", map = {{ {codes} }} }}
unit = {{ column = "unit", map = {{ "mg/dL" = 8840, "mmol/L" = 8753 }} }}
range = [-1000, 100000]
"""


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield ingest speed (one row an event, and many events a row) and count latency."""
    events = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _long(folder, events)
        yield from _wide(folder, events)
        yield from _counts(folder, events, repeats=5 if quick else 30)


def _opened(folder: Path, name: str) -> tuple[OmopStore, Vault]:
    key = PseudonymKey(b"bench only " + bytes(21))
    vault = Vault.open(folder / f"{name}.sqlite", key=key, bits=SecureBits())
    return OmopStore.open(folder / f"{name}.duckdb"), vault


def _long(folder: Path, events: int) -> Iterable[Figure]:
    rng = np.random.default_rng(7)
    persons = events // 50
    with (folder / "persons.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("mrn", "yob", "sex", "name"))
        writer.writerows((f"M{i:07d}", 1940 + i % 60, "MF"[i % 2], "x") for i in range(persons))
    patients = rng.integers(0, persons, events).tolist()
    minutes = rng.integers(0, 5_000 * 1440, events)
    taken = np.datetime_as_string(np.datetime64("2010-01-01T00:00") + minutes, unit="m").tolist()
    values = np.round(rng.normal(100, 20, events), 2).tolist()
    codes = rng.integers(0, 300, events).tolist()
    with (folder / "labs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("mrn", "taken", "code", "value", "unit"))
        writer.writerows(
            (f"M{patient:07d}", when.replace("T", " "), f"L{code}", value, "mg/dL")
            for patient, when, code, value in zip(patients, taken, codes, values, strict=True)
        )
    mapped = ", ".join(f"L{code} = {3_000_000 + code}" for code in range(290))
    mappings = (
        parse_mapping(_PERSONS, file="persons.toml"),
        parse_mapping(_LABS.format(codes=mapped).encode(), file="labs.toml"),
    )
    store, vault = _opened(folder, "long")
    begin = time.perf_counter()
    report = Pipeline(store, vault, SystemClock()).ingest([folder / "persons.csv"], mappings=mappings)
    seconds = time.perf_counter() - begin
    yield Figure("ingest, persons", report.sources[0].records_in / seconds, "rows/s")
    begin = time.perf_counter()
    report = Pipeline(store, vault, SystemClock()).ingest([folder / "labs.csv"], mappings=mappings)
    seconds = time.perf_counter() - begin
    rate = sum(report.records.values()) / seconds
    yield Figure("ingest, one row an event", rate, "events/s", GOAL_EVENTS_PER_S, "goal")


def _wide(folder: Path, events: int) -> Iterable[Figure]:
    """The heart mapping on generated rows: each row is a patient with about ten events."""
    rng = np.random.default_rng(8)
    rows = events // 12
    columns = [
        rng.integers(30, 80, rows),
        rng.integers(0, 2, rows),
        rng.integers(1, 5, rows),
        rng.integers(90, 200, rows),
        rng.integers(120, 400, rows),
        rng.integers(0, 2, rows),
        rng.integers(0, 3, rows),
        rng.integers(70, 200, rows),
        rng.integers(0, 2, rows),
        np.round(rng.uniform(0, 5, rows), 1),
        rng.integers(1, 4, rows),
        rng.integers(0, 4, rows),
        rng.choice([3, 6, 7], rows),
        rng.integers(0, 5, rows),
    ]
    with (folder / "processed.made.data").open("w", newline="") as file:
        csv.writer(file).writerows(zip(*(column.tolist() for column in columns), strict=True))
    store, vault = _opened(folder, "wide")
    begin = time.perf_counter()
    report = Pipeline(store, vault, SystemClock()).ingest([folder / "processed.made.data"])
    seconds = time.perf_counter() - begin
    rate = sum(report.records.values()) / seconds
    yield Figure(
        "ingest, twelve events a row, each row a new patient", rate, "events/s", GOAL_EVENTS_PER_S, "goal"
    )


def _counts(folder: Path, events: int, *, repeats: int) -> Iterable[Figure]:
    begin = time.perf_counter()
    path = make_store(folder / "made.duckdb", persons=events // 20, events=events, seed=9)
    yield Figure(f"make a store of {events} events", time.perf_counter() - begin, "s")
    condition, measurement, drug = (
        concepts_of(table, 40) for table in ("condition_occurrence", "measurement", "drug_exposure")
    )
    forms: dict[str, dict[str, Any]] = {
        "one concept": {"index": {"kind": "condition", "concepts": condition[:1]}},
        "value, window, age, no drug": {
            "index": {"kind": "condition", "concepts": condition[:20]},
            "include": [
                {
                    "kind": "measurement",
                    "concepts": measurement[:5],
                    "value": {"min": 110},
                    "window": {"from_days": -365, "to_days": 365},
                },
                {"kind": "age", "min_years": 40, "max_years": 80},
            ],
            "exclude": [{"kind": "drug", "concepts": drug[:10]}],
        },
    }
    with OmopStore.open(path, read_only=True) as store:
        for name, form in forms.items():
            cohort = Cohort.parse(form)
            statement = ibis.to_sql(cohort_queries.persons(cohort, store).count())
            bare = _median(partial(_bare, store, str(statement)), repeats)
            first = _median(partial(_first, cohort, store), repeats)
            whole = _median(partial(cohort_queries.count, cohort, store), repeats)
            against = "its SQL alone"
            yield Figure(f"count at {events} events: {name}", whole * 1000, "ms", bare * 1000, against)
            yield Figure(f"the same, asked first: {name}", first * 1000, "ms", bare * 1000, against)


def _bare(store: OmopStore, statement: str) -> None:
    store.connection.con.execute(statement).fetchone()


def _first(cohort: Cohort, store: OmopStore) -> None:
    """A question that was not asked before: built and compiled, too."""
    cohort_queries.persons(cohort, store).count().to_pyarrow()


def _median(run, repeats: int) -> float:  # type: ignore[no-untyped-def]
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))
