"""DG1, PRB and PR1: diagnoses, problems and procedures."""

from __future__ import annotations

from datetime import timedelta

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import PROBLEM_LIST, Record, Segment, details
from node.ingest.readers.hl7v2_times import MICROSECOND, Moment
from node.ingest.readers.hl7v2_types import Concept, concept, entity, number

DELETED = "D"  # table 0206
PROBLEM_GONE = frozenset({"DE", "ST"})  # table 0287: delete, stop (of a goal)
LIFECYCLES = frozenset({"active", "inactive", "resolved", "remission", "recurrence", "relapse"})
LONGEST_MIN = 7 * 24 * 60  # of a procedure: what is longer is not minutes


def _said(record: Record, segment: Segment, name: str, *, code: int, method: int, words: int) -> Concept:
    """Return the concept of a segment that may say its code, its system and its words in three fields."""
    message = record.message
    system = message.first(segment, method)
    found = concept(message, message.field(segment, code), where=f"{name}-{code}", system=system)
    if found.text is None and (text := message.first(segment, words)):
        found = Concept(found.codings, text)
    return found


def dg1(record: Record, segment: Segment) -> None:
    """Give CONDITION. Its key is DG1-20, else visit, code and type."""
    message = record.message
    what = _said(record, segment, "DG1", code=3, method=2, words=4)
    if not what.said:
        record.turn_away("DG1-3", reasons.NO_CONTENT)
        return
    kind = message.first(segment, 6)
    key = entity(message, segment, 20) or f"dx {record.encounter or ''} {what.name} {kind}"
    place = f"DG1[{record.ordinal}]"
    if message.first(segment, 21).upper() == DELETED:
        record.retract(Kind.CONDITION, place, key)
        return
    start = record.time(segment, 5, "DG1-5")
    record.add(
        Kind.CONDITION,
        place,
        key,
        start=start or record.admitted or record.happened or record.sent,
        concept=what,
        details=details(diagnosis_type=kind, priority=message.first(segment, 15)),
    )


def prb(record: Record, segment: Segment) -> None:
    """Give CONDITION of the problem list, keyed by PRB-4; a deleted one is taken back."""
    message = record.message
    what = concept(message, message.field(segment, 3), where="PRB-3")
    key = entity(message, segment, 4)
    place = f"PRB[{record.ordinal}]"
    if not what.said:
        record.turn_away("PRB-3", reasons.NO_CONTENT)
        return
    key = f"problem {key or what.name}"
    if message.first(segment, 1).upper() in PROBLEM_GONE:
        record.retract(Kind.CONDITION, place, key)
        return
    start = record.time(segment, 16, "PRB-16") or record.time(segment, 7, "PRB-7")
    lifecycle = message.first(segment, 14)
    record.add(
        Kind.CONDITION,
        place,
        key,
        start=start or record.time(segment, 2, "PRB-2"),
        end=record.time(segment, 9, "PRB-9"),
        concept=what,
        status=lifecycle.lower() if lifecycle.lower() in LIFECYCLES else None,
        type_concept_id=PROBLEM_LIST,
        details=details(lifecycle=lifecycle),
    )


def performed(record: Record, segment: Segment) -> Concept:
    """Return what a PR1 says was done."""
    return _said(record, segment, "PR1", code=3, method=2, words=4)


def procedure_key(record: Record, segment: Segment) -> str:
    """Return the key of the procedure of a PR1: PR1-19, else visit, code and time."""
    message = record.message
    if given := entity(message, segment, 19):
        return given
    return f"px {record.encounter or ''} {performed(record, segment).name} {message.first(segment, 5)}"


def pr1(record: Record, segment: Segment) -> None:
    """Give PROCEDURE. Its key is PR1-19, else visit, code and time; PR1-7 is how long it took."""
    message = record.message
    what = performed(record, segment)
    if not what.said:
        record.turn_away("PR1-3", reasons.NO_CONTENT)
        return
    when = message.first(segment, 5)
    key = procedure_key(record, segment)
    place = f"PR1[{record.ordinal}]"
    if message.first(segment, 20).upper() == DELETED:
        record.retract(Kind.PROCEDURE, place, key)
        return
    start = record.time_of(when, "PR1-5")
    minutes = number(message.first(segment, 7))
    end = None
    if start and minutes and 0 < minutes <= LONGEST_MIN:
        end = Moment(start.us + timedelta(minutes=minutes) // MICROSECOND, start.precision, start.offset_min)
    record.add(
        Kind.PROCEDURE,
        place,
        key,
        start=start or record.admitted or record.happened or record.sent,
        end=end,
        concept=what,
        details=details(function=message.first(segment, 6)),
    )
