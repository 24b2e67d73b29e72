"""Visits of which a source tells the end and not the beginning: a discharge without the admission's time.

Such a version of a visit is partial. It begins when the version before it says, whichever that is and
whenever it came; with no version before it, it does not hold, and waits for one. A version that says when the
visit began is never partial and takes nothing from others. So the end is not lost, a beginning is never made
up, and the order of files leaves no trace.
"""

# ruff: noqa: S608 (statements are put together from names of our own)

from __future__ import annotations

import duckdb

from node.omop.fact_persons import places_of
from node.omop.side_tables import former

OPEN = 2  # `partial` of a version that says the visit goes on
_TABLE = "visit_occurrence"


def choose(cursor: duckdb.DuckDBPyConnection, context: str) -> None:
    """Put into `stage_filled` which version each partial one of `context` begins by: the last before it."""
    cursor.execute(
        "INSERT INTO stage_filled SELECT p.group_id, p.rank, arg_max(b.group_id, row(b.moment, b.rank)),"
        f" arg_max(b.rank, row(b.moment, b.rank)) FROM {context} p JOIN {context} b USING (who, thing_id)"
        " WHERE p.partial IS NOT NULL AND b.partial IS NULL AND row(b.moment, b.rank) < row(p.moment, p.rank)"
        " GROUP BY p.group_id, p.rank"
    )


def fill(cursor: duckdb.DuckDBPyConnection) -> None:
    """Let the partial versions of `stage_filled` begin, in the CDM and beside it, when their bases say."""
    if cursor.execute("SELECT 1 FROM stage_filled LIMIT 1").fetchone() is None:
        return
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE begins AS SELECT f.group_id, f.rank, g.partial, g.holds,"
        " b.visit_start_date AS day, b.visit_start_datetime AS stamp, b.visit_concept_id AS concept_id,"
        " coalesce(p.utc_offset_min, 0) AS offset_min FROM stage_filled f"
        " JOIN fedtwin_group g ON g.group_id = f.group_id AND g.rank = f.rank"
        f" JOIN {former(_TABLE)} b ON b.group_id = f.base_group_id AND b.rank = f.base_rank"
        f" LEFT JOIN fedtwin_former_provenance p ON p.table_name = '{_TABLE}'"
        " AND p.group_id = f.base_group_id AND p.rank = f.base_rank"
    )
    # an end before the beginning is wrong, and the beginning then not known
    usable = f"(s.partial = {OPEN} OR s.day <= t.visit_end_date)"
    changes = (
        f"visit_start_date = CASE WHEN {usable} THEN s.day ELSE t.visit_end_date END,"
        f" visit_start_datetime = CASE WHEN {usable} THEN"
        " s.stamp + to_minutes(CAST(coalesce(p.utc_offset_min, 0) - s.offset_min AS INTEGER))"
        " ELSE t.visit_end_datetime END,"
        f" visit_end_date = CASE WHEN s.partial = {OPEN} THEN s.day ELSE t.visit_end_date END,"
        " visit_concept_id = CASE WHEN t.visit_source_value IS NULL THEN s.concept_id"
        " ELSE t.visit_concept_id END"
    )
    for table in places_of(_TABLE):
        cursor.execute(
            f"UPDATE {table} t SET {changes} FROM begins s JOIN fedtwin_provenance p"
            f" ON p.table_name = '{_TABLE}' AND p.group_id = s.group_id"
            f" WHERE s.holds AND t.{_TABLE}_id = p.record_id"
        )
    cursor.execute(
        f"UPDATE {former(_TABLE)} t SET {changes} FROM begins s JOIN fedtwin_former_provenance p"
        f" ON p.table_name = '{_TABLE}' AND p.group_id = s.group_id AND p.rank = s.rank"
        " WHERE t.group_id = s.group_id AND t.rank = s.rank"
    )
