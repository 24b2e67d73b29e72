"""Seconds from a researcher's question to the private total, beside the bare SQL of the slowest hospital.

Four hospitals of a million events each, every part its own process over TLS on loopback. The bare SQL runs
twice: alone, and in four processes at once, as it does while a question is answered on the same cores.
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
from sim.network import PROJECT, LocalNetwork, Site
from tests.bench.figure import Figure
from tests.bench.stores import concepts_of, make_store

SITES = 4
EPSILON = 0.01  # small: a benchmark asks many questions out of one budget
FOLLOW_UP_DAYS = 730


def cohorts() -> list[dict[str, object]]:
    """Return the questions: a condition, then a drug or a measurement above a value within two years."""
    conditions, drugs = concepts_of("condition_occurrence", 40), concepts_of("drug_exposure", 40)
    labs = concepts_of("measurement", 40)
    found: list[dict[str, object]] = []
    for rank in range(20):
        index = {"kind": "condition", "concepts": [conditions[rank]]}
        drug = {
            "kind": "drug",
            "concepts": [drugs[rank]],
            "window": {"from_days": 0, "to_days": FOLLOW_UP_DAYS},
        }
        lab = {"kind": "measurement", "concepts": [labs[rank]], "value": {"min": 100}, "unit": 8840}
        found.append({"index": index, "include": [drug if rank % 2 else lab]})
    return found


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield p50 and p95 at the client, and their ratio to the slowest node's SQL."""
    events, rounds = (100_000, 1) if quick else (1_000_000, 3)
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        folder = Path(name)
        sites = [Site(f"site-{i}", f"Site {i}", folder) for i in range(SITES)]
        stores = [folder / f"store-{i}.duckdb" for i in range(SITES)]
        for i, path in enumerate(stores):
            make_store(path, events // 25, events, seed=i)
        alone = [_bare_sql([path], rounds) for path in stores]
        together = _bare_sql(stores, rounds)
        asked = _at_the_client(folder, sites, stores, rounds)
    slowest = max(statistics.median(times) for times in alone)
    busy = statistics.median(together)
    p50, p95 = statistics.median(asked), sorted(asked)[int(0.95 * (len(asked) - 1))]
    label = f"{SITES} sites of {events} events"
    yield Figure(
        "count.p50", p50 * 1e3, "ms", busy * 1e3, f"slowest node's bare SQL, {SITES} at once; {label}"
    )
    yield Figure(
        "count.p95", p95 * 1e3, "ms", busy * 1e3, f"slowest node's bare SQL, {SITES} at once; {label}"
    )
    yield Figure(
        "count.p50_alone", p50 * 1e3, "ms", slowest * 1e3, f"slowest node's bare SQL, alone; {label}"
    )


def _at_the_client(folder: Path, sites: list[Site], stores: list[Path], rounds: int) -> list[float]:
    with LocalNetwork(folder / "network", sites) as network:
        network.start_coordinator()
        network.add_researcher()
        for site, path in zip(sites, stores, strict=True):
            network.enrol(site.slug)
            target = network.node_home(site.slug) / "store" / "omop.duckdb"
            target.parent.mkdir(exist_ok=True, mode=0o700)
            target.unlink(missing_ok=True)
            path.rename(target)
            network.start_node(site.slug)
        network.wait_for_nodes()
        client = fedtwin.connect(network.researcher_profile)
        for cohort in cohorts()[:2]:  # the first question opens files and sessions
            client.count(cohort, epsilon=EPSILON, project=PROJECT)
        times = []
        for repeat in range(rounds):
            for cohort in cohorts():
                start = time.perf_counter()
                client.count(cohort, epsilon=EPSILON + repeat * 1e-6, project=PROJECT)
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
