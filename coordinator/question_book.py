"""What the coordinator remembers of questions, so that the same one asked twice is answered once.

It holds the researcher's signed question and the noisy answer, both of which the researcher has. Nothing here
protects a patient: each node's own ledger does, and it does not believe this book.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from protocols.ids import QuestionId
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

_SCHEMA = """
CREATE TABLE IF NOT EXISTS questions (
  question_id BLOB PRIMARY KEY,
  researcher  TEXT NOT NULL,
  envelope    BLOB NOT NULL,
  attempts    INTEGER NOT NULL DEFAULT 0,  -- how many had started when this was last written
  answer      BLOB,                        -- a serialized Answer
  refusal     TEXT
)
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A question that was asked before. `outcome` is None while it is open, or was when we stopped."""

    researcher: str
    envelope: bytes
    attempts: int
    outcome: pb.Answer | RefusalCode | None


class QuestionBook:
    """One table in a SQLite file that survives the process. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        # a killed process loses nothing; a power cut may lose the last answer, which is then asked again
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_SCHEMA)

    def find(self, question: QuestionId) -> Remembered | None:
        """Return what is known of a question."""
        row = self._db.execute(
            "SELECT researcher, envelope, attempts, answer, refusal FROM questions WHERE question_id = ?",
            (question.raw,),
        ).fetchone()
        if row is None:
            return None
        researcher, envelope, attempts, answer, refusal = row
        outcome: pb.Answer | RefusalCode | None = None
        if answer is not None:
            outcome = pb.Answer.FromString(answer)
        elif refusal is not None:
            outcome = RefusalCode(refusal)
        return Remembered(researcher, envelope, attempts, outcome)

    def asked(self, question: QuestionId, *, researcher: str, envelope: bytes) -> None:
        """Remember a new question."""
        self._db.execute(
            "INSERT INTO questions (question_id, researcher, envelope) VALUES (?, ?, ?)",
            (question.raw, researcher, envelope),
        )

    def attempted(self, question: QuestionId, *, attempt: int) -> None:
        """Remember that masked inputs for this attempt may be on their way."""
        self._db.execute("UPDATE questions SET attempts = ? WHERE question_id = ?", (attempt, question.raw))

    def finished(self, question: QuestionId, outcome: pb.Answer | RefusalCode) -> None:
        """Remember how a question ended."""
        refusal = outcome.value if isinstance(outcome, RefusalCode) else None
        answer = None if isinstance(outcome, RefusalCode) else outcome.SerializeToString()
        self._db.execute(
            "UPDATE questions SET answer = ?, refusal = ? WHERE question_id = ?",
            (answer, refusal, question.raw),
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()
