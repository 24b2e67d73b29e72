"""The stage of a load: tables beside the CDM where what a file says lies until it is settled what holds.

They lie in the store's file, so that memory is not of their size, and are nobody's content: they go when the
load ends, and those of a process that was killed when the store is opened again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import duckdb

from node.omop.side_tables import STAGED, staged_ddl

_MADE = """
CREATE TABLE stage_provenance (table_name VARCHAR, record_id BIGINT, source_row BIGINT, place VARCHAR,
  recorded_at TIMESTAMP, utc_offset_min SMALLINT, precision VARCHAR, transformations VARCHAR,
  person_id BIGINT, group_id BIGINT, version TIMESTAMP, rank BIGINT);
CREATE TABLE stage_group (group_id BIGINT, key_id BIGINT, base_key_id BIGINT, thing_id BIGINT,
  whole_id BIGINT, person_id BIGINT, version TIMESTAMP, rank BIGINT, visit_id BIGINT, partial TINYINT);
CREATE TABLE stage_filled (group_id BIGINT, rank BIGINT, base_group_id BIGINT, base_rank BIGINT);
CREATE TABLE stage_visit_move (visit_id BIGINT, person_id BIGINT, into_visit_id BIGINT,
  into_person_id BIGINT, days BIGINT, version TIMESTAMP, rank BIGINT);
CREATE TABLE stage_visit (visit_id BIGINT, thing_id BIGINT);
CREATE TABLE stage_retraction (key_id BIGINT, person_id BIGINT, version TIMESTAMP, visit_id BIGINT);
CREATE TABLE stage_alias (person_id BIGINT, into_person_id BIGINT, days BIGINT, version TIMESTAMP,
  rank BIGINT);
CREATE TABLE stage_withdrawn (person_id BIGINT);
CREATE TABLE stage_last_year (person_id BIGINT, year BIGINT);
CREATE TABLE stage_link (record_id BIGINT, key_id BIGINT, other_key_id BIGINT, person_id BIGINT,
  relationship_concept_id BIGINT, group_id BIGINT, rank BIGINT);
CREATE TABLE stage_quarantine (source_row BIGINT, field VARCHAR, reason VARCHAR, whole_row BOOLEAN);
CREATE TABLE stage_concern (thing_id BIGINT, whole_id BIGINT);
"""


class Stage:
    """The stage of one open load. Tables of records (STAGED) are made when there is a first row for them."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self.cursor = cursor
        self._put: Counter[str] = Counter()
        self._records: set[str] = set()
        cursor.execute(_MADE)

    def put(self, name: str, select: str) -> None:
        """Add the rows of a SELECT to `stage_<name>`, by the names of their columns."""
        if name in STAGED and name not in self._records:
            for statement in staged_ddl(f"stage_{name}", name):
                self.cursor.execute(statement)
            self._records.add(name)
        row = self.cursor.execute(f"INSERT INTO stage_{name} BY NAME {select}").fetchone()
        assert row is not None, "an insert says how many"
        self._put[name] += int(row[0])

    def has(self, name: str) -> bool:
        """Return whether rows were put into `stage_<name>`; some of them may have been put aside since."""
        return self._put[name] > 0

    def some(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of `names`, in their order, that rows were put into."""
        return tuple(name for name in names if self.has(name))


def drop_stage(cursor: duckdb.DuckDBPyConnection) -> None:
    """Remove the stage of a load, if there is one."""
    found = cursor.execute(
        "SELECT 'VIEW', view_name FROM duckdb_views() WHERE NOT internal AND starts_with(view_name, 'stage_')"
        " UNION ALL SELECT 'TABLE', table_name FROM duckdb_tables() WHERE starts_with(table_name, 'stage_')"
    ).fetchall()
    if found:
        cursor.execute("; ".join(f"DROP {kind} {name}" for kind, name in sorted(found, reverse=True)))
