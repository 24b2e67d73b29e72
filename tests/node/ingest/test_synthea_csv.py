"""Synthea's CSV files: what rows give, what is turned away, a published set against a plain reading."""

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.facts import FactBatch
from node.ingest.readers.synthea_csv import SyntheaCsv
from node.ingest.registry import READERS
from tests.node.made_facts import Hospital, hospital

PATIENTS = "Id,BIRTHDATE,DEATHDATE,RACE,ETHNICITY,GENDER"
ENCOUNTERS = "Id,START,STOP,PATIENT,PAYER,ENCOUNTERCLASS,CODE,TOTAL_CLAIM_COST,PAYER_COVERAGE,REASONCODE"
CONDITIONS = "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION"
MEDICATIONS = "START,STOP,PATIENT,PAYER,ENCOUNTER,CODE,PAYER_COVERAGE,DISPENSES,TOTALCOST"
OBSERVATIONS = "DATE,PATIENT,ENCOUNTER,CATEGORY,CODE,DESCRIPTION,VALUE,UNITS,TYPE"
SUPPLIES = "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION,QUANTITY"
PAYERS = "PATIENT,MEMBERID,START_YEAR,END_YEAR,PAYER"


def batches(folder: Path, *lines: str, name: str = "file.csv", batch_records: int = 100) -> list[FactBatch]:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert SyntheaCsv().reads(path)
    return list(SyntheaCsv().read(path, batch_records=batch_records))


def facts(found: list[FactBatch]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value is not None}
        for batch in found
        for row in batch.facts.to_pylist()
    ]


def reasons(found: list[FactBatch]) -> list[tuple[int, str, str, bool]]:
    return [
        (away.record, away.field, away.reason, away.whole_record)
        for batch in found
        for away in batch.turned_away
    ]


def test_a_patient_is_described_and_may_have_died(tmp_path: Path) -> None:
    found = batches(
        tmp_path, PATIENTS, "p1,1950-02-03,2020-01-05,black,hispanic,F", "p2,1951-01-01,,other,,M"
    )
    first, death, second = facts(found)
    assert (first["birth"], first["sex"]) == (date(1950, 2, 3), "female")
    assert (first["race"]["code"], first["ethnicity"]["code"]) == ("2054-5", "2135-2")
    assert (death["kind"], death["start"].date(), death["precision"]) == ("death", date(2020, 1, 5), "day")
    assert second["race"]["system"] == "local:synthea"
    assert "ethnicity" not in second


def test_an_encounter_is_a_visit_with_its_money_and_may_tell_of_a_death(tmp_path: Path) -> None:
    visit, certified = facts(
        batches(
            tmp_path,
            ENCOUNTERS,
            "e1,2020-01-01T10:00:00Z,2020-01-02T10:00:00Z,p1,x,inpatient,308646001,120.5,20,22298006",
        )
    )
    assert (visit["kind"], visit["key"], visit["encounter"]) == ("visit", "e1", "e1")
    assert (visit["codes"][0]["code"], visit["charged"], visit["paid"]) == ("IMP", 120.5, 20.0)
    assert (certified["kind"], certified["key"]) == ("death", "death:p1")
    assert certified["codes"][0]["code"] == "22298006"
    assert certified["version"] == certified["start"]  # so that it goes before the patient's own row


def test_rows_without_an_id_are_named_by_what_they_are(tmp_path: Path) -> None:
    row = "2020-01-01,,p1,e1,44054006,Diabetes"
    keys = [row["key"] for row in facts(batches(tmp_path, CONDITIONS, row, row, row.replace("e1", "e2")))]
    assert keys == [
        "condition:e1:44054006:2020-01-01:1",
        "condition:e1:44054006:2020-01-01:2",
        "condition:e2:44054006:2020-01-01:1",
    ]


def test_a_medication_lasts_and_costs(tmp_path: Path) -> None:
    (drug,) = facts(
        batches(tmp_path, MEDICATIONS, "2020-01-01T00:00:00Z,2020-01-15T00:00:00Z,p1,x,e1,308182,1,2,30")
    )
    assert (drug["codes"][0]["system"], drug["days_supply"]) == ("RxNorm", 14)
    assert (drug["charged"], drug["paid"]) == (30.0, 1.0)


def test_observations_are_numbers_with_units_or_words(tmp_path: Path) -> None:
    number, word, score = facts(
        batches(
            tmp_path,
            OBSERVATIONS,
            "2020-01-01T00:00:00Z,p1,e1,laboratory,2339-0,Glucose,91.5,mg/dL,numeric",
            "2020-01-01T00:00:00Z,p1,e1,survey,72166-2,Smoking,Never smoker,,text",
            "2020-01-01T00:00:00Z,p1,,,QOLS,Score,0.9,null,numeric",
        )
    )
    assert (number["kind"], number["value_number"], number["unit"]) == ("measurement", 91.5, "mg/dL")
    assert (word["kind"], word["value_text"]) == ("observation", "Never smoker")
    assert score.keys().isdisjoint(("unit", "encounter"))


def test_what_is_no_record_is_turned_away_by_reason(tmp_path: Path) -> None:
    found = batches(
        tmp_path,
        CONDITIONS,
        "2020-02-30,,p1,e1,1,x",
        "2020-02-03,,,e1,1,x",
        "2020-02-03,,p1,e1,,x",
        "2020-02-03,,p1,e1,1",
        '2020-02-03,,p1,e1,"1,x',
        "2020-02-03,2020-02-01,p1,e1,1,x",
        "2020-02-03,then,p1,e1,1,x",
        "x" * (1 << 17),
        batch_records=2,
    )
    assert reasons(found) == [
        (1, "", "bad-date", True),
        (2, "", "no-patient", True),
        (3, "", "no-code", True),
        (4, "", "bad-width", True),
        (5, "", "bad-quotes", True),
        (6, "STOP", "ends-before-it-starts", False),
        (7, "STOP", "bad-date", False),
        (8, "", "too-long", True),
    ]
    assert len(facts(found)) == 2
    assert sum(batch.records for batch in found) == 8


def test_supplies_and_coverage(tmp_path: Path) -> None:
    (supply,) = facts(batches(tmp_path, SUPPLIES, "2020-10-07,p1,e1,409534002,Mask,2"))
    assert (supply["kind"], supply["quantity"]) == ("device", 2.0)
    (cover,) = facts(batches(tmp_path, PAYERS, "p1,m,2014-10-14T04:17:47Z,2015-10-20T04:17:47Z,x"))
    assert (cover["kind"], dict(cover["details"])) == ("coverage", {"payer": "x"})


def test_another_table_is_not_taken(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert not SyntheaCsv().reads(other)
    with pytest.raises(UnreadableSource):
        list(SyntheaCsv().read(other, batch_records=1))


# The published files, against a plain reading of them


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    folder = shared_data / "omop_synthea27nj" / "dbt-synthea-seeds" / "synthea"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/omop_synthea27nj")
    site = hospital(tmp_path_factory.mktemp("synthea"), words=False)
    report = site.take(folder, readers=READERS)
    assert not report.without_reader
    yield site, folder
    site.store.close()
    site.vault.close()


TABLES = {  # file -> table, the code's column, the first day's column of both
    "conditions": ("condition_occurrence", "condition", "condition_start_date", "START"),
    "procedures": ("procedure_occurrence", "procedure", "procedure_date", "START"),
    "medications": ("drug_exposure", "drug", "drug_exposure_start_date", "START"),
    "observations": ("measurement", "measurement", "measurement_date", "DATE"),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_row_of_the_published_files_is_one_record_of_its_person_and_day(
    published: tuple[Hospital, Path], name: str
) -> None:
    site, folder = published
    table, prefix, start, column = TABLES[name]
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if name != "observations" or row["TYPE"] == "numeric"]
    names = sorted({row["PATIENT"] for row in rows})
    known = site.vault.pseudonyms(names, namespace="synthea")
    moved = {
        patient: (person, timedelta(days=days))
        for patient, person, days in zip(names, known.ids.tolist(), known.shift_days.tolist(), strict=True)
    }
    expected = Counter(
        (
            moved[row["PATIENT"]][0],
            date.fromisoformat(row[column][:10]) + moved[row["PATIENT"]][1],
            row["CODE"],
        )
        for row in rows
    )
    more = "WHERE drug_type_concept_id = 32838" if name == "medications" else ""
    found = Counter(site.rows(f"SELECT person_id, {start}, {prefix}_source_value FROM {table} {more}"))
    assert found == expected
    assert len(rows) > 100


def test_costs_of_the_published_files_are_those_of_their_rows(published: tuple[Hospital, Path]) -> None:
    site, folder = published
    charged = 0.0
    for name, column in (
        ("encounters", "TOTAL_CLAIM_COST"),
        ("medications", "TOTALCOST"),
        ("procedures", "BASE_COST"),
        ("immunizations", "BASE_COST"),
    ):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            charged += sum(float(row[column]) for row in csv.DictReader(file))
    ((total,),) = site.rows("SELECT sum(total_charge) FROM cost")
    assert total == pytest.approx(charged, rel=1e-9)
