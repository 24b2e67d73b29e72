"""The hospital's OMOP CDM 5.4 database: DuckDB behind Ibis, one process, many readers, one writer.

Guarantee: what a load brings comes in by one transaction, so a crash leaves either all of a file or nothing.
Readers never wait for the writer and see the data as of their statement. The data epoch names the content: it
changes with every load and with nothing else.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table as IbisTable

from node.omop import event_copy, plan_periods
from node.omop.derived import content_hash, derive
from node.omop.errors import AlreadyLoaded, NoSuchTable, NotAStore, StoreBusy
from node.omop.fact_loading import HELD_FACTS, FactLoad, Reading
from node.omop.loading import Again, Load, Loaded, Source
from node.omop.side_tables import side_tables
from node.omop.stage import drop_stage
from node.omop.tables import EVENT_TABLES, cdm_tables

_SORT_WHEN_NEW = (
    0.1  # rewrite a table once a tenth of it is out of order: amortised, each row moves ~10 times
)
# Of the log, before it is brought into the file, where each group of rows that grew is written anew: at 16 MB
# (DuckDB's own) a tenth of a bulk load's time. What is in the log alone is in memory, and read after a crash
_LOG_MB = 16, 128
_LOG_SHARE = 16  # of the memory that the store may use
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class OmopStore:
    """An open store. Close it, or use it as a context manager."""

    def __init__(self, root: duckdb.DuckDBPyConnection, *, path: Path, schema: str, read_only: bool) -> None:
        """Use `open`."""
        self._root = root
        self._writer = root.cursor()
        self._writing = threading.Lock()
        self._local = threading.local()
        self.path = path
        self.schema = schema
        self.read_only = read_only

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        read_only: bool = False,
        schema: str = "main",
        threads: int | None = None,
        memory_limit: str | None = None,
        spill: bool = True,
    ) -> Self:
        """Open the store at `path`, making it (0600) if it is not there and `read_only` is not asked.

        Args:
            schema: where the CDM's tables lie; another hospital tool's CDM is often in `cdm`.
            threads: how many cores one statement may use; all of them by default.
            memory_limit: in DuckDB's notation, "2GB"; 80 % of the machine by default.
            spill: whether a statement that needs more memory may write to a folder beside the file.
        Raises: StoreBusy if another process has it open; NotAStore if it is no DuckDB file.
        """
        path = Path(path)
        config: dict[str, Any] = {
            # an SQL statement never reads a file, fetches an extension or opens a connection
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if threads is not None:
            config["threads"] = threads
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        if not spill:
            config["temp_directory"] = ""
        fresh = not path.exists()
        if fresh and read_only:
            raise NotAStore(f"{path}: no such file")
        previous_mask = os.umask(0o077) if fresh else None
        try:
            root = duckdb.connect(str(path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "lock" in str(error).lower():
                raise StoreBusy(f"{path}: open in another process") from None
            raise NotAStore(f"{path}: not a DuckDB database that this version reads") from None
        finally:
            if previous_mask is not None:
                os.umask(previous_mask)
        store = cls(root, path=path, schema=schema, read_only=read_only)
        if not read_only:
            root.execute(f"SET checkpoint_threshold = '{_log_mb(root)}MB'")
            store._make_tables()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. Threads that still hold a table of this store get errors."""
        self._writer.close()
        self._root.close()

    @property
    def connection(self) -> Backend:
        """The calling thread's own Ibis connection for reading. Do not hand it to another thread."""
        backend = getattr(self._local, "backend", None)
        if backend is None:
            cursor = self._root.cursor()
            cursor.execute("SET schema = " + _quoted(self.schema))
            backend = self._local.backend = Backend.from_connection(cursor)
            self._local.tables = {}
        return backend

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a new connection of its own, for one thread at a time. The caller closes it."""
        return self._root.cursor()

    def table(self, name: str) -> IbisTable:
        """Return a table of the CDM (or one of the node's side tables) as an Ibis relation of this thread.

        Raises: NoSuchTable.
        """
        backend = self.connection
        tables: dict[str, IbisTable] = self._local.tables
        if name not in tables:
            try:
                tables[name] = backend.table(name)
            except ibis.common.exceptions.TableNotFound:
                raise NoSuchTable(name) from None
        return tables[name]

    def has(self, name: str) -> bool:
        """Return whether the store holds a table of this name."""
        try:
            self.table(name)
        except NoSuchTable:
            return False
        return True

    def epoch(self) -> str:
        """Return a name for the present content: it changes when, and only when, data is loaded.

        A CDM that another tool made has no load records; there it is derived from the tables' row counts and
        the file's time of change.
        """
        digest = hashlib.sha256()
        cursor = self.connection.con
        if self.has("fedtwin_load"):
            rows = cursor.execute(
                "SELECT source_sha256, mapping_sha256, loaded_at::VARCHAR FROM fedtwin_load ORDER BY load_id"
            ).fetchall()
            if self.has("fedtwin_vocabulary"):  # not in a store that an older version made
                rows += cursor.execute("SELECT version, source_sha256 FROM fedtwin_vocabulary").fetchall()
            if self.has("fedtwin_dirty"):  # between a load and what is derived from it
                rows += cursor.execute(
                    "SELECT 'dirty', count(*)::VARCHAR FROM fedtwin_dirty HAVING count(*) > 0"
                ).fetchall()
        else:
            rows = [
                (name, str(cursor.execute(f"SELECT count(*) FROM {name}").fetchone()[0]))  # noqa: S608 (our names)
                for name in ("person", *EVENT_TABLES)
                if self.has(name)
            ]
            rows.append(("file", str(self.path.stat().st_mtime_ns)))
        for row in rows:
            digest.update("\x00".join(row).encode() + b"\x01")
        return digest.hexdigest()[:32]

    def counts(self) -> dict[str, int]:
        """Return the number of records per table. For the hospital's own eyes."""
        cursor = self.connection.con
        return {
            name: int(cursor.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608 (our names)
            for name in cdm_tables()
            if self.has(name)
        }

    def loaded(self, *, source_sha256: str, mapping_sha256: str) -> Loaded | None:
        """Return the record of an earlier load of these bytes under this mapping, if there is one."""
        row = self.connection.con.execute(
            "SELECT load_id, rows, quarantined, events, coalesce(records_quarantined, 0) FROM fedtwin_load"
            " WHERE source_sha256 = ? AND mapping_sha256 = ?",
            [source_sha256, mapping_sha256],
        ).fetchone()
        return None if row is None else Loaded(*row)

    @contextmanager
    def load(self, source: Source, *, now: datetime, again: Again = Again.REFUSE) -> Iterator[Load]:
        """Open a load of one source; leaving the block commits it, an exception leaves nothing of it.

        Args:
            now: aware; goes into the provenance.
            again: what to do if the same source was loaded before with other content or another mapping.
        Raises: AlreadyLoaded, if `again` is REFUSE and so it was.
        """
        with self.writing():
            earlier = self._earlier(source)
            if earlier and again is Again.REFUSE:
                raise AlreadyLoaded(source.name)
            load = Load(self._writer, source, now=now, replaces=earlier if again is Again.REPLACE else ())
            yield load
            load.finish()

    @contextmanager
    def load_facts(
        self,
        source: Source,
        reading: Reading,
        *,
        now: datetime,
        again: Again = Again.REFUSE,
        held_facts: int = HELD_FACTS,
    ) -> Iterator[FactLoad]:
        """Open a load of a source's facts; leaving the block commits it, an exception leaves nothing of it.

        The same bytes, by another version of the reader or of the vocabulary, take the place of what they
        gave before. Another file of the same name adds to it: its facts find the records of their keys.

        Raises: AlreadyLoaded, if `again` is REFUSE, a fact has no key, and a file of this name was loaded.
        """
        with self._writing, self._staging():
            rows = self._writer.execute(
                "SELECT load_id, source_sha256 = ? FROM fedtwin_load WHERE reader = ?"
                " AND (source_sha256 = ? OR source_name = ?)",
                [source.sha256, reading.reader, source.sha256, source.name],
            ).fetchall()
            replaces = [load_id for load_id, same in rows if same or again is Again.REPLACE]
            load = FactLoad(self._writer, source, reading, now=now, replaces=replaces, held_facts=held_facts)
            with self._one_thread():
                yield load
            if load.unkeyed and again is Again.REFUSE and not all(same for _, same in rows):
                raise AlreadyLoaded(source.name)
            load.finish()
            self._writer.execute(event_copy.TOUCH)

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Statements on a batch: too few rows for a second thread, for which the first would wait busily."""
        (threads,) = self._writer.execute("SELECT current_setting('threads')").fetchone() or (1,)
        self._writer.execute("SET threads = 1")
        try:
            yield
        finally:
            self._writer.execute(f"SET threads = {int(threads)}")

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """A transaction that may be committed in between (`FactLoad.next_batch`), and stage tables with it.

        They lie in the store's file, so that memory is not of their size, and are gone when the block ends;
        those of a process that was killed go when the store is opened again.
        """
        self._writer.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._writer.execute("ROLLBACK")
            drop_stage(self._writer)
            raise
        self._writer.execute("COMMIT")

    def derive(self) -> None:
        """Bring periods, eras, costs and links up to date for the persons whose records have changed."""
        with self.writing(events=False):
            derive(self._writer)

    def content_hash(self) -> str:
        """Return a digest of all records and where they came from, but for when they were loaded.

        Two stores that took in the same files, in whatever order and however often, have the same.
        """
        return content_hash(self.connection.con)

    @contextmanager
    def writing(self, *, events: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a transaction on the one connection that writes; an exception leaves nothing of it.

        Args: events, whether records may change that are events of timelines.
        """
        with self._writing:
            self._writer.execute("BEGIN")
            try:
                if events:
                    self._writer.execute(event_copy.EMPTY)  # it may no longer be a copy
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def settle(self, *, always: bool = False) -> None:
        """Put the event tables in order of concept and person, where enough has come in out of order.

        A question about one concept then reads few row groups: 4 to 20 times faster. Readers are not held up.
        """
        with self._writing:
            for table in EVENT_TABLES.values():
                total = int(self._writer.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])  # type: ignore[index]  # noqa: S608
                row = self._writer.execute(
                    "SELECT sorted_rows FROM fedtwin_layout WHERE table_name = ?", [table.name]
                ).fetchone()
                new = total - (int(row[0]) if row else 0)
                if total and (always or new > _SORT_WHEN_NEW * total or new < 0):
                    self._sort(table.name, by=(table.concept, "person_id", table.start), rows=total)

    def copy_events(self, select: str, *, stale: bool = False) -> int:
        """Fill the copy of all events with the rows of `select` and return their number.

        Args: stale, whether these are only the events of persons whose events in the copy are out of date.
        """
        with self._writing:
            self._writer.execute("BEGIN")
            try:
                self._writer.execute(event_copy.FORGET_STALE if stale else event_copy.EMPTY)
                row = self._writer.execute(f"INSERT INTO {event_copy.EVENT_COPY} {select}").fetchone()
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
        assert row is not None, "an insert says how many"
        return int(row[0])

    def _sort(self, name: str, *, by: tuple[str, ...], rows: int) -> None:
        fresh = f"{name}__sorted"
        self._writer.execute("BEGIN")
        try:
            self._writer.execute(cdm_tables()[name].ddl(fresh))
            self._writer.execute(f"INSERT INTO {fresh} SELECT * FROM {name} ORDER BY {', '.join(by)}")  # noqa: S608
            self._writer.execute(f"DROP TABLE {name}")
            self._writer.execute(f"ALTER TABLE {fresh} RENAME TO {name}")
            self._writer.execute("DELETE FROM fedtwin_layout WHERE table_name = ?", [name])
            self._writer.execute("INSERT INTO fedtwin_layout VALUES (?, ?)", [name, rows])
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _earlier(self, source: Source) -> tuple[int, ...]:
        rows = self._writer.execute(
            "SELECT load_id FROM fedtwin_load"
            " WHERE source_sha256 = ? OR (source_name = ? AND mapping_name = ?)",
            [source.sha256, source.name, source.mapping_name],
        ).fetchall()
        return tuple(row[0] for row in rows)

    def _make_tables(self) -> None:
        self._writer.execute("BEGIN")
        for table in cdm_tables().values():
            self._writer.execute(table.ddl())
        for statement in side_tables():
            self._writer.execute(statement)
        plan_periods.adopt(self._writer)
        event_copy.make(self._writer)
        drop_stage(self._writer)
        self._writer.execute("COMMIT")


def _log_mb(root: duckdb.DuckDBPyConnection) -> int:
    """How large the log may become."""
    row = root.execute("SELECT current_setting('memory_limit')").fetchone()
    number, _, unit = str(row[0]).partition(" ") if row else ("0", "", "")
    limit = float(number) * _UNITS.get(unit, 0)
    return int(min(max(limit / 1e6 / _LOG_SHARE, _LOG_MB[0]), _LOG_MB[1]))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
