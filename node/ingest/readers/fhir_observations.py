"""Observation: measurements, findings, answers; each component is a fact of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Coding,
    Element,
    Period,
    Quantity,
    Range,
    Ratio,
    Reference,
    Resource,
    Timing,
    first_code,
    unit_of,
)
from node.ingest.readers.fhir_findings import said
from node.ingest.readers.fhir_record import Record, details, statuses
from node.ingest.readers.fhir_rows import EHR, Origin
from node.ingest.readers.fhir_times import Moment

LAB = 32856  # OMOP type concept "Lab"
FINAL = statuses("final amended corrected", "cancelled")
MEASURED = {"laboratory", "vital-signs"}


class ReferenceRange(Element):
    """Between which values a result is usual."""

    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None


class Result(Resource):
    """What an Observation and each of its components have; alone it is a component, which has no type."""

    code: CodeableConcept | None = None
    valueQuantity: Quantity | None = None
    valueCodeableConcept: CodeableConcept | None = None
    valueString: str | None = None
    valueBoolean: bool | None = None
    valueInteger: int | None = None
    valueRange: Range | None = None
    valueRatio: Ratio | None = None
    valueSampledData: Any = None
    valueTime: str | None = None
    valueDateTime: str | None = None
    valuePeriod: Period | None = None
    dataAbsentReason: CodeableConcept | None = None
    interpretation: tuple[CodeableConcept, ...] = ()
    referenceRange: tuple[ReferenceRange, ...] = ()


class Observation(Result, tag="Observation"):
    """A measurement, a finding, an answer."""

    status: str | None = None
    category: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    encounter: Reference | None = None
    effectiveDateTime: str | None = None
    effectiveInstant: str | None = None
    effectivePeriod: Period | None = None
    effectiveTiming: Timing | None = None
    issued: str | None = None
    bodySite: CodeableConcept | None = None
    hasMember: tuple[Reference, ...] = ()
    component: tuple[Result, ...] = ()


def observation(resource: Observation, record: Record) -> str | None:
    """Give one fact per component, and one of the Observation itself if it has a value or nothing else.

    An Observation with members and no value of its own is a fact without a value, to which they are linked.
    """
    origin = record.gate(
        resource,
        resource.subject,
        Kind.MEASUREMENT,
        status=resource.status,
        allowed=FINAL,
        recorded=resource.issued,
    )
    if isinstance(origin, str):
        return origin
    category = first_code(resource.category)
    shared: dict[str, Any] = {
        "encounter": record.encounter(resource.encounter),
        "type_concept_id": LAB if category == "laboratory" else EHR,
        "status": resource.status,
    }
    shared["start"], shared["end"] = _when(resource, record)
    given = 0
    for i, component in enumerate(resource.component):
        given += _result(component, origin, f"component[{i}]", category, shared, record)
    if not resource.component or _has_value(resource):
        given += _result(resource, origin, "", category, shared, record)
    for i, member in enumerate(resource.hasMember):
        if given and (key := record.references.key(member, "Observation")):
            record.rows.add(
                origin, Kind.LINK, f"hasMember[{i}]", key=key, other_key=origin.key, type_concept_id=None
            )
    return None if given else reasons.NO_CONTENT


def _when(resource: Observation, record: Record) -> tuple[Moment | None, Moment | None]:
    if resource.effectiveDateTime is not None:
        return record.time(resource.effectiveDateTime, "effectiveDateTime"), None
    if resource.effectivePeriod is not None:
        start, end = record.times(resource.effectivePeriod, "effectivePeriod")
        return start or end, end
    if resource.effectiveInstant is not None:
        return record.time(resource.effectiveInstant, "effectiveInstant"), None
    if resource.effectiveTiming is not None and resource.effectiveTiming.event:
        return record.time(resource.effectiveTiming.event[0], "effectiveTiming.event[0]"), None
    return record.time(resource.issued, "issued"), None


def _has_value(result: Result) -> bool:
    return result.valueQuantity is not None or any(getattr(result, name) is not None for name in VALUES)


VALUES = [name for name in Result.__struct_fields__ if name.startswith("value")] + ["dataAbsentReason"]


def _result(
    result: Result,
    origin: Origin,
    part: str,
    category: str | None,
    shared: dict[str, Any],
    record: Record,
) -> bool:
    """Add the fact of one result; return whether it has a name."""
    concept = result.code
    if not said(concept):
        if part:
            record.turn_away(f"{part}.code", reasons.NO_CONTENT)
        return False
    number = operator = words = unit = low = high = None
    codings: Sequence[Coding] = ()
    quantity = result.valueQuantity
    if quantity is not None:
        number, operator, unit = quantity.value, quantity.comparator, unit_of(quantity)
    elif result.valueCodeableConcept is not None:
        codings, words = result.valueCodeableConcept.coding, result.valueCodeableConcept.text
    elif result.valueString is not None:
        words = result.valueString
    elif result.valueInteger is not None:
        number = float(result.valueInteger)
    else:
        words, unit = _other_value(result, part, record)
    if result.referenceRange:
        low, high = _usual(result.referenceRange, unit)
    more = None
    if result.interpretation or result.dataAbsentReason is not None:
        more = details(
            interpretation=first_code(result.interpretation), absent=first_code(result.dataAbsentReason)
        )
    measured = quantity is not None or category in MEASURED
    record.rows.add(
        origin,
        Kind.MEASUREMENT if measured else Kind.OBSERVATION,
        part,
        concept=concept,
        value_number=number,
        value_operator=operator,
        value_text=words,
        value_codings=codings,
        unit=unit,
        range_low=low,
        range_high=high,
        details=more,
        **shared,
    )
    return True


def _other_value(result: Result, part: str, record: Record) -> tuple[str | None, str | None]:
    """Return the words and the unit of the rarer kinds of value."""
    at = f"{part}." if part else ""
    if result.valueBoolean is not None:
        return ("true" if result.valueBoolean else "false"), None
    if result.valueRatio is not None:
        return _pair(result.valueRatio.numerator, result.valueRatio.denominator, ":")
    if result.valueRange is not None:
        return _pair(result.valueRange.low, result.valueRange.high, "-")
    if result.valueTime is not None:
        return result.valueTime, None
    if result.valueDateTime is not None or result.valuePeriod is not None:
        record.turn_away(f"{at}value", reasons.VALUE_IS_TIME)
    elif result.valueSampledData is not None:
        record.turn_away(f"{at}valueSampledData", reasons.SAMPLED_DATA)
    return None, None


def _pair(one: Quantity | None, other: Quantity | None, sign: str) -> tuple[str | None, str | None]:
    """Return "1:128" or "4-6", and the unit if both have the same or one has none."""
    parts = [
        "" if q is None or q.value is None else f"{q.comparator or ''}{q.value:.15g}" for q in (one, other)
    ]
    units = [unit_of(q) for q in (one, other) if q is not None]
    said_units = [unit for unit in units if unit]
    unit = said_units[0] if len(set(said_units)) == 1 and (sign == "-" or len(units) < 2) else None
    if unit is None and said_units:
        unit = "/".join(unit or "1" for unit in units) if sign == ":" else None
    return (sign.join(parts) if any(parts) else None), unit


def _usual(ranges: tuple[ReferenceRange, ...], unit: str | None) -> tuple[float | None, float | None]:
    """Return the first range that is the usual one and in the value's unit."""
    for found in ranges:
        if found.type is not None and first_code(found.type) not in (None, "normal"):
            continue
        low, high = found.low, found.high
        if (low is not None and unit_of(low) not in (None, unit)) or (
            high is not None and unit_of(high) not in (None, unit)
        ):
            continue
        if low is not None or high is not None:
            return low.value if low is not None else None, high.value if high is not None else None
    return None, None
