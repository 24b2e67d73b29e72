"""A snapshot gives exactly the rows it was taken of, or says that it cannot."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node.omop.store import OmopStore
from node.timeline import timeline
from node.timeline_copy import copy_events
from node.timeline_snapshot import (
    BadName,
    Difference,
    NoSuchLoad,
    NoSuchSnapshot,
    SnapshotChanged,
    compare,
    manifest_of,
    purge,
    rows,
    snapshots,
    take,
)
from node.timeline_sql import Scope
from tests.node.timelines import ADA, BOB, SECOND, glucose, load, small

NOW = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with small(tmp_path / "omop.duckdb") as opened:
        yield opened


def all_rows(store: OmopStore, folder: Path, name: str = "one") -> pa.Table:
    return pa.Table.from_batches(list(rows(store, folder, name)))


def test_later_loads_change_nothing_of_it(store: OmopStore, tmp_path: Path) -> None:
    before = timeline(store, Scope())
    taken = take(store, tmp_path / "s", "one", now=NOW, keep=False)
    assert (taken["rows"], taken["persons"], taken["upto_load"]) == (7, 2, 1)
    load(store, "second", now=SECOND, measurement=[glucose(ADA, "2020-01-03", 80.0)])
    assert compare(store, tmp_path / "s", "one") == Difference(0, 0, 0, 0)
    assert all_rows(store, tmp_path / "s").equals(before)
    copy_events(store)
    assert all_rows(store, tmp_path / "s").equals(before)


def test_an_earlier_state_is_taken_by_the_number_of_its_load(store: OmopStore, tmp_path: Path) -> None:
    first = take(store, tmp_path / "s", "one", now=NOW, keep=False)
    load(store, "second", now=SECOND, measurement=[glucose(ADA, "2020-01-03", 80.0)])
    again = take(store, tmp_path / "s", "again", now=NOW, upto_load=1, keep=False)
    both = take(store, tmp_path / "s", "both", now=NOW, keep=False)
    assert again["sha256"] == first["sha256"] != both["sha256"]
    assert [found["name"] for found in snapshots(tmp_path / "s")] == ["again", "both", "one"]
    with pytest.raises(NoSuchLoad):
        take(store, tmp_path / "s", "never", now=NOW, upto_load=7, keep=False)


def test_another_store_of_the_same_files_makes_it_again(store: OmopStore, tmp_path: Path) -> None:
    taken = take(store, tmp_path / "s", "one", now=NOW, keep=False)
    with small(tmp_path / "again.duckdb") as other:
        assert compare(other, tmp_path / "s", "one").same
        assert take(other, tmp_path / "t", "one", now=NOW, keep=False)["sha256"] == taken["sha256"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE measurement SET value_as_number = 91 WHERE value_as_number = 90",
        "UPDATE measurement SET value_source_value = '' WHERE value_as_number = 90",
        "UPDATE condition_occurrence SET condition_end_date = NULL",
        f"UPDATE person SET year_of_birth = 1971 WHERE person_id = {ADA}",
        "UPDATE fedtwin_provenance SET recorded_at = TIMESTAMP '2020-01-01' WHERE table_name = 'death'",
    ],
)
def test_a_value_that_changed_is_noticed_and_no_row_is_given(
    store: OmopStore, tmp_path: Path, change: str
) -> None:
    take(store, tmp_path / "s", "one", now=NOW, keep=False)
    with store.writing() as writer:
        writer.execute(change)
    assert compare(store, tmp_path / "s", "one") == Difference(1, 0, 0, 0)
    with pytest.raises(SnapshotChanged):
        all_rows(store, tmp_path / "s")


def test_kept_rows_are_given_when_the_store_has_moved_on(store: OmopStore, tmp_path: Path) -> None:
    before = timeline(store, Scope())
    take(store, tmp_path / "s", "one", now=NOW, keep=True)
    with store.writing() as writer:
        writer.execute("UPDATE measurement SET value_as_number = 91 WHERE value_as_number = 90")
        writer.execute("DELETE FROM measurement WHERE person_id = ?", [BOB])
    assert compare(store, tmp_path / "s", "one") == Difference(1, 1, 0, 0)
    assert all_rows(store, tmp_path / "s").equals(before)


def test_who_withdrew_is_in_no_snapshot_any_more(store: OmopStore, tmp_path: Path) -> None:
    take(store, tmp_path / "s", "one", now=NOW, keep=True)
    with store.writing() as writer:
        for table in ("measurement", "condition_occurrence", "visit_occurrence", "death"):
            writer.execute(f"DELETE FROM {table} WHERE person_id = ?", [ADA])
        writer.execute("INSERT INTO fedtwin_withdrawn (person_id) VALUES (?)", [ADA])
    assert compare(store, tmp_path / "s", "one") == Difference(0, 0, 0, 1)
    assert set(all_rows(store, tmp_path / "s")["person_id"].to_pylist()) == {BOB}
    with store.writing() as writer:  # now the rows have to come from the file
        writer.execute("UPDATE measurement SET value_as_number = 1")
    assert set(all_rows(store, tmp_path / "s")["person_id"].to_pylist()) == {BOB}
    assert purge(store, tmp_path / "s") == 6
    kept = pq.read_table(tmp_path / "s" / "one" / "events.parquet")
    assert set(kept["person_id"].to_pylist()) == {BOB}
    assert purge(store, tmp_path / "s") == 0


def test_files_are_for_their_owner_only_and_a_name_leads_nowhere_else(
    store: OmopStore, tmp_path: Path
) -> None:
    take(store, tmp_path / "s", "one", now=NOW, keep=True)
    for path in (tmp_path / "s").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    for name in ("../one", "", "One", "a/b"):
        with pytest.raises(BadName):
            take(store, tmp_path / "s", name, now=NOW, keep=False)
        with pytest.raises(NoSuchSnapshot):
            manifest_of(tmp_path / "s", name)
    with pytest.raises(FileExistsError):
        take(store, tmp_path / "s", "one", now=NOW, keep=False)


def test_an_edited_list_of_persons_is_no_snapshot(store: OmopStore, tmp_path: Path) -> None:
    take(store, tmp_path / "s", "one", now=NOW, keep=False)
    path = tmp_path / "s" / "one" / "persons.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(NoSuchSnapshot):
        compare(store, tmp_path / "s", "one")
