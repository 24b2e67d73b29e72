"""Patients that mappings tell of, once they turn out to be somebody else: their records go where others go.

A mapping's records go into the CDM as they come, a person's description and death too. Once two of the
hospital's numbers are one patient, what a mapping said of them is kept beside the CDM as other descriptions
are (`fedtwin_held_person`, `fedtwin_held_death`; `record_id` is the person's), and the CDM's row is drawn
from all. It does not matter which came first, the file or the merge.
"""

# ruff: noqa: S608 (statements are put together from names of our own)

from __future__ import annotations

import duckdb
import numpy as np

from node.omop import fact_persons
from node.omop.side_tables import WAITING, held

_CANON = "CREATE OR REPLACE TEMP TABLE canon (person_id BIGINT, into_person_id BIGINT, days BIGINT)"
_MERGED = "(SELECT person_id FROM canon)"


def known(cursor: duckdb.DuckDBPyConnection) -> np.ndarray:
    """Return in order the ids of all who are described, and of who turned out to be one of them."""
    found = cursor.execute("SELECT person_id FROM person").to_arrow_table()["person_id"].to_numpy()
    there = set(found.tolist())
    merged = [one for one, (into, _) in fact_persons.canonical(cursor).items() if into in there]
    known: np.ndarray = np.union1d(found, np.array(merged, dtype=np.int64))
    return known


def described(cursor: duckdb.DuckDBPyConnection) -> np.ndarray:
    """Return in order the ids of all who are described under that very id."""
    found: np.ndarray = cursor.execute(
        "SELECT person_id FROM person UNION"
        f" SELECT person_id FROM {held('person')} WHERE record_id = person_id ORDER BY person_id"
    ).to_arrow_table()["person_id"].to_numpy()  # fmt: skip
    return found


def follow(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring what mappings told of persons who are somebody else by `canon` to who that is."""
    if cursor.execute("SELECT 1 FROM canon LIMIT 1").fetchone() is None:
        return
    for name in WAITING:
        cursor.execute(  # of stores of an earlier version
            f"UPDATE fedtwin_provenance p SET person_id = t.person_id FROM {name} t"
            f" WHERE p.person_id IS NULL AND p.table_name = '{name}' AND p.record_id = t.{name}_id"
            f" AND t.person_id IN {_MERGED}"
        )
    fact_persons.move(cursor, list(WAITING))
    either = "(SELECT person_id FROM canon UNION SELECT into_person_id FROM canon)"
    for table in ("person", "death"):
        cursor.execute(
            f"INSERT INTO {held(table)} BY NAME SELECT t.*, t.person_id AS record_id,"
            f" NULL::TIMESTAMP AS version, 0 AS rank FROM {table} t WHERE t.person_id IN {either}"
            f" AND t.person_id IN (SELECT record_id FROM fedtwin_provenance WHERE table_name = '{table}')"
            f" AND t.person_id NOT IN (SELECT record_id FROM {held(table)})"
        )
        cursor.execute(f"DELETE FROM {table} WHERE person_id IN {_MERGED}")


def follow_now(cursor: duckdb.DuckDBPyConnection) -> None:
    """The same at the end of a load by a mapping, with what is drawn from it."""
    merged = fact_persons.canonical(cursor)
    if not merged:
        return
    cursor.execute(_CANON)
    fact_persons.fill(cursor, "canon", [(person, *now) for person, now in merged.items()])
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE touched AS SELECT DISTINCT unnest([c.person_id, c.into_person_id])"
        " AS person_id FROM canon c WHERE c.person_id IN (SELECT person_id FROM fedtwin_provenance"
        " WHERE load_id NOT IN (SELECT load_id FROM fedtwin_load))"  # this load is not written yet
    )
    follow(cursor)
    fact_persons.draw(cursor)
    cursor.execute(
        "INSERT INTO fedtwin_dirty SELECT person_id FROM touched"
        " WHERE person_id NOT IN (SELECT person_id FROM fedtwin_dirty)"
    )


def forget(cursor: duckdb.DuckDBPyConnection, load_id: int) -> None:
    """Take back what an earlier load said of persons who are somebody else by now."""
    for table in ("person", "death"):
        cursor.execute(
            f"DELETE FROM {held(table)} WHERE record_id = person_id AND record_id IN (SELECT record_id"
            " FROM fedtwin_provenance WHERE load_id = ? AND table_name = ?)",
            [load_id, table],
        )
