"""The exact number of persons in a cohort on one database: for the hospital's own staff, never for the wire.

Guarantee: the database is only read. A DuckDB file is attached read-only under a database in memory, which
holds what Circe writes in between; PostgreSQL is `node.queries.postgres_count`. A count stops at its time
limit, and DuckDB at its memory limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm, NoVocabulary, StoreBusy, UnknownStore
from node.omop.store import OmopStore
from node.queries import circe
from node.queries import cohort as cohorts
from node.queries.limits import Limits, OutOfMemory, stopping
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused

SCHEMAS = ("cdm", "main")  # where a CDM lies: other tools use the first, this one the second
_VIEWS = "cdm"  # the schema in memory that shows the file's tables to Circe


def count(cohort: Cohort | CirceCohort, store: str, *, schema: str | None, limits: Limits) -> int:
    """Return the exact number of persons of the cohort in one store.

    Args:
        store: the path of a DuckDB file, `duckdb:///PATH` or `postgresql://…`.
        schema: where the CDM's tables lie; None looks for `person` in `cdm`, then `main` (`public`).
    Raises: UnknownStore, NotAStore, StoreBusy, NoSuchTable, NotTheCdm, NoVocabulary; Refused(DEADLINE);
        OutOfMemory; MalformedCohort if Circe has no meaning for the definition.
    """
    if store.startswith(("postgresql://", "postgres://")):
        from node.queries import postgres_count  # needs a driver that a node without PostgreSQL does not

        return postgres_count.count(cohort, store, schema=schema, limits=limits)
    store = store.removeprefix("duckdb://")
    if "://" in store:
        raise UnknownStore
    try:
        if isinstance(cohort, CirceCohort):
            return _count_circe(cohort, Path(store), schema, limits)
        return _count_ours(cohort, Path(store), schema, limits)
    except duckdb.InterruptException:
        raise Refused(RefusalCode.DEADLINE) from None
    except duckdb.OutOfMemoryException:
        raise OutOfMemory(limits.memory) from None
    except duckdb.BinderException:
        raise NotTheCdm from None


def _count_ours(cohort: Cohort, path: Path, schema: str | None, limits: Limits) -> int:
    with _attached(path, limits) as connection:
        place = _schema(connection, schema)
    with OmopStore.open(
        path, read_only=True, schema=place, threads=limits.threads, memory_limit=limits.memory
    ) as store:
        connection = store.connection.con
        with stopping(connection.interrupt, after_s=limits.time_s):
            return cohorts.count(cohort, store)


def _count_circe(cohort: CirceCohort, path: Path, schema: str | None, limits: Limits) -> int:
    parts = circe.statements(cohort, circe.Dialect.DUCKDB, schema=_VIEWS)
    with _attached(path, limits) as connection:
        place = _schema(connection, schema)
        present = _tables(connection, place)
        needed = circe.tables(parts, schema=_VIEWS)
        for name in sorted(needed - present):
            raise NoSuchTable(name)  # the first of them
        connection.execute(f"CREATE SCHEMA {_VIEWS}")
        for name in sorted(present):
            table = f"hospital.{_quoted(place)}.{_quoted(name)}"
            connection.execute(f"CREATE VIEW {_VIEWS}.{_quoted(name)} AS SELECT * FROM {table}")  # noqa: S608 (quoted)
        if (
            "concept" in needed
            and connection.execute(circe.ANY_CONCEPT.format(schema=_VIEWS)).fetchone() is None
        ):
            raise NoVocabulary
        connection.execute(circe.RESULT_DDL)
        with stopping(connection.interrupt, after_s=limits.time_s) as late:
            for part in parts:
                if late():
                    raise Refused(RefusalCode.DEADLINE)
                connection.execute(part.sql, list(part.texts))
            row = connection.execute(circe.PERSONS).fetchone()
    assert row is not None, "a count always returns one row"
    return int(row[0])


@contextmanager
def _attached(path: Path, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the file attached read-only as `hospital`; no other file can be reached."""
    if not path.is_file():
        raise NotAStore(f"{path}: no such file")
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": limits.memory,
            "temp_directory": "",  # records are not spilled to wherever the command was started
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            **({} if limits.threads is None else {"threads": limits.threads}),
        },
    )
    try:
        try:
            connection.execute(f"ATTACH {_literal(str(path))} AS hospital (TYPE duckdb, READ_ONLY)")
        except duckdb.Error as error:
            if "lock" in str(error).lower():
                raise StoreBusy(f"{path}: open in another process") from None
            raise NotAStore(f"{path}: not a DuckDB database that this version reads") from None
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def _schema(connection: duckdb.DuckDBPyConnection, asked: str | None) -> str:
    for schema in SCHEMAS if asked is None else (asked,):
        if "person" in _tables(connection, schema):
            return schema
    raise NoSuchTable("person")


def _tables(connection: duckdb.DuckDBPyConnection, schema: str) -> frozenset[str]:
    """The names of the tables and views in one schema of the attached file, in lower case."""
    rows = connection.execute(
        "SELECT lower(table_name) FROM information_schema.tables"
        " WHERE table_catalog = 'hospital' AND table_schema = ?",
        [schema],
    ).fetchall()
    return frozenset(row[0] for row in rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
