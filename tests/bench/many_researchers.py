"""Twenty researchers who ask at the same time: every question is answered, and how long each waits.

Four hospitals of 100,000 events, every part its own process over TLS on loopback. Each researcher asks ten
questions in a row, one after the other, all different from everybody else's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fedtwin
from protocols.refusal import Refused
from sim.network import PROJECT
from tests.bench.figure import Figure
from tests.bench.served import serving
from tests.bench.stores import concepts_of, make_store

SITES, RESEARCHERS, QUESTIONS = 4, 20, 10
EPSILON = 0.01


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield refused questions (goal 0), answers a second, and the waits at the median and at the 95th."""
    each = 2 if quick else QUESTIONS
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        folder = Path(name)
        stores = [make_store(folder / f"store-{i}.duckdb", 4_000, 100_000, seed=i) for i in range(SITES)]
        profiles = [folder / f"researcher-{i}" for i in range(RESEARCHERS)]
        with serving(folder / "network", stores, profiles=profiles):
            start = time.perf_counter()
            with ThreadPoolExecutor(RESEARCHERS) as threads:
                asked = list(threads.map(lambda pair: _asks(*pair, each), enumerate(profiles)))
            whole = time.perf_counter() - start
    waits = [seconds for times, _ in asked for seconds in times]
    refused = sum(count for _, count in asked)
    what = f"{RESEARCHERS} researchers at once, {SITES} sites"
    yield Figure("researchers.refused", refused, "questions", None, f"goal 0 of {RESEARCHERS * each}; {what}")
    yield Figure("researchers.answers", len(waits) / whole, "1/s", None, what)
    yield Figure("researchers.p50", statistics.median(waits) * 1e3, "ms", None, what)
    yield Figure("researchers.p95", sorted(waits)[int(0.95 * (len(waits) - 1))] * 1e3, "ms", None, what)


def _asks(number: int, profile: Path, questions: int) -> tuple[list[float], int]:
    """Return how long each answer took, and how many questions were refused."""
    concepts = concepts_of("condition_occurrence", RESEARCHERS * questions)
    times, refused = [], 0
    with fedtwin.connect(profile) as client:
        for concept in concepts[number * questions : (number + 1) * questions]:
            start = time.perf_counter()
            try:
                cohort = {"index": {"kind": "condition", "concepts": [concept]}}
                client.count(cohort, epsilon=EPSILON, project=PROJECT)
            except Refused:
                refused += 1
            else:
                times.append(time.perf_counter() - start)
    return times, refused
