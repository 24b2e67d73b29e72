"""Claim, ExplanationOfBenefit and Coverage: what was billed, for what, and who paid.

A Claim and the ExplanationOfBenefit that answers it say the same diagnoses, procedures and lines. So that
both may be loaded, facts of an ExplanationOfBenefit that names its Claim have keys under the Claim's; the
costs have keys of their own. A key holds line number and code: if the two differ in one, both facts stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_claim_costs import Amounts
from node.ingest.readers.fhir_claim_forms import (
    Bill,
    Claim,
    Coverage,
    ExplanationOfBenefit,
    Item,
)
from node.ingest.readers.fhir_elements import CodeableConcept, Reference, codes_in, first_code
from node.ingest.readers.fhir_findings import said
from node.ingest.readers.fhir_record import Record, details, statuses
from node.ingest.readers.fhir_references import inside
from node.ingest.readers.fhir_rows import Origin
from node.ingest.readers.fhir_times import Moment

CLAIM = 32810  # OMOP type concept "Claim"
ACTIVE = statuses("active", "cancelled")
DRUG_SYSTEMS = {
    "http://hl7.org/fhir/sid/ndc",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://hl7.org/fhir/sid/cvx",
}
CLASSES = {  # of a claim's type or sub-type: the class of visit, a code of HL7's ActCode
    "inpatient": "IMP",
    "outpatient": "AMB",
    "professional": "AMB",
    "carrier": "AMB",
    "snf": "NONAC",
    "hha": "HH",
}
PHARMACY = {"pharmacy", "PDE"}
MAX_DAYS = 36500


@dataclass(frozen=True, slots=True)
class Lines:
    """What all lines of one bill share."""

    record: Record
    origin: Origin
    base: str | None
    """The key that keys of lines begin with: the Claim's, where it is known."""
    start: Moment | None
    end: Moment | None
    visit: str | None

    def key(self, part: str, concept: CodeableConcept | None) -> str | None:
        """Return a line's key, None if the bill has none."""
        code = first_code(concept)
        return (
            f"{self.base}#{part}={code}"
            if self.base and code
            else f"{self.base}#{part}"
            if self.base
            else None
        )


def claim(resource: Claim, record: Record) -> str | None:
    """Give what is billed, and COST with what is asked for."""
    origin = _gate(resource, record)
    if isinstance(origin, str):
        return origin
    amounts = Amounts()
    amounts.asked(resource.total)
    return _bill(resource, origin, origin.key, amounts, None, record)


def explanation(resource: ExplanationOfBenefit, record: Record) -> str | None:
    """Give what was billed, COST with what was paid, and COVERAGE where the payer is said here only."""
    if resource.outcome in ("queued", "error"):
        return reasons.NOT_FINAL
    origin = _gate(resource, record)
    if isinstance(origin, str):
        return origin
    amounts = Amounts()
    amounts.adjudicated(resource.total)
    amounts.asked(resource.totalCost)
    amounts.paid_out(resource.payment.amount if resource.payment is not None else None)
    base = record.references.key(resource.claim, "Claim") or origin.key
    admitted = resource.hospitalization
    return _bill(resource, origin, base, amounts, record.times(admitted, "hospitalization"), record)


def _gate(resource: Bill, record: Record) -> Origin | str:
    if resource.use not in (None, "claim"):
        return reasons.NOT_FINAL
    return record.gate(
        resource,
        resource.patient,
        Kind.COST,
        status=resource.status,
        allowed=ACTIVE,
        recorded=resource.created,
    )


def _bill(
    resource: Bill,
    origin: Origin,
    base: str | None,
    amounts: Amounts,
    admitted: tuple[Moment | None, Moment | None] | None,
    record: Record,
) -> str | None:
    start, end = record.times(resource.billablePeriod, "billablePeriod")
    start = start or record.time(resource.created, "created")
    visit = next(
        (key for item in resource.item for r in item.encounter if (key := record.encounter(r))), None
    )
    types = codes_in(tuple(t for t in (resource.type, resource.subType) if t is not None))
    if visit is None and not types & PHARMACY:
        stay = admitted if admitted and admitted[0] else _admission(resource, record) or (start, end)
        visit = f"{base}#visit" if base else None
        kind = next((CLASSES[code.lower()] for code in sorted(types) if code.lower() in CLASSES), None)
        record.rows.add(
            origin,
            Kind.VISIT,
            "visit",
            key=visit,
            start=stay[0],
            end=stay[1],
            concept=resource.type,
            type_concept_id=CLAIM,
            details=details(**{"class": kind, "discharged_to": _said(resource, "discharge-status")}),
        )
    lines = Lines(record, origin, base, start, end, visit)
    _diagnoses(resource, lines)
    _procedures(resource, lines)
    for i, item in enumerate(resource.item):
        _item(resource, item, i, bool(types & PHARMACY), lines)
    amounts.add(lines.record, origin, "cost", start=start, encounter=visit, other_key=visit)
    _insurance(resource, lines)
    return reasons.NO_CONTENT


def _admission(resource: Bill, record: Record) -> tuple[Moment | None, Moment | None] | None:
    for i, info in enumerate(resource.supportingInfo):
        if first_code(info.category) == "admissionperiod" and info.timingPeriod is not None:
            return record.times(info.timingPeriod, f"supportingInfo[{i}].timingPeriod")
    return None


def _said(resource: Bill, category: str) -> str | None:
    return next(
        (first_code(i.code) for i in resource.supportingInfo if first_code(i.category) == category), None
    )


def _number(resource: Bill, category: str) -> int | None:
    """Return a small whole number of the supporting information."""
    for info in resource.supportingInfo:
        if first_code(info.category) == category and info.valueQuantity is not None:
            value = info.valueQuantity.value
            return round(value) if value is not None and 0 <= value <= MAX_DAYS else None
    return None


def _diagnoses(resource: Bill, lines: Lines) -> None:
    """Add CONDITION per diagnosis that is said here; one that is a Condition is a record of its own."""
    for i, diagnosis in enumerate(resource.diagnosis):
        if not said(diagnosis.diagnosisCodeableConcept):
            continue
        lines.record.rows.add(
            lines.origin,
            Kind.CONDITION,
            f"diagnosis[{i}]",
            key=lines.key(f"diagnosis[{i}]", diagnosis.diagnosisCodeableConcept),
            encounter=lines.visit,
            start=lines.start,
            concept=diagnosis.diagnosisCodeableConcept,
            type_concept_id=CLAIM,
            details=details(
                role=first_code(diagnosis.type),
                on_admission=first_code(diagnosis.onAdmission),
                sequence=None if diagnosis.sequence is None else str(diagnosis.sequence),
            ),
        )


def _procedures(resource: Bill, lines: Lines) -> None:
    for i, done in enumerate(resource.procedure):
        if not said(done.procedureCodeableConcept):
            continue
        lines.record.rows.add(
            lines.origin,
            Kind.PROCEDURE,
            f"procedure[{i}]",
            key=lines.key(f"procedure[{i}]", done.procedureCodeableConcept),
            encounter=lines.visit,
            start=lines.record.time(done.date, f"procedure[{i}].date") or lines.start,
            concept=done.procedureCodeableConcept,
            type_concept_id=CLAIM,
            details=details(role=first_code(done.type)),
        )


def _item(resource: Bill, item: Item, i: int, pharmacy: bool, lines: Lines) -> None:
    """Add a line's DRUG or PROCEDURE, and its COST. A line with a revenue code alone has only its cost."""
    record, part = lines.record, f"item[{i}]"
    concept = item.productOrService or item.service
    start, end = record.times(item.servicedPeriod, f"{part}.servicedPeriod")
    start = record.time(item.servicedDate, f"{part}.servicedDate") or start or lines.start
    visit = next(filter(None, map(record.encounter, item.encounter)), None) or lines.visit
    key = lines.key(part, concept)
    if said(concept) and concept is not None:
        drug = pharmacy or any(coding.system in DRUG_SYSTEMS for coding in concept.coding)
        more: dict[str, Any] = {}
        if drug:
            more = {"days_supply": _number(resource, "dayssupply"), "refills": _number(resource, "refillnum")}
        record.rows.add(
            lines.origin,
            Kind.DRUG if drug else Kind.PROCEDURE,
            part,
            key=key,
            encounter=visit,
            start=start,
            end=end,
            concept=concept,
            type_concept_id=CLAIM,
            quantity=item.quantity.value if item.quantity is not None else None,
            details=details(
                modifiers=" ".join(code for m in item.modifier if (code := first_code(m))),
                revenue=first_code(item.revenue),
                place_of_service=first_code(item.locationCodeableConcept),
            ),
            **more,
        )
    amounts = Amounts()
    amounts.asked(item.net)
    amounts.adjudicated(item.adjudication)
    amounts.add(
        record,
        lines.origin,
        f"{part}.cost",
        start=start,
        encounter=visit,
        other_key=key if said(concept) else visit,
        revenue=first_code(item.revenue),
    )


def _insurance(resource: Bill, lines: Lines) -> None:
    """Add COVERAGE for covers that are no record of their own, for as long as the bill says."""
    if not isinstance(resource, ExplanationOfBenefit):
        return
    given = resource.insurance if isinstance(resource.insurance, tuple) else (resource.insurance,)
    for i, insurance in enumerate(given):
        pointer = insurance.coverage
        if pointer is None:
            continue
        if pointer.reference and pointer.reference.startswith("#"):
            found = inside(resource.contained, pointer.reference, Coverage)
            payer, concept = _payer(found.payor) or pointer.display, found.type
            start, end = lines.record.times(found.period, f"insurance[{i}].coverage.period")
        elif pointer.display and not pointer.reference:
            payer, concept, start, end = pointer.display, None, None, None
        else:
            continue
        if payer or said(concept):
            lines.record.rows.add(
                lines.origin,
                Kind.COVERAGE,
                f"insurance[{i}]",
                start=start or lines.start,
                end=end if start is not None else lines.end,
                concept=concept,
                type_concept_id=CLAIM,
                details=details(payer=payer),
            )


def _payer(payors: tuple[Reference, ...]) -> str | None:
    """Return who pays, unless it is a person."""
    for payor in payors:
        if payor.type in ("Patient", "RelatedPerson") or any(
            f"{kind}/" in (payor.reference or "") for kind in ("Patient", "RelatedPerson")
        ):
            continue
        if payor.display or payor.reference:
            return payor.display or payor.reference
    return None


def coverage(resource: Coverage, record: Record) -> str | None:
    """Give COVERAGE."""
    origin = record.gate(
        resource, resource.beneficiary, Kind.COVERAGE, status=resource.status, allowed=ACTIVE
    )
    if isinstance(origin, str):
        return origin
    start, end = record.times(resource.period, "period")
    record.rows.add(
        origin,
        Kind.COVERAGE,
        start=start,
        end=end,
        concept=resource.type,
        type_concept_id=CLAIM,
        status=resource.status,
        details=details(payer=_payer(resource.payor), relationship=first_code(resource.relationship)),
    )
    return None
