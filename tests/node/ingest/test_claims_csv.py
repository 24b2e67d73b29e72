"""CMS files become facts: generated ones, and the golden summaries of the shared ones."""

import contextlib
import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.readers.claims_csv import MAX_LINE_BYTES, ClaimsCsv
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

READER = ClaimsCsv()
RIF = [
    "BENE_ID",
    "CLM_ID",
    "NCH_CLM_TYPE_CD",
    "CLM_FROM_DT",
    "CLM_THRU_DT",
    "PRNCPAL_DGNS_CD",
    "PRNCPAL_DGNS_VRSN_CD",
    "ICD_DGNS_CD1",
    "ICD_DGNS_VRSN_CD1",
    "ICD_DGNS_CD2",
    "ICD_DGNS_VRSN_CD2",
    "LINE_NUM",
    "LINE_PLACE_OF_SRVC_CD",
    "LINE_1ST_EXPNS_DT",
    "LINE_LAST_EXPNS_DT",
    "HCPCS_CD",
    "HCPCS_1ST_MDFR_CD",
    "LINE_SRVC_CNT",
    "LINE_SBMTD_CHRG_AMT",
    "LINE_ALOWD_CHRG_AMT",
    "LINE_NCH_PMT_AMT",
    "LINE_BENE_PTB_DDCTBL_AMT",
    "LINE_COINSRNC_AMT",
    "LINE_ICD_DGNS_CD",
    "LINE_ICD_DGNS_VRSN_CD",
    "LINE_NDC_CD",
]
REVENUE = [
    "BENE_ID",
    "CLM_ID",
    "NCH_CLM_TYPE_CD",
    "CLM_FROM_DT",
    "CLM_THRU_DT",
    "CLM_ADMSN_DT",
    "NCH_BENE_DSCHRG_DT",
    "CLM_DRG_CD",
    "CLM_PMT_AMT",
    "CLM_TOT_CHRG_AMT",
    "NCH_BENE_IP_DDCTBL_AMT",
    "ADMTNG_DGNS_CD",
    "PRNCPAL_DGNS_CD",
    "ICD_PRCDR_CD1",
    "PRCDR_DT1",
    "CLM_LINE_NUM",
    "REV_CNTR",
    "REV_CNTR_UNIT_CNT",
    "REV_CNTR_TOT_CHRG_AMT",
    "HCPCS_CD",
]
BENEFICIARY = [
    "DESYNPUF_ID",
    "BENE_BIRTH_DT",
    "BENE_DEATH_DT",
    "BENE_SEX_IDENT_CD",
    "BENE_RACE_CD",
    "BENE_HI_CVRAGE_TOT_MONS",
    "BENE_SMI_CVRAGE_TOT_MONS",
    "BENE_HMO_CVRAGE_TOT_MONS",
    "PLAN_CVRG_MOS_NUM",
]
PRESCRIPTION = [
    "BENE_ID",
    "PDE_ID",
    "SRVC_DT",
    "PROD_SRVC_ID",
    "QTY_DSPNSD_NUM",
    "DAYS_SUPLY_NUM",
    "PTNT_PAY_AMT",
    "TOT_RX_CST_AMT",
]


def write(path: Path, header: Sequence[str], *rows: dict[str, str], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows([row.get(name, "") for name in header] for row in rows)
    return path


def carrier_line(number: int, **more: str) -> dict[str, str]:
    said = dict(
        BENE_ID="B1", CLM_ID="C1", NCH_CLM_TYPE_CD="71", CLM_FROM_DT="30-SEP-2015", CLM_THRU_DT="02-Oct-2015"
    )
    said |= dict(ICD_DGNS_CD1="I10", ICD_DGNS_CD2="E119", PRNCPAL_DGNS_CD="I10", LINE_NUM=str(number))
    said |= dict(
        LINE_PLACE_OF_SRVC_CD="11", LINE_1ST_EXPNS_DT="01-OCT-2015", HCPCS_CD="99213", LINE_NCH_PMT_AMT="80"
    )
    return said | more


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def detail(fact: Fact, name: str) -> str | None:
    return dict(fact["details"] or ()).get(name)


def test_a_carrier_claim_of_several_lines_is_one_visit(tmp_path: Path) -> None:
    first = carrier_line(
        1, HCPCS_1ST_MDFR_CD="25", LINE_SBMTD_CHRG_AMT="120.50", LINE_COINSRNC_AMT="20", LINE_SRVC_CNT="1"
    )
    second = carrier_line(2, HCPCS_CD="J1745", LINE_ICD_DGNS_CD="M0579", LINE_NDC_CD="57894003001")
    found = batches(
        READER, write(tmp_path / "carrier.txt", RIF, first, second, delimiter="|"), batch_records=1
    )
    (visit,) = facts(found, "visit")
    assert (visit["start"], visit["end"]) == (at("2015-09-30"), at("2015-10-02"))
    assert (codes([visit]), visit["type_concept_id"]) == ([("CMS Place of Service", "11")], 32873)
    assert codes(facts(found, "condition")) == [
        ("ICD10CM", "I10"),
        ("ICD10CM", "E11.9"),
        ("ICD10CM", "M05.79"),
    ]
    assert [detail(row, "diagnosis") for row in facts(found, "condition")] == [
        "principal",
        "secondary",
        "line",
    ]
    procedures = facts(found, "procedure")
    assert codes(procedures) == [("CPT4", "99213"), ("HCPCS", "J1745")]
    assert (procedures[0]["start"], detail(procedures[0], "modifiers")) == (at("2015-10-01"), "25")
    assert codes(facts(found, "drug")) == [("NDC", "57894003001")]
    cost = facts(found, "cost")[0]
    assert (cost["charged"], cost["paid"], detail(cost, "paid_patient_coinsurance")) == (120.5, 80.0, "20.00")
    assert cost["other_key"] == procedures[0]["key"]
    assert {row["encounter"] for row in facts(found) if row["kind"] != "visit"} == {visit["key"]}
    assert check_account(found) == 2


def test_the_version_of_icd_comes_from_its_column_else_from_the_day(tmp_path: Path) -> None:
    rows = [
        carrier_line(
            1, CLM_ID="1", CLM_THRU_DT="20150930", ICD_DGNS_CD2="", PRNCPAL_DGNS_CD="", ICD_DGNS_CD1="4019"
        ),
        carrier_line(1, CLM_ID="2", CLM_THRU_DT="20151001", ICD_DGNS_CD2="", PRNCPAL_DGNS_CD=""),
        carrier_line(
            1, CLM_ID="3", CLM_THRU_DT="20150930", ICD_DGNS_CD2="", PRNCPAL_DGNS_CD="", ICD_DGNS_VRSN_CD1="0"
        ),
        carrier_line(
            1, CLM_ID="4", ICD_DGNS_CD2="", PRNCPAL_DGNS_CD="", ICD_DGNS_CD1="E8889", ICD_DGNS_VRSN_CD1="9"
        ),
    ]
    found = batches(READER, write(tmp_path / "carrier.txt", RIF, *rows, delimiter="|"))
    expected = [("ICD9CM", "401.9"), ("ICD10CM", "I10"), ("ICD10CM", "I10"), ("ICD9CM", "E888.9")]
    assert codes(facts(found, "condition")) == expected


def test_an_inpatient_claim_pays_once_and_charges_by_revenue_line(tmp_path: Path) -> None:
    claim = dict(
        BENE_ID="B1", CLM_ID="C9", NCH_CLM_TYPE_CD="60", CLM_FROM_DT="20190102", CLM_THRU_DT="20190105"
    )
    claim |= dict(
        CLM_ADMSN_DT="20190101", NCH_BENE_DSCHRG_DT="20190106", CLM_DRG_CD="470", CLM_PMT_AMT="9000"
    )
    claim |= dict(
        CLM_TOT_CHRG_AMT="20000",
        NCH_BENE_IP_DDCTBL_AMT="1364",
        ADMTNG_DGNS_CD="M1711",
        PRNCPAL_DGNS_CD="M1711",
    )
    claim |= dict(ICD_PRCDR_CD1="0SRC0J9", PRCDR_DT1="20190103")
    lines = [
        claim | dict(CLM_LINE_NUM="1", REV_CNTR="0120", REV_CNTR_TOT_CHRG_AMT="15000"),
        claim | dict(CLM_LINE_NUM="2", REV_CNTR="0360", REV_CNTR_TOT_CHRG_AMT="5000", HCPCS_CD="27447"),
        claim | dict(CLM_LINE_NUM="3", REV_CNTR="0001", REV_CNTR_TOT_CHRG_AMT="20000"),
    ]
    found = batches(READER, write(tmp_path / "inpatient.csv", REVENUE, *lines))
    (visit,) = facts(found, "visit")
    assert (codes([visit]), visit["start"], visit["end"]) == (
        [("Visit", "IP")],
        at("2019-01-01"),
        at("2019-01-06"),
    )
    assert detail(visit, "drg") == "470"
    assert codes(facts(found, "condition")) == [("ICD10CM", "M17.11")]
    assert codes(facts(found, "procedure")) == [("ICD10PCS", "0SRC0J9"), ("CPT4", "27447")]
    assert facts(found, "procedure")[0]["start"] == at("2019-01-03")
    costs = facts(found, "cost")
    assert sum(row["charged"] or 0 for row in costs) == 20000
    assert sum(row["paid"] or 0 for row in costs) == 9000
    assert [detail(row, "revenue_code") for row in costs] == [None, "0120", "0360"]
    assert check_account(found) == 3
    assert reasons(found) == {("", "no-content"): 1}  # the line of totals


def test_beneficiary_years_give_one_person_and_their_months(tmp_path: Path) -> None:
    who = dict(DESYNPUF_ID="P", BENE_BIRTH_DT="19430701", BENE_SEX_IDENT_CD="2", BENE_RACE_CD="5")
    rows = {
        "2008": who | dict(BENE_HI_CVRAGE_TOT_MONS="6"),  # turned 65 in July
        "2009": who | dict(BENE_HI_CVRAGE_TOT_MONS="12", PLAN_CVRG_MOS_NUM="3"),
        "2010": who | dict(BENE_HI_CVRAGE_TOT_MONS="4", BENE_DEATH_DT="20100514"),
    }
    found = []
    for year, row in rows.items():
        found += batches(READER, write(tmp_path / f"DE1_0_{year}_Beneficiary_1.csv", BENEFICIARY, row))
    persons = facts(found, "person")
    assert {(row["sex"], row["birth"], row["ethnicity"]["code"]) for row in persons} == {
        ("female", date(1943, 7, 1), "2135-2")
    }
    assert len({row["key"] for row in persons}) == 1
    assert [row["version"] for row in persons] == [at(f"{year}-12-31") for year in rows]
    assert [row["start"] for row in facts(found, "death")] == [at("2010-05-14")]
    plans = [(detail(row, "plan"), row["start"], row["end"]) for row in facts(found, "coverage")]
    assert plans == [
        ("Part A", at("2008-07-01"), at("2008-12-31")),
        ("Part A", at("2009-01-01"), at("2009-12-31")),
        ("Part D", at("2009-01-01"), at("2009-03-31")),
        ("Part A", at("2010-02-01"), at("2010-05-31")),
    ]


def test_months_that_stand_one_by_one_are_taken_as_they_stand(tmp_path: Path) -> None:
    header = [
        "BENE_ID",
        "BENE_BIRTH_DT",
        "RFRNC_YR",
        *(f"MDCR_ENTLMT_BUYIN_IND_{month:02d}" for month in range(1, 13)),
    ]
    row = dict(zip(header, ["B", "1940-02-29", "2016", *"001330011111"], strict=True))
    found = batches(READER, write(tmp_path / "bene.csv", header, row))
    plans = [
        (detail(fact, "plan"), fact["start"].month, fact["end"].month) for fact in facts(found, "coverage")
    ]
    assert plans == [("Part A", 3, 5), ("Part A", 8, 12), ("Part B", 4, 5)]
    assert {detail(fact, "months") for fact in facts(found, "coverage")} == {"exact"}


def test_a_prescription_is_a_drug_and_its_cost(tmp_path: Path) -> None:
    row = dict(BENE_ID="B", PDE_ID="E", SRVC_DT="20200229", PROD_SRVC_ID="00093505698", QTY_DSPNSD_NUM="30")
    row |= dict(DAYS_SUPLY_NUM="90", PTNT_PAY_AMT="10", TOT_RX_CST_AMT="270.10")
    zeros = row | dict(PDE_ID="F", PROD_SRVC_ID="00000000000")
    found = batches(
        READER, write(tmp_path / "pde.csv", PRESCRIPTION, row, zeros, row | dict(SRVC_DT="20210229"))
    )
    (drug,), (cost,) = facts(found, "drug"), facts(found, "cost")
    assert (codes([drug]), drug["quantity"], drug["days_supply"]) == ([("NDC", "00093505698")], 30.0, 90)
    assert (detail(cost, "total_cost"), detail(cost, "paid_by_patient")) == ("270.10", "10.00")
    assert cost["other_key"] == drug["key"]
    assert reasons(found) == {("", "no-code"): 1, ("", "bad-date"): 1}
    assert check_account(found) == 3


def test_a_deleted_claim_takes_back_the_same_keys(tmp_path: Path) -> None:
    header = ["DML_IND", *RIF]
    for name, word in (("new.txt", "INSERT"), ("gone.txt", "DELETE")):
        write(tmp_path / name, header, carrier_line(1, DML_IND=word), delimiter="|")
    new, gone = facts(batches(READER, tmp_path / "new.txt")), facts(batches(READER, tmp_path / "gone.txt"))
    assert {row["key"] for row in new} == {row["key"] for row in gone}
    assert {row["action"] for row in new} == {"assert"}
    assert {row["action"] for row in gone} == {"retract"}


def test_lines_that_say_nothing_usable_are_turned_away_with_a_reason(tmp_path: Path) -> None:
    good = carrier_line(1)
    rows = [
        good,
        good | dict(CLM_ID=""),
        good | dict(BENE_ID=" "),
        good | dict(CLM_ID="C2", CLM_FROM_DT="", CLM_THRU_DT=""),
    ]
    path = write(tmp_path / "carrier.txt", RIF, *rows, good | dict(HCPCS_CD="99 13"), delimiter="|")
    path.write_bytes(
        path.read_bytes() + b"B1|C1\r\n" + b"\xff" * 9 + b"\r\n" + b"x" * (MAX_LINE_BYTES + 9) + b"\r\n\r\n"
    )
    found = batches(READER, path)
    expected = ["no-claim-id", "no-patient", "no-date", "bad-width", "not-text", "too-long"]
    assert reasons(found) == {**{("", reason): 1 for reason in expected}, ("HCPCS_CD", "bad-code"): 1}
    assert check_account(found) == 8


def test_only_files_of_cms_are_taken(tmp_path: Path) -> None:
    claims = write(tmp_path / "claims.csv", RIF, carrier_line(1))
    with gzip.open(tmp_path / "claims.csv.gz", "wb") as file:
        file.write(claims.read_bytes())
    assert READER.reads(claims)
    assert READER.reads(tmp_path / "claims.csv.gz")
    assert check_account(batches(READER, tmp_path / "claims.csv.gz")) == 1
    for name, content in {
        "a.csv": b"person_id,visit\n1,2\n",
        "b.csv": b"",
        "c.csv": b"\xff\xfe",
        "d.gz": b"no",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not READER.reads(tmp_path / name)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes((tmp_path / "claims.csv.gz").read_bytes()[:-12])
    with pytest.raises(UnreadableSource):
        batches(READER, cut)
    content = gzip.compress(claims.read_bytes() * 200)
    for damaged in mutations(content, np.random.default_rng(8), 60):
        cut.write_bytes(damaged)
        if READER.reads(cut):
            with contextlib.suppress(UnreadableSource):
                check_account(batches(READER, cut))


def test_damaged_files_end_in_a_reason_or_an_error_and_tell_nothing(tmp_path: Path) -> None:
    rows = [carrier_line(n, CLM_ID=f"SECRET{n // 2}", BENE_ID="SECRET") for n in range(30)]
    content = write(tmp_path / "whole.txt", RIF, *rows, delimiter="|").read_bytes()
    path = tmp_path / "damaged.txt"
    outcomes: Counter[str] = Counter()
    for damaged in mutations(content, np.random.default_rng(5), 300):
        path.write_bytes(damaged)
        try:
            found = batches(READER, path)
        except UnreadableSource as error:
            outcomes[str(error)] += 1
            continue
        check_account(found)
        assert not any("SECRET" in part for pair in reasons(found) for part in pair)
        outcomes["read"] += 1
    assert outcomes.keys() == {"read", "damaged.txt: no header of a CMS claims file"}
    assert outcomes["read"] > 200


def test_facts_do_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    path = write(
        tmp_path / "carrier.txt",
        RIF,
        *(carrier_line(n, CLM_ID=f"{n // 3}") for n in range(20)),
        delimiter="|",
    )
    assert facts(batches(READER, path, batch_records=1)) == facts(batches(READER, path, batch_records=1000))


def test_golden_summary_of_rif_carrier_claims(shared_data: Path) -> None:
    found = batches(READER, shared_data / "claims" / "carrier.csv")
    assert check_account(found) == 221
    assert kinds(found) == {"visit": 37, "condition": 315, "procedure": 12, "cost": 221}
    assert reasons(found) == {}
    assert {system for system, _ in codes(facts(found, "condition"))} == {"ICD10CM"}


def merged(rows: list[Fact]) -> set[tuple[str, str | None, date, date]]:
    """Coverage with years that follow each other made one, as the CDM has it."""
    runs: dict[tuple[str, str | None], list[list[date]]] = {}
    for row in sorted(rows, key=lambda row: row["start"]):
        of = runs.setdefault((row["patient"], detail(row, "plan")), [])
        start, end = row["start"].date(), row["end"].date()
        if of and of[-1][1] + timedelta(days=1) == start:
            of[-1][1] = end
        else:
            of.append([start, end])
    return {(*who, *run) for who, of in runs.items() for run in of}  # type: ignore[misc]


def expected(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / "output" / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def test_synpuf_rows_give_what_ohdsis_etl_expects_of_them(shared_data: Path) -> None:
    folder = shared_data / "claims_synpuf"
    found = [batch for file in sorted((folder / "input").glob("*.csv")) for batch in batches(READER, file)]

    persons = {(row["patient"], row["sex"], row["birth"].isoformat()) for row in facts(found, "person")}
    sex = {"8507": "male", "8532": "female"}
    assert persons == {
        (
            row["person_id"],
            sex[row["gender_concept_id"]],
            f"{row['year_of_birth']}-{int(row['month_of_birth']):02d}-{int(row['day_of_birth']):02d}",
        )
        for row in expected(folder, "person")
    }

    visits = {
        (row["key"], row["start"].date().isoformat(), row["end"].date().isoformat())
        for row in facts(found, "visit")
    }
    assert visits == {
        (f"claim:{row['visit_source_value']}", row["visit_start_date"], row["visit_end_date"])
        for row in expected(folder, "visit_occurrence")
    }
    concept = {"IP": "9201", "OP": "9202"}
    kinds_of_visit = {
        row["key"]: concept[codes([row])[0][1]] if row["codes"] else "0" for row in facts(found, "visit")
    }
    assert kinds_of_visit == {
        f"claim:{row['visit_source_value']}": row["visit_concept_id"]
        for row in expected(folder, "visit_occurrence")
    }

    # Diagnoses go to three tables by the domain of their concept; here they are all one kind. The expectation
    # leaves out what the DE-SynPUF rows say of 0416 (written as 416), V-codes under another person id, and
    # the outpatient ADMTNG diagnoses, of which the ETL takes none.
    ours = {
        (row["patient"], row["start"].date().isoformat(), codes([row])[0][1].replace(".", "").lstrip("0"))
        for row in facts(found, "condition")
        if not (detail(row, "diagnosis") == "admitting" and row["type_concept_id"] == 32861)
    }
    theirs = {
        (
            row["person_id"].replace("E450", "E448"),
            row[f"{table}_date".replace("condition_date", "condition_start_date")],
            row[source],
        )
        for table, source in (
            ("condition", "condition_source_value"),
            ("observation", "observation_source_value"),
        )
        for row in expected(folder, "condition_occurrence" if table == "condition" else table)
    } | {
        (row["person_id"], row["procedure_date"], row["procedure_source_value"])
        for row in expected(folder, "procedure_occurrence")
        if row["procedure_source_value"].startswith("V")
    }
    assert ours == theirs

    assert sorted(
        (row["patient"], row["start"].date().isoformat(), codes([row])[0][1].replace(".", ""))
        for row in facts(found, "procedure")
    ) == sorted(
        (row["person_id"], row["procedure_date"], row["procedure_source_value"])
        for row in expected(folder, "procedure_occurrence")
        if not row["procedure_source_value"].startswith("V")
    )

    assert [
        (
            row["patient"],
            codes([row])[0][1],
            row["start"].date().isoformat(),
            row["quantity"],
            row["days_supply"],
        )
        for row in facts(found, "drug")
    ] == [
        (
            row["person_id"],
            row["drug_source_value"],
            row["drug_exposure_start_date"],
            float(row["quantity"]),
            int(row["days_supply"]),
        )
        for row in expected(folder, "drug_exposure")
    ]

    # The expectation lets the second person's coverage start at their 65th birthday, though their row of 2008
    # says twelve months; everything else is the same.
    covered = merged(facts(found, "coverage"))
    assert covered == {
        (
            row["person_id"],
            row["plan_source_value"],
            date(2008, 1, 1),
            date.fromisoformat(row["payer_plan_period_end_date"]),
        )
        for row in expected(folder, "payer_plan_period")
    }

    by_payer = Counter(row["paid"] for row in facts(found, "cost") if row["paid"] is not None)
    assert by_payer == Counter(
        float(row["paid_by_payer"])
        for table in ("visit_cost", "procedure_cost")
        for row in expected(folder, table)
    )
    out_of_pocket = Counter(
        sum(
            float(detail(row, name) or 0)
            for name in ("paid_patient_deductible", "paid_patient_coinsurance", "paid_by_patient")
        )
        for row in facts(found, "cost")
    )
    assert out_of_pocket == Counter(
        float(row["total_out_of_pocket"])
        for table in ("visit_cost", "procedure_cost", "drug_cost")
        for row in expected(folder, table)
    )
