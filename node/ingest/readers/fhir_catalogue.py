"""Every resource of R4: which give facts, by what, and which do not, by which reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import msgspec

from node.ingest.facts import Kind
from node.ingest.readers import fhir_allergies as allergies
from node.ingest.readers import fhir_claim_forms as bills
from node.ingest.readers import fhir_claims as claims
from node.ingest.readers import fhir_devices as devices
from node.ingest.readers import fhir_drugs as drugs
from node.ingest.readers import fhir_findings as findings
from node.ingest.readers import fhir_observations as observations
from node.ingest.readers import fhir_people as people
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers import fhir_reports as reports
from node.ingest.readers import fhir_visits as visits
from node.ingest.readers.fhir_elements import Resource
from node.ingest.readers.fhir_record import Record

READ: dict[type[Resource], tuple[Callable[[Any, Record], str | None], Kind]] = {
    people.Patient: (people.patient, Kind.PERSON),
    people.Consent: (people.consent, Kind.PERSON),
    visits.Encounter: (visits.encounter, Kind.VISIT),
    findings.Condition: (findings.condition, Kind.CONDITION),
    allergies.AllergyIntolerance: (allergies.allergy, Kind.OBSERVATION),
    findings.Procedure: (findings.procedure, Kind.PROCEDURE),
    observations.Observation: (observations.observation, Kind.MEASUREMENT),
    drugs.MedicationRequest: (drugs.medication_request, Kind.DRUG),
    drugs.MedicationAdministration: (drugs.medication_administration, Kind.DRUG),
    drugs.MedicationDispense: (drugs.medication_dispense, Kind.DRUG),
    drugs.MedicationStatement: (drugs.medication_statement, Kind.DRUG),
    drugs.Immunization: (drugs.immunization, Kind.DRUG),
    reports.DiagnosticReport: (reports.diagnostic_report, Kind.OBSERVATION),
    reports.DocumentReference: (reports.document, Kind.NOTE),
    reports.ImagingStudy: (reports.imaging_study, Kind.IMAGE),
    devices.Device: (devices.device, Kind.DEVICE),
    devices.DeviceUseStatement: (devices.device_use, Kind.DEVICE),
    bills.Claim: (claims.claim, Kind.COST),
    bills.ExplanationOfBenefit: (claims.explanation, Kind.COST),
    bills.Coverage: (claims.coverage, Kind.COVERAGE),
}
"""How a resource gives facts, and the kind of a retraction that names it."""

NOT_SUPPORTED = """
AdverseEvent Appointment AppointmentResponse BodyStructure CarePlan CareTeam ChargeItem ClinicalImpression
Communication CommunicationRequest Composition DetectedIssue DeviceMetric DeviceRequest EpisodeOfCare
FamilyMemberHistory Flag Goal GuidanceResponse ImmunizationEvaluation ImmunizationRecommendation List Media
MolecularSequence NutritionOrder QuestionnaireResponse RelatedPerson RequestGroup RiskAssessment
ServiceRequest
Specimen SupplyDelivery SupplyRequest Task VisionPrescription Account Invoice CoverageEligibilityRequest
CoverageEligibilityResponse ClaimResponse EnrollmentRequest EnrollmentResponse PaymentNotice
PaymentReconciliation ResearchSubject DocumentManifest Person Contract BiologicallyDerivedProduct
"""
NOT_CLINICAL = """
ActivityDefinition AuditEvent Basic Binary CapabilityStatement CatalogEntry ChargeItemDefinition CodeSystem
CompartmentDefinition ConceptMap DeviceDefinition EffectEvidenceSynthesis Endpoint EventDefinition Evidence
EvidenceVariable ExampleScenario GraphDefinition Group HealthcareService ImplementationGuide InsurancePlan
Library Linkage Location Measure MeasureReport MedicationKnowledge MedicinalProduct
MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect MessageDefinition
MessageHeader NamingSystem ObservationDefinition OperationDefinition OperationOutcome Organization
OrganizationAffiliation Parameters PlanDefinition Practitioner PractitionerRole Questionnaire
ResearchDefinition ResearchElementDefinition ResearchStudy RiskEvidenceSynthesis Schedule SearchParameter Slot
SpecimenDefinition StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid
SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
SubstanceSpecification TerminologyCapabilities TestReport TestScript ValueSet VerificationResult
"""
NOT_READ: dict[str, str] = {
    **dict.fromkeys(NOT_SUPPORTED.split(), reasons.NOT_SUPPORTED),
    **dict.fromkeys(NOT_CLINICAL.split(), reasons.NOT_CLINICAL),
    "Medication": reasons.REFERENCE_DATA,
    "Provenance": reasons.PROVENANCE,
}
NAMES = {form.__name__ for form in READ} | NOT_READ.keys()
KINDS = {form.__name__: kind for form, (_, kind) in READ.items()}


class _Request(msgspec.Struct, gc=False):
    method: str | None = None
    url: str | None = None


class Entry(msgspec.Struct, gc=False):
    """One resource of a bundle, still undecoded (empty if there is none), or the wish to delete one."""

    fullUrl: str | None = None
    resource: msgspec.Raw = msgspec.Raw()
    request: _Request | None = None


class Bundle(msgspec.Struct, tag_field="resourceType", tag="Bundle"):
    """Resources that belong together."""

    entry: tuple[Entry, ...] = ()


class Named(msgspec.Struct):
    """The name of a resource, whatever else it is."""

    resourceType: str | None = None


def _unread(name: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, [], tag_field="resourceType", tag=name)


RESOURCE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    Union[tuple([*READ, Bundle, *(_unread(name) for name in NOT_READ)])]  # noqa: UP007 - built at run time
)
NAMED = msgspec.json.Decoder(Named)
