"""What the coordinator remembers of questions, so that the same release is made and charged once.

It holds the researcher's signed question, what it meant and cost, and the noisy answer, all of which the
researcher has. Nothing here protects a patient: each node's own ledger does, and it does not believe this.

A release is stored under its meaning (protocols.question) and its setting: 32 bytes that name the hospitals
in it and the state of their data. Whoever asks the same in the same setting gets it again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from privacy.accountant import Event, GaussianEvent, calibrate, event_from_json
from protocols import canonical
from protocols.ids import QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

VERSION = 2  # of the tables, in SQLite's user_version; files of version 1 carry none
COUNT = "count"  # the one statistic of version 1
TRAINING = "training"  # the kind of what training cost; no statistic is called so

_SCHEMA = """
CREATE TABLE IF NOT EXISTS questions (
  question_id BLOB PRIMARY KEY,
  researcher  TEXT NOT NULL,
  envelope    BLOB NOT NULL,               -- empty where a stored answer was given again
  attempts    INTEGER NOT NULL DEFAULT 0,  -- how many had started when this was last written
  answer      BLOB,                        -- a serialized Answer
  refusal     TEXT
);
CREATE TABLE IF NOT EXISTS training (
  project TEXT NOT NULL,
  price   TEXT NOT NULL,                   -- the event of one step
  steps   INTEGER NOT NULL,
  PRIMARY KEY (project, price)
)
"""
_ADDED = {  # to the table of version 1
    "envelope_sha256": "BLOB",
    "project": "TEXT",
    "statistic": "TEXT",
    "price": "TEXT",  # the event of one attempt
    "meaning": "BLOB",
    "setting": "BLOB",  # of a release that may be given again
    "cached": "INTEGER NOT NULL DEFAULT 0",
}


@dataclass(frozen=True, slots=True)
class Remembered:
    """A question that was asked before. `outcome` is None while it is open, or was when we stopped."""

    researcher: str
    envelope_sha256: bytes
    attempts: int
    outcome: pb.Answer | RefusalCode | None

    def is_this(self, researcher: str, envelope: bytes) -> bool:
        """Return whether the same person asked it in the same words."""
        return (self.researcher, self.envelope_sha256) == (researcher, hashlib.sha256(envelope).digest())


@dataclass(frozen=True, slots=True)
class Seen:
    """Releases of one kind and price that the coordinator has seen, and answers it gave again."""

    kind: str
    event: Event | None  # of all of them together; None if there was none
    cached: int


class QuestionBook:
    """Tables in a SQLite file that survives the process. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        # a killed process loses nothing; a power cut may lose the last answer, which is then asked again
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._make_tables()

    def find(self, question: QuestionId) -> Remembered | None:
        """Return what is known of a question."""
        row = self._db.execute(
            "SELECT researcher, envelope_sha256, attempts, answer, refusal FROM questions"
            " WHERE question_id = ?",
            (question.raw,),
        ).fetchone()
        if row is None:
            return None
        researcher, digest, attempts, answer, refusal = row
        outcome: pb.Answer | RefusalCode | None = None
        if answer is not None:
            outcome = pb.Answer.FromString(answer)
        elif refusal is not None:
            outcome = RefusalCode(refusal)
        return Remembered(researcher, digest, attempts, outcome)

    def stored(self, meaning: bytes, *, setting: bytes) -> pb.Answer | None:
        """Return the newest release of this meaning in this setting."""
        row = self._db.execute(
            "SELECT answer FROM questions WHERE meaning = ? AND setting = ? AND answer IS NOT NULL"
            " ORDER BY rowid DESC LIMIT 1",
            (meaning, setting),
        ).fetchone()
        return None if row is None else pb.Answer.FromString(row[0])

    def asked(
        self, question: Question, *, researcher: str, envelope: bytes, meaning: bytes, price: Event
    ) -> None:
        """Remember a new question. Args: price: of one attempt."""
        self._db.execute(
            "INSERT INTO questions"
            " (question_id, researcher, envelope, envelope_sha256, project, statistic, price, meaning)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                question.question_id.raw,
                researcher,
                envelope,
                hashlib.sha256(envelope).digest(),
                question.project,
                question.statistic.kind,
                json.dumps(price.to_json()),
                meaning,
            ),
        )

    def attempted(self, question: QuestionId, *, attempt: int) -> None:
        """Remember that masked inputs for this attempt may be on their way."""
        self._db.execute("UPDATE questions SET attempts = ? WHERE question_id = ?", (attempt, question.raw))

    def finished(
        self, question: QuestionId, outcome: pb.Answer | RefusalCode, *, setting: bytes | None = None
    ) -> None:
        """Remember how a question ended.

        Args: setting: in which its release may be given again; None if in none.
        """
        refusal = outcome.value if isinstance(outcome, RefusalCode) else None
        answer = None if isinstance(outcome, RefusalCode) else outcome.SerializeToString()
        self._db.execute(
            "UPDATE questions SET answer = ?, refusal = ?, setting = ? WHERE question_id = ?",
            (answer, refusal, setting, question.raw),
        )

    def repeated(self, question: QuestionId, answer: pb.Answer) -> None:
        """Remember that a question got a stored answer. Its words are dropped: they may be megabytes."""
        self._db.execute(
            "UPDATE questions SET answer = ?, envelope = x'', cached = 1 WHERE question_id = ?",
            (answer.SerializeToString(), question.raw),
        )

    def trained(self, project: str, event: Event) -> None:
        """Remember what one step of training cost: `event`, of one release."""
        self._db.execute(
            "INSERT INTO training (project, price, steps) VALUES (?, ?, 1)"
            " ON CONFLICT (project, price) DO UPDATE SET steps = steps + 1",
            (project, json.dumps(event.to_json())),
        )

    def seen(self, project: str) -> Iterator[Seen]:
        """Yield what this project's questions and training steps have cost, by kind and price.

        An attempt counts as soon as its inputs may have been on their way, whatever became of it.
        """
        for kind, price, attempts, cached in self._db.execute(
            "SELECT statistic, price, sum(attempts), sum(cached) FROM questions WHERE project = ?"
            " GROUP BY statistic, price ORDER BY statistic, price",
            (project,),
        ).fetchall():
            event = event_from_json(json.loads(price)).times(attempts) if attempts else None
            yield Seen(kind, event, cached)
        for price, steps in self._db.execute(
            "SELECT price, steps FROM training WHERE project = ? ORDER BY price", (project,)
        ).fetchall():
            yield Seen(TRAINING, event_from_json(json.loads(price)).times(steps), 0)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ---- tables ----

    def _make_tables(self) -> None:
        """Make the tables, or bring a file of version 1 up to date, wholly or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            if self._db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                for name, kind in _ADDED.items():
                    self._db.execute(f"ALTER TABLE questions ADD COLUMN {name} {kind}")
                self._read_version_1()
                self._db.execute("CREATE INDEX questions_by_meaning ON questions (meaning, setting)")
                self._db.execute("CREATE INDEX questions_by_project ON questions (project)")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _read_version_1(self) -> None:
        """Fill in what the signed questions of version 1 say. None of them is ever given again."""
        for question, envelope in self._db.execute("SELECT question_id, envelope FROM questions").fetchall():
            project, price = _of_version_1(envelope)
            self._db.execute(
                "UPDATE questions SET envelope_sha256 = ?, project = ?, statistic = ?, price = ?"
                " WHERE question_id = ?",
                (hashlib.sha256(envelope).digest(), project, COUNT, price, question),
            )


def _of_version_1(envelope: bytes) -> tuple[str | None, str]:
    """Return project and price of a count that was signed in version 1; no project if it cannot be read."""
    try:
        payload = base64.b64decode(json.loads(envelope)["payload"])
        fields = canonical.decode(payload, max_bytes=len(payload))
        multiplier = calibrate(epsilon=float(fields["epsilon"]), delta=float(fields["delta"]), count=1)
        return str(fields["project"]), json.dumps(GaussianEvent(multiplier).to_json())
    except (ValueError, KeyError, TypeError):
        return None, ""
