"""One load of facts: what a file says replaces, retracts, moves and removes, whatever the order of files.

Records are staged beside the store, batch by batch, under ids that are the same whenever and in whichever
order a source is loaded; `finish` settles in a few statements what of them holds. What holds is decided by
content alone: the later version of a key, then the greater rank; a retraction against versions up to its own;
a withdrawal against everything, for good. So the same files in any order give the same store.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa

from node.omop import fact_persons
from node.omop.loading import Source
from node.omop.side_tables import DRAWN, WAITING, held, waiting
from node.omop.tables import cdm_tables

STAGED = (*WAITING, *(held(name) for name in DRAWN))
_STAGE_PROVENANCE = """
CREATE OR REPLACE TEMP TABLE stage_provenance (
  table_name VARCHAR, record_id BIGINT, source_row BIGINT, place VARCHAR, recorded_at TIMESTAMP,
  utc_offset_min SMALLINT, precision VARCHAR, transformations VARCHAR, person_id BIGINT, group_id BIGINT,
  version TIMESTAMP, rank BIGINT)
"""
_STAGE = (
    _STAGE_PROVENANCE,
    "CREATE OR REPLACE TEMP TABLE stage_group (group_id BIGINT, key_id BIGINT, base_key_id BIGINT,"
    " person_id BIGINT, version TIMESTAMP, rank BIGINT)",
    "CREATE OR REPLACE TEMP TABLE stage_retraction (key_id BIGINT, person_id BIGINT, version TIMESTAMP)",
    "CREATE OR REPLACE TEMP TABLE stage_alias (person_id BIGINT, into_person_id BIGINT, days BIGINT,"
    " version TIMESTAMP, rank BIGINT)",
    "CREATE OR REPLACE TEMP TABLE stage_withdrawn (person_id BIGINT)",
    "CREATE OR REPLACE TEMP TABLE stage_last_year (person_id BIGINT, year BIGINT)",
    "CREATE OR REPLACE TEMP TABLE stage_link (record_id BIGINT, key_id BIGINT, other_key_id BIGINT,"
    " person_id BIGINT, relationship_concept_id BIGINT)",
)
_RETRACTS = (  # r: a retraction, g: what has a key
    "(r.key_id = g.key_id OR r.key_id = g.base_key_id) AND (r.person_id IS NULL OR r.person_id = g.person_id)"
    " AND (r.version IS NULL OR g.version IS NULL OR g.version <= r.version)"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Which reader made the facts, and by which vocabulary their codes are mapped."""

    reader: str
    version: str
    vocabulary_version: str | None


def id_of(table: str) -> str:
    """Return the column that names a record of a CDM table or of one of the tables beside it."""
    if table.startswith("fedtwin_held_"):
        return "record_id"
    name = table.removeprefix("fedtwin_waiting_")
    return f"{name}_id"


def key_name(table: str) -> str:
    """Return the CDM table's name that provenance has for records of `table`."""
    return table.removeprefix("fedtwin_held_").removeprefix("fedtwin_waiting_")


class FactLoad:
    """An open load of facts. Stage, then leave the block: `OmopStore.load_facts` commits or rolls back."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        source: Source,
        reading: Reading,
        *,
        now: datetime,
        replaces: Sequence[int],
    ) -> None:
        """Use `OmopStore.load_facts`."""
        if now.tzinfo is None:
            raise ValueError("now must carry a time zone")
        self.cursor = cursor
        self._source = source
        self._reading = reading
        self._now = now.astimezone(UTC).replace(tzinfo=None)
        self.load_id = self._scalar("SELECT coalesce(max(load_id), 0) + 1 FROM fedtwin_load")
        self.records = 0
        self.records_quarantined = 0
        self.quarantined = 0
        self.superseded = 0
        self.unkeyed = False  # whether a fact had no key of its own, so that loading it elsewhere doubles it
        self.seconds = 0.0
        self.events: Counter[str] = Counter()
        for statement in _STAGE:
            cursor.execute(statement)
        for table in STAGED:
            name = key_name(table)
            made = cdm_tables()[name].ddl(f"stage_{table}").replace("CREATE TABLE IF NOT EXISTS", "")
            cursor.execute("CREATE OR REPLACE TEMP TABLE" + made.replace(" NOT NULL", ""))
            if table.startswith("fedtwin_held_"):
                for column in ("record_id BIGINT", "version TIMESTAMP", "rank BIGINT"):
                    cursor.execute(f"ALTER TABLE stage_{table} ADD COLUMN {column}")
        cursor.execute("CREATE OR REPLACE TEMP TABLE touched (person_id BIGINT)")
        cursor.execute("CREATE OR REPLACE TEMP TABLE doomed (table_name VARCHAR, record_id BIGINT)")
        self.withdrawn = fact_persons.withdrawn(cursor)
        self._replaces = list(replaces)

    def has_left(self, person_ids: np.ndarray) -> np.ndarray:
        """Return which of the persons withdrew before this load."""
        found: np.ndarray = np.isin(person_ids, self.withdrawn)
        return found

    def quarantine(self, notes: pa.Table) -> None:
        """Note what was turned away: source_row, field, reason, whole_row. Never takes the values."""
        if not notes.num_rows:
            return
        self.cursor.register("notes", notes)
        self.cursor.execute(
            "INSERT INTO fedtwin_quarantine SELECT ?, ?, source_row, field, reason, whole_row FROM notes",
            [self.load_id, self._source.name],
        )
        self.cursor.unregister("notes")
        self.quarantined += notes.num_rows

    def finish(self) -> None:
        """Settle what holds, and write the load's own. Called by `OmopStore.load_facts`."""
        self._forget()
        self._settle_versions()
        renamed = fact_persons.rename(self.cursor, self.load_id)
        self._delete_doomed()
        self._keep()
        fact_persons.move_staged(self.cursor, [f"stage_{table}" for table in WAITING])
        if renamed:
            fact_persons.move_stored(self.cursor)
        self._store_descriptions()
        self._note_touched()
        fact_persons.draw(self.cursor)
        self._store_records()
        fact_persons.wait(self.cursor)
        fact_persons.withdraw(self.cursor)
        self._write_load()
        for table in (
            "provenance",
            "group",
            "retraction",
            "alias",
            "withdrawn",
            "last_year",
            "link",
            *STAGED,
        ):
            self.cursor.execute(f"DROP TABLE stage_{table}")

    def _forget(self) -> None:
        """Take back what earlier loads of this very file brought; it is about to be loaded again."""
        if not self._replaces:
            return
        old = f"load_id IN ({', '.join(str(load_id) for load_id in self._replaces)})"
        self._run(f"INSERT INTO doomed SELECT table_name, record_id FROM fedtwin_provenance WHERE {old}")
        self._delete_doomed()
        for side in ("group", "retraction", "alias", "quarantine", "load"):
            self._run(f"DELETE FROM fedtwin_{side} WHERE {old}")

    def _settle_versions(self) -> None:
        """Which staged groups hold, and which stored ones go: tables `winner` and `doomed`."""
        self._run(
            "CREATE OR REPLACE TEMP TABLE winner AS SELECT * FROM ("
            " SELECT *, true AS fresh FROM stage_group UNION ALL BY NAME"
            " SELECT g.* EXCLUDE (load_id), false AS fresh FROM fedtwin_group g"
            " WHERE group_id IN (SELECT group_id FROM stage_group))"
            " QUALIFY row_number() OVER (PARTITION BY group_id ORDER BY version DESC NULLS LAST, rank DESC,"
            " fresh) = 1"
        )
        self._run(
            "INSERT INTO fedtwin_retraction SELECT DISTINCT key_id, person_id, version, ?"
            " FROM stage_retraction",
            [self.load_id],
        )
        retracted = (
            f"SELECT g.group_id FROM {{}} g JOIN fedtwin_retraction r ON r.key_id = g.key_id AND {_RETRACTS}"
            f" UNION SELECT g.group_id FROM {{}} g JOIN fedtwin_retraction r ON r.key_id = g.base_key_id"
            f" AND {_RETRACTS}"
        )
        self._run("CREATE OR REPLACE TEMP TABLE retracted AS " + retracted.format("winner", "winner"))
        replaced = (
            "SELECT group_id FROM fedtwin_group WHERE group_id IN (SELECT group_id FROM winner WHERE fresh)"
        )
        if self._scalar("SELECT count(*) FROM stage_retraction"):
            new = retracted.replace("fedtwin_retraction", "stage_retraction")
            replaced += " UNION " + new.format("fedtwin_group", "fedtwin_group")
        self._run(f"CREATE OR REPLACE TEMP TABLE leaving AS {replaced}")
        if self._scalar("SELECT count(*) FROM leaving"):
            self._run(
                "INSERT INTO doomed SELECT table_name, record_id FROM fedtwin_provenance"
                " WHERE group_id IN (SELECT group_id FROM leaving)"
            )
            self._run("DELETE FROM fedtwin_group WHERE group_id IN (SELECT group_id FROM winner WHERE fresh)")
        self._run(
            "INSERT INTO fedtwin_group BY NAME"
            " SELECT * EXCLUDE (fresh), ? AS load_id FROM winner WHERE fresh",
            [self.load_id],
        )

    def _delete_doomed(self) -> None:
        names = self._names("SELECT DISTINCT table_name FROM doomed")
        if not names:
            return
        self._run(
            "INSERT INTO touched SELECT DISTINCT person_id FROM fedtwin_provenance p SEMI JOIN doomed"
            " USING (table_name, record_id) WHERE person_id IS NOT NULL"
        )
        for name in names:
            mine = f"(SELECT record_id FROM doomed WHERE table_name = '{name}')"
            for table in fact_persons.places_of(name):
                self._run(f"DELETE FROM {table} WHERE {id_of(table)} IN {mine}")
        self._run("DELETE FROM fedtwin_link WHERE record_id IN (SELECT record_id FROM doomed)")
        self._run(
            "DELETE FROM fedtwin_provenance p USING doomed d"
            " WHERE p.table_name = d.table_name AND p.record_id = d.record_id"
        )
        self._run("DELETE FROM doomed")

    def _keep(self) -> None:
        """Leave in the stage what holds."""
        before = self._scalar("SELECT count(*) FROM stage_provenance")
        self._run(
            "DELETE FROM stage_provenance s WHERE s.group_id IS NOT NULL AND NOT EXISTS ("
            " SELECT 1 FROM winner w WHERE w.group_id = s.group_id AND w.fresh AND w.rank = s.rank"
            " AND w.version IS NOT DISTINCT FROM s.version"
            " AND w.group_id NOT IN (SELECT group_id FROM retracted))"
        )
        after = self._scalar("SELECT count(*) FROM stage_provenance")
        self.superseded = before - after
        if self.superseded:
            for table in STAGED:
                self._run(
                    f"DELETE FROM stage_{table} WHERE {id_of(table)} NOT IN (SELECT record_id"
                    f" FROM stage_provenance WHERE table_name = '{key_name(table)}')"
                )
            self._run(
                "DELETE FROM stage_link WHERE record_id NOT IN (SELECT record_id FROM stage_provenance)"
            )

    def _store_records(self) -> None:
        """Records of described persons go into the CDM, others wait."""
        here = "person_id IN (SELECT person_id FROM person)"
        for table in WAITING:
            count = self._scalar(f"SELECT count(*) FROM stage_{table}")
            if count:
                self.events[table] += count
                self._run(f"INSERT INTO {table} SELECT * FROM stage_{table} WHERE {here}")
                self._run(f"INSERT INTO {waiting(table)} SELECT * FROM stage_{table} WHERE NOT {here}")

    def _store_descriptions(self) -> None:
        """What persons, deaths and costs are drawn from, and where everything comes from."""
        for name in DRAWN:
            count = self._scalar(f"SELECT count(*) FROM stage_{held(name)}")
            if count:
                self.events[name] += count
                self._run(f"INSERT INTO {held(name)} BY NAME SELECT * FROM stage_{held(name)}")
        self._run(
            "INSERT INTO fedtwin_provenance BY NAME"
            " SELECT * EXCLUDE (version, rank), ? AS load_id FROM stage_provenance",
            [self.load_id],
        )
        self._run("INSERT INTO fedtwin_link SELECT * FROM stage_link")
        self._run(
            "CREATE OR REPLACE TEMP TABLE year_now AS SELECT person_id, max(year) AS year FROM"
            " (FROM stage_last_year UNION ALL FROM fedtwin_last_year"
            " WHERE person_id IN (SELECT person_id FROM stage_last_year)) GROUP BY person_id"
        )
        self._run("DELETE FROM fedtwin_last_year WHERE person_id IN (SELECT person_id FROM year_now)")
        self._run("INSERT INTO fedtwin_last_year FROM year_now")

    def _note_touched(self) -> None:
        """The persons, by who they are now, whose derived tables and descriptions may change."""
        self._run("INSERT INTO touched SELECT DISTINCT person_id FROM stage_provenance")
        self._run("INSERT INTO touched SELECT person_id FROM stage_last_year")
        self._run(
            "CREATE OR REPLACE TEMP TABLE touched AS SELECT DISTINCT coalesce(into_person_id, person_id)"
            " AS person_id FROM touched LEFT JOIN canon USING (person_id)"
            " UNION SELECT person_id FROM touched"
        )
        self._run(
            "INSERT INTO fedtwin_dirty SELECT person_id FROM touched"
            " WHERE person_id NOT IN (SELECT person_id FROM fedtwin_dirty)"
        )

    def _write_load(self) -> None:
        self._run(
            "INSERT INTO fedtwin_load (load_id, source_name, source_sha256, mapping_name, mapping_sha256,"
            " loaded_at, rows, quarantined, events, reader, reader_version, vocabulary_version, format,"
            " seconds, records_quarantined) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                self.load_id,
                self._source.name,
                self._source.sha256,
                self._source.mapping_name,
                self._source.mapping_sha256,
                self._now,
                self.records,
                self.quarantined,
                sum(self.events.values()),
                self._reading.reader,
                self._reading.version,
                self._reading.vocabulary_version,
                self._reading.reader,
                self.seconds,
                self.records_quarantined,
            ],
        )

    def _run(self, statement: str, parameters: list[object] | None = None) -> None:
        self.cursor.execute(statement, parameters or [])

    def _names(self, statement: str) -> list[str]:
        return [str(row[0]) for row in self.cursor.execute(statement).fetchall()]

    def _scalar(self, statement: str) -> int:
        row = self.cursor.execute(statement).fetchone()
        assert row is not None, "an aggregate always returns one row"
        return int(row[0])
