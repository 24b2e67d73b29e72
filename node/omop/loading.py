"""One load: what a file brings goes into the store in one transaction, with its provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

import duckdb
import numpy as np
import pyarrow as pa

from node.omop import fact_persons, mapped_persons
from node.omop.derived import periods
from node.omop.errors import NoSuchTable
from node.omop.tables import (
    CDM_VERSION,
    CDM_VERSION_CONCEPT_ID,
    EVENT_TABLES,
    LOCAL_CONCEPTS_ABOVE,
    cdm_tables,
)

OLDEST_AGE_YEARS = 90  # 45 CFR 164.514(b)(2)(i)(C): all ages over 89 are one category, 90

_INT64 = np.int64
_END = 2**63  # of the ids that a BIGINT, here and on PostgreSQL, can hold


class Again(StrEnum):
    """What a second load of a source does, when its content or its mapping has changed."""

    REFUSE = "refuse"
    REPLACE = "replace"
    ADD = "add"


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one query's rows, under one mapping: by name and by content."""

    name: str
    sha256: str
    mapping_name: str
    mapping_sha256: str
    format: str = "delimited"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one load brought in."""

    load_id: int
    rows: int
    quarantined: int
    events: int
    rows_quarantined: int = 0


@dataclass(frozen=True, slots=True)
class LocalConcept:
    """A concept of the site's own, above two billion, with the name the mapping gives it."""

    concept_id: int
    name: str
    domain: str

    def __post_init__(self) -> None:
        if self.concept_id <= LOCAL_CONCEPTS_ABOVE:
            raise ValueError(f"local concept ids are above {LOCAL_CONCEPTS_ABOVE}")


class Load:
    """An open load. Append, quarantine, then leave the block: `OmopStore.load` commits or rolls back."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, source: Source, *, now: datetime, replaces: Sequence[int]
    ) -> None:
        """Use `OmopStore.load`."""
        if now.tzinfo is None:
            raise ValueError("now must carry a time zone")
        self._cursor = cursor
        self._source = source
        self._now = now.astimezone(UTC).replace(tzinfo=None)
        self.load_id = self._scalar("SELECT coalesce(max(load_id), 0) + 1 FROM fedtwin_load")
        self._replaced_persons = False
        self.rows = 0
        self.quarantined = 0
        self.rows_quarantined = 0
        self.events: Counter[str] = Counter()
        for load_id in replaces:
            self._forget(load_id)
        self._known = mapped_persons.known(cursor)
        self._described = mapped_persons.described(cursor)
        self._free = {  # record ids that are not taken: from, and up to and without
            table.name: (self._scalar(f"SELECT coalesce(max({table.id}), 0) FROM {table.name}") + 1, _END)  # noqa: S608
            for table in EVENT_TABLES.values()
        }

    def knows(self, person_ids: np.ndarray) -> np.ndarray:
        """Return for each id whether a person of that id is in the store or in this load.

        So is one who turned out to be somebody else who is.
        """
        return _among(person_ids, self._known)

    def add_persons(self, persons: pa.Table, source_rows: np.ndarray) -> None:
        """Add the persons that are not there yet: the first row that names a person describes them."""
        ids = persons["person_id"].to_numpy()
        _, first = np.unique(ids, return_index=True)
        first = first[~_among(ids[first], self._described)]
        first.sort()
        if not len(first):
            return
        self._insert("person", persons.take(pa.array(first)))
        self._trace("person", ids[first], source_rows[first], ids[first])
        self._known = np.union1d(self._known, ids[first])
        self._described = np.union1d(self._described, ids[first])

    def add_events(self, table: str, events: pa.Table, source_rows: np.ndarray) -> None:
        """Add records to an event table; they get their ids here."""
        if not events.num_rows:
            return
        shape = EVENT_TABLES.get(table)
        if shape is None:
            raise NoSuchTable(table)
        ids = self._new_ids(table, events.num_rows)
        self._insert(table, events.append_column(shape.id, pa.array(ids)))
        self._trace(table, ids, source_rows, events["person_id"].to_numpy())
        self.events[table] += events.num_rows

    def _new_ids(self, table: str, count: int) -> np.ndarray:
        """Return ids that no record of the table has: above all others or, once that is at the end of what a
        BIGINT holds (those of facts lie anywhere below it), in the widest gap between them.
        """
        first, end = self._free[table]
        if first + count > end:
            row = self._cursor.execute(
                "SELECT id + 1, next FROM (SELECT id, lead(id) OVER (ORDER BY id) AS next FROM"  # noqa: S608
                f" (SELECT 0 AS id UNION ALL SELECT {EVENT_TABLES[table].id} FROM {table}))"
                " WHERE next IS NOT NULL AND id >= 0 ORDER BY next - id DESC, id LIMIT 1"
            ).fetchone()
            assert row is not None, "ids ran out, so there are some"
            first, end = row
        self._free[table] = (first + count, end)
        return np.arange(first, first + count, dtype=_INT64)

    def add_unless_there(self, table: str, key: str, records: pa.Table, source_rows: np.ndarray) -> None:
        """Add visits or deaths: one record per `key`, the first one stays."""
        ids = records[key].to_numpy()
        _, first = np.unique(ids, return_index=True)
        there = self._cursor.execute(f"SELECT {key} FROM {table}").to_arrow_table()[key].to_numpy()  # noqa: S608
        first = first[~np.isin(ids[first], there)]
        first.sort()
        if len(first):
            self._insert(table, records.take(pa.array(first)))
            self._trace(table, ids[first], source_rows[first], records["person_id"].to_numpy()[first])
            self.events[table] += len(first)

    def quarantine(self, field: str, reason: str, source_rows: np.ndarray, *, whole_row: bool) -> None:
        """Note that the values of `field` in these rows were turned away. Never takes the values."""
        count = len(source_rows)
        if not count:
            return
        notes = pa.table(
            {
                "load_id": pa.array(np.full(count, self.load_id, dtype=_INT64)),
                "source_name": pa.repeat(self._source.name, count),
                "source_row": pa.array(np.asarray(source_rows, dtype=_INT64)),
                "field": pa.repeat(field, count),
                "reason": pa.repeat(reason, count),
                "whole_row": pa.repeat(whole_row, count),
            }
        )
        self._insert("fedtwin_quarantine", notes)
        self.quarantined += count

    def name_concepts(self, concepts: Sequence[LocalConcept]) -> None:
        """Put the site's own concepts into the vocabulary, unless they are there."""
        for concept in concepts:
            self._cursor.execute(
                "INSERT INTO concept SELECT ?, ?, ?, 'fedtwin', 'Local', NULL, ?, DATE '1970-01-01',"
                " DATE '2099-12-31', NULL WHERE NOT EXISTS (SELECT 1 FROM concept WHERE concept_id = ?)",
                [
                    concept.concept_id,
                    concept.name,
                    concept.domain,
                    str(concept.concept_id),
                    concept.concept_id,
                ],
            )

    def finish(self) -> None:
        """Derive what follows from the records, and write the load's own. Called by `OmopStore.load`."""
        if self._replaced_persons:
            self._keep_persons_with_records()
        mapped_persons.follow_now(self._cursor)
        fact_persons.release(self._cursor)
        fact_persons.purge(self._cursor)
        self._derive_observation_periods()
        self._cap_ages()
        self._cursor.execute(
            "INSERT INTO fedtwin_load (load_id, source_name, source_sha256, mapping_name, mapping_sha256,"
            " loaded_at, rows, quarantined, events, format, records_quarantined)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                self.load_id,
                self._source.name,
                self._source.sha256,
                self._source.mapping_name,
                self._source.mapping_sha256,
                self._now,
                self.rows,
                self.quarantined,
                sum(self.events.values()),
                self._source.format,
                self.rows_quarantined,
            ],
        )
        self._stamp(self._now.date())

    def _stamp(self, today: date) -> None:
        """One row in cdm_source: what this CDM is and when it last changed."""
        self._cursor.execute("DELETE FROM cdm_source")
        self._cursor.execute(
            "INSERT INTO cdm_source BY NAME SELECT 'fedtwin node' AS cdm_source_name,"
            " 'fedtwin' AS cdm_source_abbreviation, 'this hospital' AS cdm_holder, ? AS source_release_date,"
            " ? AS cdm_release_date, ? AS cdm_version, ? AS cdm_version_concept_id,"
            " coalesce((SELECT version FROM fedtwin_vocabulary), 'none') AS vocabulary_version",
            [today, today, CDM_VERSION, CDM_VERSION_CONCEPT_ID],
        )

    def _derive_observation_periods(self) -> None:
        """One period per person, from the first to the last day of their records; its id is the person's."""
        self._cursor.execute("DELETE FROM observation_period")
        self._cursor.execute(f"INSERT INTO observation_period {periods()}")

    def _cap_ages(self) -> None:
        """Nobody is older than 90 on the last day of their records (for good: the true year is not kept)."""
        self._cursor.execute(
            "UPDATE person SET year_of_birth = year(p.observation_period_end_date) - ?"
            " FROM observation_period p WHERE p.person_id = person.person_id"
            " AND person.year_of_birth < year(p.observation_period_end_date) - ?",
            [OLDEST_AGE_YEARS, OLDEST_AGE_YEARS],
        )

    def _forget(self, load_id: int) -> None:
        """Take back what an earlier load of this source brought."""
        keys = {table.name: table.id for table in EVENT_TABLES.values()}
        keys |= {"visit_occurrence": "visit_occurrence_id", "death": "person_id"}
        mine = "SELECT record_id FROM fedtwin_provenance WHERE load_id = ? AND table_name = ?"
        for table, key in keys.items():
            self._cursor.execute(f"DELETE FROM {table} WHERE {key} IN ({mine})", [load_id, table])  # noqa: S608
        if not self._replaced_persons:
            self._cursor.execute(
                "CREATE OR REPLACE TEMP TABLE replaced_person AS SELECT * FROM person LIMIT 0"
            )
            self._replaced_persons = True
        persons = f"person WHERE person_id IN ({mine})"
        self._cursor.execute(f"INSERT INTO replaced_person SELECT * FROM {persons}", [load_id, "person"])  # noqa: S608
        self._cursor.execute(f"DELETE FROM {persons}", [load_id, "person"])  # noqa: S608
        mapped_persons.forget(self._cursor, load_id)
        for side in ("fedtwin_provenance", "fedtwin_quarantine", "fedtwin_load"):
            self._cursor.execute(f"DELETE FROM {side} WHERE load_id = ?", [load_id])  # noqa: S608

    def _keep_persons_with_records(self) -> None:
        """A person whom the new file no longer names stays, if records from other files speak of them."""
        spoken_of = " UNION ".join(
            f"SELECT person_id FROM {name}"  # noqa: S608
            for name in (*EVENT_TABLES, "visit_occurrence", "death")
        )
        self._cursor.execute(
            f"INSERT INTO person SELECT * FROM replaced_person WHERE person_id IN ({spoken_of})"  # noqa: S608
            " AND person_id NOT IN (SELECT person_id FROM person)"
        )
        self._cursor.execute("DROP TABLE replaced_person")

    def _insert(self, table: str, records: pa.Table) -> None:
        known = cdm_tables().get(table)
        if known is not None:
            records = _typed(records, known.schema().to_pyarrow())
        self._cursor.register("incoming", records)
        try:
            self._cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608 (our names)
        finally:
            self._cursor.unregister("incoming")

    def _trace(self, table: str, ids: np.ndarray, source_rows: np.ndarray, person_ids: np.ndarray) -> None:
        traces = pa.table(
            {
                "load_id": pa.array(np.full(len(ids), self.load_id, dtype=_INT64)),
                "table_name": pa.repeat(table, len(ids)),
                "record_id": pa.array(ids),
                "source_row": pa.array(np.asarray(source_rows, dtype=_INT64)),
                "person_id": pa.array(np.asarray(person_ids, dtype=_INT64)),
            }
        )
        self._insert("fedtwin_provenance", traces)

    def _scalar(self, statement: str) -> int:
        row = self._cursor.execute(statement).fetchone()
        assert row is not None, "an aggregate always returns one row"
        return int(row[0])


def _among(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of the ids are among the known ones, which are in order."""
    if not len(known):
        return np.zeros(len(ids), dtype=bool)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    found: np.ndarray = known[place] == ids
    return found


def _typed(records: pa.Table, schema: pa.Schema) -> pa.Table:
    """The records with the CDM's types. Raises: ValueError for a field that the table does not have."""
    strange = set(records.column_names) - set(schema.names)
    if strange:
        raise ValueError(f"no such field: {', '.join(sorted(strange))}")
    return records.cast(pa.schema([schema.field(name).with_nullable(True) for name in records.column_names]))
