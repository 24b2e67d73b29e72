"""One load of facts: what a file says replaces, retracts, moves and removes, whatever the order of files.

Records are staged in tables beside the CDM, batch by batch, under ids that are the same whenever and in
whichever order a source is loaded; `finish` settles in a few statements what of them holds (fact_versions).
What holds is decided by content alone: the later version of a key, then the greater rank; a retraction
against versions up to its own; a withdrawal against everything, for good. So the same files in any order give
the same store.
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

from node.omop import fact_ends, fact_moves, fact_persons, fact_versions, fact_visits, mapped_persons
from node.omop.fact_versions import Settled, some
from node.omop.loading import Source
from node.omop.side_tables import (
    DRAWN,
    STAGED,
    VISITED,
    WAITING,
    columns_of,
    former,
    held,
    id_of,
    key_name,
    waiting,
)
from node.omop.stage import Stage, drop_stage

_OWN = """
CREATE OR REPLACE TEMP TABLE touched (person_id BIGINT);
CREATE OR REPLACE TEMP TABLE doomed (table_name VARCHAR, record_id BIGINT);
CREATE OR REPLACE TEMP TABLE gone_visits (record_id BIGINT);
"""
_LINKS = ("fedtwin_former_link", "record_id")
# A row group of DuckDB: so many rows at once go into the store's file as they are to lie there; fewer go into
# its log, and from there, again and again, into a group that is written anew
HELD_FACTS = 122_880


@dataclass(frozen=True, slots=True)
class Reading:
    """Which reader made the facts, and by which vocabulary their codes are mapped."""

    reader: str
    version: str
    vocabulary_version: str | None


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
        held_facts: int = HELD_FACTS,
    ) -> None:
        """Use `OmopStore.load_facts`. held_facts: how many are staged in memory, or one batch more."""
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
        self.stage = Stage(cursor)
        cursor.execute(_OWN)
        self.withdrawn = fact_persons.withdrawn(cursor)
        self._replaces = list(replaces)
        self._described = False  # whether a description of a person, or a death, was taken back
        self._held_facts = held_facts
        self._held = 0

    def next_batch(self, facts: int) -> None:
        """Make room for so many facts: once enough are staged they are written to the store's file.

        The stage is nobody's content: what a file says comes in by the transaction of `finish` alone.
        """
        if self._held >= self._held_facts:  # a small load is one transaction
            self._run("COMMIT")
            self._run("BEGIN")
            self._held = 0
        self._held += facts

    def has_left(self, person_ids: np.ndarray) -> np.ndarray:
        """Return which of the persons withdrew before this load."""
        found: np.ndarray = np.isin(person_ids, self.withdrawn)
        return found

    def quarantine(self, notes: pa.Table) -> None:
        """Note what was turned away: source_row, field, reason, whole_row. Never takes the values."""
        if not notes.num_rows:
            return
        self.cursor.register("notes", notes)
        self.stage.put("quarantine", "FROM notes")
        self.cursor.unregister("notes")
        self.quarantined += notes.num_rows

    def finish(self) -> None:
        """Settle what holds, and write the load's own. Called by `OmopStore.load_facts`."""
        fact_moves.undo(self.cursor)
        self._forget()
        renamed = fact_persons.rename(self.cursor, self.stage, self.load_id)
        if renamed:
            fact_persons.move_stored(self.cursor)
        mapped_persons.follow(self.cursor)
        fact_moves.take_in(self.cursor, self.stage, self.load_id)
        if self.stage.has("retraction"):
            self._run(
                "INSERT INTO fedtwin_retraction BY NAME SELECT DISTINCT *, ? AS load_id"
                " FROM stage_retraction",
                [self.load_id],
            )
        settled = fact_versions.settle(self.cursor, self.stage, self.load_id)
        fact_versions.leave(self.cursor, settled, self.load_id)
        self._delete_doomed()
        fact_persons.move_staged(self.cursor, self.stage)
        self.superseded = fact_versions.put_aside(self.cursor, self.stage, settled, self.load_id)
        self._store_descriptions()
        if settled.coming:
            fact_versions.come_back(self.cursor)
        self._note_touched(settled)
        told = renamed or settled.coming or self._described or bool(self.stage.some(map(held, DRAWN)))
        fact_persons.draw(self.cursor, told=told)
        undescribed = settled.coming or some(self.cursor, f"touched WHERE {fact_persons.UNDESCRIBED}")
        self._store_records(settled, undescribed=undescribed)
        fact_ends.fill(self.cursor)
        fact_persons.wait(self.cursor, undescribed=undescribed)
        fact_visits.join(self.cursor)
        fact_moves.redo(self.cursor)
        fact_persons.withdraw(self.cursor)
        self._write_load()
        drop_stage(self.cursor)

    def _forget(self) -> None:
        """Take back what earlier loads of this very file brought; it is about to be loaded again."""
        if not self._replaces:
            return
        old = f"load_id IN ({', '.join(str(load_id) for load_id in self._replaces)})"
        self._run(f"INSERT INTO doomed SELECT table_name, record_id FROM fedtwin_provenance WHERE {old}")
        self._delete_doomed()
        if some(self.cursor, f"fedtwin_former_provenance WHERE {old}"):
            for table, key in [*((former(name), id_of(former(name))) for name in STAGED), _LINKS]:
                self._run(
                    f"DELETE FROM {table} t USING fedtwin_former_provenance p WHERE p.{old}"
                    f" AND t.{key} = p.record_id AND t.rank = p.rank"
                )
        self._run(f"INSERT INTO stage_concern SELECT thing_id, whole_id FROM fedtwin_group WHERE {old}")
        for side in ("group", "retraction", "alias", "visit_move", "quarantine", "load", "former_provenance"):
            self._run(f"DELETE FROM fedtwin_{side} WHERE {old}")

    def _delete_doomed(self) -> None:
        names = self._names("SELECT DISTINCT table_name FROM doomed")
        if not names:
            return
        self._described |= not {"person", "death"}.isdisjoint(names)
        self._run(
            "INSERT INTO touched SELECT DISTINCT person_id FROM fedtwin_provenance p SEMI JOIN doomed"
            " USING (table_name, record_id) WHERE person_id IS NOT NULL"
        )
        self._run(
            "INSERT INTO gone_visits SELECT record_id FROM doomed WHERE table_name = 'visit_occurrence'"
        )
        for name in names:
            mine = f"(SELECT record_id FROM doomed WHERE table_name = '{name}')"
            for table in fact_persons.places_of(name):
                self._run(f"DELETE FROM {table} WHERE {id_of(table)} IN {mine}")
            if name == "note":
                self._run(f"DELETE FROM note_nlp WHERE note_id IN {mine}")
        self._run("DELETE FROM fedtwin_link WHERE record_id IN (SELECT record_id FROM doomed)")
        for side in ("provenance", "unvisited"):
            self._run(
                f"DELETE FROM fedtwin_{side} p USING doomed d"
                " WHERE p.table_name = d.table_name AND p.record_id = d.record_id"
            )
        self._run("DELETE FROM doomed")

    def _store_records(self, settled: Settled, *, undescribed: bool) -> None:
        """Records of described persons go into the CDM, others wait. Visits go first: others name them."""
        staged = self.stage.some(WAITING)
        for table in staged:
            if count := self._scalar(f"SELECT count(*) FROM stage_{table}"):
                self.events[table] += count
        missing: bool | None = None
        for table in WAITING:
            if missing is None and table in VISITED:
                missing = fact_visits.note_missing(self.cursor)
            if self.events[table]:
                self._place(f"stage_{table}", table, missing=bool(missing), undescribed=undescribed)
            if settled.coming and some(self.cursor, f"back_{table}"):
                self._place(f"back_{table}", table, missing=True, undescribed=undescribed)

    def _place(self, relation: str, table: str, *, missing: bool, undescribed: bool) -> None:
        columns = ", ".join(columns_of(table))
        if missing and table in VISITED:
            fact_visits.part_from(self.cursor, relation, table)
            columns = columns.replace(
                "visit_occurrence_id",
                "CASE WHEN visit_occurrence_id NOT IN (SELECT visit_id FROM stage_missing)"
                " THEN visit_occurrence_id END",
            )
        if not undescribed:
            self._run(f"INSERT INTO {table} SELECT {columns} FROM {relation}")
            return
        here = f"NOT ({fact_persons.UNDESCRIBED})"
        self._run(f"INSERT INTO {table} SELECT {columns} FROM {relation} WHERE {here}")
        self._run(f"INSERT INTO {waiting(table)} SELECT {columns} FROM {relation} WHERE NOT {here}")

    def _store_descriptions(self) -> None:
        """What persons, deaths and costs are drawn from, and where everything comes from."""
        if self.stage.has("quarantine"):
            self._run(
                "INSERT INTO fedtwin_quarantine SELECT ?, ?, * FROM stage_quarantine",
                [self.load_id, self._source.name],
            )
        for table in self.stage.some(map(held, DRAWN)):
            count = self._scalar(f"SELECT count(*) FROM stage_{table}")
            if count:
                self.events[key_name(table)] += count
                columns = ", ".join(columns_of(table))
                self._run(f"INSERT INTO {table} BY NAME SELECT {columns} FROM stage_{table}")
        if self.stage.has("provenance"):
            self._run(
                "INSERT INTO fedtwin_provenance BY NAME"
                " SELECT * EXCLUDE (version, rank), ? AS load_id FROM stage_provenance",
                [self.load_id],
            )
        if self.stage.has("link"):
            self._run("INSERT INTO fedtwin_link SELECT * EXCLUDE (group_id, rank) FROM stage_link")
        if self.stage.has("last_year"):
            self._run(
                "CREATE OR REPLACE TEMP TABLE year_now AS SELECT person_id, max(year) AS year FROM"
                " (FROM stage_last_year UNION ALL FROM fedtwin_last_year"
                " WHERE person_id IN (SELECT person_id FROM stage_last_year)) GROUP BY person_id"
            )
            self._run("DELETE FROM fedtwin_last_year WHERE person_id IN (SELECT person_id FROM year_now)")
            self._run("INSERT INTO fedtwin_last_year FROM year_now")

    def _note_touched(self, settled: Settled) -> None:
        """The persons, by who they are now, whose derived tables and descriptions may change."""
        said = "SELECT person_id FROM stage_provenance UNION ALL SELECT person_id FROM stage_last_year"
        if settled.stored:
            said += " UNION ALL SELECT person_id FROM stage_judged WHERE NOT fresh"
        self._run(f"INSERT INTO touched SELECT DISTINCT person_id FROM ({said})")
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
