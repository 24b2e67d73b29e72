"""One timeline per person over all tables of the CDM: read whole, as of a moment, in windows, or as a stream.

Guarantee: what is read as of a moment holds nothing that became known later (node.timeline_sql says how that
is judged); the same store gives the same events in the same order. Times are UTC. Dates, and so T, are those
of the store: moved by the patient's days. Each read sees one state of the store, whatever is loaded
meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from node.omop.errors import NoSuchTable
from node.omop.store import OmopStore
from node.timeline_sql import SCHEMA, Scope, Unrecorded, events, filled, hidden, literal

DELTAS = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("person_id", "time", "kind", "table", "record_id", "concept_id")),
        *(SCHEMA.field(name) for name in ("unit_concept_id", "value_number")),
        pa.field("previous", pa.float64()),  # the value before, of the same concept and unit
        pa.field("delta", pa.float64()),  # value_number - previous
        pa.field("since_s", pa.float64()),  # seconds since the value before
    ]
)
BATCH_ROWS = 100_000  # about 20 MB of Arrow
_SPAN = re.compile(r"([1-9][0-9]{0,5})d")


class NoSuchPerson(LookupError):
    """The store holds nobody of this id."""

    def __init__(self) -> None:
        super().__init__("no person of this id is in the store")


class BadWindow(ValueError):
    """The text names no window of time."""

    def __init__(self) -> None:
        super().__init__(
            "a window is FROM..TO (dates or times; one may be left out) or a number of days, 365d"
        )


def timeline(store: OmopStore, scope: Scope) -> pa.Table:
    """Return the events of `scope`, as SCHEMA has them, in order. Raises: NoSuchPerson."""
    with reading(store) as cursor:
        select = events(store, scope, copied=filled(store, cursor))
        found = _typed(cursor.execute(select).to_arrow_table(), SCHEMA)
        if scope.person_id is not None and not found.num_rows:
            _there(store, cursor, scope.person_id)
        return found


def batches(store: OmopStore, scope: Scope, *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the events of everybody in `scope`, person by person, at most `rows` at a time."""
    with reading(store) as cursor:
        select = events(store, scope, copied=filled(store, cursor))
        for batch in cursor.execute(select).to_arrow_reader(rows):
            yield from _typed(pa.Table.from_batches([batch]), SCHEMA).to_batches(max_chunksize=rows)


def deltas(store: OmopStore, scope: Scope) -> pa.Table:
    """Return each number of `scope` beside the one before it, of the same person, concept and unit.

    The number before may lie before the window. Of several at one moment the record ids decide.
    """
    wide = replace(scope, start=None)
    over = 'OVER (PARTITION BY person_id, concept_id, unit_concept_id ORDER BY "time", "table", record_id)'
    since = "" if scope.start is None else f' WHERE "time" >= {literal(scope.start)}'
    with reading(store) as cursor:
        inner = events(store, wide, ordered=False, copied=filled(store, cursor))
        found = cursor.execute(
            f"WITH e AS ({inner}), d AS (SELECT *, lag(value_number) {over} AS previous,"  # noqa: S608
            f' lag("time") {over} AS before FROM e WHERE value_number IS NOT NULL AND kind IN'
            " ('measurement', 'observation'))"
            ' SELECT person_id, "time", kind, "table", record_id, concept_id, unit_concept_id, value_number,'
            ' previous, value_number - previous AS delta, epoch("time" - before) AS since_s'
            f' FROM d{since} ORDER BY person_id, "time", kind_order, "table", record_id'
        )
        return _typed(found.to_arrow_table(), DELTAS)


def hidden_events(store: OmopStore, scope: Scope) -> int:
    """Return how many events are left out only because their source does not say when they were recorded."""
    if scope.as_of is None or scope.unrecorded is Unrecorded.EVENT:
        return 0
    with reading(store) as cursor:
        row = cursor.execute(hidden(store, scope, copied=filled(store, cursor))).fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0])


def concept_names(store: OmopStore, concepts: set[int]) -> dict[int, str]:
    """Return the names of those concepts that the store's vocabulary has."""
    if not concepts or not store.has("concept"):
        return {}
    listed = ", ".join(str(int(concept)) for concept in sorted(concepts))
    rows = store.connection.con.execute(
        f"SELECT concept_id, concept_name FROM concept WHERE concept_id IN ({listed})"  # noqa: S608 (numbers)
    ).fetchall()
    return {int(concept): str(name) for concept, name in rows}


def rows(store: OmopStore, found: pa.Table) -> list[dict[str, Any]]:
    """Return events as JSON fields: times as ISO 8601 in UTC, names of concepts beside their ids."""
    wanted = {
        value
        for name in ("concept_id", "unit_concept_id", "value_concept_id")
        for value in found[name].unique().to_pylist()
        if value
    }
    names = concept_names(store, wanted)
    listed = []
    for event in found.to_pylist():
        fields: dict[str, Any] = {}
        for name, value in event.items():
            fields[name] = _iso(value) if isinstance(value, datetime) else value
            if name.endswith("concept_id") and name != "type_concept_id":
                fields[name.removesuffix("_id")] = names.get(value) if value else None
        listed.append(fields)
    return listed


def window(text: str, *, as_of: datetime | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return start (included) and end (not included) of a window; days count back from `as_of`, or `now`.

    >>> window("2020-01-01..2020-01-31", as_of=None, now=datetime(2026, 1, 1, tzinfo=UTC))[1].isoformat()
    '2020-02-01T00:00:00+00:00'

    Raises: BadWindow.
    """
    if span := _SPAN.fullmatch(text):
        end = as_of or now
        return end - timedelta(days=int(span[1])), end + timedelta(microseconds=1)
    first, dots, last = text.partition("..")
    if not dots or not (first or last):
        raise BadWindow
    start, end_of = moment(first) if first else None, moment(last, whole_day=True) if last else None
    if start and end_of and start >= end_of:
        raise BadWindow
    return start, end_of


def moment(text: str, *, whole_day: bool = False) -> datetime:
    """Return the moment a text names, UTC where it says no zone; a date is its start, or its end + 1.

    Raises: BadWindow.
    """
    try:
        if len(text) == 10:
            day = date.fromisoformat(text) + timedelta(days=whole_day)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadWindow from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def reading(store: OmopStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """One state of the store, on a connection of its own."""
    cursor = store.cursor()
    try:
        cursor.execute("SET schema = '" + store.schema.replace("'", "''") + "'")
        cursor.execute("SET preserve_insertion_order = true")  # the copy of all events relies on it
        cursor.execute("BEGIN TRANSACTION")
        yield cursor
    finally:
        cursor.close()  # and the transaction with it; nothing was written


def _there(store: OmopStore, cursor: duckdb.DuckDBPyConnection, person_id: int) -> None:
    if not store.has("person"):
        raise NoSuchTable("person")
    found = cursor.execute("SELECT 1 FROM person WHERE person_id = ? LIMIT 1", [person_id]).fetchone()
    if found is None:
        raise NoSuchPerson


def _typed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        column = found[field.name]
        if pa.types.is_timestamp(field.type):
            column = column.cast(pa.timestamp("us")).cast(field.type)  # UTC, as the SQL made it
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _iso(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
