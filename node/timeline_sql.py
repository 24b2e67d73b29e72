"""The SQL of timelines: all events of one person, or of everybody, as one relation.

Guarantee: with a moment T, an event is there only if it was known by T: recorded by then, or, where its
source does not say when it was recorded, loaded by then and not later than T itself. Nothing of a record that
was known later is there, its end included: of a record that was corrected after T, the version before.
Each event once, in one order that the records alone decide.

An event says which load brought it and not when that was: beside moved dates a true one would tell, of a
source that is loaded as things happen, by how much they were moved.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum

import duckdb
import pyarrow as pa

from node.omop.errors import NoSuchTable
from node.omop.event_copy import COLUMNS, EVENT_COPY, FORMAT, FORMATS, PATCHED, STALE
from node.omop.side_tables import former
from node.omop.store import OmopStore
from node.omop.tables import cdm_tables
from node.timeline_tables import EVENT_SOURCES, ORDER, EventKind, EventSource

_US = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("person_id", pa.int64(), nullable=False),
        pa.field("time", _US, nullable=False),
        pa.field("precision", pa.string(), nullable=False),  # year, month, day, second
        pa.field("utc_offset_min", pa.int16()),  # of the local clock, where it was kept
        pa.field("kind", pa.string(), nullable=False),
        pa.field("table", pa.string(), nullable=False),
        pa.field("record_id", pa.int64(), nullable=False),
        pa.field("concept_id", pa.int64()),
        pa.field("source_value", pa.string()),
        pa.field("value_number", pa.float64()),
        pa.field("value_text", pa.string()),
        pa.field("value_concept_id", pa.int64()),
        pa.field("unit_concept_id", pa.int64()),
        pa.field("unit", pa.string()),  # as the source wrote it
        pa.field("type_concept_id", pa.int64()),
        pa.field("visit_occurrence_id", pa.int64()),
        pa.field("end", _US),  # null: none, or after the moment the timeline is read as of
        pa.field("recorded_at", _US),  # by the source
        pa.field("load_id", pa.int64()),
    ]
)
FORMER_PROVENANCE = "fedtwin_former_provenance"
_HOLDS = "NULL::TIMESTAMP AS until, NULL::BIGINT AS gone_load_id"
ORDER_BY = 'person_id, "time", kind_order, "table", record_id'


class Unrecorded(StrEnum):
    """From when an event counts as known whose source does not say when it was recorded."""

    LOADED = "loaded"  # since it was loaded here: no leak, and nothing is known of before the first load
    EVENT = "event"  # since it happened: for sources that were loaded long after


class Copied(IntEnum):
    """Whether events can be read from the copy, and how they lie there."""

    NO = 0
    BY_PERSON = 1  # each person's in order, persons in none
    IN_ORDER = 2


@dataclass(frozen=True, slots=True)
class Scope:
    """Which events.

    Args:
        as_of: aware; only what was known then. None: all there is.
        start, end: aware; only events from `start` up to and without `end`.
        upto_load: only what loads up to this one brought, as it was then.
    """

    person_id: int | None = None
    as_of: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    kinds: Collection[EventKind] = tuple(EventKind)
    unrecorded: Unrecorded = Unrecorded.LOADED
    upto_load: int | None = None

    def __post_init__(self) -> None:
        for moment in (self.as_of, self.start, self.end):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("a moment carries a time zone")


def events(store: OmopStore, scope: Scope, *, copied: Copied, ordered: bool = True) -> str:
    """Return a SELECT of the columns of SCHEMA (times without zone, in UTC) and `kind_order`.

    Args: copied, whether the copy of all events is there, as the transaction sees it that runs the SELECT.
    """
    where = _conditions(scope)
    known = f" WHERE {' AND '.join(where)}" if where else ""
    # the copy lies in this order, and DuckDB keeps the order of rows through a filter
    lies = copied is Copied.IN_ORDER or (copied is Copied.BY_PERSON and scope.person_id is not None)
    order = f" ORDER BY {ORDER_BY}" if ordered and not lies else ""
    names = [f'"{name}"' for name in SCHEMA.names if name != "end"]
    end = "last"
    if scope.as_of is not None:
        end = f"CASE WHEN last <= {_literal(scope.as_of)} THEN last END"
    source = EVENT_COPY if copied else f"({from_tables(store, scope.person_id, versions=_looks_back(scope))})"
    return f'SELECT {", ".join(names)}, {end} AS "end", kind_order FROM {source}{known}{order}'  # noqa: S608


def from_tables(store: OmopStore, person_id: int | str | None = None, *, versions: bool = True) -> str:
    """Return a SELECT of the columns of the copy, in its order, out of the CDM's own tables.

    Args: person_id, or a SELECT of some; versions, whether with the versions of records that hold no longer.
    """
    names = ", ".join(f'"{name}"' for name, _ in COLUMNS)
    traced = _traced(store, person_id)
    if versions and store.has(FORMER_PROVENANCE):
        traced += f" UNION ALL BY NAME {_former(store, person_id)}"
    return (
        f"WITH raw AS ({_union(store, person_id)}), traced AS ({traced}),"  # noqa: S608
        f" timed AS ({_timed()}) SELECT {names} FROM timed"
    )


def hidden(store: OmopStore, scope: Scope, *, copied: Copied) -> str:
    """Return a SELECT that counts the person's events which `scope` leaves out only because their source
    does not say when they were recorded."""
    without = Scope(person_id=scope.person_id, kinds=scope.kinds, start=scope.start, end=scope.end)
    if scope.as_of is None:
        raise ValueError("nothing is left out of a timeline that is read whole")
    moment = _literal(scope.as_of)
    source = EVENT_COPY if copied else f"({from_tables(store, scope.person_id, versions=False)})"
    return (
        f"SELECT count(*) FROM {source} WHERE {' AND '.join(_conditions(without))}"  # noqa: S608
        f' AND recorded_at IS NULL AND "time" <= {moment} AND (loaded_at IS NULL OR loaded_at > {moment})'
    )


def filled(store: OmopStore, cursor: duckdb.DuckDBPyConnection) -> Copied:
    """Return whether the copy of all events is there, for this connection's transaction."""
    if not store.has(EVENT_COPY) or not store.has(FORMATS):
        return Copied.NO
    found = cursor.execute(
        f"SELECT EXISTS (FROM {EVENT_COPY}) AND EXISTS (FROM {FORMATS} WHERE format = {FORMAT}),"
        f" EXISTS (FROM {STALE}), EXISTS (FROM {PATCHED})"
    ).fetchone()
    assert found is not None, "a SELECT without a table gives one row"
    some, stale, patched = found
    if stale or not some:
        return Copied.NO
    return Copied.BY_PERSON if patched else Copied.IN_ORDER


def literal(moment: datetime) -> str:
    """Return a moment as SQL, in UTC and without a zone."""
    return _literal(moment)


def _looks_back(scope: Scope) -> bool:
    """Whether versions that hold no longer may be among what is read."""
    return scope.as_of is not None or scope.upto_load is not None


def _conditions(scope: Scope) -> list[str]:
    held = ["gone_load_id IS NULL"]
    if scope.upto_load is not None:
        held.append(f"gone_load_id > {int(scope.upto_load)}")
    if scope.as_of is not None:
        held.append(f"until > {_literal(scope.as_of)}")
    where = [f"({' OR '.join(held)})"]
    if scope.person_id is not None:
        where.append(f"person_id = {int(scope.person_id)}")
    if set(scope.kinds) != set(EventKind):
        where.append(f"kind IN ({', '.join(repr(str(kind)) for kind in scope.kinds) or 'NULL'})")
    if scope.start is not None:
        where.append(f'"time" >= {_literal(scope.start)}')
    if scope.end is not None:
        where.append(f'"time" < {_literal(scope.end)}')
    if scope.upto_load is not None:
        where.append(f"load_id <= {int(scope.upto_load)}")
    if scope.as_of is not None:
        moment = _literal(scope.as_of)
        if scope.unrecorded is Unrecorded.EVENT:
            unsaid = '"time"'
        else:
            unsaid = "greatest(coalesce(loaded_at, 'infinity'::TIMESTAMP), \"time\")"
        where.append(f"coalesce(recorded_at, {unsaid}) <= {moment}")
    return where


def _former(store: OmopStore, person_id: int | str | None) -> str:
    """The versions of events that hold no longer, with their provenance. Of deaths there are none."""
    parts = [
        _of(source, person_id, None, table=former(source.table), more=", rank")
        for source in EVENT_SOURCES
        if source.table != "death" and store.has(former(source.table))
    ]
    return (
        "SELECT f.* EXCLUDE (rank), p.utc_offset_min, p.precision AS said, p.recorded_at,"  # noqa: S608
        f" l.loaded_at, p.load_id, p.until, p.gone_load_id FROM ({' UNION ALL '.join(parts)}) f"
        f' JOIN {FORMER_PROVENANCE} p ON p.record_id = f.record_id AND p.table_name = f."table"'
        " AND p.rank = f.rank JOIN fedtwin_load l ON l.load_id = p.load_id"
        " WHERE f.person_id IN (SELECT person_id FROM person) AND p.until > '-infinity'"
    )


def _union(store: OmopStore, person_id: int | str | None) -> str:
    parts = [
        _of(source, person_id, set(store.table(source.table).columns))
        for source in EVENT_SOURCES
        if store.has(source.table)
    ]
    if not parts:
        raise NoSuchTable("person")
    return " UNION ALL ".join(parts)


def _of(
    source: EventSource,
    person_id: int | str | None,
    there: set[str] | None,
    *,
    table: str | None = None,
    more: str = "",
) -> str:
    """The events of one kind. `there`: the table's columns; other tools leave optional ones out."""
    types = {field.name: field.ibis_type for field in cdm_tables()[source.table].fields}

    def column(name: str | None, kind: str) -> str:
        known = name in types and (there is None or name in there)
        return f"{name}::{kind}" if known else f"NULL::{kind}"

    values = source.values
    person = "" if person_id is None else f" WHERE person_id {_among(person_id)}"
    end = source.end_date
    return (
        f"SELECT person_id::BIGINT AS person_id, {source.date}::TIMESTAMP AS day,"  # noqa: S608 (our names)
        f" {column(source.datetime, 'TIMESTAMP')} AS clock, '{source.kind}' AS kind,"
        f" {ORDER[source.kind]} AS kind_order, '{source.table}' AS \"table\","
        f" {source.id}::BIGINT AS record_id,"
        f" {column(source.concept, 'BIGINT')} AS concept_id,"
        f" {column(source.source_value, 'VARCHAR')} AS source_value,"
        f" {column(values.get('value_number'), 'DOUBLE')} AS value_number,"
        f" {column(values.get('value_text'), 'VARCHAR')} AS value_text,"
        f" {column(values.get('value_concept_id'), 'BIGINT')} AS value_concept_id,"
        f" {column(values.get('unit_concept_id'), 'BIGINT')} AS unit_concept_id,"
        f" {column(values.get('unit'), 'VARCHAR')} AS unit,"
        f" {column(source.type_concept, 'BIGINT')} AS type_concept_id,"
        f" {column(source.visit, 'BIGINT')} AS visit_occurrence_id,"
        f" {column(end, 'TIMESTAMP')} AS end_day, {column(source.end_datetime, 'TIMESTAMP')} AS end_clock"
        f"{more} FROM {table or source.table}{person}"
    )


def _traced(store: OmopStore, person_id: int | str | None) -> str:
    """The events with their provenance: one row each, whatever stands in the side tables."""
    if not store.has("fedtwin_provenance"):
        return (
            "SELECT raw.*, NULL::SMALLINT AS utc_offset_min, NULL::VARCHAR AS said,"  # noqa: S608 (our names)
            " NULL::TIMESTAMP AS recorded_at, NULL::TIMESTAMP AS loaded_at, NULL::BIGINT AS load_id,"
            f" {_HOLDS} FROM raw"
        )
    # A death is drawn from all that were told of it: it is known once the last of these was.
    person = "" if person_id is None else f" AND whose {_among(person_id)}"
    whose, alias = "coalesce(p.person_id, p.record_id)", ""
    if store.has("fedtwin_alias"):  # told of under another id, before they turned out to be this person
        whose = "coalesce(a.into_person_id, p.person_id, p.record_id)"
        alias = " LEFT JOIN fedtwin_alias a ON a.person_id = p.person_id"
    return (
        "SELECT raw.*, p.utc_offset_min, p.precision AS said, p.recorded_at, l.loaded_at, p.load_id,"  # noqa: S608
        f" {_HOLDS}"
        " FROM raw LEFT JOIN fedtwin_provenance p"
        " ON p.record_id = raw.record_id AND p.table_name = raw.\"table\" AND p.table_name <> 'death'"
        " LEFT JOIN fedtwin_load l ON l.load_id = p.load_id WHERE raw.\"table\" <> 'death'"
        f" UNION ALL BY NAME SELECT raw.*, d.* EXCLUDE (whose), {_HOLDS} FROM raw LEFT JOIN ("
        f"SELECT {whose} AS whose, max(utc_offset_min) AS utc_offset_min,"
        " max(precision) AS said,"
        " CASE WHEN count(recorded_at) = count(*) THEN max(recorded_at) END AS recorded_at,"
        " max(l.loaded_at) AS loaded_at, max(p.load_id) AS load_id"
        " FROM fedtwin_provenance p LEFT JOIN fedtwin_load l ON l.load_id = p.load_id"
        f"{alias} WHERE table_name = 'death'{person} GROUP BY whose) d ON d.whose = raw.record_id"
        " WHERE raw.\"table\" = 'death'"
    )


def _among(person_id: int | str) -> str:
    return f"IN ({person_id})" if isinstance(person_id, str) else f"= {int(person_id)}"


def _timed() -> str:
    """The events with their moment in UTC. Without a time of day it is the day's first moment, as written."""
    shift = "to_minutes(coalesce(utc_offset_min, 0)::INTEGER)"
    return (
        f'SELECT *, coalesce(clock - {shift}, day) AS "time",'  # noqa: S608 (our names)
        f" coalesce(end_clock - {shift}, end_day) AS last,"
        " CASE WHEN clock IS NULL THEN coalesce(nullif(said, 'second'), 'day')"
        " ELSE coalesce(said, 'second') END AS precision FROM traced"
    )


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"
