"""Questions on a hospital's PostgreSQL.

Guarantee: nothing stays behind. Each question is one transaction on a connection of its own, which sees one
state of the data and is rolled back whatever happens. What is fetched is fetched read-only; what Circe's
statements write is checked to be temporary. The server itself ends a statement at the time limit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Self

import ibis
import psycopg
import pyarrow as pa
from ibis.expr.types import Table
from psycopg.sql import SQL, Identifier

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm
from node.omop.tables import EVENT_TABLES
from node.queries.circe import Dialect, Statement
from node.queries.engine import CdmEngine, NamedTables
from node.queries.limits import Limits, OutOfMemory, Stopper
from node.queries.shape import Parameters
from node.queries.statements import Statements
from protocols.refusal import RefusalCode, Refused

SCHEMAS = ("cdm", "public")  # where a CDM lies on PostgreSQL
APPLICATION = "fedtwin"  # how the server's own views show our connections
_CONNECT_S = 10
_CANCEL_AGAIN_S = 0.5  # each is a connection to the server
_MARK = re.compile(r"\$(n\d+)")


class PostgresWarehouse:
    """The CDM in one schema of a server. Holds no connection between questions."""

    def __init__(self, url: str, tables: NamedTables, *, data_version: int) -> None:
        """Use `open`."""
        self._url = url
        self._data_version = data_version
        self._tables = tables
        self._statements = Statements("postgres")

    @classmethod
    def open(cls, url: str, *, schema: str | None, data_version: int = 0) -> Self:
        """Connect once, to look for the CDM.

        Args:
            url: without a password: libpq takes it from the file that PGPASSFILE or the URL's `passfile`
                names, or from a service file.
            schema: where the CDM lies; None looks for `person` in `cdm`, then `public`.
        Raises: NotAStore if the server is away or does not let us in; NoSuchTable if there is no `person`.
        """
        with closing(_connected(url)) as connection:
            return cls(url, _found(connection, schema), data_version=data_version)

    def engine(self, limits: Limits) -> CdmEngine:
        """Return an engine for one question. Raises: NotAStore."""
        session = _Session(_connected(self._url), self._tables, time_s=limits.time_s)
        return CdmEngine(session, self._statements, epoch=self.epoch)

    def epoch(self) -> str:
        """Return a name for the present content, as far as it can be seen."""
        with closing(_connected(self._url)) as connection:
            return f"{_epoch(connection, self._tables)}-{self._data_version}"

    def close(self) -> None:
        """Nothing is open between questions."""


class _Session:
    """One question's transaction (node.queries.engine.Session)."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, connection: psycopg.Connection, tables: NamedTables, *, time_s: float) -> None:
        self._connection = connection
        self.tables = tables
        self._stopper = Stopper(self._cancel, after_s=time_s, again_s=_CANCEL_AGAIN_S)

    @property
    def place(self) -> str:
        """The schema, quoted."""
        return '"' + self.tables.schema.replace('"', '""') + '"'

    def temporary(self, name: str, columns: dict[str, str]) -> Table:
        """Return a temporary table as a relation."""
        return ibis.table(columns, name=name, database="pg_temp")

    def run(self, statement: Statement) -> None:
        """Execute what writes a temporary table."""
        with self._errors():
            # The planner guesses a handful of rows for Circe's nested subqueries and loops over thousands:
            # one of 100 sampled cohorts went from over 25 s to 0.7 s without nested loops, none became slow.
            self._execute("SET LOCAL enable_nestloop = off")
            self._execute(statement.sql, list(statement.texts))

    def fetched(self, sql: str, parameters: Parameters, columns: ibis.Schema) -> pa.Table:
        """Return the rows of a query that may not write."""
        values: list[int | float] = []

        def mark(found: re.Match[str]) -> str:
            values.append(parameters[found[1]])
            return f"${len(values)}"

        sql = _MARK.sub(mark, sql)
        with self._errors():
            self._execute("SAVEPOINT reading")
            self._execute("SET TRANSACTION READ ONLY")  # until the savepoint is gone
            self._execute("SET LOCAL enable_nestloop = on")
            rows = self._execute(sql, values).fetchall()
            self._execute("ROLLBACK TO reading")
        found = zip(*rows, strict=True) if rows else ((),) * len(columns)
        wanted = columns.to_pyarrow()
        return pa.Table.from_arrays(
            [pa.array(list(column)).cast(field.type) for column, field in zip(found, wanted, strict=True)],
            schema=wanted,
        )

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon."""
        self._stopper.stop()

    def close(self) -> None:
        """Roll back and leave."""
        self._stopper.close()
        self._connection.close()  # the server rolls back what was not committed

    def _cancel(self) -> None:
        with suppress(psycopg.Error):  # the server is gone: nothing runs there
            self._connection.cancel_safe(timeout=_CONNECT_S)

    def _execute(self, sql: str, values: list[Any] | None = None) -> psycopg.RawCursor:
        """Execute one statement within the time that is left."""
        left_ms = int(self._stopper.left_s * 1000)
        if left_ms <= 0:
            raise Refused(RefusalCode.DEADLINE)
        cursor = psycopg.RawCursor(self._connection)
        cursor.execute("SELECT set_config('statement_timeout', $1, true)", [str(left_ms)])
        return cursor.execute(sql.encode(), values or None)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.QueryCanceled:
            raise Refused(RefusalCode.DEADLINE) from None
        except (
            psycopg.errors.OutOfMemory,
            psycopg.errors.DiskFull,
            psycopg.errors.ConfigurationLimitExceeded,
        ):
            raise OutOfMemory from None  # the last: temp_file_limit
        except (
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedFunction,
            psycopg.errors.DatatypeMismatch,
        ):
            raise NotTheCdm from None
        except psycopg.OperationalError:
            raise NotAStore("the PostgreSQL server went away") from None


def _connected(url: str) -> psycopg.Connection:
    """A connection on which nothing is ever committed."""
    try:
        connection = psycopg.connect(url, connect_timeout=_CONNECT_S, application_name=APPLICATION)
    except psycopg.Error:
        raise NotAStore("the PostgreSQL server is away, or does not let us in") from None
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # one state of the data
    return connection


def _epoch(connection: psycopg.Connection, tables: NamedTables) -> str:
    """A digest of what the server's counters and the largest ids say about the tables that questions read."""
    ids = {"person": "person_id", "observation_period": "observation_period_id"}
    ids |= {table.name: table.id for table in EVENT_TABLES.values()}
    digest = hashlib.sha256()
    for name, column in sorted(ids.items()):
        if not tables.has(name):
            continue
        counters = connection.execute(
            "SELECT c.oid, pg_relation_filenode(c.oid), s.n_tup_ins, s.n_tup_upd, s.n_tup_del"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE n.nspname = %s AND c.relname = %s",
            [tables.schema, name],
        ).fetchone()
        largest = connection.execute(
            SQL("SELECT max({}) FROM {}").format(Identifier(column), Identifier(tables.schema, name))
        ).fetchone()
        digest.update(f"{name} {counters} {largest}\n".encode())
    return digest.hexdigest()[:32]


def _found(connection: psycopg.Connection, asked: str | None) -> NamedTables:
    """The schema that holds `person`, and the names of its tables and views."""
    for schema in SCHEMAS if asked is None else (asked,):
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema]
        ).fetchall()
        present = frozenset(str(row[0]) for row in rows)
        if "person" in present:
            return NamedTables(schema, present)
    raise NoSuchTable("person")
