"""Questions on DuckDB: the node's own store, or a file that another tool made.

Guarantee: each question has a connection of its own with one read-only transaction, so that it sees one state
of the data, DuckDB itself refuses to write to the CDM, and what Circe makes in between (temporary tables,
which no other connection sees) is rolled back. No file but the store can be reached from SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import duckdb
import ibis
import pyarrow as pa
from ibis.expr.types import Table

from node.omop.errors import NoSuchTable, NotTheCdm, NoVocabulary
from node.omop.store import OmopStore
from node.queries import circe
from node.queries import cohort as cohorts
from node.queries.engine import NamedTables
from node.queries.limits import Limits, OutOfMemory, Stopper
from node.queries.shape import Parameters
from node.queries.statements import Statements
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused

SCHEMAS = ("cdm", "main")  # where a CDM lies: other tools use the first, ours the second
MEMBERS = {"person_id": "int64", "index_date": "date"}
PASSED = {"person_id": "int64", "rules": "int64"}


class DuckDbWarehouse:
    """The CDM in one open store. The caller closes the store, unless this opened it."""

    def __init__(self, store: OmopStore) -> None:
        self.store = store
        self.statements = Statements("duckdb")
        self._ours = False

    @classmethod
    def open(cls, path: Path, *, schema: str | None, limits: Limits) -> Self:
        """Open a file read-only, for `close` to close. Nothing is spilled beside it.

        Args: schema: where the CDM lies; None looks for `person` in `cdm`, then `main`.
        Raises: NotAStore, StoreBusy; NoSuchTable if there is no `person`.
        """
        store = OmopStore.open(
            path,
            read_only=True,
            schema="main",
            threads=limits.threads,
            memory_limit=limits.memory,
            spill=False,
        )
        try:
            store.schema = _schema_of(store, schema)
        except BaseException:
            store.close()
            raise
        warehouse = cls(store)
        warehouse._ours = True
        return warehouse

    def engine(self, limits: Limits) -> DuckDbEngine:
        """Return an engine for one question; of the limits only the time is this question's own."""
        return DuckDbEngine(self.store, self.statements, time_s=limits.time_s)

    def epoch(self) -> str:
        """Return a name for the present content (OmopStore.epoch)."""
        return self.store.epoch()

    def close(self) -> None:
        """Close the store if this opened it."""
        if self._ours:
            self.store.close()


class DuckDbEngine:
    """One question (node.queries.engine.CdmEngine)."""

    def __init__(self, store: OmopStore, statements: Statements, *, time_s: float) -> None:
        self._store = store
        self._statements = statements
        self._connection = store.cursor()
        self._made = 0
        self._stopper = Stopper(self._connection.interrupt, after_s=time_s)
        try:
            with self._errors():
                self._connection.execute("BEGIN TRANSACTION READ ONLY")
                self._tables = _present(self._connection, store.schema)
        except BaseException:
            self.close()
            raise

    def table(self, name: str) -> Table:
        """Return a table of the CDM. Raises: NoSuchTable."""
        return self._tables.table(name)

    def has(self, name: str) -> bool:
        """Return whether `table` would return one."""
        return self._tables.has(name)

    @contextmanager
    def members(self, cohort: Cohort | CirceCohort) -> Iterator[Table]:
        """Yield (person_id, index_date), each person once."""
        if isinstance(cohort, CirceCohort):
            program = self._program(cohort)
            with self._filled(program.members, columns=MEMBERS) as made:
                yield made
        else:
            yield cohorts.indexed_persons(cohort, self)

    @contextmanager
    def passed_rules(self, cohort: CirceCohort) -> Iterator[Table]:
        """Yield (person_id, rules)."""
        with self._filled(self._program(cohort).passed_rules, columns=PASSED) as made:
            yield made

    def rows(self, expression: Table) -> pa.Table:
        """Return the rows of a relation."""
        return self._fetched(self._statements.sql(expression), {}, expression)

    def rows_of_shape(self, shape: Hashable, build: Callable[[], Table], parameters: Parameters) -> pa.Table:
        """Return the rows of `build()` with `parameters` bound; its SQL is compiled once per shape."""
        kept = self._statements.kept((self._tables, shape), build, parameters)
        return self._fetched(kept.sql, parameters, kept.expression)

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon."""
        self._stopper.stop()

    def epoch(self) -> str:
        """Return a name for the present content."""
        return self._store.epoch()

    def close(self) -> None:
        """Roll back and close the connection."""
        self._stopper.close()
        self._connection.close()  # closing rolls back; temporary tables end with their connection

    def _program(self, cohort: CirceCohort) -> circe.Program:
        """The definition's statements, after checking that this CDM has what they read."""
        program = circe.program(cohort, circe.Dialect.DUCKDB)
        for name in sorted(program.tables - self._tables.present):
            raise NoSuchTable(name)  # the first of them
        if "concept" in program.tables:
            found = self._run(circe.Statement(circe.ANY_CONCEPT.format(place=self._place)))
            if found.fetchone() is None:
                raise NoVocabulary
        return program

    @property
    def _place(self) -> str:
        return f"{_quoted(self._tables.catalog or '')}.{_quoted(self._tables.schema)}"

    @contextmanager
    def _filled(
        self, steps: Callable[..., Iterator[circe.Statement]], *, columns: dict[str, str]
    ) -> Iterator[Table]:
        """Run the steps into a temporary table of these columns, dropped at the end."""
        self._made += 1
        name = f"fedtwin_made_{self._made}"
        for statement in steps(self._place, into=name):
            if statement.verb != "ANALYZE":  # DuckDB knows the size of a table that it has just filled
                self._run(statement)
        yield ibis.table(columns, name=name, catalog="temp", database="main")
        self._run(circe.Statement(f"DROP TABLE {name}"))

    def _run(self, statement: circe.Statement) -> duckdb.DuckDBPyConnection:
        with self._errors():
            return self._connection.execute(statement.sql, list(statement.texts))

    def _fetched(self, sql: str, parameters: Parameters, expression: Table) -> pa.Table:
        with self._errors():
            found = self._connection.execute(sql, parameters).to_arrow_table()
        return found.cast(expression.schema().to_pyarrow())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn DuckDB's errors into ours; none of its texts goes on."""
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
            if "person" in _present(cursor, schema).present:
                return schema
    finally:
        cursor.close()
    raise NoSuchTable("person")


def _present(connection: duckdb.DuckDBPyConnection, schema: str) -> NamedTables:
    """The tables and views in one schema of the store's own database, in lower case."""
    rows = connection.execute(
        "SELECT current_database(), lower(table_name) FROM information_schema.tables"
        " WHERE table_catalog = current_database() AND table_schema = ?",
        [schema],
    ).fetchall()
    return NamedTables(schema, frozenset(row[1] for row in rows), catalog=rows[0][0] if rows else "")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
