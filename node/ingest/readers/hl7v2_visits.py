"""EVN and PV1: visits, as admissions, transfers, discharges and their cancellations tell them."""

from __future__ import annotations

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import ENCOUNTER_RECORD, Record, Segment, details
from node.ingest.readers.hl7v2_types import Coding, identifier

HELD = frozenset({"A01", "A02", "A03", "A04", "A06", "A07", "A08", "A12", "A13"})
CANCELLED = frozenset({"A11", "A23", "A38"})
TO_COME = frozenset({"A05", "A14", "A15", "A16"})
DISCHARGE = "A03"
CANCEL_DISCHARGE = "A13"
BEGINS = frozenset({"A01", "A04"})
NO_CLASS = frozenset({"N", "U"})  # PV1-2 "not applicable", "unknown"
ACT_CODES = {"I": "IMP", "O": "AMB", "E": "EMER", "P": "PRENC", "B": "IMP"}
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def evn(record: Record, segment: Segment) -> None:
    """Note when it happened: EVN-6, else EVN-2. The event of old messages is EVN-1."""
    record.event = record.event or record.message.first(segment, 1).upper()
    record.happened = record.time(segment, 6, "EVN-6") or record.time(segment, 2, "EVN-2")


def pv1(record: Record, segment: Segment) -> None:
    """Set the visit of what follows. ADT gives VISIT: the whole visit as it now stands, keyed by its number.

    A11 and A23 take it back. A13 says that a discharge did not happen: the visit is open again. Visits to
    come (A05, A14) are turned away: CDM's visits are those that were.
    """
    message = record.message
    begun = record.time(segment, 44, "PV1-44")
    record.encounter = _number(record, segment, begun is not None)
    record.admitted = begun
    if record.code != "ADT" or record.event not in HELD | CANCELLED | TO_COME:
        return
    place = f"PV1[{record.ordinal}]"
    if record.event in TO_COME:
        record.turn_away("PV1", reasons.PLANNED)
        return
    if record.event in BEGINS:
        begun = begun or record.happened or record.sent
        record.admitted = begun
    if record.encounter is None:
        if begun is None:
            record.turn_away("PV1-19", reasons.NO_CONTENT)
            return
        record.encounter = f"at {begun.us // 1_000_000}"
    if record.event in CANCELLED:
        record.retract(Kind.VISIT, place, record.encounter)
        return
    end = None
    if record.event != CANCEL_DISCHARGE:
        end = record.time(segment, 45, "PV1-45")
    if record.event == DISCHARGE:
        end = end or record.happened or record.sent
    row = record.add(
        Kind.VISIT,
        place,
        record.encounter,
        start=begun,
        end=end,
        type_concept_id=ENCOUNTER_RECORD,
        status="finished" if end else "in-progress",
        details=details(
            **{
                "class": message.first(segment, 2),
                "service": message.first(segment, 10),
                "admitted_from": message.first(segment, 14),
                "discharged_to": message.first(segment, 36),
                "care_site": message.first(segment, 3),
            }
        ),
    )
    row["codes"] = _class(message.first(segment, 2).upper())


def _number(record: Record, segment: Segment, begun: bool) -> str | None:
    """Return PV1-19, PV1-50 or PID-18; without one the admission's time tells a visit from others."""
    message = record.message
    for number in (19, 50):
        for raw in message.repetitions(segment, number):
            if found := identifier(message, raw).id:
                return found
    if record.account:
        return record.account
    return f"at {message.first(segment, 44)[:14]}" if begun else None


def _class(code: str) -> list[Coding] | None:
    if not code or code in NO_CLASS:
        return None
    found: list[Coding] = [("HL70004", code, None)]
    if code in ACT_CODES:
        found.append((ACT_CODE, ACT_CODES[code], None))
    return found
