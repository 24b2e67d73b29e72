"""ORC, OBR, OBX and NTE: results, and words about them.

A result's key is its order's filler number (else placer number, else time), what was ordered, and OBX-3 and
OBX-4; so a correction takes the place of what it corrects, and D, W and X take it back. Only final results
are facts (OBX-11 F, C and what stands for them): a preliminary one is turned away, its final one will come.
"""

from __future__ import annotations

from typing import NamedTuple

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_lexer import Message
from node.ingest.readers.hl7v2_record import (
    EHR,
    LAB,
    NOTE,
    Lines,
    Order,
    Record,
    Row,
    Segment,
    details,
)
from node.ingest.readers.hl7v2_times import Moment
from node.ingest.readers.hl7v2_types import concept, entity
from node.ingest.readers.hl7v2_values import LONG_TEXT, TEXT, Form, form, refusal, set_value

FINAL: dict[str, str | None] = {
    "": None,
    "F": "final",
    "U": "final",  # was preliminary, and holds
    "V": "final",  # verified
    "C": "corrected",
    "A": "amended",
    "B": "appended",
}
"""Table 0085 to the words that all sources share. What is not said is not preliminary."""
GONE = frozenset({"D", "W", "X"})
NOT_ASKED = "N"
VALUE_CHARACTERS = 60  # CDM 5.4: value_as_string is varchar(60); longer texts are notes
ORDERING = frozenset({"ORM", "OML", "OMG", "OMP", "OMI", "OMD", "OMS", "OMN"})
NOT_LABS = frozenset({"RAD", "RUS", "CT", "CUS", "NMR", "NMS", "XRC", "EC", "EN", "PF", "PHY", "VUS", "CTH"})
"""OBR-24, table 0074: sections whose results are not a laboratory's."""


def orc(record: Record, segment: Segment) -> None:
    """Begin an order."""
    message = record.message
    record.order = Order(
        control=message.first(segment, 1).upper(),
        placer=entity(message, segment, 2),
        filler=entity(message, segment, 3),
        at=record.time(segment, 9, "ORC-9"),
    )


def obr(record: Record, segment: Segment) -> None:
    """Begin the results of an order. What an order message only asks for is turned away."""
    message, before = record.message, record.order
    filler = entity(message, segment, 3) or before.filler
    placer = entity(message, segment, 2) or before.placer
    what = concept(message, message.field(segment, 4), where="OBR-4")
    observed = record.time(segment, 7, "OBR-7")
    told = None if observed else record.time(segment, 22, "OBR-22")
    laboratory = record.code in ("ORU", "OUL") and message.first(segment, 24).upper() not in NOT_LABS
    owner = filler or placer or f"at {message.first(segment, 7)}"
    record.order = Order(
        control=before.control,
        placer=placer,
        filler=filler,
        at=before.at,
        key=f"{owner} {what.name}",
        observed=observed or told,
        status=message.first(segment, 25).upper(),
        type_concept_id=LAB if laboratory else EHR,
    )
    if record.code in ORDERING:
        record.turn_away("OBR", reasons.ORDER)


def obx(record: Record, segment: Segment) -> None:
    """Give MEASUREMENT (of VXU: OBSERVATION), or NOTE of text in many lines or longer than a CDM value."""
    message, order = record.message, record.order
    asked = form(message, segment)
    if not asked.what.said:
        record.flush()
        record.turn_away("OBX-3", reasons.NO_CONTENT)
        return
    stem = f"{order.key or record.encounter or ''} {asked.name}"
    value_type, status = asked.kind, asked.status or order.status
    if (lines := record.pending) is not None:
        if lines.key == stem and value_type in TEXT and status in FINAL:
            lines.lines.extend(_texts(message, segment))
            return
        record.flush()
    count = order.seen[stem] = order.seen.get(stem, 0) + 1
    key = stem if count == 1 else f"{stem} #{count}"
    place = f"OBX[{record.ordinal}]"
    at = record.time(segment, 14, "OBX-14") or order.observed or order.at or record.happened or record.sent
    order.last_key, order.last_at = key, at
    kind = Kind.OBSERVATION if record.code == "VXU" else Kind.MEASUREMENT
    if status in GONE:
        record.retract(kind, place, key)
        if value_type in LONG_TEXT:
            record.retract(Kind.NOTE, place, key)
        return
    if status not in FINAL:
        record.turn_away("OBX-11", reasons.NOT_DONE if status == NOT_ASKED else reasons.NOT_FINAL)
        return
    result = Result(record, asked, kind, key, place, at, status)
    if value_type in LONG_TEXT or (value_type in TEXT and record.code == "MDM"):
        _text(result, segment, stem)
    else:
        _give(result, segment)


def _give(result: Result, segment: Segment) -> None:
    """Give the facts of a value that is not a text of many lines."""
    record, kind = result.record, result.asked.kind
    if reason := refusal(kind):
        record.turn_away("OBX-5", reason)
        return
    values = record.message.repetitions(segment, 5)
    if not values:
        record.turn_away("OBX-5", reasons.NO_VALUE)
        return
    set_value(result.row(), record.message, kind, values[0])
    for nth, raw in enumerate(values[1:], 2):
        set_value(result.row(f" ~{nth}", f"-5[{nth}]"), record.message, kind, raw)


def _texts(message: Message, segment: Segment) -> list[str]:
    return [message.text(raw) for raw in message.repetitions(segment, 5)]


def _text(result: Result, segment: Segment, stem: str) -> None:
    """Hold a text until it is known whether it goes on in the next segment."""
    record = result.record
    lines = _texts(record.message, segment)
    if not any(line.strip() for line in lines):
        record.turn_away("OBX-5", reasons.NO_VALUE)
        return
    pending = Pending(result, record.order.type_concept_id, record.encounter)
    record.pending = Lines("OBX", stem, lines, pending.give)


class Result(NamedTuple):
    """One OBX that is a fact, or several: one for each repetition of its value."""

    record: Record
    asked: Form
    kind: Kind
    key: str
    place: str
    at: Moment | None
    status: str

    def row(self, key: str = "", place: str = "") -> Row:
        """Add the fact, without its value."""
        asked = self.asked
        row = self.record.add(
            self.kind,
            self.place + place,
            self.key + key,
            start=self.at,
            concept=asked.what,
            type_concept_id=self.record.order.type_concept_id,
        )
        row["status"] = FINAL[self.status]
        row["unit"] = asked.unit
        row["range_low"] = asked.low
        row["range_high"] = asked.high
        row["details"] = asked.details
        return row


class Pending(NamedTuple):
    """A text that may go on, and whose it was when it began."""

    result: Result
    type_concept_id: int
    encounter: str | None

    def give(self, lines: list[str]) -> None:
        """Give a short text as a value, a long one or one of several lines as a NOTE."""
        words = "\n".join(line.rstrip() for line in lines).strip("\n")
        row = self.result.row()
        row["encounter"], row["type_concept_id"] = self.encounter, self.type_concept_id
        if self.result.record.code != "MDM" and "\n" not in words and len(words) <= VALUE_CHARACTERS:
            row["value_text"] = words.strip()
            return
        row["kind"] = Kind.NOTE
        row["details"] = details(title=self.result.asked.what.text)
        row["text"] = words
        row["type_concept_id"] = NOTE


def nte(record: Record, segment: Segment) -> None:
    """Give NOTE: a comment on the result, order or patient before it. Lines that follow belong to it."""
    message = record.message
    said = [message.text(raw) for raw in message.repetitions(segment, 3)]
    if record.pending is not None:
        record.pending.lines.extend(said)
        return
    if not any(line.strip() for line in said):
        record.turn_away("NTE-3", reasons.NO_VALUE)
        return
    order, place, about = record.order, f"NTE[{record.ordinal}]", record.order.last_key or record.order.key
    at = order.last_at or order.observed or order.at or record.happened or record.sent
    stem = f"comment {about}"
    count = order.seen[stem] = order.seen.get(stem, 0) + 1

    def done(lines: list[str]) -> None:
        record.add(
            Kind.NOTE,
            place,
            stem if count == 1 else f"{stem} #{count}",
            start=at,
            type_concept_id=NOTE,
            text="\n".join(line.rstrip() for line in lines),
            other_key=order.last_key or None,
            details={"title": "comment"},
        )

    record.pending = Lines("NTE", stem, said, done)
