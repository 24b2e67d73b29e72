"""One HL7 v2 message on its way to facts: who it is about, when it was sent, and what came of it so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa

from node.ingest.facts import CODING, SCHEMA, Action, Kind, Told, TurnedAway
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_lexer import Message
from node.ingest.readers.hl7v2_times import Moment, moment
from node.ingest.readers.hl7v2_types import NOTHING, Coding, Concept

EHR = 32817  # OMOP type concepts: "EHR"
ADMINISTRATION = 32818  # "EHR administration record"
BILLING = 32821  # "EHR billing record"
CHIEF_COMPLAINT = 32822  # "EHR chief complaint"
DISPENSING = 32825  # "EHR dispensing record"
ENCOUNTER_RECORD = 32827  # "EHR encounter record"
NOTE = 32831  # "EHR note"
PRESCRIPTION = 32838  # "EHR prescription"
PROBLEM_LIST = 32840  # "EHR problem list"
LAB = 32856  # "Lab"

Segment = list[str]
Row = dict[str, Any]
Cells = tuple[Any, ...]
BLANK: Row = dict.fromkeys(SCHEMA.names)


@dataclass(slots=True)
class Order:
    """ORC and OBR: which order the segments that follow belong to."""

    control: str = ""  # ORC-1
    placer: str = ""
    filler: str = ""
    at: Moment | None = None  # ORC-9
    key: str = ""  # of its results: filler number and what was ordered
    observed: Moment | None = None  # OBR-7, else when the result was told
    status: str = ""  # OBR-25
    type_concept_id: int = EHR
    seen: dict[str, int] = field(default_factory=dict)  # how often a result's key came
    last_key: str = ""  # of the last result: NTE is about it
    last_at: Moment | None = None


@dataclass(slots=True)
class Lines:
    """Text that goes on in the next segment of the same name: OBX lines of a report, NTE."""

    segment: str
    key: str
    lines: list[str]
    done: Callable[[list[str]], None]


class Record:
    """A message while its segments are read in order; `rows` and `problems` are what comes of it."""

    def __init__(self, message: Message, number: int, *, zone: str = "") -> None:
        self.message = message
        self.number = number
        self.zone = zone
        self.rows: list[Row] = []
        self.problems: list[TurnedAway] = []
        self.told: list[Told] = []
        header = message.segments[0]
        parts = message.components(message.field(header, 9))
        self.code = parts[0].strip().upper()
        self.event = parts[1].strip().upper() if len(parts) > 1 else ""
        self.offset: int | None = None
        self.sent = self.time(header, 7, "MSH-7")
        self.offset = self.sent.offset_min if self.sent else None
        self.happened: Moment | None = None  # EVN-6, else EVN-2
        self.pid: Segment = ["PID"]  # the last one
        self.patient: str | None = None
        self.namespace: str | None = None
        self.account = ""
        self.encounter: str | None = None
        self.left: list[tuple[str, str, str]] = []  # patient, namespace, number of visits that PV1 replaces
        self.admitted: Moment | None = None
        self.order = Order()
        self.pending: Lines | None = None
        self.ordinal = 0  # of the segment among those of its name, from 1

    def turn_away(self, field: str, reason: str) -> None:
        """Note that one field, or segment, gives no fact."""
        self.problems.append(TurnedAway(self.number, field, reason, False))

    def time(self, segment: Segment, number: int, place: str) -> Moment | None:
        """Return a field's time; None if there is none, or none that can be one, which is noted."""
        return self.time_of(self.message.first(segment, number), place)

    def time_of(self, text: str, place: str) -> Moment | None:
        """Return the time that `text` says; None, and a note, if it is not one."""
        if not text:
            return None
        found = moment(text, self.offset, self.zone)
        if found is None and text.strip("0"):  # zeros are how some senders write "none"
            self.turn_away(place, reasons.BAD_TIME)
        return found

    def add(
        self,
        kind: Kind,
        place: str,
        key: str,
        *,
        action: Action = Action.ASSERT,
        start: Moment | None = None,
        end: Moment | None = None,
        concept: Concept = NOTHING,
        type_concept_id: int | None = EHR,
        **more: Any,
    ) -> Row:
        """Add a fact about the patient of the last PID, and return it."""
        row = BLANK.copy()
        row["record"] = self.number
        row["place"] = place
        row["key"] = key
        row["version"] = self.sent.us if self.sent else None
        row["action"] = action
        row["kind"] = kind
        row["patient"] = self.patient
        row["patient_namespace"] = self.namespace
        row["encounter"] = self.encounter
        row["type_concept_id"] = type_concept_id
        if start is not None:
            row["start"], row["precision"], row["utc_offset_min"] = start
        if end is not None:
            row["end"] = end.us
        if concept.codings:
            row["codes"] = concept.codings
        if concept.text:
            row["text"] = concept.text
        if more:
            row.update(more)
        self.rows.append(row)
        return row

    def retract(self, kind: Kind, place: str, key: str) -> None:
        """Take back whatever has this key."""
        self.add(kind, place, key, action=Action.RETRACT, type_concept_id=None)

    def flush(self) -> None:
        """Finish a text that does not go on."""
        if (lines := self.pending) is not None:
            self.pending = None
            lines.done(lines.lines)


def details(**said: str | None) -> dict[str, str] | None:
    """Return what was said, None if nothing was."""
    found = {name: value for name, value in said.items() if value}
    return found or None


def cells(rows: list[Row]) -> list[Cells]:
    """Return rows in the order of the schema: small, until a batch is full."""
    return list(map(tuple, map(dict.values, rows)))


def table(rows: list[Cells]) -> pa.Table:
    """Return rows as facts."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(SCHEMA)
    arrays = [_column(column, values) for column, values in zip(SCHEMA, columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _column(column: pa.Field, values: Sequence[Any]) -> pa.Array:
    if column.nullable and values.count(None) == len(values):
        return pa.nulls(len(values), column.type)
    if column.name in ("codes", "value_codes"):
        return _each_once(values, _coding_lists)
    if column.type == CODING:
        return _each_once(values, _codings)
    if column.name == "details":
        return _each_once(values, lambda told: pa.array([list(said.items()) for said in told], column.type))
    return pa.array(values, column.type)


def _each_once(values: Sequence[Any], made: Callable[[list[Any]], pa.Array]) -> pa.Array:
    """Return an array of objects that rows share (nobody changes them), each turned into Arrow once."""
    distinct = {id(value): value for value in values if value is not None}
    place: dict[int, int | None] = {key: at for at, key in enumerate(distinct)}
    place[id(None)] = None
    array = made(list(distinct.values()))
    return array.take(pa.array([place[id(value)] for value in values], pa.int32()))


def _coding_lists(values: list[list[Coding]]) -> pa.Array:
    offsets = [0, *accumulate(len(codings) for codings in values)]
    flat = _codings(list(chain.from_iterable(values)))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _codings(values: list[Coding]) -> pa.Array:
    parts = [pa.array([coding[at] for coding in values], pa.string()) for at in range(3)]
    return pa.StructArray.from_arrays(parts, fields=list(CODING))
