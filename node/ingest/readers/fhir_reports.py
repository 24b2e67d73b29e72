"""DiagnosticReport, DocumentReference and ImagingStudy."""

from __future__ import annotations

from typing import Any

from node.ingest.facts import Kind
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import (
    Attachment,
    CodeableConcept,
    Coding,
    Element,
    Identifier,
    Period,
    Reference,
    Resource,
    codes_in,
    first_code,
)
from node.ingest.readers.fhir_findings import said
from node.ingest.readers.fhir_notes import BadAttachment, text_of
from node.ingest.readers.fhir_observations import LAB
from node.ingest.readers.fhir_record import ERROR, Record, details, statuses
from node.ingest.readers.fhir_rows import EHR, Origin

NOTE = 32831  # OMOP type concept "EHR note"
LAB_SECTIONS = {"LAB", "laboratory", "HM", "CH", "MB", "SR", "VR", "BLB", "26436-6"}
REPORTED = statuses("final amended corrected appended", "cancelled")
CURRENT = statuses("current superseded")
AVAILABLE = statuses("available unknown", "cancelled")


class DiagnosticReport(Resource, tag="DiagnosticReport"):
    """A panel of results, a finding in words, or a note."""

    status: str | None = None
    category: tuple[CodeableConcept, ...] = ()
    code: CodeableConcept | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    issued: str | None = None
    result: tuple[Reference, ...] = ()
    conclusion: str | None = None
    conclusionCode: tuple[CodeableConcept, ...] = ()
    presentedForm: tuple[Attachment, ...] = ()


def diagnostic_report(resource: DiagnosticReport, record: Record) -> str | None:
    """Give the panel with a LINK from each result, and NOTE for the conclusion and each presented form.

    A report that is only a note gives no panel.
    """
    origin = record.gate(
        resource,
        resource.subject,
        Kind.OBSERVATION,
        status=resource.status,
        allowed=REPORTED,
        recorded=resource.issued,
    )
    if isinstance(origin, str):
        return origin
    start, end = record.times(resource.effectivePeriod, "effectivePeriod")
    start = record.time(resource.effectiveDateTime, "effectiveDateTime") or start
    shared: dict[str, Any] = {
        "encounter": record.encounter(resource.encounter),
        "start": start or record.time(resource.issued, "issued"),
        "end": end,
        "status": resource.status,
    }
    lab = bool(codes_in(resource.category) & LAB_SECTIONS)
    is_panel = bool(resource.result or resource.conclusionCode) or not (
        resource.presentedForm or resource.conclusion
    )
    if is_panel and said(resource.code):
        record.rows.add(
            origin,
            Kind.MEASUREMENT if lab else Kind.OBSERVATION,
            concept=resource.code,
            type_concept_id=LAB if lab else EHR,
            value_codings=[coding for concept in resource.conclusionCode for coding in concept.coding],
            details=details(category=first_code(resource.category)),
            **shared,
        )
        for i, result in enumerate(resource.result):
            if key := record.references.key(result, "Observation"):
                record.rows.add(
                    origin, Kind.LINK, f"result[{i}]", key=key, other_key=origin.key, type_concept_id=None
                )
    codings = resource.code.coding if resource.code is not None else ()
    if resource.conclusion:
        _note(record, origin, "conclusion", codings, resource.conclusion, shared)
    reason = _notes(record, origin, "presentedForm[{}]", codings, resource.presentedForm, shared)
    return reason or reasons.NO_CONTENT


def _note(
    record: Record, origin: Origin, part: str, codings: tuple[Coding, ...], text: str, shared: dict[str, Any]
) -> None:
    record.rows.add(origin, Kind.NOTE, part, codings=codings, text=text, type_concept_id=NOTE, **shared)


def _notes(
    record: Record,
    origin: Origin,
    part: str,
    codings: tuple[Coding, ...],
    attachments: tuple[Attachment, ...],
    shared: dict[str, Any],
) -> str | None:
    """Add a NOTE per attachment; return why the last one that gave none did not."""
    reason = None
    for i, attachment in enumerate(attachments):
        place = part.format(i)
        try:
            _note(record, origin, place, codings, text_of(attachment), shared)
        except BadAttachment as error:
            reason = error.reason
            record.turn_away(place, reason)
    return reason


class Content(Element):
    """One form of a document."""

    attachment: Attachment | None = None


class Context(Element):
    """On which occasion it was written."""

    encounter: tuple[Reference, ...] = ()
    period: Period | None = None


class DocumentReference(Resource, tag="DocumentReference"):
    """A note."""

    status: str | None = None
    docStatus: str | None = None
    type: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    date: str | None = None
    content: tuple[Content, ...] = ()
    context: Context | None = None


def document(resource: DocumentReference, record: Record) -> str | None:
    """Give NOTE per attachment that is text. Superseded ones are given, with that status."""
    status = resource.status
    if resource.docStatus == ERROR:
        status = ERROR
    elif resource.docStatus == "preliminary":
        return reasons.NOT_FINAL
    origin = record.gate(
        resource, resource.subject, Kind.NOTE, status=status, allowed=CURRENT, recorded=resource.date
    )
    if isinstance(origin, str):
        return origin
    context = resource.context or Context()
    start, end = record.times(context.period, "context.period")
    shared = {
        "encounter": next(filter(None, map(record.encounter, context.encounter)), None),
        "start": start or record.time(resource.date, "date"),
        "end": end,
        "status": status,
        "details": details(category=first_code(resource.category)),
    }
    codings = resource.type.coding if resource.type is not None else ()
    attachments = tuple(content.attachment or Attachment() for content in resource.content)
    reason = _notes(record, origin, "content[{}].attachment", codings, attachments, shared)
    return reason or reasons.NO_CONTENT


class Series(Element):
    """Images that were taken together."""

    uid: str | None = None
    number: int | None = None
    modality: Coding | None = None
    description: str | None = None
    numberOfInstances: int | None = None
    bodySite: Coding | None = None
    laterality: Coding | None = None
    started: str | None = None


class ImagingStudy(Resource, tag="ImagingStudy"):
    """An examination with images."""

    identifier: tuple[Identifier, ...] = ()
    status: str | None = None
    modality: tuple[Coding, ...] = ()
    subject: Reference | None = None
    encounter: Reference | None = None
    started: str | None = None
    procedureCode: tuple[CodeableConcept, ...] = ()
    series: tuple[Series, ...] = ()


def imaging_study(resource: ImagingStudy, record: Record) -> str | None:
    """Give IMAGE per series. `details` has the DICOM UIDs, which identify: they join to DICOM files."""
    origin = record.gate(resource, resource.subject, Kind.IMAGE, status=resource.status, allowed=AVAILABLE)
    if isinstance(origin, str):
        return origin
    started = record.time(resource.started, "started")
    study = next(
        (
            i.value.removeprefix("urn:oid:")
            for i in resource.identifier
            if i.system == "urn:dicom:uid" and i.value
        ),
        None,
    )
    for i, series in enumerate(resource.series):
        record.rows.add(
            origin,
            Kind.IMAGE,
            f"series[{i}]",
            key=f"{origin.key}#series[{series.uid}]" if origin.key and series.uid else None,
            encounter=record.encounter(resource.encounter),
            start=record.time(series.started, f"series[{i}].started") or started,
            codings=[
                *([series.modality] if series.modality is not None else []),
                *(coding for concept in resource.procedureCode for coding in concept.coding),
            ],
            text=series.description,
            status=resource.status,
            details=details(
                modality=series.modality.code if series.modality is not None else None,
                body_site=series.bodySite.code if series.bodySite is not None else None,
                laterality=series.laterality.code if series.laterality is not None else None,
                study_uid=study,
                series_uid=series.uid,
                instances=None if series.numberOfInstances is None else str(series.numberOfInstances),
            ),
        )
    return reasons.NO_CONTENT
