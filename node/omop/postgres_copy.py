"""The store's CDM once more, in a schema of a PostgreSQL server.

Guarantee: whoever reads the schema sees all of the old copy or all of the new one, in one transaction too.
The copy is built beside it, and takes its place while nobody has the old one in use; a digest of every table,
made by both databases from their own rows, was compared before. The same content a second time is compared
and changes nothing. A schema that this module did not make is never touched. Rights to read are carried over.

What is copied are the CDM's tables: pseudonyms and moved dates as in the store, so the schema deserves the
same protection. The node's own tables (provenance, quarantine, who withdrew) stay in the store.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg.sql import SQL, Identifier, Literal

from node.omop.errors import CopyDiffers, NotAStore, NotOurCopy, StoreBusy
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES, Field, Table, cdm_tables

BATCH_ROWS = 50_000  # some 10 MB of text
MARK = "fedtwin copy "  # of the schema's comment; the digest follows
SWAP_WAIT_S = 600.0  # to find a moment when no question reads
_LOCK_MS = 500  # below the server's deadlock_timeout (1 s): we give way, and never a reader
_CONNECT_S = 10
_APPLICATION = "fedtwin copy"
_SEPARATOR, _NOTHING = 31, 30  # between fields, and in place of null: signs that no text of the CDM has

Watcher = Callable[[str, int, int], None]  # table, rows done, rows in all


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy came to."""

    schema: str
    rows: dict[str, int]
    digest: str
    unchanged: bool


def copy_to(
    store: OmopStore,
    url: str,
    *,
    schema: str = "cdm",
    watch: Watcher = lambda *_: None,
    swap_wait_s: float = SWAP_WAIT_S,
) -> CopyReport:
    """Copy the CDM of `store` into `schema` of the server at `url`.

    Args:
        url: without a password (node.store_url); libpq finds one in PGPASSWORD, PGPASSFILE or ~/.pgpass.
        swap_wait_s: how long to wait for a moment when nobody reads the old copy.
    Raises: NotAStore if the server is away, lets us not in or fails; NotOurCopy; StoreBusy; CopyDiffers.
        No error holds a value.
    """
    with closing(store.cursor()) as source, _connected(url) as target:
        source.execute("BEGIN")  # one state of the store
        source.execute(f"SET schema = '{store.schema}'")
        mine = {name: _digest_here(source, table) for name, table in cdm_tables().items()}
        digest = hashlib.sha256(repr(sorted(mine.items())).encode()).hexdigest()
        rows = {name: count for name, (count, _) in mine.items()}
        with _errors():
            _take_turn(target, schema)
            before = _mark_of(target, schema)
            if before == digest and _digests_there(target, schema) == mine:
                return CopyReport(schema, rows, digest, unchanged=True)
            fresh = f"{schema}__new"
            _drop(target, fresh)
            _build(source, target, fresh, rows, watch)
            if _digests_there(target, fresh) != mine:
                _drop(target, fresh)
                raise CopyDiffers
            _finish(target, fresh, schema, digest)
            _swap(target, fresh, schema, wait_s=swap_wait_s)
        return CopyReport(schema, rows, digest, unchanged=False)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(
            url, connect_timeout=_CONNECT_S, application_name=_APPLICATION, autocommit=True
        )
    except psycopg.Error:
        raise NotAStore("the PostgreSQL server is away, or does not let us in") from None
    with closing(connection):
        yield connection


@contextmanager
def _errors() -> Iterator[None]:
    """The server's messages quote rows."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege:
        raise NotAStore("the PostgreSQL server does not let this user make the schema") from None
    except psycopg.Error as error:
        raise NotAStore(f"the PostgreSQL server failed: {error.sqlstate or 'connection lost'}") from None


def _take_turn(target: psycopg.Connection, schema: str) -> None:
    """One copy into a schema at a time; the lock goes with the connection."""
    found = target.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [schema]).fetchone()
    if not found or not found[0]:
        raise StoreBusy(f"another copy into the schema {schema} is under way")


def _mark_of(target: psycopg.Connection, schema: str) -> str | None:
    """The digest that a copy left there; None where nothing is. Raises: NotOurCopy."""
    found = target.execute(
        "SELECT coalesce(obj_description(n.oid, 'pg_namespace'), ''),"
        " EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid)"
        " FROM pg_namespace n WHERE n.nspname = %s",
        [schema],
    ).fetchone()
    if found is None:
        return None
    comment, filled = found
    if comment.startswith(MARK):
        return str(comment.removeprefix(MARK))
    if filled:
        raise NotOurCopy(schema)
    return None


def _drop(target: psycopg.Connection, schema: str) -> None:
    """Remove what an interrupted copy left. Raises: NotOurCopy."""
    _mark_of(target, schema)
    target.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def _build(
    source: duckdb.DuckDBPyConnection,
    target: psycopg.Connection,
    schema: str,
    rows: dict[str, int],
    watch: Watcher,
) -> None:
    """Fill a new schema. Its rows are frozen: whoever comes to see the tables sees them whole."""
    target.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    target.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(schema), Literal(MARK + "unfinished")))
    for name, table in cdm_tables().items():
        done = 0
        with target.transaction():
            target.execute(_ddl(table, schema))
            into = SQL("COPY {}.{} FROM STDIN (FORMAT csv, FREEZE)").format(
                Identifier(schema), Identifier(name)
            )
            with target.cursor().copy(into) as stream:
                reader = source.execute(_selected(table)).to_arrow_reader(BATCH_ROWS)
                for batch in reader:
                    stream.write(_text(batch))
                    done += batch.num_rows
                    watch(name, done, rows[name])


def _ddl(table: Table, schema: str) -> bytes:
    made = table.ddl(dialect="postgres").replace("CREATE TABLE IF NOT EXISTS ", "CREATE TABLE ", 1)
    _, _, body = made.partition("(")
    quoted = '"' + schema.replace('"', '""') + '"'
    return f"CREATE TABLE {quoted}.{table.name} ({body}".encode()


def _selected(table: Table) -> str:
    """PostgreSQL's texts hold no NUL."""
    columns = ", ".join(
        f'replace("{field.name}", chr(0), \'\') AS "{field.name}"' if _is_text(field) else field.name
        for field in table.fields
    )
    return f"SELECT {columns} FROM {table.name}"  # noqa: S608 (our names)


def _text(batch: pa.RecordBatch) -> bytes:
    """Rows as CSV: texts in quotes, null as nothing."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())


def _finish(target: psycopg.Connection, fresh: str, schema: str, digest: str) -> None:
    """Make indexes as OHDSI's DDL has them, say what it is, and let in who was let in before."""
    for name, table in cdm_tables().items():
        indexed = {"person_id", "ancestor_concept_id", "concept_id_1", table.fields[0].name}
        if name in EVENT_TABLES:
            indexed.add(EVENT_TABLES[name].concept)
        for column in table.columns:
            if column in indexed:
                target.execute(
                    SQL("CREATE INDEX ON {}.{} ({})").format(
                        Identifier(fresh), Identifier(name), Identifier(column)
                    )
                )
        target.execute(SQL("ANALYZE {}.{}").format(Identifier(fresh), Identifier(name)))
    for grantee in target.execute(
        "SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC') FROM pg_namespace n,"
        " aclexplode(n.nspacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE n.nspname = %s AND a.privilege_type = 'USAGE'",
        [schema],
    ).fetchall():
        who = SQL(str(grantee[0]))  # quoted by the server
        target.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(fresh), who))
    for name, grantee in target.execute(
        "SELECT DISTINCT c.relname, coalesce(quote_ident(r.rolname), 'PUBLIC') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a"
        " LEFT JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE n.nspname = %s AND c.relkind = 'r' AND a.privilege_type = 'SELECT'",
        [schema],
    ).fetchall():
        if name in cdm_tables():
            who = SQL(str(grantee))  # quoted by the server
            target.execute(
                SQL("GRANT SELECT ON {}.{} TO {}").format(Identifier(fresh), Identifier(name), who)
            )
    target.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(fresh), Literal(MARK + digest)))


def _swap(target: psycopg.Connection, fresh: str, schema: str, *, wait_s: float) -> None:
    """Let the new copy take the place of the old one, once no transaction has any of its tables in use.

    Whoever read one table of the old copy reads the others there too; whoever comes meanwhile waits, and
    reads the new one. Raises: StoreBusy if there is no such moment.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            with target.transaction():
                target.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                old = [
                    SQL("{}.{}").format(Identifier(schema), Identifier(row[0]))
                    for row in target.execute(
                        "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema]
                    ).fetchall()
                ]
                if old:
                    target.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(SQL(", ").join(old)))
                target.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
                target.execute(
                    SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(fresh), Identifier(schema))
                )
            return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() >= until:
                _drop(target, fresh)
                raise StoreBusy(f"questions read the schema {schema} all the time") from None
            time.sleep(_LOCK_MS / 1000)


# Digests: of each row the first 60 bits of the MD5 of its fields, summed, so that order does not matter.


def _is_text(field: Field) -> bool:
    return field.datatype == "text" or field.datatype.startswith("varchar")


def _digest_here(source: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, int]:
    def written(field: Field) -> str:
        name = f'"{field.name}"'
        if _is_text(field):
            return f"replace({name}, chr(0), '')"
        if field.datatype == "date":
            return f"CAST(date_diff('day', DATE '1970-01-01', {name}) AS VARCHAR)"
        if field.datatype == "timestamp":
            return f"CAST(epoch_us({name}) AS VARCHAR)"
        if field.datatype == "numeric":
            return f"CAST(CAST({name} AS BIT) AS VARCHAR)"
        return f"CAST({name} AS VARCHAR)"

    fields = ", ".join(f"coalesce({written(field)}, chr({_NOTHING}))" for field in table.fields)
    row = source.execute(
        f"SELECT count(*), coalesce(sum(CAST(CAST('0x' || left(md5(concat_ws(chr({_SEPARATOR}), {fields})), 15)"  # noqa: S608, E501 (our names)
        f" AS BIGINT) AS HUGEINT)), 0) FROM {table.name}"
    ).fetchone()
    assert row is not None, "an aggregate returns one row"
    return int(row[0]), int(row[1])


def _digests_there(target: psycopg.Connection, schema: str) -> dict[str, tuple[int, int]]:
    def written(field: Field) -> str:
        name = f'"{field.name}"'
        if field.datatype == "date":
            return f"({name} - DATE '1970-01-01')::text"
        if field.datatype == "timestamp":
            return f"(extract(epoch FROM {name}) * 1000000)::bigint::text"
        if field.datatype == "numeric":
            return f"(('x' || encode(float8send({name}), 'hex'))::bit(64))::text"
        return f"{name}::text"

    found = {}
    for name, table in cdm_tables().items():
        fields = ", ".join(f"coalesce({written(field)}, chr({_NOTHING}))" for field in table.fields)
        digest = f"('x' || left(md5(concat_ws(chr({_SEPARATOR}), {fields})), 15))::bit(60)::bigint"
        row = target.execute(
            SQL("SELECT count(*), coalesce(sum({}), 0) FROM {}.{}").format(
                SQL(digest),
                Identifier(schema),
                Identifier(name),  # our names
            )
        ).fetchone()
        assert row is not None, "an aggregate returns one row"
        found[name] = (int(row[0]), int(row[1]))
    return found
