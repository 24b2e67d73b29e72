"""RXE, RXD, RXA and RXR: drugs prescribed, dispensed and given, and vaccines."""

from __future__ import annotations

import re

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import (
    ADMINISTRATION,
    DISPENSING,
    EHR,
    PRESCRIPTION,
    Record,
    Row,
    Segment,
)
from node.ingest.readers.hl7v2_times import Moment
from node.ingest.readers.hl7v2_types import Concept, concept, number, unit

CANCELLED = frozenset({"CA", "CR", "OC"})  # table 0119: cancelled
STOPPED = frozenset({"DC", "DR", "OD"})  # discontinued
NOT_GIVEN = frozenset({"RE", "NA"})  # RXA-20, table 0322: refused, not administered
NO_VACCINE = "998"  # CVX "no vaccine administered"
UNKNOWN_AMOUNT = 999.0  # RXA-6 of historical doses (CDC's guide)
HISTORICAL = "00"  # RXA-9, NIP001: "new record"; anything else tells of the past
DELETED = "D"
DURATION = re.compile(r"([DWLM])([0-9]{1,4})")
DAYS = {"D": 1, "W": 7, "L": 30, "M": 30}  # TQ-3: L is months


def rxe(record: Record, segment: Segment) -> None:
    """Give DRUG of a prescription that a pharmacy has encoded."""
    message, order = record.message, record.order
    what = concept(message, message.field(segment, 2), where="RXE-2")
    owner = order.filler or message.first(segment, 15) or order.placer
    row = _drug(record, what, owner, name="RXE", deleted=order.control in CANCELLED)
    if row is None:
        return
    timing = message.field(segment, 1).partition(message.delimiters.repetition)[0]
    parts = message.components(timing) if timing else []
    parts += [""] * (5 - len(parts))
    start = record.time_of(parts[3].strip(), "RXE-1") or record.time(segment, 32, "RXE-32")
    _when(row, start or order.at or record.happened or record.sent)
    end = record.time_of(parts[4].strip(), "RXE-1")
    if end is None and order.control in STOPPED:
        end = order.at or record.sent
    row["end"] = end.us if end else None
    if found := DURATION.fullmatch(parts[2].strip()):
        row["days_supply"] = int(found[2]) * DAYS[found[1]]
    row["quantity"] = _number(record, segment, 10, "RXE-10")
    refills = _number(record, segment, 12, "RXE-12")
    row["refills"] = int(refills) if refills is not None and 0 <= refills <= 999 else None
    row["dose"] = _amount(record, segment, 3, 5)
    row["status"] = "stopped" if order.control in STOPPED else "active"
    row["type_concept_id"] = PRESCRIPTION


def tq1(record: Record, segment: Segment) -> None:
    """Give the drug before it its times: TQ1-7 and TQ1-8 of HL7 2.5 and later."""
    row = _last(record, "RXE")
    start, end = record.time(segment, 7, "TQ1-7"), record.time(segment, 8, "TQ1-8")
    if row is not None and row["action"] == "assert":
        _when(row, start)
        if end is not None:
            row["end"] = end.us


def rxd(record: Record, segment: Segment) -> None:
    """Give DRUG of what was dispensed."""
    message, order = record.message, record.order
    what = concept(message, message.field(segment, 2), where="RXD-2")
    owner = f"{message.first(segment, 7) or order.filler or order.placer} {message.first(segment, 1)}"
    row = _drug(record, what, owner, name="RXD", deleted=order.control in CANCELLED)
    if row is None:
        return
    _when(row, record.time(segment, 3, "RXD-3") or order.at or record.happened or record.sent)
    row["quantity"] = _number(record, segment, 4, "RXD-4")
    row["dose"] = _amount(record, segment, 16, 17)
    row["status"] = "dispensed"
    row["type_concept_id"] = DISPENSING


def rxa(record: Record, segment: Segment) -> None:
    """Give DRUG of what was given; what was refused or not given is turned away."""
    message, order = record.message, record.order
    what = concept(message, message.field(segment, 5), where="RXA-5")
    if message.first(segment, 20).upper() in NOT_GIVEN or what.name == NO_VACCINE:
        record.turn_away("RXA", reasons.NOT_DONE)
        return
    when = message.first(segment, 3)
    owner = order.filler or order.placer or when
    deleted = message.first(segment, 21).upper() == DELETED
    row = _drug(record, what, f"{owner} {message.first(segment, 2)}", name="RXA", deleted=deleted)
    if row is None:
        return
    _when(row, record.time_of(when, "RXA-3") or record.happened or record.sent)
    end = record.time(segment, 4, "RXA-4")
    row["end"] = end.us if end else None
    quantity = _number(record, segment, 6, "RXA-6")
    row["quantity"] = None if quantity == UNKNOWN_AMOUNT else quantity
    row["unit"] = _unit(record, segment, 7) if row["quantity"] is not None else None
    row["dose"] = _amount(record, segment, 6, 7) if row["quantity"] is not None else None
    source = message.first(segment, 9)
    row["type_concept_id"] = ADMINISTRATION if source in ("", HISTORICAL) else EHR
    row["status"] = "completed"


def rxr(record: Record, segment: Segment) -> None:
    """Give the drug before it its route."""
    row = _last(record, "RX")
    what = concept(record.message, record.message.field(segment, 1), where="RXR-1", system="HL70162")
    if row is not None and row["action"] == "assert" and what.codings and row.get("route") is None:
        row["route"] = what.codings[0]


def order_only(record: Record, segment: Segment) -> None:
    """Turn away RXO, RXG and what else is asked for and not yet done."""
    if record.code not in (
        "RDE",
        "RDS",
        "RAS",
        "RGV",
    ):  # there what was asked for stands before what was done
        record.turn_away(segment[0], reasons.ORDER)


def component(record: Record, segment: Segment) -> None:
    """Turn away a part of a compound."""
    record.turn_away("RXC", reasons.COMPONENT)


def _drug(record: Record, what: Concept, owner: str, *, name: str, deleted: bool) -> Row | None:
    if not what.said:
        record.turn_away(name, reasons.NO_CONTENT)
        return None
    order = record.order
    place = f"{name}[{record.ordinal}]"
    stem = f"{name} {owner.strip()} {what.name}"
    count = order.seen[stem] = order.seen.get(stem, 0) + 1
    key = stem if count == 1 else f"{stem} #{count}"
    order.last_key, order.last_at = key, record.sent
    if deleted:
        record.retract(Kind.DRUG, place, key)
        return None
    return record.add(Kind.DRUG, place, key, concept=what)


def _when(row: Row, at: Moment | None) -> None:
    if at is not None:
        row["start"], row["precision"], row["utc_offset_min"] = at


def _number(record: Record, segment: Segment, at: int, place: str) -> float | None:
    text = record.message.first(segment, at)
    if not text:
        return None
    found = number(text)
    if found is None or found < 0:
        record.turn_away(place, reasons.BAD_NUMBER)
        return None
    return found


def _unit(record: Record, segment: Segment, at: int) -> str | None:
    return unit(record.message, record.message.field(segment, at))


def _amount(record: Record, segment: Segment, amount: int, measure: int) -> str | None:
    said = [record.message.first(segment, amount), _unit(record, segment, measure) or ""]
    return " ".join(part for part in said if part) or None if said[0] else None


def _last(record: Record, name: str) -> Row | None:
    row = record.rows[-1] if record.rows else None
    return row if row is not None and row["place"].startswith(name) else None
