"""Condition and Procedure."""

from __future__ import annotations

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Period,
    Quantity,
    Range,
    Reference,
    Resource,
    codes_in,
    first_code,
    unit_of,
)
from node.ingest.readers.fhir_record import Record, details, statuses
from node.ingest.readers.fhir_rows import EHR
from node.ingest.readers.fhir_times import Moment

ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
PROBLEM_LIST = 32840  # OMOP type concept "EHR problem list"
CONFIRMED = statuses("confirmed", "refuted")
DONE = statuses("completed", "not-done")


class Condition(Resource, tag="Condition"):
    """A problem or a diagnosis."""

    clinicalStatus: CodeableConcept | None = None
    verificationStatus: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    severity: CodeableConcept | None = None
    code: CodeableConcept | None = None
    bodySite: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    encounter: Reference | None = None
    onsetDateTime: str | None = None
    onsetAge: Quantity | None = None
    onsetPeriod: Period | None = None
    onsetRange: Range | None = None
    onsetString: str | None = None
    abatementDateTime: str | None = None
    abatementAge: Quantity | None = None
    abatementPeriod: Period | None = None
    abatementRange: Range | None = None
    abatementString: str | None = None
    recordedDate: str | None = None


def said(concept: CodeableConcept | None) -> bool:
    """Return whether a concept has a code or a word; a code for why there is none does not count."""
    if concept is None:
        return False
    return bool(concept.text) or any(coding.code and coding.system != ABSENT for coding in concept.coding)


def _age(age: Quantity | None) -> str | None:
    return None if age is None or age.value is None else f"{age.value:g} {unit_of(age) or ''}".strip()


def _onset(resource: Condition, record: Record) -> tuple[Moment | None, Moment | None, str | None]:
    """Return when it began and ended, and which field its beginning comes from."""
    began, began_by = record.times(resource.onsetPeriod, "onsetPeriod")
    ended_from, ended = record.times(resource.abatementPeriod, "abatementPeriod")
    start = record.time(resource.onsetDateTime, "onsetDateTime") or began or began_by
    end = record.time(resource.abatementDateTime, "abatementDateTime") or ended or ended_from
    for name in ("onsetAge", "onsetRange", "onsetString"):
        if getattr(resource, name) is not None and start is None:
            record.turn_away(name, reasons.NO_QUANTITY)
    for name in ("abatementAge", "abatementRange", "abatementString"):
        if getattr(resource, name) is not None and end is None:
            record.turn_away(name, reasons.NO_QUANTITY)
    if start is not None:
        return start, end, None
    start = record.time(resource.recordedDate, "recordedDate")
    return start, end, "recordedDate" if start is not None else None


def condition(resource: Condition, record: Record) -> str | None:
    """Give CONDITION. One that is not confirmed gives none; a refuted one takes back what was said before."""
    verified = first_code(resource.verificationStatus)
    origin = record.gate(
        resource,
        resource.subject,
        Kind.CONDITION,
        status=verified,
        allowed=CONFIRMED,
        recorded=resource.recordedDate,
    )
    if isinstance(origin, str):
        return reasons.NOT_CONFIRMED if origin == reasons.NOT_FINAL else origin
    if verified in CONFIRMED.taken_back:
        return None
    if not said(resource.code):
        return reasons.NO_CONTENT
    start, end, start_from = _onset(resource, record)
    categories = codes_in(resource.category)
    record.rows.add(
        origin,
        Kind.CONDITION,
        encounter=record.encounter(resource.encounter),
        start=start,
        end=end,
        concept=resource.code,
        type_concept_id=PROBLEM_LIST if "problem-list-item" in categories else EHR,
        status=first_code(resource.clinicalStatus),
        details=details(
            verification=verified,
            category=first_code(resource.category),
            severity=first_code(resource.severity),
            body_site=first_code(resource.bodySite),
            onset_age=_age(resource.onsetAge),
            start_from=start_from,
        ),
    )
    return None


class Procedure(Resource, tag="Procedure"):
    """Something that was done."""

    status: str | None = None
    category: CodeableConcept | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    performedString: str | None = None
    performedAge: Quantity | None = None
    performedRange: Range | None = None
    bodySite: tuple[CodeableConcept, ...] = ()
    outcome: CodeableConcept | None = None
    partOf: tuple[Reference, ...] = ()


def procedure(resource: Procedure, record: Record) -> str | None:
    """Give PROCEDURE, of completed ones only; one that was not done takes back what was said before."""
    origin = record.gate(resource, resource.subject, Kind.PROCEDURE, status=resource.status, allowed=DONE)
    if isinstance(origin, str):
        return origin
    if not said(resource.code):
        return reasons.NO_CONTENT
    start, end = record.times(resource.performedPeriod, "performedPeriod")
    start = record.time(resource.performedDateTime, "performedDateTime") or start or end
    for name in ("performedString", "performedAge", "performedRange"):
        if getattr(resource, name) is not None and start is None:
            record.turn_away(name, reasons.NO_QUANTITY)
    whole = next((k for r in resource.partOf if (k := record.references.key(r, "Procedure"))), None)
    record.rows.add(
        origin,
        Kind.PROCEDURE,
        encounter=record.encounter(resource.encounter),
        start=start,
        end=end,
        concept=resource.code,
        status=resource.status,
        other_key=whole,
        details=details(
            category=first_code(resource.category),
            body_site=first_code(resource.bodySite),
            outcome=first_code(resource.outcome),
        ),
    )
    return None
