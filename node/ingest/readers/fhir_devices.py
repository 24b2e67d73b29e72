"""Device and DeviceUseStatement."""

from __future__ import annotations

import msgspec

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Element,
    Holder,
    Period,
    Reference,
    Resource,
    Timing,
    first_code,
)
from node.ingest.readers.fhir_findings import said
from node.ingest.readers.fhir_record import Record, details, statuses
from node.ingest.readers.fhir_references import inside

PRESENT = statuses("active inactive unknown")
USED = statuses("active completed on-hold stopped")


class Udi(Element):
    """A device's registered number. Only its first part, the model, is read: the rest is one patient's."""

    deviceIdentifier: str | None = None


class Device(Resource, tag="Device"):
    """An implant, or a thing that belongs to a patient."""

    status: str | None = None
    udiCarrier: tuple[Udi, ...] = ()
    type: CodeableConcept | None = None
    patient: Reference | None = None


def device(resource: Device, record: Record) -> str | None:
    """Give DEVICE without a time: FHIR does not say since when. Serial numbers are not read."""
    if resource.patient is None:
        return reasons.NOT_CLINICAL
    origin = record.gate(resource, resource.patient, Kind.DEVICE, status=resource.status, allowed=PRESENT)
    if isinstance(origin, str):
        return origin
    if not said(resource.type):
        return reasons.NO_CONTENT
    model = resource.udiCarrier[0].deviceIdentifier if resource.udiCarrier else None
    record.rows.add(
        origin, Kind.DEVICE, concept=resource.type, status=resource.status, details=details(udi_di=model)
    )
    return None


class Inside(msgspec.Struct):
    """A Device inside a statement about its use."""

    type: CodeableConcept | None = None


class DeviceUseStatement(Holder, tag="DeviceUseStatement"):
    """That someone uses a device."""

    status: str | None = None
    subject: Reference | None = None
    timingTiming: Timing | None = None
    timingPeriod: Period | None = None
    timingDateTime: str | None = None
    recordedOn: str | None = None
    device: Reference | None = None
    bodySite: CodeableConcept | None = None


def device_use(resource: DeviceUseStatement, record: Record) -> str | None:
    """Give DEVICE with the time of use; `other_key` is the Device where it is a record of its own."""
    origin = record.gate(
        resource,
        resource.subject,
        Kind.DEVICE,
        status=resource.status,
        allowed=USED,
        recorded=resource.recordedOn,
    )
    if isinstance(origin, str):
        return origin
    start, end = record.times(resource.timingPeriod, "timingPeriod")
    if resource.timingTiming is not None and resource.timingTiming.event:
        start = record.time(resource.timingTiming.event[0], "timingTiming.event[0]")
    start = record.time(resource.timingDateTime, "timingDateTime") or start
    concept, pointer = None, resource.device
    if pointer is not None and pointer.reference and pointer.reference.startswith("#"):
        concept = inside(resource.contained, pointer.reference, Inside).type
    elif pointer is not None and pointer.display:
        concept = CodeableConcept(text=pointer.display)
    other_key = record.references.key(pointer, "Device")
    if not said(concept) and other_key is None:
        return reasons.NO_CONTENT
    record.rows.add(
        origin,
        Kind.DEVICE,
        start=start or record.time(resource.recordedOn, "recordedOn"),
        end=end,
        concept=concept,
        status=resource.status,
        other_key=other_key,
        details=details(body_site=first_code(resource.bodySite)),
    )
    return None
