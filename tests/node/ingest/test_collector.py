"""The collector rests while a batch is read, and only then."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from node.ingest import collector
from node.ingest.intake import Progress
from tests.node.made_facts import LAB, event, hospital


def test_no_cycles_are_looked_for_in_a_batch_and_afterwards_they_are() -> None:
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            pass
        assert not gc.isenabled(), "the inner one found it off"
    assert gc.isenabled()


def test_what_is_raised_in_a_batch_leaves_the_collector_on() -> None:
    with pytest.raises(LookupError), collector.paused():
        raise LookupError
    assert gc.isenabled()


def test_a_load_looks_for_cycles_between_its_batches(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    seen: list[bool] = []

    def look(_: Progress) -> None:
        seen.append(gc.isenabled())

    records = [[event("measurement", "P1", LAB, value_number=1.0, key=f"k{n}")] for n in range(6)]
    (threads,) = site.store.connection.con.execute("SELECT current_setting('threads')").fetchone()
    site.take(site.write("a", *records), batch_records=2, progress=look)
    assert seen == [True, True, True]
    (after,) = site.store.connection.con.execute("SELECT current_setting('threads')").fetchone()
    assert after == threads, "one thread is for the staging of a load"
    site.store.close()
    site.vault.close()
