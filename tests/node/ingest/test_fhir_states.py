"""What a status does: holds, takes back, waits, or withdraws. And what references mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.ingest.fhir_resources import PATIENT, concept, observation, read_bundle, read_lines, resource

DRUG = {"subject": PATIENT, "medicationCodeableConcept": concept("1")}
DONE = {"subject": PATIENT, "code": concept("1")}
VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


@pytest.mark.parametrize(
    "made",
    [
        observation(status="entered-in-error"),
        observation(status="cancelled"),
        resource("Procedure", status="not-done", **DONE),
        resource("Condition", verificationStatus=concept("refuted", VERIFIED), **DONE),
        resource("Condition", verificationStatus=concept("entered-in-error", VERIFIED), **DONE),
        resource("MedicationRequest", status="cancelled", intent="order", **DRUG),
        resource("MedicationAdministration", status="not-done", **DRUG),
        resource("MedicationStatement", status="not-taken", **DRUG),
        resource("MedicationDispense", status="declined", **DRUG),
        resource("Immunization", status="not-done", patient=PATIENT, vaccineCode=concept("1")),
        resource("Encounter", status="cancelled", subject=PATIENT),
        resource("DiagnosticReport", status="entered-in-error", subject=PATIENT, code=concept("1")),
        resource("DocumentReference", status="current", docStatus="entered-in-error", subject=PATIENT),
        resource("AllergyIntolerance", verificationStatus=concept("refuted", VERIFIED), patient=PATIENT),
        resource("Coverage", status="cancelled", beneficiary=PATIENT),
        resource("Claim", status="cancelled", patient=PATIENT),
        resource("Device", status="entered-in-error", patient=PATIENT),
        resource("ImagingStudy", status="cancelled", subject=PATIENT),
    ],
    ids=lambda made: f"{made['resourceType']}-{made.get('status')}",
)
def test_what_did_not_happen_is_taken_back_without_content(tmp_path: Path, made: dict[str, object]) -> None:
    facts = read_lines(tmp_path, made)
    assert {row["action"] for row in facts.rows} == {"retract"}
    assert f"{made['resourceType']}/x1" in {row["key"] for row in facts.rows}
    assert not {"codes", "text", "value_number", "start"} & {name for row in facts.rows for name in row}


def test_a_retraction_names_the_parts_but_not_what_is_only_linked(tmp_path: Path) -> None:
    part = {"code": concept("1"), "valueInteger": 1}
    facts = read_lines(tmp_path, observation(status="entered-in-error", component=[part, part]))
    keys = {row["key"] for row in facts.rows}
    assert keys == {"Observation/x1", "Observation/x1#component[0]", "Observation/x1#component[1]"}
    report = resource("DiagnosticReport", status="entered-in-error", subject=PATIENT, code=concept("1"))
    report["result"] = [{"reference": "Observation/stays"}]
    assert {row["key"] for row in read_lines(tmp_path, report).rows} == {"DiagnosticReport/x1"}


def test_what_is_taken_back_need_not_say_of_whom(tmp_path: Path) -> None:
    (fact,) = read_lines(tmp_path, observation(subject=None, status="entered-in-error")).rows
    assert (fact["key"], fact["patient_namespace"], "patient" in fact) == ("Observation/x1", "fhir", False)


def test_without_an_id_there_is_nothing_to_take_back(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path, observation(id=None, status="entered-in-error"), observation(id=None, status="cancelled")
    )
    assert facts.reasons == {"entered-in-error": 1, "not-done": 1}


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (observation(status="preliminary"), "not-final"),
        (resource("Procedure", status="in-progress", **DONE), "not-final"),
        (resource("Encounter", status="planned", subject=PATIENT), "not-final"),
        (resource("Condition", verificationStatus=concept("provisional", VERIFIED), **DONE), "not-confirmed"),
        (resource("MedicationRequest", status="active", intent="plan", **DRUG), "not-ordered"),
        (resource("MedicationRequest", intent="order", doNotPerform=True, **DRUG), "not-done"),
        (resource("MedicationStatement", status="intended", **DRUG), "not-final"),
        (resource("Claim", use="preauthorization", patient=PATIENT), "not-final"),
        (resource("ExplanationOfBenefit", outcome="queued", patient=PATIENT), "not-final"),
        (observation(subject=None), "no-patient"),
        (observation(subject={"reference": "Group/1"}), "no-patient"),
        (observation(code=None), "no-content"),
        (resource("Condition", subject=PATIENT), "no-content"),
        (resource("Practitioner"), "not-clinical"),
        (resource("CarePlan", subject=PATIENT), "not-supported"),
        (resource("Provenance"), "provenance"),
        (resource("Medication", code=concept("1")), "reference-data"),
        (resource("Unheard"), "unknown-resource"),
        (observation(modifierExtension=[{"url": "urn:negated", "valueBoolean": True}]), "modifier-extension"),
        (observation(implicitRules="urn:rules"), "modifier-extension"),
    ],
)
def test_what_gives_no_fact_has_a_reason(tmp_path: Path, made: dict[str, object], reason: str) -> None:
    facts = read_lines(tmp_path, made)
    assert facts.rows == []
    assert facts.reasons == {reason: 1}


def consent(scope: str = "research", **fields: object) -> dict[str, object]:
    return resource("Consent", scope=concept(scope), patient=PATIENT, dateTime="2020-01-01", **fields)


@pytest.mark.parametrize(
    "made",
    [
        consent(status="inactive"),
        consent(status="rejected"),
        consent(status="active", provision={"type": "deny"}),
        consent(status="active", provision={"type": "permit", "provision": [{"type": "deny"}]}),
        consent(status="active", policyRule=concept("OPTOUT")),
        consent(
            "patient-privacy", status="active", provision={"type": "deny", "purpose": [{"code": "HRESCH"}]}
        ),
    ],
)
def test_a_patient_who_does_not_allow_research_is_withdrawn(tmp_path: Path, made: dict[str, object]) -> None:
    (fact,) = read_lines(tmp_path, made).rows
    assert (fact["action"], fact["kind"], fact["patient"]) == ("withdraw", "person", "p1")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (consent(status="active", provision={"type": "permit"}), "consent-given"),
        (consent(status="active"), "consent-given"),
        (consent(status="draft", provision={"type": "deny"}), "not-final"),
        (consent(status="entered-in-error"), "entered-in-error"),
        (consent("treatment", status="inactive"), "not-research"),
        (consent("patient-privacy", status="active", provision={"type": "deny"}), "not-research"),
    ],
)
def test_other_consents_withdraw_nobody(tmp_path: Path, made: dict[str, object], reason: str) -> None:
    assert read_lines(tmp_path, made).reasons == {reason: 1}


@pytest.mark.parametrize(
    ("reference", "whom"),
    [
        ({"reference": "Patient/7"}, ("7", "fhir")),
        ({"reference": "https://here/fhir/Patient/7"}, ("7", "fhir")),
        ({"reference": "Patient/7/_history/3"}, ("7", "fhir")),
        ({"reference": "urn:uuid:0-1"}, ("0-1", "fhir")),
        ({"reference": "Patient?identifier=urn:mrn|9"}, ("9", "urn:mrn")),
        ({"identifier": {"system": "urn:mrn", "value": "9"}}, ("9", "urn:mrn")),
        ({"identifier": {"value": "9"}, "type": "Practitioner"}, None),
        ({"reference": "#p"}, None),
        ({"reference": "Patient/"}, None),
        ({"reference": "Patient?name=Somebody"}, None),
        ({"display": "Somebody"}, None),
    ],
)
def test_whom_a_reference_means(
    tmp_path: Path, reference: dict[str, object], whom: tuple[str, str] | None
) -> None:
    facts = read_lines(tmp_path, observation(subject=reference))
    assert [(r["patient"], r["patient_namespace"]) for r in facts.rows] == ([whom] if whom else [])


def test_references_inside_a_bundle_are_resolved(tmp_path: Path) -> None:
    patient = resource("Patient", id="p9", identifier=[{"system": "urn:mrn", "value": "77"}])
    facts = read_bundle(
        tmp_path,
        {"fullUrl": "urn:uuid:o1", "resource": observation(id=None, subject={"reference": "urn:uuid:aa"})},
        {"resource": observation(id="o2", subject={"reference": "Patient?identifier=urn:mrn|77"})},
        {"fullUrl": "urn:uuid:aa", "resource": patient},
        {"resource": observation(id="o3", subject={"identifier": {"system": "urn:mrn", "value": "77"}})},
        {"resource": observation(id="o4", subject={"reference": "urn:uuid:o1"})},
    )
    found = {r["key"]: (r["patient"], r["patient_namespace"]) for r in facts.rows}
    assert found == dict.fromkeys(
        ["Observation/o1", "Observation/o2", "Patient/p9", "Observation/o3"], ("p9", "fhir")
    )
    assert facts.reasons == {"no-patient": 1}  # an Observation is not a patient


def test_deletions_take_back_in_a_bundle_and_on_a_line(tmp_path: Path) -> None:
    entries = [
        {"request": {"method": "DELETE", "url": "Observation/o1"}},
        {"request": {"method": "DELETE", "url": "Practitioner/d1"}},
        {"request": {"method": "DELETE", "url": "Observation?status=final"}},
    ]
    facts = read_bundle(tmp_path, *entries)
    assert [(r["key"], r["action"]) for r in facts.rows] == [("Observation/o1", "retract")]
    assert facts.rows[0]["patient_namespace"] == "fhir"  # whose records these are, though not of whom
    assert facts.reasons == {"not-clinical": 1, "unknown-resource": 1}
    line = read_lines(tmp_path, {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert [(r["record"], r["place"]) for r in line.rows] == [(1, "entry[0].Observation")]
    assert {place for place, _ in line.notes} == {"entry[1].Practitioner", "entry[2]."}
