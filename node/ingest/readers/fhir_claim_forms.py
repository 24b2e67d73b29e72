"""The shapes of Claim, ExplanationOfBenefit and Coverage, with what STU3 called otherwise."""

from __future__ import annotations

from node.ingest.readers.fhir_elements import (
    CodeableConcept,
    Element,
    Holder,
    Money,
    Period,
    Quantity,
    Reference,
    Resource,
)


class Diagnosis(Element):
    """Why something was done."""

    sequence: int | None = None
    diagnosisCodeableConcept: CodeableConcept | None = None
    type: tuple[CodeableConcept, ...] = ()
    onAdmission: CodeableConcept | None = None


class ProcedureLine(Element):
    """What was done."""

    date: str | None = None
    procedureCodeableConcept: CodeableConcept | None = None
    type: tuple[CodeableConcept, ...] = ()


class Adjudication(Element):
    """One amount and what it is."""

    category: CodeableConcept | None = None
    amount: Money | None = None


class Item(Element):
    """A line. `service` is what STU3 called `productOrService`."""

    productOrService: CodeableConcept | None = None
    service: CodeableConcept | None = None
    revenue: CodeableConcept | None = None
    modifier: tuple[CodeableConcept, ...] = ()
    servicedDate: str | None = None
    servicedPeriod: Period | None = None
    locationCodeableConcept: CodeableConcept | None = None
    quantity: Quantity | None = None
    net: Money | None = None
    encounter: tuple[Reference, ...] = ()
    adjudication: tuple[Adjudication, ...] = ()


class Insurance(Element):
    """Under which cover."""

    coverage: Reference | None = None


class SupportingInfo(Element):
    """Whatever else was said."""

    category: CodeableConcept | None = None
    code: CodeableConcept | None = None
    timingPeriod: Period | None = None
    valueQuantity: Quantity | None = None


class Payment(Element):
    """What the payer paid."""

    amount: Money | None = None


class Bill(Holder):
    """What Claim and ExplanationOfBenefit have."""

    status: str | None = None
    use: str | None = None
    type: CodeableConcept | None = None
    subType: CodeableConcept | None = None
    patient: Reference | None = None
    billablePeriod: Period | None = None
    created: str | None = None
    diagnosis: tuple[Diagnosis, ...] = ()
    procedure: tuple[ProcedureLine, ...] = ()
    insurance: tuple[Insurance, ...] | Insurance = ()
    item: tuple[Item, ...] = ()
    supportingInfo: tuple[SupportingInfo, ...] = ()


class Claim(Bill, tag="Claim"):
    """What a provider asks for."""

    total: Money | None = None


class ExplanationOfBenefit(Bill, tag="ExplanationOfBenefit"):
    """What a payer made of it. `totalCost` and `hospitalization` are STU3's."""

    outcome: str | None = None
    claim: Reference | None = None
    total: tuple[Adjudication, ...] = ()
    totalCost: Money | None = None
    payment: Payment | None = None
    hospitalization: Period | None = None


class Coverage(Resource, tag="Coverage"):
    """Who pays from when to when. The subscriber's number is not read."""

    status: str | None = None
    type: CodeableConcept | None = None
    beneficiary: Reference | None = None
    relationship: CodeableConcept | None = None
    period: Period | None = None
    payor: tuple[Reference, ...] = ()
