"""Who put which row into `source_to_concept_map`: the starter vocabulary, or a review that a person accepted.

OMOP's table has no room for that, so a ledger beside it does: `fedtwin_code_map`, one row per mapping and
origin. Rows that another tool wrote into `source_to_concept_map` are never touched. A source_vocabulary_id
of "any" means: in whatever system the code stands, if nothing else maps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from node.omop.store import OmopStore

ANYWHERE = "any"
VOCABULARY_CHARACTERS, CODE_CHARACTERS, WORDS_CHARACTERS = 20, 50, 255  # OMOP: varchar
ALWAYS = ("1970-01-01", "2099-12-31")  # OMOP's validity; when a mapping was made stands in the ledger

_MAKE = """
CREATE TABLE IF NOT EXISTS fedtwin_code_map (
  origin VARCHAR NOT NULL,
  source_vocabulary_id VARCHAR NOT NULL,
  source_code VARCHAR NOT NULL,
  source_code_description VARCHAR,
  target_concept_id BIGINT NOT NULL,
  since TIMESTAMP NOT NULL,
  until TIMESTAMP)
"""


@dataclass(frozen=True, slots=True)
class CodeMapping:
    """A source's code, in whose system, and the concept that it stands for."""

    source_vocabulary_id: str
    source_code: str
    target_concept_id: int
    words: str = ""

    def __post_init__(self) -> None:
        """Raises: ValueError for what OMOP's table has no room for."""
        if not 0 < len(self.source_vocabulary_id) <= VOCABULARY_CHARACTERS:
            raise ValueError(f"source_vocabulary_id needs 1 to {VOCABULARY_CHARACTERS} characters")
        if not 0 < len(self.source_code) <= CODE_CHARACTERS:
            raise ValueError(f"source_code needs 1 to {CODE_CHARACTERS} characters")
        if self.target_concept_id <= 0:
            raise ValueError("target_concept_id is above 0")


def content_version(mappings: Iterable[CodeMapping]) -> str:
    """Return a name for a set of mappings: the same set has the same name, whatever its order.

    >>> content_version([]) == content_version(())
    True
    """
    lines = sorted({f"{m.source_vocabulary_id}\t{m.source_code}\t{m.target_concept_id}" for m in mappings})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def put(
    writer: duckdb.DuckDBPyConnection, mappings: Iterable[CodeMapping], *, origin: str, now: datetime
) -> int:
    """Bring mappings in force within the caller's transaction; return how many are new.

    A code that was mapped before is mapped anew: the old row stays in the ledger with its end.
    """
    writer.execute(_MAKE)
    at = now.astimezone(UTC).replace(tzinfo=None)
    fresh = list(dict.fromkeys(mappings))
    if not fresh:
        return 0
    rows = {
        "v": pa.array([m.source_vocabulary_id for m in fresh], pa.string()),
        "c": pa.array([m.source_code for m in fresh], pa.string()),
        "words": pa.array([m.words[:WORDS_CHARACTERS] for m in fresh], pa.string()),
        "t": pa.array([m.target_concept_id for m in fresh], pa.int64()),
    }
    writer.register("fedtwin_batch", pa.table(rows))
    writer.execute("CREATE OR REPLACE TEMP TABLE fedtwin_new_map AS SELECT * FROM fedtwin_batch")
    writer.unregister("fedtwin_batch")
    same = (
        "EXISTS (SELECT 1 FROM fedtwin_code_map l WHERE l.until IS NULL AND l.source_vocabulary_id = v"
        " AND l.source_code = c AND l.target_concept_id = t"
        " AND split_part(l.origin, '-', 1) = split_part(?, '-', 1))"
    )
    writer.execute(f"DELETE FROM fedtwin_new_map WHERE {same}", [origin])  # noqa: S608 (our words, as below)
    count = writer.execute("SELECT count(*) FROM fedtwin_new_map").fetchone()
    assert count is not None, "an aggregate returns one row"
    _end(writer, "(source_vocabulary_id, source_code) IN (SELECT (v, c) FROM fedtwin_new_map)", at)
    writer.execute(
        "INSERT INTO fedtwin_code_map SELECT ?, v, c, words, t, ?, NULL FROM fedtwin_new_map", [origin, at]
    )
    writer.execute(
        "INSERT INTO source_to_concept_map SELECT c, 0, v, words, t, coalesce(k.vocabulary_id, 'None'), "
        "?, ?, NULL"
        " FROM fedtwin_new_map LEFT JOIN concept k ON k.concept_id = t",
        list(ALWAYS),
    )
    writer.execute("DROP TABLE fedtwin_new_map")
    return int(count[0])


def end(writer: duckdb.DuckDBPyConnection, *, origin: str, now: datetime) -> None:
    """Take an origin's mappings out of force, within the caller's transaction."""
    writer.execute(_MAKE)
    _end(writer, "origin = '" + origin.replace("'", "''") + "'", now.astimezone(UTC).replace(tzinfo=None))


def version(store: OmopStore) -> str | None:
    """Return a name for what the hospital itself has mapped, as it holds now; None if that is nothing."""
    if not store.has("fedtwin_code_map"):
        return None
    rows = store.connection.con.execute(
        "SELECT source_vocabulary_id, source_code, target_concept_id FROM fedtwin_code_map"
        " WHERE until IS NULL AND origin LIKE 'review-%'"
    ).fetchall()
    return content_version(CodeMapping(*row) for row in rows) if rows else None


def _end(writer: duckdb.DuckDBPyConnection, which: str, at: datetime) -> None:
    """End the ledger's rows `which`, and take them out of OMOP's table."""
    writer.execute(
        "CREATE OR REPLACE TEMP TABLE fedtwin_ended AS"  # noqa: S608 (our words)
        " SELECT DISTINCT source_vocabulary_id AS v, source_code AS c,"
        f" target_concept_id AS t FROM fedtwin_code_map WHERE until IS NULL AND ({which})"
    )
    writer.execute(
        "DELETE FROM source_to_concept_map USING fedtwin_ended"
        " WHERE source_vocabulary_id = v AND source_code = c AND target_concept_id = t"
    )
    writer.execute(f"UPDATE fedtwin_code_map SET until = ? WHERE until IS NULL AND ({which})", [at])  # noqa: S608
    writer.execute("DROP TABLE fedtwin_ended")
