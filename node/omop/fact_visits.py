"""The visits that records name: a record has its visit once the visit is there, whatever came first.

A visit may come later than what happened in it, leave, or be told of under another number of the patient.
Guarantee: no record of the CDM names a visit that is not there; what its source named is kept beside it
(`fedtwin_unvisited`) for as long as that is not what stands in the CDM.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

import duckdb

from node.omop.fact_persons import places_of
from node.omop.fact_versions import some
from node.omop.side_tables import VISITED, waiting

_VISITS = (
    "SELECT visit_occurrence_id FROM visit_occurrence"
    f" UNION ALL SELECT visit_occurrence_id FROM {waiting('visit_occurrence')}"
)


def note_missing(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Note the visits that staged records name and that are not there; visits themselves are stored already.

    Returns whether there are any, in `stage_missing` (visit_id, thing_id).
    """
    cursor.execute(
        "CREATE TABLE stage_missing AS SELECT visit_id, any_value(thing_id) AS thing_id FROM stage_visit"
        f" WHERE visit_id IS NOT NULL AND visit_id NOT IN ({_VISITS}) GROUP BY visit_id"
    )
    return some(cursor, "stage_missing")


def part_from(cursor: duckdb.DuckDBPyConnection, relation: str, table: str) -> None:
    """Note for records about to be placed in `table` which of them name a missing visit."""
    if table not in VISITED:
        return
    own, whose = "s.person_id", ""
    if some(cursor, "canon"):  # as their source named them
        own = "coalesce(p.person_id, s.person_id)"
        whose = (
            f" LEFT JOIN fedtwin_provenance p ON p.table_name = '{table}' AND p.record_id = s.{table}_id"
            " AND p.person_id IN (SELECT person_id FROM canon)"
        )
    cursor.execute(
        f"INSERT INTO fedtwin_unvisited SELECT '{table}', s.{table}_id, {own}, m.visit_id, m.thing_id"
        f" FROM {relation} s JOIN stage_missing m ON m.visit_id = s.visit_occurrence_id{whose}"
    )


def join(cursor: duckdb.DuckDBPyConnection) -> None:
    """Give records of touched persons the visits that they name, and take from them visits that have left."""
    _take(cursor)
    if not some(cursor, "fedtwin_unvisited"):
        return
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE named AS SELECT u.*, coalesce(c.into_person_id, u.person_id) AS who"
        " FROM fedtwin_unvisited u LEFT JOIN canon c ON c.person_id = u.person_id"
        " WHERE coalesce(c.into_person_id, u.person_id) IN (SELECT person_id FROM touched)"
        " OR u.person_id IN (SELECT person_id FROM touched)"
    )
    if not some(cursor, "named"):
        return
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE there AS SELECT visit_occurrence_id AS visit_id FROM ({_VISITS})"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE other AS SELECT g.thing_id,"
        " coalesce(c.into_person_id, g.person_id) AS who, min(g.group_id) AS visit_id FROM fedtwin_group g"
        " LEFT JOIN canon c ON c.person_id = g.person_id"
        " WHERE g.thing_id IN (SELECT thing_id FROM named) AND g.holds"
        " AND g.group_id IN (SELECT visit_id FROM there) GROUP BY ALL"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE found AS SELECT n.table_name, n.record_id, n.visit_id AS named,"
        " coalesce(t.visit_id, o.visit_id) AS visit_id FROM named n"
        " LEFT JOIN there t ON t.visit_id = n.visit_id"
        " LEFT JOIN other o ON o.thing_id = n.thing_id AND o.who = n.who"
    )
    for name in VISITED:
        if not some(cursor, f"found WHERE table_name = '{name}'"):
            continue
        for place in places_of(name):
            cursor.execute(
                f"UPDATE {place} t SET visit_occurrence_id = f.visit_id FROM found f"
                f" WHERE f.table_name = '{name}' AND f.record_id = t.{name}_id"
                " AND t.visit_occurrence_id IS DISTINCT FROM f.visit_id"
            )
    cursor.execute(
        "DELETE FROM fedtwin_unvisited u USING found f WHERE u.table_name = f.table_name"
        " AND u.record_id = f.record_id AND f.visit_id = f.named"
    )


def _take(cursor: duckdb.DuckDBPyConnection) -> None:
    """Note what the records of visits that have left have named."""
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE left_visits AS SELECT d.record_id AS visit_id,"
        " any_value(g.thing_id) AS thing_id FROM gone_visits d LEFT JOIN fedtwin_group g"
        f" ON g.group_id = d.record_id WHERE d.record_id NOT IN ({_VISITS}) GROUP BY ALL"
    )
    if not some(cursor, "left_visits"):
        return
    for name in VISITED:
        for place in places_of(name):
            these = f"FROM {place} t JOIN left_visits v ON v.visit_id = t.visit_occurrence_id"
            cursor.execute(
                f"INSERT INTO touched SELECT DISTINCT p.person_id FROM fedtwin_provenance p JOIN"
                f" (SELECT t.{name}_id AS record_id {these}) s USING (record_id)"
                f" WHERE p.table_name = '{name}' AND p.person_id IS NOT NULL"
            )
            cursor.execute(
                f"INSERT INTO fedtwin_unvisited SELECT '{name}', t.{name}_id,"
                f" coalesce(p.person_id, t.person_id), v.visit_id, v.thing_id {these}"
                f" LEFT JOIN fedtwin_provenance p ON p.table_name = '{name}' AND p.record_id = t.{name}_id"
                f" WHERE t.{name}_id NOT IN (SELECT record_id FROM fedtwin_unvisited"
                f" WHERE table_name = '{name}')"
            )
