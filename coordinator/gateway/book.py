"""What the gateway remembers: the questions it signed, how each ended, and which request asked for which.

Guarantee: a request's key and the question signed for it are written in one transaction, on the disk before
the question leaves. So a key never stands for two questions, across restarts and crashes: a repeated request
gets the first one's answer and never a second charge. The file is for its owner only, and for one process at
a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from privacy.private_files import FILE_MODE, make_folder
from protocols.ids import QuestionId
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

_SCHEMA = """
CREATE TABLE IF NOT EXISTS questions (
  question_id BLOB PRIMARY KEY,
  account     TEXT NOT NULL,
  envelope    BLOB NOT NULL,   -- as the gateway signed it
  asked_at    REAL NOT NULL,   -- unix seconds
  answer      BLOB,            -- a serialized Answer
  refusal     TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS requests (
  account     TEXT NOT NULL,
  key         TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  question_id BLOB NOT NULL,
  status      INTEGER,         -- of the response, once there was one
  media_type  TEXT,
  body        BLOB,
  PRIMARY KEY (account, key)
) STRICT;
CREATE TABLE IF NOT EXISTS charges (
  question_id BLOB PRIMARY KEY,
  account     TEXT NOT NULL,
  project     TEXT NOT NULL,
  epsilon     REAL NOT NULL,   -- of one release
  delta       REAL NOT NULL,
  releases    INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS charges_of ON charges (account, project);
"""


class BookInUse(Exception):
    """Another process has the gateway's book open."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A question of the book. `outcome` is None while it is open."""

    question_id: QuestionId
    account: str
    envelope: bytes
    outcome: pb.Answer | RefusalCode | None


@dataclass(frozen=True, slots=True)
class Given:
    """A response that was given."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request with a key: what it asked for, and the response if there was one."""

    fingerprint: bytes
    question_id: QuestionId
    given: Given | None


@dataclass(frozen=True, slots=True)
class Charged:
    """What answers of one account under one project have cost, simply added up."""

    answers: int
    epsilon: float
    delta: float


class Book:
    """One SQLite file. Used from one thread."""

    def __init__(self, path: Path) -> None:
        """Raises: BookInUse."""
        if not path.parent.exists():
            make_folder(path.parent)
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise BookInUse(f"{path}: another gateway uses it") from error
        path.touch(mode=FILE_MODE)
        path.chmod(FILE_MODE)  # its journal gets the same
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def begin(self, kept: Kept, *, key: str, fingerprint: bytes, asked_at: datetime) -> None:
        """Write down a signed question and the request that asked for it, both or neither."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO questions (question_id, account, envelope, asked_at) VALUES (?, ?, ?, ?)",
                (kept.question_id.raw, kept.account, kept.envelope, asked_at.timestamp()),
            )
            self._db.execute(
                "INSERT INTO requests (account, key, fingerprint, question_id) VALUES (?, ?, ?, ?)",
                (kept.account, key, fingerprint, kept.question_id.raw),
            )

    def request(self, account: str, key: str) -> Request | None:
        """Return what is known of a key of this account."""
        row = self._db.execute(
            "SELECT fingerprint, question_id, status, media_type, body FROM requests"
            " WHERE account = ? AND key = ?",
            (account, key),
        ).fetchone()
        if row is None:
            return None
        fingerprint, question_id, status, media_type, body = row
        given = None if status is None else Given(status, media_type, body)
        return Request(fingerprint, QuestionId(question_id), given)

    def responded(self, account: str, key: str, given: Given) -> None:
        """Keep the response to a request, to give it again."""
        self._db.execute(
            "UPDATE requests SET status = ?, media_type = ?, body = ? WHERE account = ? AND key = ?",
            (given.status, given.media_type, given.body, account, key),
        )

    def find(self, question_id: QuestionId) -> Kept | None:
        """Return a question."""
        row = self._db.execute(
            "SELECT question_id, account, envelope, answer, refusal FROM questions WHERE question_id = ?",
            (question_id.raw,),
        ).fetchone()
        return None if row is None else _kept(row)

    def open_questions(self) -> tuple[Kept, ...]:
        """Return the questions that have not ended, oldest first."""
        rows = self._db.execute(
            "SELECT question_id, account, envelope, answer, refusal FROM questions"
            " WHERE answer IS NULL AND refusal IS NULL ORDER BY asked_at"
        )
        return tuple(_kept(row) for row in rows)

    def refused(self, question_id: QuestionId, code: RefusalCode) -> None:
        """Write down that a question was refused."""
        self._db.execute(
            "UPDATE questions SET refusal = ? WHERE question_id = ?", (code.value, question_id.raw)
        )

    def answered(self, kept: Kept, answer: pb.Answer, *, project: str, epsilon: float, delta: float) -> None:
        """Write down an answer, and what it cost unless it was given before."""
        with self._transaction():
            self._db.execute(
                "UPDATE questions SET answer = ? WHERE question_id = ?",
                (answer.SerializeToString(), kept.question_id.raw),
            )
            if not answer.cached:
                self._db.execute(
                    "INSERT OR REPLACE INTO charges VALUES (?, ?, ?, ?, ?, ?)",
                    (kept.question_id.raw, kept.account, project, epsilon, delta, answer.releases),
                )

    def charged(self, account: str, project: str) -> Charged:
        """Return what this account's answers have cost. Kept for ever."""
        answers, epsilon, delta = self._db.execute(
            "SELECT COUNT(*), TOTAL(epsilon * releases), TOTAL(delta * releases) FROM charges"
            " WHERE account = ? AND project = ?",
            (account, project),
        ).fetchone()
        return Charged(answers, epsilon, delta)

    def forget(self, *, now: datetime, older_than: timedelta) -> None:
        """Delete ended questions, and the keys that asked for them."""
        before = (now - older_than).timestamp()
        with self._transaction():
            self._db.execute(
                "DELETE FROM questions WHERE asked_at < ? AND (answer IS NOT NULL OR refusal IS NOT NULL)",
                (before,),
            )
            self._db.execute(
                "DELETE FROM requests WHERE question_id NOT IN (SELECT question_id FROM questions)"
            )

    def close(self) -> None:
        """Close the file and let another process have it."""
        self._db.close()
        os.close(self._lock)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _kept(row: tuple[bytes, str, bytes, bytes | None, str | None]) -> Kept:
    question_id, account, envelope, answer, refusal = row
    outcome: pb.Answer | RefusalCode | None = None
    if answer is not None:
        outcome = pb.Answer.FromString(answer)
    elif refusal is not None:
        outcome = RefusalCode(refusal)
    return Kept(QuestionId(question_id), account, envelope, outcome)
