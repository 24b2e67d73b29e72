"""Visits that turn out to be another patient's: what was told in them moves with them, dates and all.

A record moves if it names a visit that has moved and is not there any more; whoever names it, before the move
or after. Where the visit goes on to a third patient, or its patient turns out to be somebody else, the record
goes there. A cost moves with what it is for. Cover and deaths are of patients and not of visits, and stay.

Guarantee: what a load settles is settled as if nothing had ever moved, and the moves are made anew on top of
it (`undo`, `redo`), so that they depend on what was said and not on the order of files. What was told of a
patient who withdraws leaves, also where it has moved away, and what has moved to one.
"""

# ruff: noqa: S608 (statements are put together from names of our own)

from __future__ import annotations

import duckdb

from node.omop.fact_persons import canonical, fill, places_of, release
from node.omop.fact_versions import some
from node.omop.side_tables import VISITED, former, waiting
from node.omop.stage import Stage
from node.omop.tables import cdm_tables

_MOVES = """
CREATE OR REPLACE TEMP TABLE visit_canon (visit_id BIGINT, person_id BIGINT, into_visit_id BIGINT,
  into_person_id BIGINT, days BIGINT);
CREATE OR REPLACE TEMP TABLE moved_visits (visit_id BIGINT);
"""
_VISITS = (
    "SELECT visit_occurrence_id FROM visit_occurrence"
    f" UNION ALL SELECT visit_occurrence_id FROM {waiting('visit_occurrence')}"
)


def take_in(cursor: duckdb.DuckDBPyConnection, stage: Stage, load_id: int) -> None:
    """Take in what the load says of visits that moved.

    Afterwards `visit_canon` says of each such visit whose it is in the end, which one, and the days from the
    shift of whom it was told of; `moved_visits` has those for which that is new.
    """
    before = _ends(cursor)
    after = before
    if stage.has("visit_move"):
        cursor.execute(
            "INSERT INTO fedtwin_visit_move BY NAME SELECT DISTINCT *, ? AS load_id FROM stage_visit_move",
            [load_id],
        )
        after = _ends(cursor)
    cursor.execute(_MOVES)
    fill(cursor, "visit_canon", [(visit, *end) for visit, end in after.items()])
    changed = {visit for visit in before.keys() | after.keys() if before.get(visit) != after.get(visit)}
    fill(cursor, "moved_visits", [(visit,) for visit in sorted(changed)])


def _ends(cursor: duckdb.DuckDBPyConnection) -> dict[int, tuple[int, int, int, int]]:
    """Where each moved visit ends: person told of, visit, person, days. None for one that comes back."""
    rows = cursor.execute(
        "SELECT visit_id, person_id, into_visit_id, into_person_id, days FROM fedtwin_visit_move"
        " QUALIFY row_number() OVER (PARTITION BY visit_id ORDER BY version DESC NULLS LAST, rank DESC) = 1"
    ).fetchall()
    if not rows:
        return {}
    step = {visit: (into, person, days) for visit, _, into, person, days in rows}
    persons = canonical(cursor)
    found = {}
    for visit, told, *_ in rows:
        at, who, days, path = visit, told, 0, {visit}
        while at in step:
            at, who, more = step[at]
            days += more
            if at in path:
                break
            path.add(at)
        else:
            into, more = persons.get(who, (who, 0))
            found[visit] = (told, at, into, days + more)
    return found


def undo(cursor: duckdb.DuckDBPyConnection) -> None:
    """Put everything back to where it would stand if no visit had moved, and note in `moved_before` what."""
    cursor.execute("CREATE OR REPLACE TEMP TABLE moved_before AS FROM fedtwin_moved")
    if not some(cursor, "moved_before"):
        return
    for name in VISITED:
        if some(cursor, f"moved_before WHERE table_name = '{name}'"):
            _move(cursor, name, "moved_before", person="from_person_id", visit="from_visit_id", sign="-")
    cursor.execute("DELETE FROM fedtwin_moved")


def redo(cursor: duckdb.DuckDBPyConnection) -> None:
    """Move what names visits that moved. Persons who gain or lose by it are added to `touched`."""
    if not some(cursor, "visit_canon") and not some(cursor, "moved_before"):
        return
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE moving_now (table_name VARCHAR, record_id BIGINT, rank BIGINT,"
        " told_person_id BIGINT, from_person_id BIGINT, from_visit_id BIGINT, into_person_id BIGINT,"
        " days BIGINT, into_visit_id BIGINT)"
    )
    rest = (
        "t.person_id, t.visit_occurrence_id, v.into_person_id, v.days - coalesce(c.days, 0),"
        f" CASE WHEN v.into_visit_id IN ({_VISITS}) THEN v.into_visit_id END"
    )
    own = "LEFT JOIN canon c ON c.person_id = v.person_id"
    for name in VISITED:
        for place in places_of(name):
            cursor.execute(
                f"INSERT INTO moving_now SELECT '{name}', t.{name}_id, NULL, v.person_id, {rest}"
                f" FROM fedtwin_unvisited u JOIN visit_canon v ON v.visit_id = u.visit_id"
                f" JOIN {place} t ON t.{name}_id = u.record_id {own} WHERE u.table_name = '{name}'"
            )
        cursor.execute(
            f"INSERT INTO moving_now SELECT '{name}', t.{name}_id, t.rank, v.person_id, {rest}"
            f" FROM {former(name)} t JOIN visit_canon v ON v.visit_id = t.visit_occurrence_id {own}"
            f" WHERE v.visit_id NOT IN ({_VISITS})"
        )
        if some(cursor, f"moving_now WHERE table_name = '{name}'"):
            _move(cursor, name, "moving_now", person="into_person_id", visit="into_visit_id", sign="+")
    cursor.execute("INSERT INTO fedtwin_moved SELECT * EXCLUDE (into_visit_id) FROM moving_now")
    _touch(cursor)
    _place(cursor)


def _move(
    cursor: duckdb.DuckDBPyConnection, name: str, relation: str, *, person: str, visit: str, sign: str
) -> None:
    days = f"{sign} to_days(CAST(m.days AS INTEGER))"
    changes = [f"person_id = m.{person}", f"visit_occurrence_id = m.{visit}"]
    for field in cdm_tables()[name].fields:
        if field.datatype in ("date", "timestamp"):
            kind = "DATE" if field.datatype == "date" else "TIMESTAMP"
            changes.append(f"{field.name} = CAST({field.name} {days} AS {kind})")
    mine = f"FROM {relation} m WHERE m.table_name = '{name}'"
    for place in places_of(name):
        cursor.execute(
            f"UPDATE {place} t SET {', '.join(changes)} {mine} AND m.rank IS NULL"
            f" AND m.record_id = t.{name}_id"
        )
    cursor.execute(
        f"UPDATE {former(name)} t SET {', '.join(changes)} {mine} AND m.rank = t.rank"
        f" AND m.record_id = t.{name}_id"
    )
    cursor.execute(
        f"UPDATE fedtwin_provenance p SET recorded_at = p.recorded_at {days} {mine}"
        " AND p.table_name = m.table_name AND m.rank IS NULL AND m.record_id = p.record_id"
    )
    cursor.execute(
        f"UPDATE fedtwin_former_provenance p SET recorded_at = p.recorded_at {days},"
        f" until = CASE WHEN isinf(until) THEN until ELSE until {days} END {mine}"
        " AND p.table_name = m.table_name AND m.rank = p.rank AND m.record_id = p.record_id"
    )


def _touch(cursor: duckdb.DuckDBPyConnection) -> None:
    """Whoever has other records than before; and with one that moved both patients, since one's links name
    what the other now has."""
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE others AS"
        " (FROM moved_before EXCEPT ALL FROM fedtwin_moved) UNION ALL"
        " (FROM fedtwin_moved EXCEPT ALL FROM moved_before)"
    )
    moved = "(FROM moved_before UNION ALL FROM fedtwin_moved)"
    either = "SELECT unnest([told_person_id, from_person_id, into_person_id]) AS person_id FROM"
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE stirred AS {either} others UNION {either} {moved}"
        " WHERE told_person_id IN (SELECT person_id FROM touched)"
        " OR from_person_id IN (SELECT person_id FROM touched)"
        " OR into_person_id IN (SELECT person_id FROM touched)"
    )
    for table in ("touched", "fedtwin_dirty"):
        cursor.execute(
            f"INSERT INTO {table} SELECT person_id FROM stirred"
            f" WHERE person_id NOT IN (SELECT person_id FROM {table})"
        )


def _place(cursor: duckdb.DuckDBPyConnection) -> None:
    """Let what moved to somebody whom nobody describes wait, and what moved away from one no longer."""
    for name in VISITED:
        undescribed = (
            "person_id IN (SELECT person_id FROM stirred) AND person_id NOT IN (SELECT person_id FROM person)"
        )
        if some(cursor, f"{name} WHERE {undescribed}"):
            cursor.execute(f"INSERT INTO {waiting(name)} SELECT * FROM {name} WHERE {undescribed}")
            cursor.execute(f"DELETE FROM {name} WHERE {undescribed}")
    release(cursor)
    if some(cursor, "fedtwin_withdrawn"):
        cursor.execute(
            "INSERT INTO stage_withdrawn SELECT DISTINCT into_person_id FROM fedtwin_moved"
            " WHERE into_person_id IN (SELECT person_id FROM fedtwin_withdrawn)"
        )
