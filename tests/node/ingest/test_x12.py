"""X12 interchanges become facts: generated ones, and the golden summaries of the shared ones."""

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.readers.x12 import X12
from tests.node.ingest.claim_facts import (
    Fact,
    batches,
    check_account,
    codes,
    facts,
    kinds,
    mutations,
    reasons,
)
from tests.node.ingest.made_837 import (
    INSTITUTIONAL,
    ISA,
    billing,
    interchange,
    many,
    professional,
    subscriber,
    transaction,
)

READER = X12()


def read(tmp_path: Path, text: str, **more: int) -> list:
    path = tmp_path / "claims.x12"
    path.write_text(text)
    assert READER.reads(path)
    return batches(READER, path, **more)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def detail(fact: Fact, name: str) -> str | None:
    return dict(fact["details"] or ()).get(name)


def test_a_professional_claim_gives_person_visit_codes_and_money(tmp_path: Path) -> None:
    found = read(tmp_path, interchange([transaction(*billing(), *subscriber("M1"), *professional("C1"))]))
    (person,), (visit,) = facts(found, "person"), facts(found, "visit")
    assert (person["patient"], person["sex"], person["birth"]) == ("M1", "female", date(1970, 1, 2))
    assert person["patient_namespace"] == "member:PAYER1"
    assert person["version"] == at("2024-01-02T09:30")
    assert (codes([visit]), visit["start"], visit["end"]) == (
        [("CMS Place of Service", "11")],
        at("2024-01-02"),
        at("2024-01-03"),
    )
    conditions = facts(found, "condition")
    assert codes(conditions) == [("ICD10CM", "E11.9"), ("ICD10CM", "I10")]
    assert [detail(row, "diagnosis") for row in conditions] == ["principal", "secondary"]
    procedures, costs = facts(found, "procedure"), facts(found, "cost")
    assert codes(procedures) == [("CPT4", "99211"), ("CPT4", "99212")]
    assert {detail(row, "modifiers") for row in procedures} == {"25"}
    assert [row["charged"] for row in costs] == [100.0, 100.0]
    assert [row["other_key"] for row in costs] == [row["key"] for row in procedures]
    assert {row["encounter"] for row in (*conditions, *procedures, *costs)} == {visit["key"]}
    assert check_account(found) == 1


def test_a_dependent_is_the_patient_and_the_other_payers_subscriber_is_not(tmp_path: Path) -> None:
    dependent = ("HL*3*2*23*0", "PAT*19", "NM1*QC*1*FAMILY*CHILD", "DMG*D8*20150601*M")
    claim = professional("C1")
    other = ("SBR*S*18*******CI", "NM1*IL*1*ELSE*SOMEBODY****MI*OTHER", "DTP*573*D8*20240203", "AMT*D*55.5")
    segments = (*billing(), *subscriber("M1", relation=""), *dependent, *claim[:4], *other, *claim[4:])
    found = read(tmp_path, interchange([transaction(*segments)]))
    (person,) = facts(found, "person")
    assert (person["sex"], person["birth"]) == ("male", date(2015, 6, 1))
    assert {row["patient"] for row in facts(found)} == {
        f"M1/{(date(2015, 6, 1) - date(1970, 1, 1)).days}/M/CHILD"
    }
    assert {row["patient_namespace"] for row in facts(found)} == {"dependent:PAYER1"}
    assert detail(facts(found, "cost")[-1], "paid_by_primary") == "55.50"
    assert sum(row["charged"] or 0 for row in facts(found, "cost")) == 200


def test_an_institutional_claim_is_a_stay_with_its_procedures(tmp_path: Path) -> None:
    claim = (
        "CLM*H1*9000***11:A:1*Y*A*Y*Y",
        "DTP*434*RD8*20240105-20240109",
        "DTP*435*DT*202401041830",
        "CL1*1*7*01",
        "HI*ABK:S72001A",
        "HI*ABJ:R55*APR:R55*BH:A1:D8:20240101",
        "HI*BBR:0SRR0J9:D8:20240106*DR:470",
        "LX*1",
        "SV2*0360*HC:27130*5000*UN*1",
        "CAS*PR*1*1500**2*20",
        "LX*2",
        "SV2*0120**4000*DA*4",
    )
    found = read(
        tmp_path,
        interchange(
            [transaction(*billing(), *subscriber("M2"), *claim, guide=INSTITUTIONAL)], guide=INSTITUTIONAL
        ),
    )
    (visit,) = facts(found, "visit")
    assert (codes([visit]), visit["start"], visit["end"]) == (
        [("Visit", "IP")],
        at("2024-01-04"),
        at("2024-01-09"),
    )
    assert detail(visit, "drg") == "470"
    assert codes(facts(found, "condition")) == [("ICD10CM", "S72.001A"), ("ICD10CM", "R55")]
    assert codes(facts(found, "procedure")) == [("ICD10PCS", "0SRR0J9"), ("CPT4", "27130")]
    assert facts(found, "procedure")[0]["start"] == at("2024-01-06")
    first, second = facts(found, "cost")
    assert (detail(first, "paid_patient_deductible"), detail(first, "paid_patient_coinsurance")) == (
        "1500.00",
        "20.00",
    )
    assert (second["charged"], detail(second, "revenue_code"), second["other_key"]) == (
        4000.0,
        "0120",
        visit["key"],
    )
    assert reasons(found) == {("HI-BH", "not-clinical"): 1}


def test_a_drug_on_a_line_is_given_with_its_quantity(tmp_path: Path) -> None:
    claim = (*professional("C1", lines=1), "LIN**N4*50242004001", "CTP****2.5*ML")
    (drug,) = facts(read(tmp_path, interchange([transaction(*billing(), *subscriber("M"), *claim)])), "drug")
    assert (codes([drug]), drug["quantity"], drug["start"]) == (
        [("NDC", "50242004001")],
        2.5,
        at("2024-01-02"),
    )


def test_a_void_takes_back_the_keys_of_the_claim(tmp_path: Path) -> None:
    texts = [
        interchange([transaction(*billing(), *subscriber("M"), *professional("C", frequency=kind))])
        for kind in "18"
    ]
    new, void = (facts(read(tmp_path, text)) for text in texts)
    assert {row["key"] for row in new} == {row["key"] for row in void}
    assert {row["action"] for row in void if row["kind"] != "person"} == {"retract"}
    assert {row["action"] for row in new} == {"assert"}


def test_enrolment_gives_coverage_and_other_transactions_are_not_claims(tmp_path: Path) -> None:
    guide = "005010X220A1"
    members = (
        "BGN*00*1*20240102*0930",
        "N1*IN*INSURER*FI*PAYER1",
        "INS*Y*18*021*20*A***FT",
        "REF*0F*POLICY",
        "NM1*IL*1*FAMILY*GIVEN****MI*M1",
        "DMG*D8*19700102*F",
        "HD*021**HLT*GOLD",
        "DTP*348*D8*20240101",
        "DTP*349*D8*20241231",
        "INS*N*19*021*20*A***FT",
        "REF*0F*POLICY",
        "NM1*IL*1*FAMILY*CHILD",
        "DMG*D8*20150601*M",
        "HD*021**DEN",
    )
    enrolment = transaction(*members, guide=guide, kind="834")
    text = interchange([enrolment, transaction("BPR*I*5", kind="835"), transaction("NTE*X")], guide=guide)
    found = read(tmp_path, text)
    assert [row["patient_namespace"] for row in facts(found, "person")] == [
        "member:PAYER1",
        "dependent:PAYER1",
    ]
    (cover,) = facts(found, "coverage")
    assert (cover["start"], cover["end"]) == (at("2024-01-01"), at("2024-12-31"))
    assert (detail(cover, "payer"), detail(cover, "plan")) == ("PAYER1", "GOLD")
    assert reasons(found) == {("HD[1]", "no-date"): 1, ("", "not-a-claim"): 1, ("", "no-claim"): 1}
    assert check_account(found) == 4


def test_claims_that_cannot_be_placed_are_turned_away(tmp_path: Path) -> None:
    whole = professional("C1")
    cases = {
        "no-patient": (*subscriber(""), *whole),
        "no-claim-id": (*subscriber("M"), *professional("")),
        "no-date": (*subscriber("M"), *(part for part in whole if not part.startswith("DTP"))),
        "malformed": (*subscriber("M"), *whole, "SV#1*HC:99213"),
    }
    for reason, segments in cases.items():
        found = read(tmp_path, interchange([transaction(*billing(), *segments)]))
        assert reasons(found) == {("", reason): 1}
        assert facts(found) == []
    cut = interchange([transaction(*billing(), *subscriber("M"), *whole, *professional("C2"))])
    found = read(tmp_path, cut[: cut.index("SV1", cut.index("CLM*C2"))])
    assert reasons(found) == {("", "truncated"): 1}
    assert {row["record"] for row in facts(found)} == {1}
    assert check_account(found) == 2


def test_delimiters_are_those_of_each_interchange(tmp_path: Path) -> None:
    usual = interchange([transaction(*billing(), *subscriber("M"), *professional("C1"))])
    other = usual.translate(str.maketrans("*:~", "|>\n"))
    found = read(
        tmp_path,
        "\r\n".join((usual.replace("~", "~\r\n"), other, usual.replace("~", "'").replace("^*005", "^*005"))),
    )
    rows = [{name: value for name, value in row.items() if name != "record"} for row in facts(found)]
    third = len(rows) // 3
    assert rows[:third] == rows[third : 2 * third] == rows[2 * third :]
    assert check_account(found) == 3


def test_facts_do_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    text = many(20)
    one = read(tmp_path, text, batch_records=1)
    assert facts(one) == facts(read(tmp_path, text, batch_records=1000))
    assert [batch.records for batch in one] == [1] * 20
    for batch in one:
        assert len(set(batch.facts["record"].to_pylist())) == 1


def test_only_interchanges_are_taken(tmp_path: Path) -> None:
    for name, content in {
        "a": b"",
        "b": b"ISA",
        "c": b"MSH|^~\\&|",
        "d": b"ISAAAAAAAAA" * 30,
        "e": b"\xff" * 500,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not READER.reads(tmp_path / name)
    (tmp_path / "endless").write_text(ISA + "A" * 3_000_000)
    with pytest.raises(UnreadableSource):
        batches(READER, tmp_path / "endless")


def test_damaged_interchanges_end_in_a_reason_or_an_error_and_tell_nothing(tmp_path: Path) -> None:
    content = many(8).replace("M000", "SECRET").encode()
    path = tmp_path / "damaged.x12"
    outcomes: Counter[str] = Counter()
    for damaged in mutations(content, np.random.default_rng(6), 400):
        path.write_bytes(damaged)
        try:
            found = batches(READER, path)
        except UnreadableSource as error:
            outcomes[str(error)] += 1
            continue
        check_account(found)
        assert not any("SECRET" in part for pair in reasons(found) for part in pair)
        outcomes["read"] += 1
    assert outcomes["read"] > 300
    assert not any("SECRET" in said for said in outcomes)


def test_golden_summary_of_the_837_and_834_samples(shared_data: Path) -> None:
    totals: Counter[str] = Counter()
    away: Counter[tuple[str, str]] = Counter()
    records = 0
    files = [
        *sorted((shared_data / "claims_hcc").glob("*.txt")),
        *sorted((shared_data / "claims_x12").glob("*/*")),
    ]
    for file in files:
        assert READER.reads(file)
        found = batches(READER, file)
        records += check_account(found)
        totals.update(kinds(found))
        away.update(reasons(found))
    assert (len(files), records) == (85, 97)
    assert dict(totals) == {
        "person": 62,
        "coverage": 19,
        "visit": 53,
        "condition": 138,
        "procedure": 131,
        "cost": 145,
        "drug": 13,
    }
    assert dict(away) == {
        ("", "not-a-claim"): 23,
        ("HD[1]", "ends-before-start"): 2,
        ("HI-BH", "not-clinical"): 8,
        ("HI-BE", "not-clinical"): 2,
        ("HI-BG", "not-clinical"): 2,
        ("HI", "unknown-qualifier"): 10,
        ("LX[1]", "unknown-code-system"): 7,
        ("LX[2]", "unknown-code-system"): 2,
    }


def test_golden_claim_of_the_implementation_guide(shared_data: Path) -> None:
    """The guide's own first example of 837I, checked by hand against its segments."""
    found = batches(READER, shared_data / "claims_x12" / "837_005010X223A3" / "institutional-claim.837i")
    (visit,) = facts(found, "visit")
    assert (codes([visit]), visit["start"], visit["end"]) == (
        [("Visit", "OP")],
        at("1996-09-11"),
        at("1996-09-11"),
    )
    assert codes(facts(found, "condition")) == [
        ("ICD9CM", "366.9"),
        ("ICD9CM", "401.9"),
        ("ICD9CM", "794.31"),
    ]
    assert codes(facts(found, "procedure")) == [("CPT4", "85025"), ("CPT4", "93005")]
    assert [row["charged"] for row in facts(found, "cost")] == [13.39, 76.54]
    assert facts(found, "person")[0]["patient"] == "030005074A"
