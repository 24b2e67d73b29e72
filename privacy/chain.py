"""An append-only, hash-chained list of JSON records in one SQLite file, durable before `append` returns.

What is found and what is not. An edited, removed, inserted or reordered record breaks the chain. A removed
tail leaves a chain that is whole but shorter: the head (number and hash of the last record) is therefore also
kept in `<file>.head`, written after each record, and a head that is not in the chain is an error. Whoever can
write both files can rewrite both, and a restored back-up of both looks like an older day: the node's audit
log carries the head beside every charge, as a third witness that must be rewritten too. None of this stops
the machine's administrator; it makes accidents and partial edits visible.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from protocols import canonical

APPLICATION_ID = 0x66740001  # "ft": SQLite's mark for a file of ours
GENESIS = "0" * 64
MAX_RECORD_BYTES = 65_536  # records hold numbers and identifiers, not documents
HEAD_BYTES = 96  # one line of fixed length: rewritten in place, inside one disk sector

_SCHEMA = """
CREATE TABLE records (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
CREATE TRIGGER no_update BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER next_only BEFORE INSERT ON records
  WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM records)
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


class ChainBroken(Exception):
    """The records are not what was written: edited, removed or cut off. `seq` is the first that is wrong."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(f"record {seq}: {reason}")
        self.seq = seq
        self.reason = reason


class ChainBusy(Exception):
    """Another process has this file open for writing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was written."""

    seq: int
    fields: dict[str, Any]
    hash: str


class Chain:
    """The file. One writer process at a time; any number of readers. Threads may share it."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Open `path`, and make it if `writable`; every record is checked.

        Raises: ChainBroken; ChainBusy; FileNotFoundError for reading what does not exist.
        """
        self._path = path
        self._head_path = path.with_name(path.name + ".head")
        self._mutex = threading.RLock()
        self._faulty = False
        self._lock = _exclusive(path.with_name(path.name + ".lock")) if writable else None
        try:
            self._connection = _connect(path, writable=writable)
            self._last = self._checked()
            if writable:
                self._write_head()
        except BaseException:
            self.close()
            raise

    def append(self, fields: dict[str, Any]) -> Record:
        """Write one record. It is on the disk when this returns.

        Raises: ChainBroken if an earlier append failed half-way: then only reopening tells what is written.
        """
        with self._mutex:
            if self._faulty or self._lock is None:
                raise ChainBroken(self._last[0] + 1, "not open for writing, or an earlier write failed")
            seq, previous = self._last[0] + 1, self._last[1]
            body = canonical.encode({**fields, "previous": previous, "seq": seq})
            if len(body) > MAX_RECORD_BYTES:
                raise ValueError(f"a record has at most {MAX_RECORD_BYTES} bytes")
            digest = hashlib.sha256(body).hexdigest()
            self._faulty = True  # until the head is written: an exception in between leaves it set
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT INTO records VALUES (?, ?, ?)", (seq, body.decode(), digest))
            self._connection.execute("COMMIT")
            self._last = (seq, digest)
            self._write_head()
            self._faulty = False
            return Record(seq, fields, digest)

    def records(self) -> Iterator[Record]:
        """Yield every record, checked, oldest first. Raises: ChainBroken."""
        previous, seq = GENESIS, 0
        with self._mutex:
            rows = self._connection.execute("SELECT seq, body, hash FROM records ORDER BY seq").fetchall()
        for seq, (found, body, digest) in enumerate(rows, start=1):
            if found != seq:
                raise ChainBroken(seq, "missing")
            if hashlib.sha256(body.encode()).hexdigest() != digest:
                raise ChainBroken(seq, "edited")
            fields = canonical.decode(body.encode(), max_bytes=MAX_RECORD_BYTES)
            if fields.pop("previous", None) != previous or fields.pop("seq", None) != seq:
                raise ChainBroken(seq, "not the successor of the record before it")
            previous = digest
            yield Record(seq, fields, digest)

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last record, for another log to witness."""
        with self._mutex:
            return self._last

    def verify(self) -> int:
        """Read everything again from the disk; return the number of records. Raises: ChainBroken."""
        with self._mutex:
            return self._checked()[0]

    def close(self) -> None:
        """Close the file and let another process write. May be called twice."""
        with self._mutex:
            with contextlib.suppress(AttributeError):
                self._connection.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self) -> tuple[int, str]:
        head = self._read_head()  # before the records: a writer that goes on meanwhile only adds to them
        hashes = [record.hash for record in self.records()]
        if head is None and len(hashes) > 1:
            raise ChainBroken(len(hashes), f"{self._head_path.name} is missing")
        if head is not None and (head[0] > len(hashes) or hashes[head[0] - 1] != head[1]):
            raise ChainBroken(min(head[0], len(hashes) + 1), "the end was cut off or rewritten")
        return (len(hashes), hashes[-1]) if hashes else (0, GENESIS)

    def _read_head(self) -> tuple[int, str] | None:
        try:
            seq, _, digest = self._head_path.read_text(encoding="ascii").strip().partition(" ")
            if not seq.isdigit() or int(seq) < 1 or len(digest) != len(GENESIS):
                raise ValueError(seq)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ChainBroken(0, f"{self._head_path.name} is not a head") from error
        return int(seq), digest

    def _write_head(self) -> None:
        if self._last[0] == 0:
            return
        line = f"{self._last[0]} {self._last[1]}".ljust(HEAD_BYTES - 1) + "\n"
        if not self._head_path.exists():
            _write_new(self._head_path, line.encode())
            return
        target = os.open(self._head_path, os.O_WRONLY)
        try:
            os.pwrite(target, line.encode(), 0)  # not synced: after a power cut it may lag, never lead
        finally:
            os.close(target)


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    if writable and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    mode = "rw" if writable else "ro"
    if not path.exists():
        raise FileNotFoundError(path)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    if writable:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # the log is synced at every commit
        connection.execute("PRAGMA trusted_schema=OFF")
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.executescript(f"BEGIN; PRAGMA application_id={APPLICATION_ID}; {_SCHEMA} COMMIT;")
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        connection.close()
        raise ChainBroken(0, "not a file of this program")
    return connection


def _exclusive(path: Path) -> int:
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ChainBusy(path.name) from error
    return handle


def _write_new(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    handle = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself is durable
    finally:
        os.close(folder)
