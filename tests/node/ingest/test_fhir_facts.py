"""Each FHIR resource as the facts it gives."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.node.ingest.fhir_resources import (
    LOINC,
    PATIENT,
    RXNORM,
    concept,
    observation,
    quantity,
    read_bundle,
    read_lines,
    resource,
)

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


def base64(text: str, encoding: str = "utf-8") -> str:
    return b64encode(text.encode(encoding)).decode()


def omb(name: str, *codes: str) -> dict[str, object]:
    parts = [{"url": "ombCategory", "valueCoding": {"system": "omb", "code": code}} for code in codes]
    return {"url": US_CORE + name, "extension": [*parts, {"url": "text", "valueString": "words"}]}


def test_a_patient_is_a_person_with_a_birth_as_exact_as_it_was_said(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource(
            "Patient",
            id="p1",
            gender="female",
            birthDate="1950-03",
            name=[{"family": "Secret"}],
            identifier=[
                {"system": "urn:hospital", "value": "MRN-7", "type": concept("MR")},
                {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-11-3069", "type": concept("SS")},
            ],
            extension=[omb("race", "2106-3"), omb("ethnicity", "2186-5")],
        ),
    )
    person = facts.one("person")
    assert person["key"] == "Patient/p1"
    assert (person["patient"], person["patient_namespace"]) == ("p1", "fhir")
    assert (person["sex"], person["birth"], person["precision"]) == ("female", date(1950, 3, 1), "month")
    assert (person["race"]["code"], person["ethnicity"]["code"]) == ("2106-3", "2186-5")
    assert person["details"] == {"identifier.urn:hospital": "MRN-7"}
    assert "Secret" not in str(facts.rows)
    assert "999-11-3069" not in str(facts.rows)


def test_two_races_are_none_and_birth_sex_stands_in_for_an_unknown_gender(tmp_path: Path) -> None:
    birth_sex = {"url": f"{US_CORE}birthsex", "valueCode": "M"}
    facts = read_lines(tmp_path, resource("Patient", extension=[omb("race", "2106-3", "2028-9"), birth_sex]))
    assert "race" not in facts.one("person")
    assert facts.one("person")["sex"] == "male"


def test_death_with_and_without_its_time_and_taken_back(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource("Patient", id="a", deceasedDateTime="2020-01-02"),
        resource("Patient", id="b", deceasedBoolean=True),
        resource("Patient", id="c", deceasedBoolean=False),
    )
    deaths = [row for row in facts.rows if row["kind"] == "death"]
    assert [(d["patient"], d["action"], "start" in d) for d in deaths] == [
        ("a", "assert", True),
        ("b", "assert", False),
        ("c", "retract", False),
    ]


def test_a_patient_who_is_replaced_merges_in_the_right_direction(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource("Patient", id="old", link=[{"other": {"reference": "Patient/new"}, "type": "replaced-by"}]),
        resource("Patient", id="kept", link=[{"other": {"reference": "Patient/gone"}, "type": "replaces"}]),
        resource("Patient", id="other", link=[{"other": {"reference": "Patient/x"}, "type": "seealso"}]),
    )
    merges = [(r["patient"], r["other_patient"]) for r in facts.rows if r["action"] == "merge"]
    assert merges == [("old", "new"), ("gone", "kept")]


def test_an_observation_with_its_value_unit_range_and_times(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        observation(
            meta={"lastUpdated": "2020-03-01T00:00:00.5Z"},
            issued="2020-02-04T00:00:00Z",
            valueQuantity=quantity(95.5, "mg/dL") | {"comparator": "<"},
            interpretation=[concept("L", "interpretation")],
            referenceRange=[{"low": quantity(70, "mg/dL"), "high": quantity(99, "mg/dL")}],
        ),
    )
    fact = facts.one("measurement")
    assert fact["key"] == "Observation/x1"
    assert fact["place"] == "Observation"
    assert fact["version"] == datetime(2020, 3, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert (fact["patient"], fact["encounter"]) == ("p1", "Encounter/e1")
    assert fact["start"] == datetime(2020, 2, 3, 9, 5, 6, tzinfo=UTC)
    assert (fact["precision"], fact["utc_offset_min"]) == ("second", -300)
    assert fact["codes"] == [{"system": LOINC, "code": "2345-7", "display": "display 2345-7"}]
    assert fact["text"] == "Glucose"
    assert (fact["value_number"], fact["value_operator"], fact["unit"]) == (95.5, "<", "mg/dL")
    assert (fact["range_low"], fact["range_high"]) == (70, 99)
    assert fact["type_concept_id"] == 32856
    assert fact["details"] == {"interpretation": "L"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"valueInteger": 3}, {"value_number": 3.0}),
        ({"valueBoolean": False}, {"value_text": "false"}),
        ({"valueString": "clear"}, {"value_text": "clear"}),
        ({"valueTime": "07:30:00"}, {"value_text": "07:30:00"}),
        (
            {"valueRange": {"low": quantity(1, "g"), "high": quantity(2, "g")}},
            {"value_text": "1-2", "unit": "g"},
        ),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, {"value_text": "1:128"}),
        (
            {"valueRatio": {"numerator": quantity(5, "mg"), "denominator": quantity(1, "mL")}},
            {"value_text": "5:1", "unit": "mg/mL"},
        ),
        ({"valueQuantity": {"value": 1, "unit": "tablet"}}, {"value_number": 1.0, "unit": "tablet"}),
        ({"dataAbsentReason": concept("unknown")}, {"details": {"absent": "unknown"}}),
    ],
)
def test_every_kind_of_value(tmp_path: Path, value: dict[str, object], expected: dict[str, object]) -> None:
    (fact,) = read_lines(tmp_path, observation(**({"valueQuantity": None} | value))).rows
    named = ("value_number", "value_text", "unit", "details")
    assert {name: fact[name] for name in named if name in fact} == expected


def test_a_coded_value_and_the_users_choice_first(tmp_path: Path) -> None:
    chosen = {"system": "b", "code": "2", "userSelected": True}
    facts = read_lines(
        tmp_path,
        observation(
            code={"coding": [{"system": "a", "code": "1"}, {"system": "none"}, chosen]},
            valueQuantity=None,
            valueCodeableConcept=concept("260385009", text="Negative"),
        ),
    )
    (fact,) = facts.rows
    assert [coding["code"] for coding in fact["codes"]] == ["2", "1"]
    assert (fact["value_codes"][0]["code"], fact["value_text"]) == ("260385009", "Negative")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"valueDateTime": "2020-01-01"}, "value-is-a-time"),
        ({"valuePeriod": {"start": "2020-01-01"}}, "value-is-a-time"),
        ({"valueSampledData": {"data": "1 2 3"}}, "sampled-data"),
    ],
)
def test_a_value_that_facts_cannot_hold_is_noted_beside_the_fact(
    tmp_path: Path, value: dict[str, object], reason: str
) -> None:
    facts = read_lines(tmp_path, observation(**({"valueQuantity": None} | value)))
    assert len(facts.rows) == 1
    assert reason in {why for _, why in facts.notes}
    assert "2020-01-01" not in str(facts.rows)


def test_components_are_facts_and_a_panel_without_a_value_is_none(tmp_path: Path) -> None:
    parts = [
        {"code": concept("8480-6", LOINC), "valueQuantity": quantity(120, "mm[Hg]")},
        {"code": concept("8462-4", LOINC), "valueQuantity": quantity(80, "mm[Hg]")},
        {"valueQuantity": quantity(1, "mm[Hg]")},
    ]
    facts = read_lines(tmp_path, observation(valueQuantity=None, component=parts))
    assert [(r["key"], r["place"], r["value_number"]) for r in facts.rows] == [
        ("Observation/x1#component[0]", "Observation.component[0]", 120),
        ("Observation/x1#component[1]", "Observation.component[1]", 80),
    ]
    assert facts.notes == {("component[2].code", "no-content")}
    with_value = read_lines(tmp_path, observation(component=parts))
    assert [r["value_number"] for r in with_value.rows] == [120, 80, 95.5]


def test_members_are_linked_to_their_panel(tmp_path: Path) -> None:
    facts = read_lines(tmp_path, observation(valueQuantity=None, hasMember=[{"reference": "Observation/m1"}]))
    link = facts.one("link")
    assert (link["key"], link["other_key"]) == ("Observation/m1", "Observation/x1")


def test_an_encounter_is_a_visit_with_its_class_first(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource(
            "Encounter",
            id="e1",
            status="finished",
            **{"class": {"system": "ActCode", "code": "IMP"}},
            type=[concept("1", text="Admission")],
            subject=PATIENT,
            period={"start": "2020-01-01T10:00:00Z", "end": "2020-01-03"},
            partOf={"reference": "Encounter/e0"},
            hospitalization={"admitSource": concept("emd"), "dischargeDisposition": concept("home")},
        ),
    )
    visit = facts.one("visit")
    assert [coding["code"] for coding in visit["codes"]] == ["IMP", "1"]
    assert (visit["text"], visit["other_key"]) == ("Admission", "Encounter/e0")
    assert visit["details"] == {"class": "IMP", "admitted_from": "emd", "discharged_to": "home"}
    assert visit["end"] == datetime(2020, 1, 3, tzinfo=UTC)


def test_a_condition_starts_at_its_onset_else_when_it_was_recorded(tmp_path: Path) -> None:
    base = resource("Condition", subject=PATIENT, code=concept("38341003"), recordedDate="2019-05-06")
    facts = read_lines(
        tmp_path,
        base | {"onsetDateTime": "2018", "abatementDateTime": "2019-01-01"},
        base | {"id": "x2"},
        base | {"id": "x3", "onsetAge": quantity(52, "a"), "category": [concept("problem-list-item")]},
        base | {"id": "x4", "onsetPeriod": {"start": "2017-02-03", "end": "2017-02-05"}},
    )
    assert [(str(r["start"].date()), r["precision"]) for r in facts.rows] == [
        ("2018-01-01", "year"),
        ("2019-05-06", "day"),
        ("2019-05-06", "day"),
        ("2017-02-03", "day"),
    ]
    assert facts.rows[1]["details"] == {"start_from": "recordedDate"}
    assert facts.rows[2]["details"]["onset_age"] == "52 a"
    assert facts.rows[2]["type_concept_id"] == 32840
    assert ("onsetAge", "no-quantity") in facts.notes


def test_a_prescription_with_supply_dose_and_route(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource(
            "MedicationRequest",
            status="active",
            intent="order",
            medicationCodeableConcept=concept("310798", RXNORM),
            subject=PATIENT,
            authoredOn="2020-01-01",
            dosageInstruction=[
                {
                    "text": "one tablet twice a day",
                    "timing": {
                        "repeat": {
                            "frequency": 2,
                            "period": 1,
                            "periodUnit": "d",
                            "boundsPeriod": {"end": "2020-02-01"},
                        }
                    },
                    "asNeededBoolean": True,
                    "route": concept("26643006"),
                    "doseAndRate": [{"doseQuantity": quantity(1, "{tbl}")}],
                }
            ],
            dispenseRequest={
                "numberOfRepeatsAllowed": 3,
                "quantity": {"value": 60},
                "expectedSupplyDuration": {"value": 2, "unit": "weeks"},
            },
        ),
    )
    drug = facts.one("drug")
    assert drug["type_concept_id"] == 32838
    assert (drug["quantity"], drug["days_supply"], drug["refills"]) == (60, 14, 3)
    assert (drug["value_number"], drug["unit"], drug["dose"]) == (1, "{tbl}", "one tablet twice a day")
    assert drug["route"]["code"] == "26643006"
    assert drug["end"] == datetime(2020, 2, 1, tzinfo=UTC)
    assert drug["details"] == {"intent": "order", "frequency": "2/1 d", "as_needed": "true"}


def test_a_drug_is_found_inside_the_record_in_the_bundle_and_in_the_file_beside(tmp_path: Path) -> None:
    drug = resource("Medication", id="m1", code=concept("1049502", RXNORM))
    given = resource(
        "MedicationAdministration", status="completed", subject=PATIENT, effectiveDateTime="2020"
    )
    inside = given | {"contained": [drug], "medicationReference": {"reference": "#m1"}}
    (fact,) = read_lines(tmp_path, inside).rows
    assert (fact["codes"][0]["code"], "other_key" in fact) == ("1049502", False)

    pointing = given | {"medicationReference": {"reference": "urn:uuid:m-u"}}
    entries = [{"resource": pointing}, {"fullUrl": "urn:uuid:m-u", "resource": drug}]
    bundle = read_bundle(tmp_path, *entries)
    assert (bundle.rows[0]["codes"][0]["code"], bundle.rows[0]["other_key"]) == ("1049502", "Medication/m1")
    assert bundle.reasons == {"reference-data": 1}

    (tmp_path / "Medication.000.ndjson").write_text('{"resourceType": "broken"\n')
    beside = given | {"medicationReference": {"reference": "Medication/m1"}}
    assert "codes" not in read_lines(tmp_path, beside).rows[0]
    read_lines(tmp_path, drug, name="Medication.001.ndjson")
    assert read_lines(tmp_path, beside).rows[0]["codes"][0]["code"] == "1049502"


def test_the_other_ways_to_say_a_drug(tmp_path: Path) -> None:
    drug = {"medicationCodeableConcept": concept("1", RXNORM), "subject": PATIENT}
    facts = read_lines(
        tmp_path,
        resource(
            "MedicationDispense",
            status="completed",
            **drug,
            quantity={"value": 30},
            daysSupply=quantity(30, "d"),
            whenHandedOver="2020-01-02",
        ),
        resource(
            "MedicationStatement",
            status="active",
            **drug,
            informationSource=PATIENT,
            effectivePeriod={"start": "2019", "end": "2020"},
        ),
        resource(
            "Immunization",
            status="completed",
            patient=PATIENT,
            vaccineCode=concept("140", "http://hl7.org/fhir/sid/cvx"),
            occurrenceDateTime="2020-10-01",
            doseQuantity=quantity(0.5, "mL"),
        ),
    )
    dispensed, stated, injected = facts.rows
    assert (dispensed["days_supply"], dispensed["quantity"], dispensed["type_concept_id"]) == (30, 30, 32825)
    assert (stated["type_concept_id"], stated["precision"]) == (32865, "year")
    assert (injected["type_concept_id"], injected["value_number"]) == (32818, 0.5)


def test_notes_are_decoded_and_what_is_not_text_is_noted(tmp_path: Path) -> None:
    def note(**attachment: str) -> dict[str, object]:
        return {"attachment": attachment}

    facts = read_lines(
        tmp_path,
        resource(
            "DocumentReference",
            status="current",
            subject=PATIENT,
            type=concept("34117-2", LOINC),
            date="2020-01-01T00:00:00Z",
            context={"encounter": [{"reference": "Encounter/e1"}]},
            content=[
                note(contentType="text/plain; charset=utf-8", data=base64("Größe 1,80")),
                note(contentType="text/plain;charset=ISO-8859-1", data=base64("Größe", "latin-1")),
                note(contentType="text/html", data=base64("<p>A &lt; B</p><script>x</script><br>C")),
                note(contentType="application/pdf", data=base64("%PDF")),
                note(contentType="text/plain", url="https://here/Binary/1"),
                note(contentType="text/plain", data="!!!"),
                note(contentType="text/plain", data=base64("ÿ", "latin-1")),
                note(contentType="text/plain; charset=utf-7", data=base64("x")),
            ],
        ),
    )
    assert [row["text"] for row in facts.rows] == ["Größe 1,80", "Größe", "A < B\n\nC"]
    assert {row["kind"] for row in facts.rows} == {"note"}
    assert [why for _, why in sorted(facts.notes)] == [
        "attachment-type",
        "attachment-elsewhere",
        "bad-attachment",
        "bad-attachment",
        "bad-attachment",
    ]


def test_a_report_is_a_panel_with_links_and_notes(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource(
            "DiagnosticReport",
            status="final",
            category=[concept("LAB")],
            code=concept("58410-2", LOINC),
            subject=PATIENT,
            effectiveDateTime="2020-01-01",
            result=[{"reference": "Observation/o1"}, {"reference": "Observation/o2"}],
            conclusion="All well.",
            presentedForm=[{"contentType": "text/plain", "data": base64("A note")}],
        ),
    )
    assert facts.one("measurement")["key"] == "DiagnosticReport/x1"
    links = [(row["key"], row["other_key"]) for row in facts.rows if row["kind"] == "link"]
    assert links == [("Observation/o1", "DiagnosticReport/x1"), ("Observation/o2", "DiagnosticReport/x1")]
    assert [row["text"] for row in facts.rows if row["kind"] == "note"] == ["All well.", "A note"]


def test_an_allergy_a_procedure_a_device_and_its_use(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        resource(
            "AllergyIntolerance",
            patient=PATIENT,
            code=concept("91935009"),
            recordedDate="2010-01-01",
            category=["food"],
            reaction=[{"manifestation": [concept("247472004")], "onset": "2009-06-01"}],
        ),
        resource(
            "Procedure",
            status="completed",
            subject=PATIENT,
            code=concept("80146002"),
            performedPeriod={"start": "2020-01-01T08:00:00Z", "end": "2020-01-01T09:00:00Z"},
        ),
        resource(
            "Device",
            patient=PATIENT,
            type=concept("14106009"),
            serialNumber="SERIAL",
            udiCarrier=[{"deviceIdentifier": "DI", "carrierHRF": "(01)DI(21)SERIAL"}],
        ),
        resource(
            "DeviceUseStatement",
            status="active",
            subject=PATIENT,
            timingPeriod={"start": "2020"},
            device={"reference": "#d"},
            contained=[{"resourceType": "Device", "id": "d", "type": concept("14106009")}],
        ),
        resource("Device", id="shelf", type=concept("14106009")),
    )
    allergy = facts.one("observation")
    assert allergy["codes"][0]["code"] == "414285001"  # that there is one; the substance is no exposure
    assert allergy["value_codes"][0]["code"] == "91935009"
    assert allergy["details"] == {"category": "food", "manifestations": "247472004"}
    reaction = facts.one("condition")
    assert (reaction["other_key"], str(reaction["start"].date())) == ("AllergyIntolerance/x1", "2009-06-01")
    assert facts.one("procedure")["end"] == datetime(2020, 1, 1, 9, tzinfo=UTC)
    implant, use = [row for row in facts.rows if row["kind"] == "device"]
    assert (implant["details"], "start" in implant) == ({"udi_di": "DI"}, False)
    assert use["codes"][0]["code"] == "14106009"
    assert "SERIAL" not in str(facts.rows)
    assert facts.reasons == {"not-clinical": 1}


def test_each_series_is_an_image(tmp_path: Path) -> None:
    series = [{"uid": f"1.2.{i}", "modality": {"code": "CT"}, "numberOfInstances": 10} for i in (1, 2)]
    study = resource(
        "ImagingStudy",
        status="available",
        subject=PATIENT,
        started="2020-01-01",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        series=series,
    )
    facts = read_lines(tmp_path, study)
    assert [row["key"] for row in facts.rows] == [
        "ImagingStudy/x1#series[1.2.1]",
        "ImagingStudy/x1#series[1.2.2]",
    ]
    assert facts.rows[0]["details"] == {
        "modality": "CT",
        "study_uid": "1.2.3",
        "series_uid": "1.2.1",
        "instances": "10",
    }
