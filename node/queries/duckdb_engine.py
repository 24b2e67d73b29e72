"""Questions on DuckDB: the node's own store, or a file that another tool made.

Guarantee: each question has a connection of its own with one read-only transaction, so that it sees one state
of the data, DuckDB itself refuses to write to the CDM, and what Circe makes in between (temporary tables,
which no other connection sees) is rolled back. No file but the store can be reached from SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import duckdb
import ibis
import pyarrow as pa
from ibis.expr.types import Table

from node.omop.errors import NoSuchTable, NotTheCdm
from node.omop.store import OmopStore
from node.queries.circe import Dialect, Statement
from node.queries.engine import CdmEngine, NamedTables
from node.queries.limits import Limits, OutOfMemory, Stopper
from node.queries.shape import Parameters
from node.queries.statements import Statements
from protocols.refusal import RefusalCode, Refused

SCHEMAS = ("cdm", "main")  # where a CDM lies: other tools use the first, ours the second


class DuckDbWarehouse:
    """The CDM in one open store, which its opener closes."""

    def __init__(self, store: OmopStore, *, data_version: int = 0) -> None:
        self._store = store
        self._data_version = data_version
        self._statements = Statements("duckdb")
        self._tables: NamedTables | None = None

    @classmethod
    def open(cls, path: Path, *, schema: str | None, limits: Limits, data_version: int = 0) -> Self:
        """Open a file read-only. Nothing is spilled beside it.

        Args: schema: where the CDM lies; None looks for `person` in `cdm`, then `main`.
        Raises: NotAStore, StoreBusy; NoSuchTable if there is no `person`.
        """
        store = OmopStore.open(
            path, read_only=True, threads=limits.threads, memory_limit=limits.memory, spill=False
        )
        try:
            store.schema = _schema_of(store, schema)
        except BaseException:
            store.close()
            raise
        return cls(store, data_version=data_version)

    def engine(self, limits: Limits) -> CdmEngine:
        """Return an engine for one question; of the limits only the time is this question's own."""
        session = _Session(self._store, time_s=limits.time_s, tables=self._tables)
        if self._store.read_only:  # nobody can write while we hold it, and asking costs 2 ms a question
            self._tables = session.tables
        return CdmEngine(session, self._statements, epoch=self.epoch)

    def epoch(self) -> str:
        """Return a name for the present content (OmopStore.epoch, and the data version)."""
        return f"{self._store.epoch()}-{self._data_version}"

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class _Session:
    """One question's connection (node.queries.engine.Session)."""

    dialect = Dialect.DUCKDB

    def __init__(self, store: OmopStore, *, time_s: float, tables: NamedTables | None = None) -> None:
        """Args: tables: those of the store, where they are known."""
        self._connection = store.cursor()
        self._stopper = Stopper(self._connection.interrupt, after_s=time_s)
        try:
            with self._errors():
                self._connection.execute("BEGIN TRANSACTION READ ONLY")
                self.tables = tables or _found(self._connection, store.schema)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """Database and schema: a file `cdm.duckdb` with a schema `cdm` would be ambiguous without."""
        return f"{_quoted(self.tables.catalog or '')}.{_quoted(self.tables.schema)}"

    def temporary(self, name: str, columns: dict[str, str]) -> Table:
        """Return a temporary table as a relation; `temp.main` is where DuckDB keeps a connection's."""
        return ibis.table(columns, name=name, catalog="temp", database="main")

    def run(self, statement: Statement) -> None:
        """Execute what writes a temporary table."""
        if statement.verb == "ANALYZE":
            return  # DuckDB knows the size of what it has just filled
        with self._errors():
            self._connection.execute(statement.sql, list(statement.texts))

    def fetched(self, sql: str, parameters: Parameters, columns: ibis.Schema) -> pa.Table:
        """Return the rows of a query."""
        with self._errors():
            found = self._connection.execute(sql, parameters).to_arrow_table()
        return found.cast(columns.to_pyarrow())

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon."""
        self._stopper.stop()

    def close(self) -> None:
        """Roll back: temporary tables end with their connection."""
        self._stopper.close()
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if not self._stopper.left_s:
            raise Refused(RefusalCode.DEADLINE)
        try:
            yield
        except duckdb.InterruptException:
            raise Refused(RefusalCode.DEADLINE) from None
        except duckdb.OutOfMemoryException:
            raise OutOfMemory from None
        except duckdb.BinderException:
            raise NotTheCdm from None


def _schema_of(store: OmopStore, asked: str | None) -> str:
    cursor = store.cursor()
    try:
        for schema in SCHEMAS if asked is None else (asked,):
            if "person" in _found(cursor, schema).present:
                return schema
    finally:
        cursor.close()
    raise NoSuchTable("person")


def _found(connection: duckdb.DuckDBPyConnection, schema: str) -> NamedTables:
    """The tables and views in one schema of the store's own database, in lower case."""
    rows = connection.execute(
        "SELECT current_database(), lower(table_name) FROM information_schema.tables"
        " WHERE table_catalog = current_database() AND table_schema = ?",
        [schema],
    ).fetchall()
    return NamedTables(schema, frozenset(row[1] for row in rows), catalog=rows[0][0] if rows else "")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
