"""FHIR R4's data types, as far as facts need them. Unknown fields are skipped; a wrong type is an error.

Names are FHIR's own. A list that is missing is empty; anything else that is missing is None.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta as Limit
from msgspec import Raw, Struct

Id = Annotated[str, Limit(min_length=1, max_length=256)]  # FHIR says 64; servers with longer ones exist
Count = Annotated[int, Limit(ge=0, le=2**31 - 1)]  # FHIR's unsignedInt
UCUM = "http://unitsofmeasure.org"


class Element(Struct, gc=False):
    """Anything inside a resource."""


class Coding(Element):
    """A code of a system."""

    system: str | None = None
    code: str | None = None
    display: str | None = None
    userSelected: bool | None = None


class CodeableConcept(Element):
    """One meaning in several code systems, or only in words."""

    coding: tuple[Coding, ...] = ()
    text: str | None = None


class Identifier(Element):
    """An id that some organization gives out."""

    system: str | None = None
    value: str | None = None
    type: CodeableConcept | None = None


class Reference(Element):
    """A pointer to another resource: by URL, by business identifier, or both."""

    reference: str | None = None
    identifier: Identifier | None = None
    type: str | None = None
    display: str | None = None


class CodeableReference(Element):
    """Who plays a part, where only the reference is of interest."""

    reference: Reference | None = None


class Period(Element):
    """From when to when."""

    start: str | None = None
    end: str | None = None


class Quantity(Element):
    """A number with its unit; also Age, Duration, SimpleQuantity and Money of STU3."""

    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Money(Element):
    """An amount. `code` is where STU3 has the currency."""

    value: float | None = None
    currency: str | None = None
    code: str | None = None


class Range(Element):
    """From low to high."""

    low: Quantity | None = None
    high: Quantity | None = None


class Ratio(Element):
    """A titre or a concentration."""

    numerator: Quantity | None = None
    denominator: Quantity | None = None


class Attachment(Element):
    """A document, in base64 or by URL."""

    contentType: str | None = None
    data: str | None = None
    url: str | None = None
    title: str | None = None
    creation: str | None = None


class Extension(Element):
    """What FHIR itself does not have. Nested ones are how US Core says race and ethnicity."""

    url: str
    extension: tuple[Extension, ...] = ()
    valueCoding: Coding | None = None
    valueString: str | None = None
    valueCode: str | None = None


class Repeat(Element):
    """How often a drug is taken."""

    boundsPeriod: Period | None = None
    frequency: float | None = None
    period: float | None = None
    periodUnit: str | None = None


class Timing(Element):
    """When a drug is taken, or a device used."""

    event: tuple[str, ...] = ()
    repeat: Repeat | None = None
    code: CodeableConcept | None = None


class Meta(Element):
    """When the server last changed the resource."""

    lastUpdated: str | None = None


class Resource(Struct, tag_field="resourceType", gc=False):
    """What every resource has. `modifierExtension` and `implicitRules` may turn its meaning round."""

    id: Id | None = None
    meta: Meta | None = None
    implicitRules: str | None = None
    modifierExtension: tuple[Raw, ...] = ()


class Holder(Resource):
    """A resource that carries others inside."""

    contained: tuple[Raw, ...] = ()


def first_code(concepts: tuple[CodeableConcept, ...] | CodeableConcept | None) -> str | None:
    """Return the first code of a status or category, which FHIR's required bindings fix."""
    if not concepts:
        return None
    for concept in concepts if isinstance(concepts, tuple) else (concepts,):
        for coding in concept.coding:
            if coding.code:
                return coding.code
    return None


def codes_in(concepts: tuple[CodeableConcept, ...]) -> set[str]:
    """Return all codes of some concepts, whatever their system."""
    return {coding.code for concept in concepts for coding in concept.coding if coding.code}


def words(concept: CodeableConcept | None) -> str | None:
    """Return what a concept is called: its text, else the first label of a code."""
    if concept is None:
        return None
    if concept.text:
        return concept.text
    return next((coding.display for coding in concept.coding if coding.display), None)


def unit_of(quantity: Quantity) -> str | None:
    """Return the UCUM code if the quantity has one, else its unit as written."""
    if quantity.code and quantity.system == UCUM:
        return quantity.code
    return quantity.unit or quantity.code
