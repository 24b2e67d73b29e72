"""How a warehouse is named, configured, stopped, and how it is seen that its data changed."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg
import pytest

from node.home import MalformedConfig, NodeConfig
from node.omop.errors import NotAStore, PasswordInUrl, UnknownStore
from node.queries.engine import CdmEngine
from node.queries.exact_count import counted
from node.queries.limits import Limits
from node.queries.running import RunningQuestion
from node.queries.warehouse import open_warehouse
from node.store_url import StoreKind, StoreUrl
from protocols.ids import ConsortiumId, NodeId
from protocols.refusal import RefusalCode, Refused
from tests.node.engines import LIMITS, copied
from tests.node.test_engines import endless, every_event

CONFIG = NodeConfig(NodeId.new(), "A hospital", ConsortiumId.new(), bytes(32), "a.test:1", "a.test:2")
NAMED = {
    "/data/cdm.duckdb": (StoreKind.DUCKDB, "/data/cdm.duckdb"),
    "duckdb:///data/cdm.duckdb": (StoreKind.DUCKDB, "/data/cdm.duckdb"),
    "postgresql://me@host:5433/db?sslmode=verify-full": (
        StoreKind.POSTGRESQL,
        "postgresql://me@host:5433/db?sslmode=verify-full",
    ),
    "postgres:///db?host=/run/postgresql": (StoreKind.POSTGRESQL, "postgres:///db?host=/run/postgresql"),
    "spark:local[2]": (StoreKind.SPARK, "local[2]"),
    "spark:spark://host:7077": (StoreKind.SPARK, "spark://host:7077"),
    "spark://host:7077": (StoreKind.SPARK, "spark://host:7077"),
}


@pytest.mark.parametrize("url", NAMED)
def test_a_url_names_a_kind_and_what_its_driver_takes(url: str) -> None:
    assert StoreUrl.parse(url) == StoreUrl(*NAMED[url])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sesame@host/db",
        "postgres://me:sesame@/db",
        "postgresql://host/db?user=me&password=sesame",
        "postgresql://host/db?password=",
    ],
)
def test_a_url_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(PasswordInUrl) as refused:
        StoreUrl.parse(url)
    assert "sesame" not in str(refused.value)
    with pytest.raises(MalformedConfig) as wrong:
        NodeConfig.parse(CONFIG.to_toml() + f'store = "{url}"\n')
    assert "sesame" not in str(wrong.value)


@pytest.mark.parametrize("url", ["mysql://host/db", "duckdb://", "", "://", "spark:"])
def test_a_url_of_no_kind_that_we_read_is_refused(url: str) -> None:
    with pytest.raises(UnknownStore):
        StoreUrl.parse(url)


def test_the_warehouse_in_a_config_reads_back_and_may_be_missing() -> None:
    assert (CONFIG.store, CONFIG.schema, CONFIG.memory, CONFIG.data_version) == ("", "", "", 0)
    full = replace(CONFIG, store="postgresql://host/db", schema="cdm", memory="8GB", data_version=3)
    assert NodeConfig.parse(full.to_toml()) == full
    assert "store" not in CONFIG.to_toml()
    for wrong in (
        'memory = "lots"',
        "data_version = -1",
        'data_version = "1"',
        "data_version = true",
        "store = 1",
        'store = "mysql://host/db"',
        'password = "sesame"',
    ):
        with pytest.raises(MalformedConfig):
            NodeConfig.parse(CONFIG.to_toml() + wrong + "\n")


def test_a_running_question_can_be_stopped_before_and_while_it_runs(generated: Path) -> None:
    warehouse = open_warehouse(str(generated), schema="main", limits=LIMITS)
    try:
        before: RunningQuestion[int] = RunningQuestion(
            lambda engine: counted(every_event(), engine), lambda: warehouse, limits=LIMITS
        )
        before.interrupt()
        with pytest.raises(Refused) as refused:
            before()
        assert refused.value.code is RefusalCode.DEADLINE

        def ask(engine: CdmEngine) -> int:
            return engine.rows(endless(engine)).num_rows

        during = RunningQuestion(ask, lambda: warehouse, limits=LIMITS)
        threading.Timer(0.2, during.interrupt).start()
        began = time.monotonic()
        with pytest.raises(Refused):
            during()
        assert time.monotonic() - began < 20
        after = RunningQuestion(
            lambda engine: counted(every_event(), engine), lambda: warehouse, limits=LIMITS
        )
        assert after() > 0
    finally:
        warehouse.close()


def test_a_database_that_went_away_is_not_ready() -> None:
    def gone() -> None:
        raise NotAStore("the server is away")

    with pytest.raises(Refused) as refused:
        RunningQuestion(lambda engine: 1, gone, limits=LIMITS)()  # type: ignore[arg-type, return-value]
    assert refused.value.code is RefusalCode.NOT_READY


def test_the_epoch_of_a_duckdb_file_changes_with_its_data(generated: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(generated, tmp_path / "other.duckdb"))
    with duckdb.connect(str(path)) as made:
        made.execute("DROP TABLE fedtwin_load")  # as another tool's

    def epoch(data_version: int = 0) -> str:
        warehouse = open_warehouse(str(path), schema=None, limits=LIMITS, data_version=data_version)
        try:
            return warehouse.epoch()
        finally:
            warehouse.close()

    first = epoch()
    assert epoch() == first != epoch(data_version=1)
    with duckdb.connect(str(path)) as made:
        made.execute("DELETE FROM measurement WHERE measurement_id = 1")
    assert epoch() != first


def test_the_epoch_of_a_postgresql_cdm_changes_with_its_data(generated: Path, server: str) -> None:
    copied(generated, "main", server, "counted")
    warehouse = open_warehouse(server, schema="counted", limits=LIMITS)
    first = settled = warehouse.epoch()
    for _ in range(20):  # the server's counters of the copy itself come in a moment later
        time.sleep(0.2)
        first, settled = settled, warehouse.epoch()
        if first == settled:
            break
    assert warehouse.epoch() == first
    with psycopg.connect(server) as connection:
        connection.execute("INSERT INTO counted.measurement (measurement_id, person_id) VALUES (999999, 1)")
    with_one_more = warehouse.epoch()
    assert with_one_more != first
    engine = warehouse.engine(Limits(time_s=30))
    assert engine.epoch() == warehouse.epoch()
    engine.close()
