"""ORC, OBR, OBX and NTE: results, and words about them.

A result's key is its order's filler number (else placer number, else time), what was ordered, and OBX-3 and
OBX-4; so a correction takes the place of what it corrects, and D, W and X take it back. Only final results
are facts (OBX-11 F, C and what stands for them): a preliminary one is turned away, its final one will come.
"""

from __future__ import annotations

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
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
from node.ingest.readers.hl7v2_types import (
    Coding,
    Concept,
    compared,
    concept,
    entity,
    number,
    reference_range,
    unit,
)

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
CODED = frozenset({"CE", "CWE", "CNE", "CF"})
TEXT = frozenset({"ST", "TX", "FT", "IS", "ID", "GTS", "SI", ""})
LONG_TEXT = frozenset({"TX", "FT"})
VALUES = TEXT | CODED | {"NM", "SN", "CQ", "MO", "CP"}
TIMES = frozenset({"DT", "TM", "TS", "DTM", "DR", "TQ"})
BINARIES = frozenset({"ED", "RP", "NA", "MA", "CD"})
IDENTITIES = frozenset(
    {"XPN", "XCN", "XAD", "XTN", "XON", "PN", "CN", "AD", "TN", "CX", "CK", "PPN", "EI", "HD", "PL", "EIP"}
)
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
    what = concept(message, message.field(segment, 3), where="OBX-3")
    if not what.said:
        record.flush()
        record.turn_away("OBX-3", reasons.NO_CONTENT)
        return
    stem = f"{order.key or record.encounter or ''} {what.name} {message.first(segment, 4)}"
    value_type = message.first(segment, 2).upper()
    if (lines := record.pending) is not None:
        if lines.key == stem and value_type in TEXT and _status(record, segment) in FINAL:
            lines.lines.extend(_texts(record, segment))
            return
        record.flush()
    count = order.seen[stem] = order.seen.get(stem, 0) + 1
    key = stem if count == 1 else f"{stem} #{count}"
    place = f"OBX[{record.ordinal}]"
    at = record.time(segment, 14, "OBX-14")
    at = at or order.observed or order.at or record.happened or record.sent
    order.last_key, order.last_at = key, at
    status = _status(record, segment)
    kind = Kind.OBSERVATION if record.code == "VXU" else Kind.MEASUREMENT
    if status in GONE:
        record.retract(kind, place, key)
        if value_type in LONG_TEXT:
            record.retract(Kind.NOTE, place, key)
        return
    if status not in FINAL:
        record.turn_away("OBX-11", reasons.NOT_DONE if status == NOT_ASKED else reasons.NOT_FINAL)
        return
    result = _Result(record, segment, kind=kind, key=key, place=place, at=at, what=what, status=status)
    if value_type in LONG_TEXT or (value_type in TEXT and record.code == "MDM"):
        _text(result, stem)
    else:
        result.give(value_type)


def _status(record: Record, segment: Segment) -> str:
    return record.message.first(segment, 11).upper() or record.order.status


def _texts(record: Record, segment: Segment) -> list[str]:
    return [record.message.text(raw) for raw in record.message.repetitions(segment, 5)]


def _text(result: _Result, stem: str) -> None:
    """Hold a text until it is known whether it goes on in the next segment."""
    lines = _texts(result.record, result.segment)
    if not any(line.strip() for line in lines):
        result.record.turn_away("OBX-5", reasons.NO_VALUE)
        return
    result.record.pending = Lines("OBX", stem, lines, result.give_text)


class _Result:
    """One OBX that is a fact."""

    def __init__(
        self,
        record: Record,
        segment: Segment,
        *,
        kind: Kind,
        key: str,
        place: str,
        at: Moment | None,
        what: Concept,
        status: str,
    ) -> None:
        self.record = record
        self.segment = segment
        self.kind = kind
        self.key = key
        self.place = place
        self.at = at
        self.what = what
        self.status = status
        self.order = record.order
        self.encounter = record.encounter

    def give(self, value_type: str) -> None:
        """Give the facts of a value that is not a text of many lines."""
        record, message = self.record, self.record.message
        values = message.repetitions(self.segment, 5)
        if reason := _refused(value_type):
            record.turn_away("OBX-5", reason)
            return
        if not values:
            record.turn_away("OBX-5", reasons.NO_VALUE)
            return
        for at, raw in enumerate(values, 1):
            row = self._row("" if at == 1 else f" ~{at}", "" if at == 1 else f"-5[{at}]")
            if value_type in CODED:
                _coded(record, raw, row)
            elif value_type == "SN":
                _structured(message.components(raw), row)
            elif value_type in ("CQ", "MO", "CP"):
                _number_or_text(message.components(raw)[0], row)
            elif value_type == "NM" or row.get("unit"):
                _number_or_text(message.text(raw), row)
            else:
                row["value_text"] = message.text(raw).strip() or None

    def give_text(self, lines: list[str]) -> None:
        """Give a short text as a value, a long one or one of several lines as a NOTE."""
        words = "\n".join(line.rstrip() for line in lines).strip("\n")
        if self.record.code != "MDM" and "\n" not in words and len(words) <= VALUE_CHARACTERS:
            self._row("", "")["value_text"] = words.strip()
            return
        row = self._row("", "")
        row["kind"] = Kind.NOTE.value
        row["details"] = details(title=self.what.text)
        row["text"] = words
        row["type_concept_id"] = NOTE

    def _row(self, key: str, place: str) -> Row:
        record, message, segment = self.record, self.record.message, self.segment
        row = record.add(
            self.kind,
            self.place + place,
            self.key + key,
            start=self.at,
            concept=self.what,
            type_concept_id=self.order.type_concept_id,
            status=FINAL.get(self.status),
            encounter=self.encounter,
        )
        row["unit"] = unit(message, message.field(segment, 6))
        if limits := message.first(segment, 7):
            row["range_low"], row["range_high"] = reference_range(limits)
        if flag := message.first(segment, 8):
            row["details"] = {"interpretation": flag}
        return row


def _refused(value_type: str) -> str:
    if value_type in VALUES:
        return ""
    if value_type in TIMES:
        return reasons.VALUE_IS_TIME
    if value_type in BINARIES:
        return reasons.BINARY
    if value_type in IDENTITIES:
        return reasons.IDENTITY
    return reasons.VALUE_TYPE


def _coded(record: Record, raw: str, row: Row) -> None:
    value = concept(record.message, raw, where="OBX-5")
    codings: list[Coding] = value.codings
    row["value_codes"] = codings or None
    row["value_text"] = value.text


def _number_or_text(text: str, row: Row) -> None:
    if (found := compared(text)) is not None:
        row["value_operator"], row["value_number"] = found
    else:
        row["value_text"] = text.strip() or None


def _structured(parts: list[str], row: Row) -> None:
    """SN: comparator, number, separator, number. "^1^:^128" and "^2^-^4" are not one number."""
    said = [part.strip() for part in (*parts[:4], "", "", "")][:4]
    operator, first, separator, second = said
    value = number(first)
    if (
        value is not None
        and not second
        and separator in ("", "+")
        and operator in ("", "=", "<", "<=", ">", ">=")
    ):
        row["value_operator"] = None if operator in ("", "=") else operator
        row["value_number"] = value
        if separator:
            row["value_text"] = "".join(said)
    else:
        row["value_text"] = "".join(said) or None


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
