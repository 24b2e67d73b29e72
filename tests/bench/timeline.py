"""Milliseconds to read one patient's timeline of 10,000 events, in a store of a million.

Whole, as of a moment and as differences; beside the same read from the CDM's tables, which is what a copy in
order of person saves. And what the copy costs: events a second.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from node.omop.store import OmopStore
from node.quality.running import run
from node.timeline import batches, deltas, timeline
from node.timeline_copy import copy_events
from node.timeline_sql import Scope, Unrecorded
from tests.bench.figure import Figure
from tests.bench.stores import make_store

EVENTS = 1_000_000
GOAL_MS = 20.0
_MIDDLE = datetime(2017, 1, 1, tzinfo=UTC)


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the reads, the copy, the stream of everybody and the checks of the data."""
    events, repeats = (100_000, 5) if quick else (EVENTS, 41)
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        path = make_store(Path(name) / "store.duckdb", events // 10_000, events, seed=1)
        with OmopStore.open(path) as store:
            row = store.connection.con.execute("SELECT min(person_id) FROM person").fetchone()
            assert row is not None
            whole = Scope(int(row[0]))
            known = Scope(int(row[0]), as_of=_MIDDLE, unrecorded=Unrecorded.EVENT)
            tables = _median(lambda: timeline(store, whole), 5 if quick else 9)
            start = time.perf_counter()
            copied = copy_events(store)
            rate = copied / (time.perf_counter() - start)
            count = timeline(store, whole).num_rows
            what = f"the goal; {count} events of one person among {events}"
            reads: tuple[tuple[str, Callable[[], object]], ...] = (
                ("whole", lambda: timeline(store, whole)),
                ("as_of", lambda: timeline(store, known)),
            )
            for part, read in reads:
                yield Figure(f"timeline.{part}_p50", _median(read, repeats), "ms", GOAL_MS, what)
            yield Figure("timeline.deltas_p50", _median(lambda: deltas(store, whole), repeats), "ms")
            yield Figure("timeline.from_tables_p50", tables, "ms", GOAL_MS, what + ", without the copy")
            yield Figure("timeline.copied", rate, "events/s", None, "once after an ingest")
            start = time.perf_counter()
            streamed = sum(batch.num_rows for batch in batches(store, Scope()))
            yield Figure("timeline.streamed", streamed / (time.perf_counter() - start), "events/s")
            start = time.perf_counter()
            run(store)
            yield Figure("quality.all_checks", time.perf_counter() - start, "s", None, f"{events} events")


def _median(read: Callable[[], object], repeats: int) -> float:
    """Return the median of several reads in milliseconds, after one that opens files."""
    read()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
