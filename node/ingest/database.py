"""Rows of any SQL database under a mapping, through SQLAlchemy: streamed, in the order of a key, only read.

    with open_database("postgresql://reader@db.hospital.org/lis") as database:
        table = database.rows(mapping)   # reads all rows once, for their digest
        table.sha256                     # of the rows: the same rows are loaded once
        table.batches(batch_rows=...)    # reads them again

Guarantee: one transaction for both readings, read-only and of one moment where the database can do that
(PostgreSQL, SQLite, MySQL, MariaDB, Oracle); rows that were others the second time are an error, not a load.
Of the columns only those that the mapping uses, and its key, leave the database. No password is taken from
the URL, which the list of processes shows: the driver finds it (PGPASSWORD, ~/.pgpass, an option file, a
wallet). No message of a driver is passed on, because it may quote a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import event, exc

from node.ingest.errors import DatabaseAway, NoDriver, NotSuchUrl, UnreadableSource
from node.ingest.mapping import Mapping
from node.ingest.mapping_parts import Rows
from node.ingest.typed_columns import REPLACED, mappable, on_clock

DIGEST_ROWS = 20_000  # at a time, while rows are only digested
_SECRETS = ("password", "passwd", "pwd", "secret", "token")
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_EXTRAS = {"psycopg": "'fedtwin[node,postgres]'"}
_READ_ONLY = {  # how a transaction of one moment, that cannot write, begins
    "sqlite": ("PRAGMA query_only = ON", "BEGIN"),
    "mysql": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION READ ONLY"),
    "oracle": ("SET TRANSACTION READ ONLY",),
}
_READ_ONLY["mariadb"] = _READ_ONLY["mysql"]


@dataclass(slots=True)
class RowsTable:
    """The rows of one table or query. Iterate `batches` once."""

    name: str
    mapping: Mapping
    unknown_columns: tuple[str, ...]
    reading: _Reading
    bytes_total: int = 0  # rows: a database does not say bytes
    sha256: str = ""
    wrong_width: list[int] = field(default_factory=list)  # no row of a table has
    not_text: list[int] = field(default_factory=list)  # rows in which a used column is no text
    bytes_done: int = 0

    def batches(self, *, batch_rows: int) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the used columns as text and dates, and the number of each row in the key's order (from 1).

        Raises: UnreadableSource if they cannot be read, or are no longer those of the digest.
        """
        used = sorted(self.mapping.used_columns())
        digest = hashlib.sha256(self.reading.title())
        for rows, first in self.reading.parts(batch_rows):
            _add(digest, rows)
            self.bytes_done = first + len(rows) - 1
            numbers = np.arange(first, first + len(rows))
            bad = np.zeros(len(rows), dtype=bool)
            columns = [self._column(name, rows, bad) for name in used]
            if bad.any():
                self.not_text += numbers[bad].tolist()
                good = pa.array(~bad)
                columns, numbers = [column.filter(good) for column in columns], numbers[~bad]
            yield pa.RecordBatch.from_arrays(columns, names=used), numbers
        if digest.hexdigest() != self.sha256:
            raise UnreadableSource(self.name, "the rows changed while they were read; start it again")

    def _column(self, name: str, rows: Sequence[Sequence[Any]], bad: np.ndarray) -> pa.Array:
        place = self.reading.columns.index(name)
        values = [row[place] for row in rows]
        kinds = {type(value) for value in values} - {type(None)}
        if kinds and all(issubclass(kind, date) for kind in kinds):
            if any(issubclass(kind, datetime) for kind in kinds):
                moments = [_as_moment(value, self.mapping.zone) for value in values]
                return mappable(pa.array(moments, pa.timestamp("us")), zone=self.mapping.zone)
            return mappable(pa.array(values, pa.date32()), zone=self.mapping.zone)
        texts = []
        for number, value in enumerate(values):
            text = _text(value)
            if text is None:
                if not isinstance(value, bytes | bytearray | memoryview):
                    raise UnreadableSource(self.name, f"the mapping's column '{name}' holds no flat values")
                bad[number] = True
            elif REPLACED in text or not _is_unicode(text):
                text, bad[number] = "", True
            texts.append(text or "")
        return pa.array(texts, pa.string())


@dataclass(frozen=True, slots=True)
class _Reading:
    """One SELECT on an open connection."""

    name: str
    connection: sa.Connection
    statement: sa.Select[Any]
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def title(self) -> bytes:
        return repr((self.columns, self.key)).encode()

    def parts(self, size: int) -> Iterator[tuple[Sequence[Sequence[Any]], int]]:
        """Yield rows, and the number of the first of them. Raises: UnreadableSource."""
        places = [self.columns.index(name) for name in self.key]
        before: tuple[Any, ...] | None = None
        first = 1
        with _told_as(self.name, "a row cannot be read, or the database went away"):
            streamed = self.connection.execution_options(stream_results=True, yield_per=size)
            with streamed.execute(self.statement) as result:
                for rows in result.partitions(size):
                    for row in rows:
                        key = tuple(row[place] for place in places)
                        if key == before:
                            raise UnreadableSource(
                                self.name, f"the key is not unique: {', '.join(self.key)} (see row {first})"
                            )
                        before = key
                    yield rows, first
                    first += len(rows)


@dataclass(frozen=True, slots=True)
class Database:
    """An open database, in a transaction that is rolled back in the end."""

    name: str
    connection: sa.Connection

    def rows(self, mapping: Mapping) -> RowsTable:
        """Return the table of a mapping with its digest, for which all rows are read.

        Raises: UnreadableSource if a column that the mapping uses is not there, a name stands twice, the key
            is not unique, or the rows cannot be read; ValueError for a mapping without `sql`.
        """
        if mapping.sql is None:
            raise ValueError(f"the mapping {mapping.name} does not say which rows (sql)")
        name = f"{self.name} {mapping.name}"
        origin = _origin(mapping.sql)
        with _told_as(name, "the database does not know the table, or does not take the query"):
            nothing: sa.Select[Any] = (
                sa.select(sa.literal_column("*")).select_from(origin("all_of")).where(sa.text("1 = 0"))
            )
            with self.connection.execute(nothing) as result:
                there = tuple(result.keys())
        if len(set(there)) != len(there):
            raise UnreadableSource(name, "a column name stands twice")
        for needed in sorted(mapping.used_columns() | set(mapping.sql.key)):
            if needed not in there:
                raise UnreadableSource(name, f"the mapping's column '{needed}' is not in the rows")
        known = mapping.used_columns() | mapping.identifiers | mapping.ignored | set(mapping.sql.key)
        columns = tuple(sorted(mapping.used_columns() | set(mapping.sql.key)))
        picked: list[sa.ColumnClause[Any]] = [sa.column(column) for column in columns]
        ordered: list[sa.ColumnClause[Any]] = [sa.column(column) for column in mapping.sql.key]
        statement = sa.select(*picked).select_from(origin("needed")).order_by(*ordered)
        reading = _Reading(name, self.connection, statement, columns, mapping.sql.key)
        table = RowsTable(name, mapping, tuple(column for column in there if column not in known), reading)
        digest = hashlib.sha256(reading.title())
        for rows, first in reading.parts(DIGEST_ROWS):
            _add(digest, rows)
            table.bytes_total = first + len(rows) - 1
        table.sha256 = digest.hexdigest()
        return table


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Open a database to read from it.

    Args:
        url: as SQLAlchemy takes it, without a password.
    Raises: NotSuchUrl, NoDriver, DatabaseAway.
    """
    named = parse_url(url)
    name = _name(named)
    dialect = named.get_backend_name()
    try:
        engine = sa.create_engine(named, poolclass=sa.NullPool, hide_parameters=True)
    except exc.NoSuchModuleError:
        raise NotSuchUrl(f"no kind of database that SQLAlchemy knows here: {named.drivername}") from None
    except ModuleNotFoundError as error:
        library = error.name or named.drivername
        raise NoDriver(dialect, library, _EXTRAS.get(library, library)) from None
    except (exc.ArgumentError, TypeError, ValueError):
        raise NotSuchUrl("not a URL of a database, such as postgresql://USER@HOST/NAME") from None
    if dialect == "sqlite":
        if not (named.database and Path(named.database).is_file()):
            raise DatabaseAway(name)  # SQLite would make an empty one
        event.listen(engine, "connect", _replacing)
    try:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        connection = engine.connect()
        try:
            if dialect == "postgresql":
                connection.execution_options(**options)
                connection.execute(sa.text("SELECT set_config('TimeZone', 'UTC', true)"))
            for statement in _READ_ONLY.get(dialect, ()):
                connection.exec_driver_sql(statement)
        except BaseException:
            connection.close()
            raise
    except exc.SQLAlchemyError:
        engine.dispose()
        raise DatabaseAway(name) from None
    try:
        yield Database(name, connection)
    finally:
        connection.invalidate()  # what is open ends with the connection: nothing was written
        connection.close()
        engine.dispose()


def parse_url(text: str) -> sa.URL:
    """Return the URL with the driver that we bring for its kind. Raises: NotSuchUrl.

    >>> parse_url("postgresql://reader@db/lis").drivername
    'postgresql+psycopg'
    """
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise NotSuchUrl("not a URL of a database, such as postgresql://USER@HOST/NAME") from None
    named = " ".join(url.query).lower()
    within = str(list(url.query.values())).lower().replace(" ", "")  # ODBC's own string: DRIVER=X;PWD=Y
    if url.password or any(word in named or f"{word}=" in within for word in _SECRETS):
        raise NotSuchUrl(
            "the URL of a database holds no password: put it where the driver looks for it by itself"
            " (PostgreSQL: PGPASSWORD or ~/.pgpass; MySQL: ?read_default_file=PATH; Oracle: a wallet)"
        )
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _name(url: sa.URL) -> str:
    """What the provenance shows: kind, host and database; no user, no path of a file."""
    where = [url.host, PurePath(url.database).name if url.database else None]
    return f"{url.get_backend_name()}:" + "/".join(part for part in where if part)


def _origin(rows: Rows) -> Any:
    if rows.table is not None:
        schema, _, table = rows.table.rpartition(".")
        return lambda _alias: sa.table(table, schema=schema or None)
    query = sa.text(
        (rows.query or "").replace("\\", "\\\\").replace(":", "\\:")
    )  # nothing in it is a parameter
    return lambda alias: query.columns().subquery(alias)


@contextmanager
def _told_as(name: str, words: str) -> Iterator[None]:
    """A driver's message may quote the row: none of it is passed on."""
    try:
        yield
    except (exc.SQLAlchemyError, UnicodeError, OverflowError, ValueError):
        raise UnreadableSource(name, words) from None


def _replacing(connection: Any, _record: Any) -> None:
    """SQLite holds bytes that are no text where text is declared; its driver would end the reading there."""
    connection.text_factory = lambda raw: raw.decode(errors="replace")


def _add(digest: Any, rows: Sequence[Sequence[Any]]) -> None:
    for row in rows:
        digest.update(repr([_digestible(value) for value in row]).encode(errors="surrogatepass"))


def _digestible(value: Any) -> Any:
    """The same for the same value, whatever the session's zone and the driver's classes."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return on_clock(value, "UTC").isoformat() + "Z"
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _as_moment(value: Any, zone: str) -> datetime | None:
    if isinstance(value, datetime):
        return on_clock(value, zone)
    return None if value is None else datetime.combine(value, time())


def _text(value: Any) -> str | None:
    """The text of a value as that of a typed column (node.ingest.typed_columns); None if it has none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2.0**53 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
