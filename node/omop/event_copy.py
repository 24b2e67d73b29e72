"""A copy of all events, person by person, so that one person's timeline is read in milliseconds.

The CDM's tables lie in order of concept, which questions need; a person's records are then all over them.
Guarantee: the copy is read only while it is whole. Whatever writes to the store empties it in the same
transaction, or names there whose events have changed (`STALE`; a load of facts knows whose); it never holds
a record that the store no longer has. `node.timeline_copy` fills it; without it timelines are read from the
CDM's tables, slower and the same.
"""

# ruff: noqa: S608 (statements are put together from names of our own)

from __future__ import annotations

import duckdb

FORMAT = 2  # what is copied, and how kinds are numbered: 2 since images are events
FORMATS = "fedtwin_timeline_format"  # one row: that of the copy
EVENT_COPY = "fedtwin_timeline"
COLUMNS = (  # name and type, in order; `last` is the end, `kind_order` the order of kinds at one moment
    ("person_id", "BIGINT"),
    ("time", "TIMESTAMP"),
    ("precision", "VARCHAR"),
    ("utc_offset_min", "SMALLINT"),
    ("kind", "VARCHAR"),
    ("table", "VARCHAR"),
    ("record_id", "BIGINT"),
    ("concept_id", "BIGINT"),
    ("source_value", "VARCHAR"),
    ("value_number", "DOUBLE"),
    ("value_text", "VARCHAR"),
    ("value_concept_id", "BIGINT"),
    ("unit_concept_id", "BIGINT"),
    ("unit", "VARCHAR"),
    ("type_concept_id", "BIGINT"),
    ("visit_occurrence_id", "BIGINT"),
    ("last", "TIMESTAMP"),
    ("recorded_at", "TIMESTAMP"),
    ("loaded_at", "TIMESTAMP"),
    ("load_id", "BIGINT"),
    ("kind_order", "TINYINT"),
    ("until", "TIMESTAMP"),  # of what holds no longer: up to when it was known
    ("gone_load_id", "BIGINT"),  # and which load put another in its place
)
_BODY = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS)
MAKE = f"CREATE TABLE IF NOT EXISTS {EVENT_COPY} ({_BODY})" + "".join(
    f"; ALTER TABLE {EVENT_COPY} ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in COLUMNS[-2:]
)
STALE = "fedtwin_timeline_stale"  # persons whose events in the copy are to be made anew
PATCHED = "fedtwin_timeline_patched"  # a row for each time that was done: then persons lie in no order
MAKE += f"; CREATE TABLE IF NOT EXISTS {STALE} (person_id BIGINT NOT NULL)"
MAKE += f"; CREATE TABLE IF NOT EXISTS {PATCHED} (persons BIGINT NOT NULL)"
MAKE += f"; CREATE TABLE IF NOT EXISTS {FORMATS} (format BIGINT NOT NULL)"
EMPTY = f"TRUNCATE {EVENT_COPY}; TRUNCATE {STALE}; TRUNCATE {PATCHED}"
# Events of persons who have left go at once.
TOUCH = (
    f"INSERT INTO {STALE} SELECT DISTINCT person_id FROM touched WHERE EXISTS (FROM {EVENT_COPY})"
    f" AND person_id NOT IN (SELECT person_id FROM {STALE});"
    f" DELETE FROM {EVENT_COPY} WHERE person_id NOT IN (SELECT person_id FROM person)"
)
FORGET_STALE = (
    f"CREATE OR REPLACE TEMP TABLE named_stale AS FROM {STALE};"
    f"DELETE FROM {EVENT_COPY} WHERE person_id IN (SELECT person_id FROM {STALE});"
    f" INSERT INTO {PATCHED} SELECT count(*) FROM {STALE}; TRUNCATE {STALE}"
)


def make(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the copy's tables; empty a copy that an earlier version filled, which had other events."""
    cursor.execute(MAKE)
    if cursor.execute(f"SELECT format FROM {FORMATS}").fetchall() != [(FORMAT,)]:
        cursor.execute(f"{EMPTY}; TRUNCATE {FORMATS}; INSERT INTO {FORMATS} VALUES ({FORMAT})")
