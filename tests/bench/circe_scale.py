"""Seconds that one node takes for OHDSI Circe cohorts and typical questions, at 10 M and 100 M events.

The data are the shared synthetic CDM many times over (tests/bench/scaled_cdm.py), on DuckDB with all cores;
the cohorts are the hundred sampled from OHDSI's PhenotypeLibrary. The large one needs some GB of disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.vector import vector
from protocols.circe import CirceCohort, parse_any
from protocols.cohort import Cohort
from protocols.statistic import Count
from tests.bench.figure import Figure
from tests.bench.scaled_cdm import EVENTS_PER_COPY, SHARED, copies_for, make_scaled

LIMITS = Limits(time_s=120.0, memory="12GB")
CIRCE_P50_S, CIRCE_P95_S = 0.5, 2.0  # goals at 10 M events
TYPICAL_S = 3.0  # goal at 100 M events, each of the five


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield p50 and p95 of the cohorts, and the slowest of the typical five, beside their goals."""
    small, large = (2, 4) if quick else (copies_for(10_000_000), copies_for(100_000_000))
    folder = SHARED / "cohorts"
    circe = [parse_any(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        path = make_scaled(Path(name) / "small.duckdb", copies=small)
        what = f"{small * EVENTS_PER_COPY} events"
        seconds = _seconds(path, circe[:10] if quick else circe)
        for label, found, goal in zip(
            ("p50", "p95"), quantiles(seconds), (CIRCE_P50_S, CIRCE_P95_S), strict=True
        ):
            yield Figure(f"circe.{label}", found, "s", goal, f"goal; {len(seconds)} cohorts, {what}")
        yield Figure("circe.slowest", max(seconds), "s", None, what)
        yield Figure("typical.slowest_small", max(_seconds(path, typical())), "s", None, what)
        path.unlink()
        path = make_scaled(Path(name) / "large.duckdb", copies=large)
        what = f"{large * EVENTS_PER_COPY} events"
        seconds = _seconds(path, typical())
        yield Figure("typical.slowest", max(seconds), "s", TYPICAL_S, f"goal; five questions, {what}")
        yield Figure(
            "typical.p50", statistics.median(seconds), "s", TYPICAL_S, f"goal; five questions, {what}"
        )


def typical() -> list[Cohort]:
    """Return five questions as researchers ask them, of rising difficulty, on frequent concepts."""
    # the most frequent concepts of the source: 39 to 90 of 100 patients have one
    first, second, taken, measured = 36550043, 36527707, 912263, 4097621
    window = {"from_days": -365, "to_days": 365}
    condition = {"kind": "condition", "concepts": [first], "descendants": True}
    drug = {"kind": "drug", "concepts": [taken], "descendants": True, "window": window}
    lab = {"kind": "measurement", "concepts": [measured], "at_least": 2, "window": window}
    other = {"kind": "condition", "concepts": [second], "descendants": True}
    age = {"kind": "age", "min_years": 40, "max_years": 75}
    forms = [
        {"index": condition},
        {"index": condition, "include": [drug]},
        {"index": condition, "include": [lab, age]},
        {"index": {"kind": "drug", "concepts": [taken], "descendants": True}, "exclude": [other]},
        {"index": condition, "include": [drug, lab, age], "exclude": [other]},
    ]
    return [Cohort.parse(form) for form in forms]


def quantiles(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile."""
    return statistics.median(seconds), sorted(seconds)[int(0.95 * (len(seconds) - 1))]


def _seconds(path: Path, cohorts: list[Cohort | CirceCohort] | list[Cohort]) -> list[float]:
    """Return the seconds of each cohort's count, as a question finds the store: open, and read before."""
    warehouse = DuckDbWarehouse.open(path, schema=None, limits=LIMITS)
    try:
        found = []
        for cohort in (cohorts[0], *cohorts):  # the first one opens the file
            start = time.perf_counter()
            engine = warehouse.engine(LIMITS)
            try:
                vector(cohort, Count(), engine)
            finally:
                engine.close()
            found.append(time.perf_counter() - start)
        return found[1:]
    finally:
        warehouse.close()
