"""Claims and explanations of benefit: what was done, what it cost, who covered it."""

from __future__ import annotations

from pathlib import Path

from tests.node.ingest.fhir_resources import PATIENT, concept, quantity, read_lines, resource

ICD, NDC = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/ndc"
HCPCS = "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


def usd(value: float) -> dict[str, object]:
    return {"value": value, "currency": "USD"}


def adjudication(code: str, value: float, currency: str = "USD") -> dict[str, object]:
    return {"category": concept(code, "adjudication"), "amount": {"value": value, "currency": currency}}


def bill(kind: str, **fields: object) -> dict[str, object]:
    return resource(
        kind,
        status="active",
        use="claim",
        type=concept("professional", "claim-type"),
        patient=PATIENT,
        billablePeriod={"start": "2020-01-01", "end": "2020-01-31"},
        created="2020-02-01",
        diagnosis=[{"sequence": 1, "diagnosisCodeableConcept": concept("E11.9", ICD)}],
        procedure=[{"date": "2020-01-05", "procedureCodeableConcept": concept("0SG30AJ")}],
        item=[
            {
                "sequence": 1,
                "productOrService": concept("J2270", HCPCS),
                "servicedDate": "2020-01-06",
                "quantity": {"value": 2},
                "adjudication": [
                    adjudication("submitted", 100),
                    adjudication("paidtoprovider", 60),
                    adjudication("paidtopatient", 5),
                    adjudication("deductible", 10),
                ],
            },
            {"sequence": 2, "productOrService": concept("not-applicable", ABSENT), "net": usd(9)},
        ],
        **fields,
    )


def test_an_explanation_gives_what_was_done_and_what_it_cost(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        bill(
            "ExplanationOfBenefit",
            outcome="complete",
            total=[adjudication("submitted", 109)],
            payment={"amount": usd(65)},
            insurance=[{"coverage": {"reference": "#c"}}, {"coverage": {"reference": "Coverage/known"}}],
            contained=[{"resourceType": "Coverage", "id": "c", "payor": [{"display": "Medicare"}]}],
        ),
    )
    visit = facts.one("visit")
    assert visit["key"] == "ExplanationOfBenefit/x1#visit"
    assert visit["details"] == {"class": "AMB"}
    condition, procedure = facts.one("condition"), facts.rows[2]
    assert (condition["encounter"], condition["type_concept_id"]) == (visit["key"], 32810)
    assert str(procedure["start"].date()) == "2020-01-05"
    done = [row for row in facts.rows if row["kind"] == "procedure"]
    assert [row["codes"][0]["code"] for row in done] == ["0SG30AJ", "J2270"]
    assert done[1]["quantity"] == 2
    line, only_cost, whole = [row for row in facts.rows if row["kind"] == "cost"]
    assert (line["charged"], line["paid"], line["currency"]) == (100, 65, "USD")
    assert line["other_key"] == done[1]["key"]
    assert line["details"]["deductible"] == "10"
    assert (only_cost["charged"], only_cost["other_key"]) == (9, visit["key"])
    assert (whole["charged"], whole["paid"]) == (109, 65)
    coverage = facts.one("coverage")
    assert coverage["details"] == {"payer": "Medicare"}
    assert str(coverage["end"].date()) == "2020-01-31"


def test_a_claim_and_its_explanation_share_keys_but_not_costs(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        bill("Claim", total=usd(109)),
        bill("ExplanationOfBenefit", claim={"reference": "Claim/x1"}) | {"id": "y"},
    )
    by_record = [{(r["kind"], r["key"]) for r in facts.rows if r["record"] == n} for n in (1, 2)]
    shared = {kind for kind, _ in by_record[0] & by_record[1]}
    assert shared == {"visit", "condition", "procedure"}
    assert {key.partition("#")[0] for kind, key in by_record[1] if kind == "cost"} == {
        "ExplanationOfBenefit/y"
    }
    moved = bill("ExplanationOfBenefit", claim={"reference": "Claim/x1"})
    moved["diagnosis"] = [{"diagnosisCodeableConcept": concept("I10", ICD)}]
    other = read_lines(tmp_path, bill("Claim"), moved)
    assert len({row["key"] for row in other.rows if row["kind"] == "condition"}) == 2


def test_a_pharmacys_bill_is_a_drug_with_its_supply_and_no_visit(tmp_path: Path) -> None:
    made = bill("ExplanationOfBenefit") | {
        "type": concept("pharmacy", "claim-type"),
        "item": [{"productOrService": concept("00378181701", NDC), "quantity": {"value": 90}}],
        "supportingInfo": [
            {"category": concept("dayssupply"), "valueQuantity": quantity(30, "d")},
            {"category": concept("refillnum"), "valueQuantity": {"value": 2}},
        ],
    }
    facts = read_lines(tmp_path, made)
    drug = facts.one("drug")
    assert (drug["days_supply"], drug["refills"], drug["quantity"]) == (30, 2, 90)
    assert "visit" not in {row["kind"] for row in facts.rows}


def test_an_encounter_that_is_named_is_the_visit(tmp_path: Path) -> None:
    made = bill("Claim")
    made["item"][0]["encounter"] = [{"reference": "Encounter/e7"}]
    facts = read_lines(tmp_path, made)
    assert "visit" not in {row["kind"] for row in facts.rows}
    assert {row["encounter"] for row in facts.rows} == {"Encounter/e7"}


def test_amounts_of_two_currencies_are_not_added(tmp_path: Path) -> None:
    made = bill("ExplanationOfBenefit")
    made["item"] = [
        {"adjudication": [adjudication("submitted", 1), adjudication("benefit", 1, "EUR")]},
        {"adjudication": [adjudication("submitted", 7), adjudication("benefit", 4)]},
    ]
    costs = [row for row in read_lines(tmp_path, made).rows if row["kind"] == "cost"]
    assert [(row["place"], row["charged"], row["paid"]) for row in costs] == [
        ("ExplanationOfBenefit.item[1].cost", 7, 4)
    ]


def test_a_cover_has_its_payer_but_never_a_person(tmp_path: Path) -> None:
    cover = resource(
        "Coverage",
        status="active",
        beneficiary=PATIENT,
        subscriberId="SECRET",
        period={"start": "2019-01-01", "end": "2019-12-31"},
        type=concept("PUBLICPOL"),
        payor=[{"reference": "Patient/p1", "display": "Jane Doe"}, {"display": "Medicaid"}],
    )
    facts = read_lines(tmp_path, cover)
    assert facts.one("coverage")["details"] == {"payer": "Medicaid"}
    assert "Jane" not in str(facts.rows)
    assert "SECRET" not in str(facts.rows)
