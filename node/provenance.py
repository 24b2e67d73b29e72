"""Where a record of the CDM comes from, and who has read it since, as far as that was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from node.audit import AuditLine
from node.audit_events import AuditEvent
from node.omop import plan_periods
from node.omop.errors import NoSuchTable
from node.omop.side_tables import PLAN_PARTS
from node.omop.store import OmopStore
from node.omop.tables import cdm_tables

_OF_ONE_PERSON = (AuditEvent.TIMELINE_READ, AuditEvent.PROVENANCE_READ)
_OF_EVERYBODY = (AuditEvent.EVENTS_EXPORTED,)
_OF_TABLES = (AuditEvent.QUESTION_ACCEPTED, AuditEvent.ROUND_STARTED)
_TOLD = ("staff", "question_id", "signer", "on_behalf_of", "project", "statistic", "plan_hash", "round")
# What is derived from one record of another table: which, by which column
_DERIVED = {"image_feature": ("measurement", "image_feature_event_id")}
_DRAWN = ("person", "death")  # rows made of all that sources said of one person


class NoSuchRecord(LookupError):
    """The table has no record of this id."""

    def __init__(self) -> None:
        super().__init__("no record of this id is in this table")


@dataclass(frozen=True, slots=True)
class Trace:
    """One record: whose it is, since when it is here (UTC), and where it comes from, as JSON fields."""

    person_id: int | None
    loaded_at: datetime | None
    origins: tuple[dict[str, Any], ...]


def trace(store: OmopStore, table: str, record_id: int) -> Trace:
    """Return where a record comes from: every file or message it was made of, oldest load first.

    A feature of an image is traced to what measured it, a period of cover to all that it was joined of.

    Raises: NoSuchTable, for a table that is not of the CDM; NoSuchRecord.
    """
    shape = cdm_tables().get(table)
    if shape is None or not store.has(table):
        raise NoSuchTable(table)
    key = "person_id" if table in _DRAWN else f"{table}_id"
    columns = shape.columns
    if key not in columns:
        raise NoSuchTable(table)
    cursor = store.connection.con
    whose = "person_id" if "person_id" in columns else "NULL"
    found = cursor.execute(f"SELECT {whose} FROM {table} WHERE {key} = ?", [record_id]).fetchone()  # noqa: S608
    if found is None:
        raise NoSuchRecord
    person = None if found[0] is None else int(found[0])
    if not store.has("fedtwin_provenance"):
        return Trace(person, None, ())
    if table in _DERIVED:
        table, column = _DERIVED[table]
        (record_id,) = cursor.execute(
            f"SELECT {column} FROM {shape.name} WHERE {key} = ?",  # noqa: S608 (our names)
            [record_id],
        ).fetchone()
    match, aliases = "p.record_id = ?", False
    if table == plan_periods.TABLE and store.has(PLAN_PARTS):  # joined of what was told
        match = f"p.record_id IN (SELECT record_id FROM {PLAN_PARTS} WHERE {key} = ?)"  # noqa: S608
    if table in _DRAWN:  # of whom was told under another id, before they turned out to be this person
        match = "coalesce(p.person_id, p.record_id) = ?"
        if aliases := store.has("fedtwin_alias"):
            match += " OR p.person_id IN (SELECT person_id FROM fedtwin_alias WHERE into_person_id = ?)"
    rows = cursor.execute(
        "SELECT l.source_name AS file, l.source_sha256 AS file_sha256, l.format, p.source_row AS record,"  # noqa: S608
        " p.place, coalesce(l.reader, l.mapping_name) AS read_by, l.reader_version,"
        " l.mapping_name AS mapping, l.mapping_sha256, l.vocabulary_version, p.transformations, p.precision,"
        " p.utc_offset_min, p.recorded_at, l.loaded_at, p.load_id FROM fedtwin_provenance p"
        f" LEFT JOIN fedtwin_load l ON l.load_id = p.load_id WHERE p.table_name = ? AND ({match})"
        " ORDER BY p.load_id, p.source_row, p.place",
        [table, record_id, *([record_id] if aliases else ())],
    ).to_arrow_table()
    origins = tuple(_origin(row) for row in rows.to_pylist())
    loaded = [row["loaded_at"] for row in rows.to_pylist() if row["loaded_at"] is not None]
    return Trace(person, min(loaded).replace(tzinfo=UTC) if loaded else None, origins)


def readers(
    lines: Iterable[AuditLine], *, table: str, since: datetime | None, person: str
) -> list[dict[str, Any]]:
    """Return the lines of an audit trail that tell who has, or may have, read a record.

    A question or a round that ran over the table since the record was loaded has read it; a line of an
    earlier version does not say which tables, and `certain` is then false.

    Args: person, the person's mark in the trail.
    """
    found = []
    for line in lines:
        if since is not None and datetime.fromisoformat(line.at) < since:
            continue
        about, where = line.fields.get("person"), line.fields.get("table", table)
        if line.event in _OF_EVERYBODY or (
            line.event in _OF_ONE_PERSON and (about, where) == (person, table)
        ):
            found.append(_reader(line, certain=True))
        elif line.event in _OF_TABLES:
            reads = line.fields.get("reads")
            if reads is None or table in str(reads).split(","):
                found.append(_reader(line, certain=reads is not None))
    return found


def _reader(line: AuditLine, *, certain: bool) -> dict[str, Any]:
    told = {name: line.fields[name] for name in _TOLD if name in line.fields}
    return {"at": line.at, "what": line.event, "certain": certain, "audit_line": line.seq, **told}


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    fields = dict(row)
    for name in ("recorded_at", "loaded_at"):
        fields[name] = None if row[name] is None else row[name].isoformat() + "Z"
    fields["transformations"] = (row["transformations"] or "").split()
    return fields
