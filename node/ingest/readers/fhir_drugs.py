"""MedicationRequest, -Administration, -Dispense, -Statement and Immunization: drugs."""

from __future__ import annotations

from typing import Any

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Coding,
    Count,
    Element,
    Holder,
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
from node.ingest.readers.fhir_rows import EHR
from node.ingest.readers.fhir_times import Moment

# OMOP type concepts
PRESCRIBED = 32838
ADMINISTERED = 32818
DISPENSED = 32825
SELF_REPORTED = 32865

ORDERS = {"order", "original-order", "reflex-order", "filler-order", "instance-order"}
REQUESTED = statuses("active on-hold completed stopped", "cancelled")
GIVEN = statuses("in-progress completed stopped", "not-done")
HANDED_OUT = statuses("completed stopped", "cancelled declined")
TAKEN = statuses("active completed stopped on-hold", "not-taken")
INJECTED = statuses("completed", "not-done")
DAYS = {
    "d": 1.0,
    "day": 1.0,
    "days": 1.0,
    "wk": 7.0,
    "week": 7.0,
    "weeks": 7.0,
    "h": 1 / 24,
    "mo": 30.0,
    "a": 365.0,
}
MAX_DAYS = 36500  # of supply: a hundred years


class DoseAndRate(Element):
    """How much is taken at once."""

    doseQuantity: Quantity | None = None
    doseRange: Range | None = None


class Dosage(Element):
    """How a drug is taken; of an administration, how it was given."""

    text: str | None = None
    timing: Timing | None = None
    asNeededBoolean: bool | None = None
    route: CodeableConcept | None = None
    doseAndRate: tuple[DoseAndRate, ...] = ()
    dose: Quantity | None = None
    rateRatio: Ratio | None = None


class Supply(Element):
    """How much may be handed out."""

    validityPeriod: Period | None = None
    numberOfRepeatsAllowed: Count | None = None
    quantity: Quantity | None = None
    expectedSupplyDuration: Quantity | None = None


class Drug(Holder):
    """What all four resources about drugs have."""

    status: str | None = None
    medicationCodeableConcept: CodeableConcept | None = None
    medicationReference: Reference | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    context: Reference | None = None


class MedicationRequest(Drug, tag="MedicationRequest"):
    """A prescription or an order."""

    intent: str | None = None
    doNotPerform: bool | None = None
    reportedBoolean: bool | None = None
    category: tuple[CodeableConcept, ...] = ()
    authoredOn: str | None = None
    dosageInstruction: tuple[Dosage, ...] = ()
    dispenseRequest: Supply | None = None


class MedicationAdministration(Drug, tag="MedicationAdministration"):
    """A drug that was given."""

    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    dosage: Dosage | None = None


class MedicationDispense(Drug, tag="MedicationDispense"):
    """A drug that was handed out."""

    quantity: Quantity | None = None
    daysSupply: Quantity | None = None
    whenPrepared: str | None = None
    whenHandedOver: str | None = None
    dosageInstruction: tuple[Dosage, ...] = ()


class MedicationStatement(Drug, tag="MedicationStatement"):
    """A drug that someone says is taken."""

    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    dateAsserted: str | None = None
    informationSource: Reference | None = None
    dosage: tuple[Dosage, ...] = ()


class Immunization(Resource, tag="Immunization"):
    """A vaccination."""

    status: str | None = None
    vaccineCode: CodeableConcept | None = None
    patient: Reference | None = None
    encounter: Reference | None = None
    occurrenceDateTime: str | None = None
    occurrenceString: str | None = None
    recorded: str | None = None
    primarySource: bool | None = None
    route: CodeableConcept | None = None
    doseQuantity: Quantity | None = None


def medication_request(resource: MedicationRequest, record: Record) -> str | None:
    """Give DRUG for an order. Proposals and plans give none."""
    if resource.intent is not None and resource.intent not in ORDERS:
        return reasons.NOT_ORDERED
    if resource.doNotPerform:
        return reasons.NOT_DONE
    supply = resource.dispenseRequest or Supply()
    dosage = resource.dosageInstruction[0] if resource.dosageInstruction else None
    bounds = dosage.timing.repeat.boundsPeriod if dosage and dosage.timing and dosage.timing.repeat else None
    began, ended = record.times(bounds, "dosageInstruction[0].timing.repeat.boundsPeriod")
    return _drug(
        resource,
        record,
        REQUESTED,
        PRESCRIBED,
        recorded=resource.authoredOn,
        start=record.time(resource.authoredOn, "authoredOn") or began,
        end=ended,
        dosage=dosage,
        more={
            "quantity": supply.quantity.value if supply.quantity is not None else None,
            "days_supply": _days(supply.expectedSupplyDuration),
            "refills": supply.numberOfRepeatsAllowed,
        },
        pairs={"intent": resource.intent, "category": first_code(resource.category)},
    )


def medication_administration(resource: MedicationAdministration, record: Record) -> str | None:
    """Give DRUG for what was given, with the dose as its value."""
    start, end = record.times(resource.effectivePeriod, "effectivePeriod")
    start = record.time(resource.effectiveDateTime, "effectiveDateTime") or start
    return _drug(resource, record, GIVEN, ADMINISTERED, start=start, end=end, dosage=resource.dosage)


def medication_dispense(resource: MedicationDispense, record: Record) -> str | None:
    """Give DRUG for what was handed out."""
    start = record.time(resource.whenHandedOver, "whenHandedOver")
    return _drug(
        resource,
        record,
        HANDED_OUT,
        DISPENSED,
        start=start or record.time(resource.whenPrepared, "whenPrepared"),
        dosage=resource.dosageInstruction[0] if resource.dosageInstruction else None,
        more={
            "quantity": resource.quantity.value if resource.quantity is not None else None,
            "days_supply": _days(resource.daysSupply),
        },
    )


def medication_statement(resource: MedicationStatement, record: Record) -> str | None:
    """Give DRUG for what is taken; one that is not taken takes back what was said before."""
    start, end = record.times(resource.effectivePeriod, "effectivePeriod")
    start = record.time(resource.effectiveDateTime, "effectiveDateTime") or start
    by_patient = record.references.patient(resource.informationSource) is not None
    return _drug(
        resource,
        record,
        TAKEN,
        SELF_REPORTED if by_patient else EHR,
        recorded=resource.dateAsserted,
        start=start or record.time(resource.dateAsserted, "dateAsserted"),
        end=end,
        dosage=resource.dosage[0] if resource.dosage else None,
    )


def _drug(
    resource: Drug,
    record: Record,
    allowed: Any,
    type_concept_id: int,
    *,
    start: Moment | None,
    end: Moment | None = None,
    dosage: Dosage | None,
    recorded: str | None = None,
    more: dict[str, Any] | None = None,
    pairs: dict[str, str | None] | None = None,
) -> str | None:
    origin = record.gate(
        resource, resource.subject, Kind.DRUG, status=resource.status, allowed=allowed, recorded=recorded
    )
    if isinstance(origin, str):
        return origin
    concept, other_key = resource.medicationCodeableConcept, None
    if concept is None and resource.medicationReference is not None:
        concept, other_key = record.references.drug(resource.medicationReference, resource.contained)
        if concept is None and resource.medicationReference.display:
            concept = CodeableConcept(text=resource.medicationReference.display)
    if not said(concept) and other_key is None:
        return reasons.NO_CONTENT
    record.rows.add(
        origin,
        Kind.DRUG,
        encounter=record.encounter(resource.encounter or resource.context),
        start=start,
        end=end,
        concept=concept,
        type_concept_id=type_concept_id,
        status=resource.status,
        other_key=other_key,
        **(more or {}),
        **_taken(dosage, pairs or {}),
    )
    return None


def _taken(dosage: Dosage | None, pairs: dict[str, str | None]) -> dict[str, Any]:
    """Return the columns that a dosage fills: how much at once as value, how often in details."""
    if dosage is None:
        return {"details": details(**pairs)}
    dose = dosage.dose or next(
        (d.doseQuantity for d in dosage.doseAndRate if d.doseQuantity is not None), None
    )
    if dosage.timing is not None and dosage.timing.repeat is not None:
        repeat = dosage.timing.repeat
        if repeat.frequency is not None and repeat.period is not None and repeat.periodUnit:
            pairs["frequency"] = f"{repeat.frequency:g}/{repeat.period:g} {repeat.periodUnit}"
    if dosage.asNeededBoolean:
        pairs["as_needed"] = "true"
    return {
        "value_number": dose.value if dose is not None else None,
        "unit": unit_of(dose) if dose is not None else None,
        "route": route_of(dosage.route),
        "dose": dosage.text,
        "details": details(**pairs),
    }


def route_of(concept: CodeableConcept | None) -> Coding | None:
    """Return a route's first code, or its words."""
    if concept is None:
        return None
    found = next((coding for coding in concept.coding if coding.code), None)
    return found or (Coding(display=concept.text) if concept.text else None)


def _days(duration: Quantity | None) -> int | None:
    """Return a duration in whole days, None if its unit is not one of time or it is out of all reason."""
    if duration is None or duration.value is None:
        return None
    days = duration.value * DAYS.get((unit_of(duration) or "d").lower(), 0.0)
    return round(days) if 0 < days <= MAX_DAYS else None


def immunization(resource: Immunization, record: Record) -> str | None:
    """Give DRUG for a vaccination; one that was not done takes back what was said before."""
    origin = record.gate(
        resource,
        resource.patient,
        Kind.DRUG,
        status=resource.status,
        allowed=INJECTED,
        recorded=resource.recorded,
    )
    if isinstance(origin, str):
        return origin
    if not said(resource.vaccineCode):
        return reasons.NO_CONTENT
    if resource.occurrenceDateTime is None and resource.occurrenceString is not None:
        record.turn_away("occurrenceString", reasons.NO_QUANTITY)
    dose = resource.doseQuantity
    record.rows.add(
        origin,
        Kind.DRUG,
        encounter=record.encounter(resource.encounter),
        start=record.time(resource.occurrenceDateTime, "occurrenceDateTime"),
        concept=resource.vaccineCode,
        type_concept_id=SELF_REPORTED if resource.primarySource is False else ADMINISTERED,
        status=resource.status,
        value_number=dose.value if dose is not None else None,
        unit=unit_of(dose) if dose is not None else None,
        route=route_of(resource.route),
    )
    return None
