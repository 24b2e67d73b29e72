"""EVN, PV1 and PV2: visits, as admissions, transfers, discharges, moves and their cancellations tell them."""

from __future__ import annotations

from node.ingest.facts import OPEN_AGAIN, START, START_UNSAID, Action, Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import (
    CHIEF_COMPLAINT,
    ENCOUNTER_RECORD,
    Record,
    Segment,
    details,
)
from node.ingest.readers.hl7v2_times import Moment
from node.ingest.readers.hl7v2_types import Coding, Concept, concept, identifier

HELD = frozenset(
    f"A{number:02d}"
    for number in (1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 15, 16, 17, 21, 22, 25, 26, 32, 33, 52, 53, 54, 55)
)
"""Events in a visit that has begun: admitted, moved, on leave, about to go. PV1 is how it now stands."""
MOVED = frozenset({"A42", "A45", "A50"})  # the visit of MRG-5 is from now on that of PV1-19
CANCELLED = frozenset({"A11", "A23", "A38"})
TO_COME = frozenset({"A05", "A14", "A27"})
OPEN = frozenset(
    {"A13", "A16", "A25"}
)  # a discharge did not happen, or not yet: no end, whatever PV1-45 says
DISCHARGE = "A03"
BEGINS = frozenset({"A01", "A04"})
VISITS = HELD | MOVED | CANCELLED | TO_COME
REASON_FOR_VISIT = Concept([("http://loinc.org", "29299-5", "Reason for visit")], None)
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
    come (A05, A14) are turned away: CDM's visits are those that were. What says not when a visit began
    (PV1-44) says no more of it than its end: PV1-45, of a discharge (A03) else EVN-6, EVN-2 or MSH-7; or, of
    A13, A16 and A25, that it has none. With neither it is turned away.
    """
    begun = record.time(segment, 44, "PV1-44")
    record.encounter = _number(record, segment, begun is not None)
    record.admitted = begun
    if record.code != "ADT" or record.event not in VISITS:
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
    if _visit(record, segment, begun):
        _leave(record, place)


def _leave(record: Record, place: str) -> None:
    """Take back the visits of MRG-5, and say that what was told in them is of this one."""
    for patient, namespace, number in record.left:
        if (patient, namespace, number) == (record.patient, record.namespace, record.encounter):
            continue
        record.retract(Kind.VISIT, f"{place}-19", number)
        gone = record.rows[-1]
        gone["patient"], gone["patient_namespace"], gone["encounter"] = patient, namespace, number
        moved = record.add(
            Kind.VISIT, f"{place}-19 moved", number, action=Action.MOVE, type_concept_id=None,
            other_patient=record.patient, other_key=record.encounter,
        )  # fmt: skip
        moved["patient"], moved["patient_namespace"], moved["encounter"] = patient, namespace, number
        if namespace != record.namespace:
            moved["details"] = {"other_patient_namespace": record.namespace}


def _visit(record: Record, segment: Segment, begun: Moment | None) -> bool:
    """Give VISIT as it now stands; return whether it says enough of it."""
    message = record.message
    end = None if record.event in OPEN else record.time(segment, 45, "PV1-45")
    if record.event == DISCHARGE:
        end = end or record.happened or record.sent
    start = begun or end or (record.happened or record.sent if record.event in OPEN else None)
    if start is None or (begun is None and record.event in MOVED):  # the number before is another visit's
        record.turn_away("PV1-44", reasons.NO_START)
        return False
    unsaid = {} if begun else {START: START_UNSAID if end else OPEN_AGAIN}
    row = record.add(
        Kind.VISIT,
        f"PV1[{record.ordinal}]",
        record.encounter or "",
        start=start,
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
                **unsaid,
            }
        ),
    )
    row["codes"] = _class(message.first(segment, 2).upper())
    if unsaid and row["version"] is not None:
        row["version"] += 1  # after an admission of the same second
    return True


def pv2(record: Record, segment: Segment) -> None:
    """Give OBSERVATION: why the patient came (PV2-3), in the code or the words of the hospital."""
    message, visit = record.message, record.encounter
    why = concept(message, message.field(segment, 3), where="PV2-3")
    if not why.said or visit is None or record.event in TO_COME:
        return
    place, key = f"PV2[{record.ordinal}]", f"reason for {visit}"
    if record.event in CANCELLED:
        record.retract(Kind.OBSERVATION, place, key)
        return
    record.add(
        Kind.OBSERVATION,
        place,
        key,
        start=record.admitted or record.happened or record.sent,
        concept=REASON_FOR_VISIT,
        type_concept_id=CHIEF_COMPLAINT,
        value_codes=why.codings or None,
        value_text=why.text,
    )


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
