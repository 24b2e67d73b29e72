"""Seconds from a researcher's OHDSI Circe cohort to the private total of ten hospitals of 10 M events each.

Ten nodes on one machine share its cores, which ten hospitals do not: an upper bound. The data are the shared
synthetic CDM many times over (tests/bench/scaled_cdm.py), the cohorts ten of those of `circe_scale`.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import fedtwin
from sim.network import PROJECT
from tests.bench.figure import Figure
from tests.bench.scaled_cdm import EVENTS_PER_COPY, SHARED, copies_for, make_scaled
from tests.bench.served import serving

SITES = 10
EPSILON = 0.01
GOAL_S = 5.0
COHORTS = 10  # every tenth of the hundred


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the median and the slowest of the cohorts, end to end, beside the goal."""
    copies = 1 if quick else copies_for(10_000_000)
    forms = [path.read_bytes() for path in sorted((SHARED / "cohorts").glob("*.json"))]
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        folder = Path(name)
        stores = [make_scaled(folder / "store-0.duckdb", copies=copies)]
        stores += [Path(shutil.copy(stores[0], folder / f"store-{i}.duckdb")) for i in range(1, SITES)]
        with (
            serving(folder / "network", stores) as network,
            fedtwin.connect(network.researcher_profile) as client,
        ):
            client.count(forms[5], epsilon=EPSILON, project=PROJECT)  # opens files and a session
            seconds = []
            for form in forms[:: len(forms) // COHORTS][:COHORTS]:
                start = time.perf_counter()
                client.count(form, epsilon=EPSILON, project=PROJECT)
                seconds.append(time.perf_counter() - start)
    what = f"{SITES} sites of {copies * EVENTS_PER_COPY} events, {len(seconds)} Circe cohorts"
    yield Figure("ten_sites.p50", statistics.median(seconds), "s", GOAL_S, f"goal; {what}")
    yield Figure("ten_sites.slowest", max(seconds), "s", GOAL_S, f"goal; {what}")
