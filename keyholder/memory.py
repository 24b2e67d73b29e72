"""What the key-holder has done, in one SQLite file: a step has one key, one set of inputs, one opened sum."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from privacy.errors import OutOfOrder, StepReused
from privacy.private_files import FILE_MODE
from protocols.clock import Clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
  session BLOB NOT NULL, step INTEGER NOT NULL, made_at TEXT NOT NULL, fixed_at TEXT, opened_at TEXT,
  PRIMARY KEY (session, step)) STRICT, WITHOUT ROWID
"""


class StepMemory:
    """A privacy.sum_key_holder.Memory. Thread-safe.

    Guarantee: a call that returned is on the disk, and the same call for the same step raises from then on.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        path.touch(mode=FILE_MODE)
        self._clock = clock
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def made(self, session: bytes, step: int) -> None:
        """Note that a key was made. Raises: StepReused."""
        with self._lock:
            try:
                self._database.execute(
                    "INSERT INTO steps (session, step, made_at) VALUES (?, ?, ?)",
                    (session, step, self._now()),
                )
            except sqlite3.IntegrityError as error:
                raise StepReused(step=step) from error

    def fixed(self, session: bytes, step: int) -> None:
        """Note that inputs were fixed. Raises: StepReused; OutOfOrder if no key was made."""
        self._mark("fixed_at", session, step)

    def opened(self, session: bytes, step: int) -> None:
        """Note that a sum was opened. Raises: StepReused; OutOfOrder if no key was made."""
        self._mark("opened_at", session, step)

    def counts(self) -> tuple[int, int]:
        """Return how many keys were made and how many sums opened, ever."""
        with self._lock:
            made, opened = self._database.execute("SELECT count(*), count(opened_at) FROM steps").fetchone()
        return int(made), int(opened)

    def _mark(self, column: str, session: bytes, step: int) -> None:
        with self._lock:
            found = self._database.execute(
                f"UPDATE steps SET {column} = ? WHERE session = ? AND step = ? AND {column} IS NULL",  # noqa: S608 - the column is one of two of this module
                (self._now(), session, step),
            ).rowcount
            if found:
                return
            known = self._database.execute(
                "SELECT 1 FROM steps WHERE session = ? AND step = ?", (session, step)
            ).fetchone()
        if known:
            raise StepReused(step=step)
        raise OutOfOrder(f"no key was made for step {step}")

    def _now(self) -> str:
        return self._clock.now().isoformat()
