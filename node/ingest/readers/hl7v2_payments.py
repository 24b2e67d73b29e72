"""IN1 and FT1: who pays, and what was charged and paid for what."""

from __future__ import annotations

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_findings import performed, procedure_key
from node.ingest.readers.hl7v2_record import BILLING, Record, Segment, details
from node.ingest.readers.hl7v2_types import Concept, concept, number

CHARGE, PAYMENT = "CG", "PY"  # FT1-6, table 0017
BILLS = frozenset({"DFT", "BAR"})  # elsewhere FT1 is what an order will cost
CURRENCY_LETTERS = 3  # ISO 4217


def in1(record: Record, segment: Segment) -> None:
    """Give COVERAGE: plan (IN1-2) and payer (IN1-4, else IN1-3) from IN1-12 to IN1-13; no policy's number."""
    message = record.message
    plan = concept(message, message.field(segment, 2), where="IN1-2")
    payer = message.first(segment, 4) or message.first(segment, 3)
    if not payer and not plan.said:
        record.turn_away("IN1-2", reasons.NO_CONTENT)
        return
    start = record.time(segment, 12, "IN1-12")
    if start is None:
        record.turn_away("IN1-12", reasons.NO_START)
        return
    record.add(
        Kind.COVERAGE,
        f"IN1[{record.ordinal}]",
        f"coverage {plan.name} {payer}",
        start=start,
        end=record.time(segment, 13, "IN1-13"),
        details=details(payer=payer, plan=plan.text or plan.name),
    )


def ft1(record: Record, segment: Segment) -> None:
    """Give COST of what a PR1 of the message says was done, PROCEDURE with its charge, or COST of the visit.

    What was charged or paid is FT1-11, else FT1-12 times FT1-10. FT1-19 gives CONDITION where no DG1 says it.
    """
    message = record.message
    if record.code not in BILLS:
        record.turn_away("FT1", reasons.ORDER)
        return
    _diagnoses(record, segment)
    kind = message.first(segment, 6).upper()
    if kind not in (CHARGE, PAYMENT):
        record.turn_away("FT1-6", reasons.ADJUSTMENT if kind else reasons.NO_VALUE)
        return
    amount, currency = _amount(record, segment)
    if amount is None:
        return
    done = concept(message, message.field(segment, 25), where="FT1-25")
    target = _target(record, done) or record.encounter
    when = message.first(segment, 4)
    start = record.time_of(when, "FT1-4")
    place = f"FT1[{record.ordinal}]"
    named = done if done.said else concept(message, message.field(segment, 7), where="FT1-7")
    said = message.first(segment, 2) or f"{named.name} {when} {message.first(segment, 1)}"
    key = f"{kind} {record.encounter or ''} {said}"
    if done.said and kind == CHARGE and target == record.encounter:
        start = start or record.admitted or record.happened or record.sent
        row = record.add(Kind.PROCEDURE, place, key, start=start, concept=done, type_concept_id=BILLING)
        quantity = number(message.first(segment, 10))
        row["quantity"] = quantity if quantity and quantity > 0 else None
    elif target:
        row = record.add(Kind.COST, place, key, start=start, concept=named, type_concept_id=BILLING)
        row["other_key"] = target
    else:
        record.turn_away("FT1", reasons.NO_TARGET)
        return
    row["charged" if kind == CHARGE else "paid"] = amount
    row["currency"] = currency


def _target(record: Record, done: Concept) -> str | None:
    """Return the key of the procedure among the message's PR1 that is charged for."""
    if not done.said:
        return None
    for segment in record.message.segments:
        if segment[0] == "PR1" and performed(record, segment).name == done.name:
            return procedure_key(record, segment)
    return None


def _diagnoses(record: Record, segment: Segment) -> None:
    message = record.message
    if any(other[0] == "DG1" for other in message.segments):
        return
    start = record.time(segment, 4, "FT1-4") or record.admitted or record.happened or record.sent
    for at, raw in enumerate(message.repetitions(segment, 19), 1):
        what = concept(message, raw, where="FT1-19")
        if what.said:
            key = f"dx {record.encounter or ''} {what.name} "
            record.add(
                Kind.CONDITION,
                f"FT1[{record.ordinal}]-19[{at}]",
                key,
                start=start,
                concept=what,
                type_concept_id=BILLING,
            )


def _amount(record: Record, segment: Segment) -> tuple[float | None, str | None]:
    """Return FT1-11, else FT1-12 times FT1-10, and its currency where one is named."""
    message, times = record.message, 1.0
    raw = message.field(segment, 11)
    if not raw:
        raw = message.field(segment, 12)
        count = message.first(segment, 10)
        times = (number(count) if count else 1.0) or 0.0
    if not raw:
        record.turn_away("FT1-11", reasons.NO_VALUE)
        return None, None
    parts = message.components(raw.partition(message.delimiters.repetition)[0])[0]
    said, _, currency = parts.partition(message.delimiters.subcomponent)
    value = number(said)
    if value is None or times <= 0:
        record.turn_away("FT1-11", reasons.BAD_NUMBER)
        return None, None
    currency = currency.strip().upper()
    return value * times, currency if len(currency) == CURRENCY_LETTERS and currency.isalpha() else None
