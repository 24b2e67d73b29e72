"""payer_plan_period: what sources tell of cover, a year or a bill at a time, joined where it touches.

Sources tell of one cover in parts: a beneficiary file per year, an enrolment per month, a bill per day. What
was told lies in `fedtwin_held_payer_plan_period`, as its source said it; the CDM's rows are drawn from it.

Guarantee: two parts are joined if they are of one person (whoever they were known as), one payer and one
plan, and the later begins at most on the day after the earlier ends. So no day is in a period that no source
says is covered, and every day that one says is. It depends on the parts alone, not on the order of files; a
period has the id of its first part. (OHDSI's conversion of MarketScan joins over gaps of up to 32 days, as
its source has months; ours does not.)

Where only years are stored (`year-only`) days are not known, and parts of different years stay apart.
"""

# ruff: noqa: S608 (statements are put together from names of our own)

from __future__ import annotations

import duckdb

from node.omop.fact_persons import canonical, fill
from node.omop.side_tables import PLAN_PARTS, former, held
from node.omop.tables import cdm_tables

TABLE = "payer_plan_period"
MAX_GAP_DAYS = 1  # between the last day of one part and the first of the next: none uncovered
_OWN = (f"{TABLE}_id", "person_id", f"{TABLE}_start_date", f"{TABLE}_end_date")
_DIRTY = "SELECT person_id FROM fedtwin_dirty"
_OLD_WAITING = f"fedtwin_waiting_{TABLE}"  # of stores of an earlier version, which kept parts in the CDM


def draw(cursor: duckdb.DuckDBPyConnection, persons: str = _DIRTY) -> None:
    """Make the periods of `persons` (a SELECT of their ids) anew from what was told."""
    for table in (TABLE, PLAN_PARTS):
        cursor.execute(f"DELETE FROM {table} WHERE person_id IN ({persons})")
    if cursor.execute(f"SELECT 1 FROM {held(TABLE)} LIMIT 1").fetchone() is None:
        return
    _who(cursor)
    what = ", ".join(name for name in cdm_tables()[TABLE].columns if name not in _OWN)
    over = f"OVER (PARTITION BY person_id, {what} ORDER BY first, record_id ROWS"
    days = "to_days(CAST(coalesce(w.days, 0) AS INTEGER))"
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE plan_part AS WITH told AS (SELECT h.record_id,"
        " coalesce(w.into_person_id, h.person_id) AS person_id,"
        f" CAST({TABLE}_start_date + {days} AS DATE) AS first,"
        f" CAST({TABLE}_end_date + {days} AS DATE) AS last, {what}"
        f" FROM {held(TABLE)} h LEFT JOIN plan_who w ON w.person_id = h.person_id"
        f" WHERE coalesce(w.into_person_id, h.person_id) IN ({persons})"
        " AND coalesce(w.into_person_id, h.person_id) IN (SELECT person_id FROM person)),"
        " marked AS (SELECT *, coalesce(first > max(last)"
        f" {over} BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + {MAX_GAP_DAYS}, true) AS starts FROM told)"
        f" SELECT *, count(*) FILTER (starts) {over} UNBOUNDED PRECEDING) AS nth FROM marked"
    )
    cursor.execute(
        f"INSERT INTO {TABLE} BY NAME SELECT arg_min(record_id, row(first, record_id)) AS {TABLE}_id,"
        f" person_id, min(first) AS {TABLE}_start_date, max(last) AS {TABLE}_end_date, {what}"
        f" FROM plan_part GROUP BY person_id, {what}, nth"
    )
    cursor.execute(
        f"INSERT INTO {PLAN_PARTS} BY NAME SELECT first_value(record_id) OVER (PARTITION BY person_id,"
        f" {what}, nth ORDER BY first, record_id) AS {TABLE}_id, record_id, person_id FROM plan_part"
    )
    cursor.execute("DROP TABLE plan_part")


def adopt(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring a store up to date whose earlier version kept the parts themselves in the CDM."""
    found = cursor.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [_OLD_WAITING])
    if found.fetchone() is None:
        return
    _who(cursor)
    moved = ", ".join(
        f"CAST(t.{name} - to_days(CAST(coalesce(w.days, 0) AS INTEGER)) AS DATE) AS {name}"
        for name in _OWN[2:]
    )
    rest = ", ".join(f"t.{name}" for name in cdm_tables()[TABLE].columns if name not in _OWN[1:])
    for table in (TABLE, _OLD_WAITING):
        cursor.execute(
            f"INSERT INTO {held(TABLE)} BY NAME SELECT p.record_id, {rest}, {moved},"
            " coalesce(p.person_id, t.person_id) AS person_id, g.rank,"
            " nullif(g.version, '-infinity'::TIMESTAMP) AS version"
            f" FROM {table} t JOIN fedtwin_provenance p ON p.table_name = '{TABLE}'"
            f" AND p.record_id = t.{TABLE}_id"
            " LEFT JOIN fedtwin_group g ON g.group_id = p.group_id AND g.holds"
            " LEFT JOIN plan_who w ON w.person_id = p.person_id"
        )
    cursor.execute(
        f"UPDATE {former(TABLE)} t SET record_id = {TABLE}_id, person_id = p.person_id"
        " FROM fedtwin_former_provenance p WHERE t.record_id IS NULL AND p.rank = t.rank"
        f" AND p.table_name = '{TABLE}' AND p.record_id = t.{TABLE}_id"
    )
    back = ", ".join(f"{name} = CAST({name} - to_days(CAST(w.days AS INTEGER)) AS DATE)" for name in _OWN[2:])
    cursor.execute(f"UPDATE {former(TABLE)} t SET {back} FROM plan_who w WHERE w.person_id = t.person_id")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE plan_persons AS SELECT DISTINCT person_id FROM {TABLE}")
    draw(cursor, "SELECT person_id FROM plan_persons")
    cursor.execute(f"DROP TABLE {_OLD_WAITING}")


def _who(cursor: duckdb.DuckDBPyConnection) -> None:
    """`plan_who`: who persons are now that were told of under another id, and the days between them."""
    known = canonical(cursor)
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE plan_who (person_id BIGINT, into_person_id BIGINT, days BIGINT)"
    )
    fill(cursor, "plan_who", [(person, *now) for person, now in known.items()])
