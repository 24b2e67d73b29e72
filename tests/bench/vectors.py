"""Milliseconds of each statistic at one hospital of a million events, beside the bare SQL of its cohort.

One warm process with one connection pool as a node has, questions that differ in their concepts, so that no
answer is cached; `added` is what the statistic costs over finding the members. `compiled` is the first
question of a shape, which is compiled once.
"""

from __future__ import annotations

import statistics as quantiles
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from node.omop.store import OmopStore
from node.queries.cohort import persons
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.vector import vector
from protocols.cohort import Cohort, Window
from protocols.statistic import (
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Step,
    Survival,
    Which,
)
from tests.bench.figure import Figure
from tests.bench.stores import concepts_of, make_store

LIMITS = Limits(time_s=60)


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield, for each statistic, the median time beside that of the cohort's SQL alone, in milliseconds."""
    events, rounds = (100_000, 3) if quick else (1_000_000, 15)
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        path = make_store(Path(name) / "omop.duckdb", events // 25, events, seed=1)
        with OmopStore.open(path, read_only=True) as store:
            yield from _figures(store, rounds, f"{events} events")


def _figures(store: OmopStore, rounds: int, what: str) -> Iterable[Figure]:
    warehouse = DuckDbWarehouse(store)

    def bare(number: int) -> float:
        sql = str(store.connection.compile(persons(_cohort(number), store)))
        return _ms(lambda: store.connection.con.execute(sql).fetchall())

    def asked(number: int, name: str) -> float:
        def answer() -> None:
            with closing(warehouse.engine(LIMITS)) as engine:
                vector(_cohort(number), _statistics(number)[name], engine)

        return _ms(answer)

    for name in _statistics(0):
        compiled = asked(0, name)
        bare(0)
        pairs = [(bare(number), asked(number, name)) for number in range(1, rounds + 1)]
        alone, whole = (quantiles.median(times) for times in zip(*pairs, strict=True))
        added = quantiles.median(after - before for before, after in pairs)
        yield Figure(f"vector.{name}", whole, "ms", alone, f"its cohort's bare SQL; {what}")
        yield Figure(f"vector.{name}.added", added, "ms", None, f"over its cohort's bare SQL; {what}")
        yield Figure(f"vector.{name}.compiled", compiled, "ms", None, f"first of its shape; {what}")


def _ms(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _cohort(number: int) -> Cohort:
    """A question of one shape, with other concepts for each number."""
    return Cohort.parse(
        {
            "index": {
                "kind": "condition",
                "concepts": concepts_of("condition_occurrence", 60)[number : number + 5],
            },
            "include": [
                {
                    "kind": "drug",
                    "concepts": concepts_of("drug_exposure", 60)[number : number + 5],
                    "window": {"from_days": -3_650, "to_days": 3_650},
                },
                {"kind": "age", "min_years": 30, "max_years": 85},
            ],
            "exclude": [
                {"kind": "procedure", "concepts": concepts_of("procedure_occurrence", 60)[number + 30 :][:10]}
            ],
        }
    )


def _statistics(number: int) -> dict[str, Statistic]:
    other = {"kind": "condition", "concepts": concepts_of("condition_occurrence", 60)[number + 20 :][:5]}
    outcome = Cohort.parse({"index": other})
    lab = concepts_of("measurement", 60)[number]
    edges = (60.0, 80.0, 100.0, 120.0, 140.0)
    near = OneValue(lab, which=Which.FIRST, window=Window(-3_650, 3_650))
    return {
        "count": Count(),
        "breakdown_sex": Breakdown(By.SEX, total=True),
        "breakdown_age": Breakdown(By.AGE_BAND, edges=(18, 40, 65)),
        "breakdown_year": Breakdown(By.YEAR, first_year=2010, last_year=2024),
        "histogram": Histogram(OneValue(lab), edges),
        "histogram_window": Histogram(near, edges),
        "mean": Mean(OneValue(lab, which=Which.MEAN), 0.0, 200.0),
        "contingency": Contingency(outcome),
        "incidence_year": Incidence(outcome, 2010, 2024),
        "incidence_month": Incidence(outcome, 2010, 2024, Step.MONTH),
        "survival": Survival(outcome, 3_650, 365),
        "attrition": Attrition(),
        "feasibility": Feasibility(10),
    }
