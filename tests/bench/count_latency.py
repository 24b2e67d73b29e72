"""Seconds from a researcher's question to the private total, beside the bare SQL of the slowest hospital.

Four and sixteen hospitals of a million events each, every part its own process over TLS on loopback. The bare
SQL runs twice: alone, and in as many processes at once, as it does while a question is answered on the same
cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import fedtwin
from sim.network import PROJECT
from tests.bench.figure import Figure
from tests.bench.served import serving
from tests.bench.stores import concepts_of, make_store

SITES = (4, 16)
EPSILON = 0.01  # small: a benchmark asks many questions out of one budget


def cohorts(round: int) -> list[dict[str, object]]:
    """Return ten questions of five shapes, new in each round: no node has compiled or cached one before."""
    conditions, drugs = concepts_of("condition_occurrence", 60), concepts_of("drug_exposure", 60)
    labs, procedures = concepts_of("measurement", 60), concepts_of("procedure_occurrence", 60)
    window = {"from_days": -365, "to_days": 730}
    found: list[dict[str, object]] = []
    for rank in (2 * round, 2 * round + 1):
        condition = {"kind": "condition", "concepts": conditions[rank : rank + 5]}
        drug = {"kind": "drug", "concepts": drugs[rank : rank + 5], "window": window}
        lab = {"kind": "measurement", "concepts": labs[rank : rank + 3], "value": {"min": 100}, "unit": 8840}
        twice = {**lab, "at_least": 2, "window": window}
        age: dict[str, object] = {"kind": "age", "min_years": 40, "max_years": 75}
        sex = {"kind": "sex", "concepts": [8532]}
        procedure = {"kind": "procedure", "concepts": procedures[rank : rank + 5]}
        found += [
            {"index": condition},
            {"index": condition, "include": [drug]},
            {"index": condition, "include": [twice, age]},
            {"index": lab, "include": [drug, age, sex]},
            {"index": condition, "include": [twice, drug, age], "exclude": [procedure]},
        ]
    return found


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield p50 and p95 at the client beside the slowest node's SQL, and what the network adds to it."""
    events, rounds = (100_000, 1) if quick else (1_000_000, 6)
    for count in SITES:
        with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
            folder = Path(name)
            stores = [
                make_store(folder / f"store-{i}.duckdb", events // 25, events, seed=i) for i in range(count)
            ]
            alone = [
                max(times) for times in zip(*(_bare_sql([path], rounds) for path in stores), strict=True)
            ]
            together = _bare_sql(stores, rounds)
            asked = _at_the_client(folder, stores, rounds)
        what = f"{count} sites of {events} events"
        bare, busy = _quantiles(alone), _quantiles(together)
        for label, found, beside, lone in zip(("p50", "p95"), _quantiles(asked), busy, bare, strict=True):
            name = f"count.{count}_sites.{label}"
            yield Figure(name, found, "ms", beside, f"slowest node's bare SQL, all at once; {what}")
            yield Figure(f"{name}_alone", found, "ms", lone, f"slowest node's bare SQL, alone; {what}")
        added = [whole - sql for whole, sql in zip(asked, together, strict=True)]
        name = f"count.{count}_sites.added_p50"
        yield Figure(name, _quantiles(added)[0], "ms", None, "the client's time less the SQL's")


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    return statistics.median(seconds) * 1e3, sorted(seconds)[int(0.95 * (len(seconds) - 1))] * 1e3


def _at_the_client(folder: Path, stores: list[Path], rounds: int) -> list[float]:
    with serving(folder / "network", stores) as network:
        with fedtwin.connect(network.researcher_profile) as client:
            for cohort in cohorts(rounds):  # the first questions open files and sessions
                client.count(cohort, epsilon=EPSILON, project=PROJECT)
            times = []
            for cohort in (cohort for round in range(rounds) for cohort in cohorts(round)):
                start = time.perf_counter()
                client.count(cohort, epsilon=EPSILON, project=PROJECT)
                times.append(time.perf_counter() - start)
        return times


def _bare_sql(stores: list[Path], rounds: int) -> list[float]:
    """Return, per question, the seconds of the slowest of `stores`, each counted in its own process."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bare_sql", str(path), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for path in stores
    ]
    found: list[list[float]] = []
    for process in processes:  # each says it is ready, then all start at once
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=600)
        found.append([float(line) for line in out.split()])
    return [max(row) for row in zip(*found, strict=True)]
