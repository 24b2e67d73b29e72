"""AllergyIntolerance.

What someone is allergic to is mostly a substance, and a concept's domain decides about the table: with the
substance as its code, an allergy to penicillin would become an exposure to it. So the fact's code is that
there is an allergy, and the substance is its value.
"""

from __future__ import annotations

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Coding,
    Element,
    Period,
    Reference,
    Resource,
    first_code,
)
from node.ingest.readers.fhir_findings import CONFIRMED, said
from node.ingest.readers.fhir_record import ERROR, Record, details

SNOMED = "http://snomed.info/sct"
ALLERGY_TO_SUBSTANCE = "419199007"
ALLERGY_TO = {
    "medication": "416098002",
    "biologic": "416098002",
    "food": "414285001",
    "environment": "426232007",
}


class Reaction(Element):
    """What an allergen did once."""

    manifestation: tuple[CodeableConcept, ...] = ()
    onset: str | None = None
    severity: str | None = None


class AllergyIntolerance(Resource, tag="AllergyIntolerance"):
    """What someone does not bear."""

    clinicalStatus: CodeableConcept | None = None
    verificationStatus: CodeableConcept | None = None
    type: str | None = None
    category: tuple[str, ...] = ()
    criticality: str | None = None
    code: CodeableConcept | None = None
    patient: Reference | None = None
    encounter: Reference | None = None
    onsetDateTime: str | None = None
    onsetPeriod: Period | None = None
    recordedDate: str | None = None
    reaction: tuple[Reaction, ...] = ()


def allergy(resource: AllergyIntolerance, record: Record) -> str | None:
    """Give OBSERVATION with the allergen as value, and CONDITION for each reaction with a time."""
    verified = first_code(resource.verificationStatus)
    origin = record.gate(
        resource,
        resource.patient,
        Kind.OBSERVATION,
        status=verified,
        allowed=CONFIRMED,
        recorded=resource.recordedDate,
    )
    if isinstance(origin, str):
        return reasons.NOT_CONFIRMED if origin == reasons.NOT_FINAL else origin
    allergen = resource.code
    if verified == ERROR or allergen is None or not said(allergen):
        return None if verified == ERROR else reasons.NO_CONTENT
    visit = record.encounter(resource.encounter)
    began, began_by = record.times(resource.onsetPeriod, "onsetPeriod")
    start = record.time(resource.onsetDateTime, "onsetDateTime") or began or began_by
    category = resource.category[0] if resource.category else None
    record.rows.add(
        origin,
        Kind.OBSERVATION,
        encounter=visit,
        start=start or record.time(resource.recordedDate, "recordedDate"),
        codings=(Coding(SNOMED, ALLERGY_TO.get(category or "", ALLERGY_TO_SUBSTANCE)),),
        status=verified,
        value_codings=allergen.coding,
        value_text=allergen.text,
        details=details(
            clinical=first_code(resource.clinicalStatus),
            type=resource.type,
            category=category,
            criticality=resource.criticality,
            manifestations=" ".join(
                code
                for reaction in resource.reaction
                for m in reaction.manifestation
                if (code := first_code(m))
            ),
        ),
    )
    for i, reaction in enumerate(resource.reaction):
        if (onset := record.time(reaction.onset, f"reaction[{i}].onset")) is None:
            continue
        for j, manifestation in enumerate(reaction.manifestation):
            record.rows.add(
                origin,
                Kind.CONDITION,
                f"reaction[{i}].manifestation[{j}]",
                encounter=visit,
                start=onset,
                concept=manifestation,
                other_key=origin.key,
                details=details(severity=reaction.severity),
            )
    return None
