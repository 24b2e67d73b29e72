"""Patient and Consent: who they are, whether they died, are someone else, or want to leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from deid.spans import Category, Known
from node.ingest.facts import Action, Kind, Told
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers import identity
from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Coding,
    Element,
    Extension,
    Identifier,
    Period,
    Reference,
    Resource,
    codes_in,
)
from node.ingest.readers.fhir_record import ERROR, Record, details

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
SEXES = {"male": "male", "female": "female", "other": "other", "M": "male", "F": "female"}


class Link(Element):
    """That another Patient is the same person."""

    other: Reference | None = None
    type: str | None = None


class Patient(Resource, tag="Patient"):
    """A person. Names, contacts and addresses become no facts: they are told to the vault (identity)."""

    identifier: tuple[Identifier, ...] = ()
    name: Any = None
    telecom: Any = None
    address: Any = None
    extension: tuple[Extension, ...] = ()
    gender: str | None = None
    birthDate: str | None = None
    deceasedBoolean: bool | None = None
    deceasedDateTime: str | None = None
    link: tuple[Link, ...] = ()


def patient(resource: Patient, record: Record) -> str | None:
    """Give PERSON, DEATH, and MERGE for each link that says which id takes over.

    An explicit `deceasedBoolean: false` takes back a death. Medical record numbers stand in `details`
    ("identifier.<system>") so that a vault can tell that two sources mean one person.
    """
    origin = record.origin(resource, None)
    if origin.key is None:
        return reasons.NO_PATIENT
    own = origin.key.partition("/")[2]
    origin = replace(origin, patient=own, namespace=record.references.namespace)
    record.rows.add(
        origin,
        Kind.PERSON,
        sex=_sex(resource),
        race=_omb(resource, "race"),
        ethnicity=_omb(resource, "ethnicity"),
        birth=record.time(resource.birthDate, "birthDate"),
        details=_record_numbers(resource) or None,
    )
    record.rows.told.append(Told(own, origin.namespace, tuple(_known(resource))))
    died = record.time(resource.deceasedDateTime, "deceasedDateTime")
    if died or resource.deceasedDateTime or resource.deceasedBoolean:
        record.rows.add(origin, Kind.DEATH, "deceased", start=died)
    elif resource.deceasedBoolean is False:
        record.rows.add(origin, Kind.DEATH, "deceased", action=Action.RETRACT, type_concept_id=None)
    for i, link in enumerate(resource.link):
        other = record.references.patient(link.other)
        if link.type not in ("replaced-by", "replaces") or other is None or other.id == own:
            continue
        left, kept = (own, other.id) if link.type == "replaced-by" else (other.id, own)
        record.rows.add(
            replace(origin, patient=left),
            Kind.PERSON,
            f"link[{i}]",
            action=Action.MERGE,
            other_patient=kept,
            type_concept_id=None,
        )
    return None


def _known(resource: Patient) -> Iterator[Known]:
    yield from identity.of_names(resource.name)
    yield from identity.of_contacts(resource.telecom)
    yield from identity.of_addresses(resource.address)
    for identifier in resource.identifier:
        codes = codes_in((identifier.type,)) if identifier.type is not None else set()
        yield from identity.of_number(identifier.value, codes)
    if len(resource.birthDate or "") == len("2000-01-01"):
        yield from identity.known(Category.DATE, resource.birthDate)


def _sex(resource: Patient) -> str:
    if resource.gender in SEXES:
        return SEXES[resource.gender]
    birth_sex = next((e.valueCode for e in resource.extension if e.url == f"{US_CORE}birthsex"), None)
    return SEXES.get(birth_sex or "", "unknown")


def _omb(resource: Patient, name: str) -> Coding | None:
    """Return the OMB category of race or ethnicity; of several, none: OMOP has no place for two."""
    found = [
        part.valueCoding
        for extension in resource.extension
        if extension.url == US_CORE + name
        for part in extension.extension
        if part.url == "ombCategory" and part.valueCoding is not None
    ]
    return found[0] if len(found) == 1 else None


def _record_numbers(resource: Patient) -> dict[str, str]:
    return {
        f"identifier.{identifier.system or ''}": identifier.value
        for identifier in resource.identifier
        if identifier.value and identifier.type is not None and "MR" in codes_in((identifier.type,))
    }


class Provision(Element):
    """A rule of a consent and its exceptions."""

    type: str | None = None
    period: Period | None = None
    purpose: tuple[Coding, ...] = ()
    provision: tuple[Provision, ...] = ()


class Consent(Resource, tag="Consent"):
    """What a patient allows."""

    status: str | None = None
    scope: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    patient: Reference | None = None
    dateTime: str | None = None
    policyRule: CodeableConcept | None = None
    provision: Provision | None = None


RESEARCH_CODES = {"research", "HRESCH", "CLINTRCH", "BIORCH", "POPRCH", "DSRCH", "TRANSRCH"}
OPT_OUT = {"OPTOUT", "OPTOUTE"}


def consent(resource: Consent, record: Record) -> str | None:
    """Give WITHDRAW where a patient does not, or no longer, allow research.

    That is a consent whose scope, category or purpose is research and that was ended or rejected, or that
    denies anything: a node cannot honour half a refusal, so it takes the whole one. One entered in error says
    nothing.
    """
    provisions = _all(resource.provision) if resource.provision is not None else []
    scope = codes_in((resource.scope,)) if resource.scope is not None else set()
    scope |= codes_in(resource.category)
    denied = [provision for provision in provisions if provision.type == "deny"]
    research = bool(scope & RESEARCH_CODES)
    if not research:
        provisions = [p for p in provisions if any(c.code in RESEARCH_CODES for c in p.purpose)]
        if not provisions:
            return reasons.NOT_RESEARCH
        denied = [provision for provision in provisions if provision.type == "deny"]
    if resource.status == ERROR:
        return reasons.ENTERED_IN_ERROR
    opted_out = resource.policyRule is not None and bool(codes_in((resource.policyRule,)) & OPT_OUT)
    ended = resource.status in ("inactive", "rejected")
    if not ended and resource.status != "active":
        return reasons.NOT_FINAL
    if not ended and not denied and not opted_out:
        return reasons.CONSENT_GIVEN
    origin = record.gate(resource, resource.patient, Kind.PERSON, recorded=resource.dateTime)
    if isinstance(origin, str):
        return origin
    record.rows.add(
        origin,
        Kind.PERSON,
        action=Action.WITHDRAW,
        start=record.time(resource.dateTime, "dateTime"),
        status=resource.status,
        type_concept_id=None,
        details=details(why="ended" if ended else "denied"),
    )
    return None


def _all(provision: Provision) -> list[Provision]:
    found = [provision]
    for inner in provision.provision:
        found += _all(inner)
    return found
