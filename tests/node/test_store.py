"""The store: whole loads or nothing, readers beside a writer, one process, no way out through SQL."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from node.omop.errors import AlreadyLoaded, NoSuchTable, NotAStore, StoreBusy
from node.omop.loading import Again, Load, LocalConcept, Source
from node.omop.store import OmopStore

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = Source("labs.csv", "aa", "labs", "m1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        yield opened


def persons(*ids: int, born: int = 1960) -> pa.Table:
    zeros = [0] * len(ids)
    return pa.table(
        {
            "person_id": ids,
            "gender_concept_id": [8507] * len(ids),
            "year_of_birth": [born] * len(ids),
            "race_concept_id": zeros,
            "ethnicity_concept_id": zeros,
        }
    )


def measurements(*ids: int, concept: int = 3004249, day: date = date(2020, 5, 1)) -> pa.Table:
    return pa.table(
        {
            "person_id": ids,
            "measurement_concept_id": [concept] * len(ids),
            "measurement_date": pa.array([day] * len(ids)),
            "measurement_type_concept_id": [32817] * len(ids),
            "value_as_number": [120.0] * len(ids),
        }
    )


def fill(load: Load, *ids: int) -> None:
    load.add_persons(persons(*ids), np.arange(1, len(ids) + 1))
    load.add_events("measurement", measurements(*ids), np.arange(1, len(ids) + 1))


def number_of(store: OmopStore, table: str) -> int:
    return int(store.table(table).count().to_pyarrow().as_py())


def column_of(store: OmopStore, table: str, name: str) -> list[object]:
    return sorted(store.table(table)[name].to_pyarrow().to_pylist())


def test_a_load_is_there_as_a_whole_with_its_provenance(store: OmopStore) -> None:
    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, 5, 6)
        load.quarantine("value", "out-of-range", np.array([3]), whole_row=False)
        load.rows = 3
    assert (
        number_of(store, "person")
        == number_of(store, "measurement")
        == number_of(store, "observation_period")
        == 2
    )
    traced = store.connection.con.execute(
        "SELECT p.source_row, l.source_name, l.mapping_sha256, l.loaded_at FROM measurement m"
        " JOIN fedtwin_provenance p ON p.table_name = 'measurement' AND p.record_id = m.measurement_id"
        " JOIN fedtwin_load l USING (load_id) WHERE m.person_id = 6"
    ).fetchall()
    assert traced == [(2, "labs.csv", "m1", MOMENT.replace(tzinfo=None))]
    kept = store.connection.con.execute("SELECT source_row, field, reason FROM fedtwin_quarantine").fetchall()
    assert kept == [(3, "value", "out-of-range")]


def test_a_load_that_fails_leaves_nothing(store: OmopStore) -> None:
    before = store.epoch()
    with pytest.raises(NoSuchTable), store.load(SOURCE, now=MOMENT) as load:  # noqa: PT012
        fill(load, 5, 6)
        load.add_events("note", measurements(5), np.array([1]))
    assert number_of(store, "person") == number_of(store, "fedtwin_provenance") == 0
    assert store.epoch() == before
    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, 5)
    assert number_of(store, "person") == 1


def test_a_process_killed_in_the_middle_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "omop.duckdb"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import numpy as np, time\n"
        "from node.omop.store import OmopStore\n"
        "from tests.node.test_store import MOMENT, SOURCE, Source, fill, measurements\n"
        "store = OmopStore.open(sys.argv[1])\n"
        "with store.load(Source('first.csv', 'bb', 'labs', 'm1'), now=MOMENT) as load: fill(load, 1)\n"
        "with store.load(SOURCE, now=MOMENT) as load:\n"
        "    fill(load, *range(2, 5000))\n"
        "    sys.stdout.write('half\\n'); sys.stdout.flush(); time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path), root], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    with pytest.raises(StoreBusy):
        OmopStore.open(path)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with OmopStore.open(path) as store:
        assert number_of(store, "person") == number_of(store, "measurement") == 1


def test_readers_go_on_while_a_load_is_open_and_do_not_see_it(store: OmopStore) -> None:
    seen: list[int] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            seen.extend(number_of(store, "measurement") for _ in range(10))
        except BaseException as error:
            failures.append(error)

    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, *range(1, 2_000))
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout=60)
    assert not failures
    assert seen == [0] * 40
    assert number_of(store, "measurement") == 1_999


def test_readers_go_on_while_the_tables_are_put_in_order(store: OmopStore) -> None:
    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, *range(1, 2_000))
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(number_of(store, "measurement"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        store.settle(always=True)
    stop.set()
    reader.join(timeout=60)
    assert seen
    assert set(seen) == {1_999}


def test_settling_orders_by_concept_and_loses_nothing(store: OmopStore) -> None:
    with store.load(SOURCE, now=MOMENT) as load:
        load.add_persons(persons(1, 2), np.array([1, 2]))
        for concept in (30, 10, 20, 10):
            load.add_events("measurement", measurements(2, 1, concept=concept), np.array([2, 1]))
    before = store.table("measurement").order_by("measurement_id").to_pyarrow()
    store.settle()
    rows = store.connection.con.execute(
        "SELECT measurement_concept_id, person_id FROM measurement"
    ).fetchall()
    assert rows == sorted(rows)
    assert store.table("measurement").order_by("measurement_id").to_pyarrow().equals(before)
    with (
        pytest.raises(duckdb.ConstraintException),
        store.load(Source("x", "x", "x", "x"), now=MOMENT) as load,
    ):
        load.add_events("measurement", measurements(1).drop_columns(["measurement_date"]), np.array([1]))


def test_the_epoch_changes_with_a_load_and_with_nothing_else(store: OmopStore) -> None:
    empty = store.epoch()
    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, 1)
    loaded = store.epoch()
    store.settle(always=True)
    assert store.epoch() == loaded != empty


def test_the_same_source_with_other_content_is_refused_until_somebody_decides(store: OmopStore) -> None:
    newer = Source("labs.csv", "bb", "labs", "m1")
    with store.load(SOURCE, now=MOMENT) as load:
        fill(load, 5, 6)
    with pytest.raises(AlreadyLoaded, match=r"labs\.csv"), store.load(newer, now=MOMENT) as load:
        fill(load, 5)
    assert number_of(store, "measurement") == 2
    with store.load(newer, now=MOMENT, again=Again.REPLACE) as load:
        fill(load, 5, 7)
    assert column_of(store, "person", "person_id") == [5, 7]
    assert number_of(store, "measurement") == number_of(store, "observation_period") == 2
    with store.load(Source("labs.csv", "cc", "labs", "m1"), now=MOMENT, again=Again.ADD) as load:
        fill(load, 8)
    assert number_of(store, "person") == 3


def test_replacing_keeps_persons_of_whom_other_files_speak(store: OmopStore) -> None:
    with store.load(SOURCE, now=MOMENT) as load:
        load.add_persons(persons(5, 6), np.array([1, 2]))
    with store.load(Source("other.csv", "dd", "labs", "m1"), now=MOMENT) as load:
        load.add_events("measurement", measurements(6), np.array([1]))
    with store.load(Source("labs.csv", "bb", "labs", "m1"), now=MOMENT, again=Again.REPLACE) as load:
        load.add_persons(persons(9), np.array([1]))
    assert column_of(store, "person", "person_id") == [6, 9]


def test_nobody_is_older_than_90_at_their_last_record(store: OmopStore) -> None:
    with store.load(SOURCE, now=MOMENT) as load:
        load.add_persons(persons(1, born=1935), np.array([1]))
        load.add_events("measurement", measurements(1, day=date(2020, 1, 1)), np.array([1]))
    assert column_of(store, "person", "year_of_birth") == [1935]
    with store.load(Source("later.csv", "bb", "labs", "m1"), now=MOMENT) as load:
        load.add_events("measurement", measurements(1, day=date(2031, 1, 1)), np.array([1]))
    assert column_of(store, "person", "year_of_birth") == [1941]


def test_local_concepts_get_names_once(store: OmopStore) -> None:
    for name in ("a", "b"):
        with store.load(Source(name, name, name, name), now=MOMENT) as load:
            load.name_concepts([LocalConcept(2_000_000_001, "Chest pain type", "Observation")])
    assert column_of(store, "concept", "concept_name") == ["Chest pain type"]
    with pytest.raises(ValueError, match="above"):
        LocalConcept(3004249, "not local", "Measurement")


def test_sql_reaches_no_file_and_no_extension(store: OmopStore, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n")
    cursor = store.connection.con
    for statement in (
        f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')",
        f"COPY person TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duckdb.Error):
            cursor.execute(statement)
    assert not (tmp_path / "out.csv").exists()


def test_the_file_is_its_owners_alone(store: OmopStore) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_limits_are_set(tmp_path: Path) -> None:
    with OmopStore.open(tmp_path / "s.duckdb", threads=1, memory_limit="512MB") as store:
        found = store.connection.con.execute(
            "SELECT current_setting('threads'), current_setting('memory_limit')"
        ).fetchone()
    assert found == (1, "488.2 MiB")


def test_a_reader_of_a_closed_store_opens_it_read_only(tmp_path: Path) -> None:
    OmopStore.open(tmp_path / "s.duckdb").close()
    with OmopStore.open(tmp_path / "s.duckdb", read_only=True) as store:
        assert number_of(store, "person") == 0
        with pytest.raises(duckdb.Error):
            store.connection.con.execute("DELETE FROM person")


def test_clear_errors(store: OmopStore, tmp_path: Path) -> None:
    with pytest.raises(NoSuchTable, match="'specimen'"):
        store.table("specimen")
    (tmp_path / "text.duckdb").write_text("not a database " * 1000)
    with pytest.raises(NotAStore):
        OmopStore.open(tmp_path / "text.duckdb")
    with pytest.raises(NotAStore, match="no such file"):
        OmopStore.open(tmp_path / "none.duckdb", read_only=True)


def test_another_tools_cdm_can_be_read(shared_data: Path) -> None:
    for name, people in (("omop_gibleed/GiBleed_5.4.duckdb", 2_694), ("omop_synthetic_5k/cdm.duckdb", 5_000)):
        with OmopStore.open(shared_data / name, read_only=True, schema="cdm") as store:
            assert store.counts()["person"] == people
            assert len(store.epoch()) == 32
