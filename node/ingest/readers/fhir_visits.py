"""Encounter: a visit."""

from __future__ import annotations

from msgspec import field

from node.ingest.facts import Kind
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Coding,
    Element,
    Period,
    Reference,
    Resource,
    first_code,
    words,
)
from node.ingest.readers.fhir_record import Record, details, statuses

ENCOUNTER_RECORD = 32827  # OMOP type concept "EHR encounter record"
STATUSES = statuses("arrived triaged in-progress onleave finished unknown", "cancelled")


class Hospitalization(Element):
    """How someone came in and where they went."""

    admitSource: CodeableConcept | None = None
    dischargeDisposition: CodeableConcept | None = None


class Encounter(Resource, tag="Encounter"):
    """A contact with the hospital, or a part of one."""

    status: str | None = None
    class_: Coding | None = field(name="class", default=None)
    type: tuple[CodeableConcept, ...] = ()
    serviceType: CodeableConcept | None = None
    subject: Reference | None = None
    period: Period | None = None
    partOf: Reference | None = None
    hospitalization: Hospitalization | None = None
    serviceProvider: Reference | None = None


def encounter(resource: Encounter, record: Record) -> str | None:
    """Give VISIT. Its first code is the class; `other_key` is the encounter it is part of."""
    origin = record.gate(resource, resource.subject, Kind.VISIT, status=resource.status, allowed=STATUSES)
    if isinstance(origin, str):
        return origin
    start, end = record.times(resource.period, "period")
    stay = resource.hospitalization or Hospitalization()
    own = (resource.class_,) if resource.class_ is not None else ()
    record.rows.add(
        origin,
        Kind.VISIT,
        start=start,
        end=end,
        codings=(*own, *(coding for concept in resource.type for coding in concept.coding)),
        text=next(filter(None, map(words, resource.type)), None),
        type_concept_id=ENCOUNTER_RECORD,
        status=resource.status,
        other_key=record.encounter(resource.partOf),
        details=details(
            **{
                "class": resource.class_.code if resource.class_ is not None else None,
                "service": first_code(resource.serviceType),
                "admitted_from": first_code(stay.admitSource),
                "discharged_to": first_code(stay.dischargeDisposition),
                "care_site": record.references.key(resource.serviceProvider, "Organization"),
            }
        ),
    )
    return None
