"""A published Synthea CDM comes out of its source record by record; what differs is counted and explained."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from node.ingest.pipeline import Report
from tests.node.ingest.synthea_cdm import loaded, published, unshifted
from tests.node.made_facts import Hospital

FOLDER = "omop_synthea27nj"
EVENTS = {  # table -> prefix of its concept columns, first day, last day
    "condition_occurrence": ("condition", "condition_start_date", "condition_end_date"),
    "drug_exposure": ("drug", "drug_exposure_start_date", "drug_exposure_end_date"),
    "procedure_occurrence": ("procedure", "procedure_date", "procedure_end_date"),
    "device_exposure": ("device", "device_exposure_start_date", "device_exposure_end_date"),
    "measurement": ("measurement", "measurement_date", None),
    "observation": ("observation", "observation_date", None),
}
RECORDS = {
    "condition_occurrence": 470, "drug_exposure": 883, "procedure_occurrence": 1649, "device_exposure": 1,
    "measurement": 10_040, "observation": 8_099,
}  # fmt: skip
# What differs, how often, and why. Nothing else does.
EXPLAINED = {
    "person: theirs has no concept for the word hawaiian, ours takes the CDC's": 2,
    "observation_period: theirs is of visits, ours of every record": 8,
    "condition_era: a condition without an end lasts one day more in theirs": 96,
    "measurement: a unit that theirs has as 0 and the vocabulary has a concept for": 627,
    "measurement: a unit of no number is not kept": 32,
}


@dataclass
class Compared:
    cdm: duckdb.DuckDBPyConnection
    site: Hospital
    report: Report

    def ours(self, query: str) -> Counter[tuple[Any, ...]]:
        """Rows of our store; `w` is who a person is, and by how many days their dates were moved."""
        return Counter(self.site.store.connection.con.execute(query).fetchall())

    def theirs(self, query: str) -> Counter[tuple[Any, ...]]:
        return Counter(self.cdm.execute(query).fetchall())


@pytest.fixture(scope="module")
def both(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    archive = shared_data / FOLDER / "synthea27nj" / "27nj.zip"
    if not archive.is_file():
        pytest.skip(f"needs ../shared/data/{FOLDER}")
    where = tmp_path_factory.mktemp("synthea")
    cdm = published(archive, where / "cdm")
    site, report = loaded(cdm, where / "site")
    connection = site.store.connection.con
    connection.execute("CREATE TEMP TABLE who (person_id BIGINT, name VARCHAR, days INTEGER)")
    connection.executemany("INSERT INTO who VALUES (?, ?, ?)", unshifted(site, cdm))
    yield Compared(cdm, site, report)
    site.store.close()
    site.vault.close()
    cdm.close()


def back(column: str) -> str:
    """The date as the source had it."""
    return f"CAST({column} - to_days(w.days) AS DATE)"


def whole(column: str) -> str:
    return f"CAST({column} AS BIGINT)"


def day(column: str) -> str:
    return f"CAST({column} AS DATE)"


def test_the_files_beside_the_cdm_are_of_other_patients(both: Compared, shared_data: Path) -> None:
    """So they are no source of it: tests/node/ingest/test_synthea_csv.py has them by themselves."""
    patients = shared_data / FOLDER / "dbt-synthea-seeds" / "synthea" / "patients.csv"
    with patients.open(encoding="utf-8", newline="") as file:
        beside = {row["Id"] for row in csv.DictReader(file)}
    inside = {row[0] for row in both.theirs("SELECT person_source_value FROM person")}
    assert (len(beside), len(inside), beside & inside) == (27, 28, set())


def test_every_row_of_the_source_is_stored(both: Compared) -> None:
    assert {one.source: (one.records_in, one.quarantined) for one in both.report.sources} == {
        "patients.csv": (28, 0),
        "encounters.csv": (1_791, 0),
        "conditions.csv": (920, 0),
        "medications.csv": (883, 0),
        "procedures.csv": (2_534, 0),
        "observations.csv": (16_804, 0),
        "devices.csv": (1, 0),
    }
    assert both.report.without_reader == ()


def test_persons_are_those_of_the_cdm(both: Compared) -> None:
    columns = "gender_concept_id", "race_concept_id", "ethnicity_concept_id"
    ours = both.ours(f"SELECT name, {', '.join(columns)} FROM person JOIN who w USING (person_id)")
    theirs = both.theirs(
        f"SELECT person_source_value, {', '.join(whole(name) for name in columns)} FROM person"
    )
    assert sum(ours.values()) == 28
    assert {race for _, _, race, _ in ours - theirs} == {8557}  # Native Hawaiian or other Pacific Islander
    assert {race for _, _, race, _ in theirs - ours} == {0}
    assert (ours - theirs).total() == EXPLAINED[
        "person: theirs has no concept for the word hawaiian, ours takes the CDC's"
    ]


def test_years_of_birth_move_with_the_dates(both: Compared) -> None:
    ours = dict(both.ours("SELECT name, year_of_birth FROM person JOIN who w USING (person_id)").keys())
    moved = {name: timedelta(days=days) for _, name, days in unshifted(both.site, both.cdm)}
    for name, born in both.theirs(f"SELECT person_source_value, {day('birth_datetime')} FROM person"):
        assert ours[name] == (born + moved[name]).year


def test_visits_and_deaths_are_those_of_the_cdm(both: Compared) -> None:
    assert both.ours(
        f"SELECT name, {back('visit_start_date')}, {back('visit_end_date')}, visit_concept_id"
        " FROM visit_occurrence JOIN who w USING (person_id)"
    ) == both.theirs(
        f"SELECT person_source_value, {day('visit_start_date')}, {day('visit_end_date')},"
        f" {whole('visit_concept_id')} FROM visit_occurrence JOIN person USING (person_id)"
    )
    assert both.ours(
        f"SELECT name, {back('death_date')}, cause_concept_id, cause_source_value FROM death"
        " JOIN who w USING (person_id)"
    ) == both.theirs(
        f"SELECT person_source_value, {day('death_date')}, {whole('cause_concept_id')}, cause_source_value"
        " FROM death JOIN person USING (person_id)"
    )


@pytest.mark.parametrize("table", EVENTS)
def test_events_are_those_of_the_cdm(both: Compared, table: str) -> None:
    """Person, dates, concept, source concept and code, and the visit by its day: record by record."""
    prefix, first, last = EVENTS[table]
    visit = "LEFT JOIN visit_occurrence v ON v.visit_occurrence_id = o.visit_occurrence_id"
    concepts = f"o.{prefix}_concept_id", f"o.{prefix}_source_concept_id"
    ours = both.ours(
        f"SELECT name, {back('o.' + first)}, {back('o.' + last) if last else 'NULL'}, {', '.join(concepts)},"
        f" o.{prefix}_source_value, {back('v.visit_start_date')}, v.visit_concept_id"
        f" FROM {table} o JOIN who w ON w.person_id = o.person_id {visit}"
    )
    theirs = both.theirs(
        f"SELECT p.person_source_value, {day('o.' + first)}, {day('o.' + last) if last else 'NULL'},"
        f" {', '.join(whole(name) for name in concepts)}, o.{prefix}_source_value,"
        f" {day('v.visit_start_date')}, {whole('v.visit_concept_id')}"
        f" FROM {table} o JOIN person p ON p.person_id = o.person_id {visit}"
    )
    assert sum(ours.values()) == RECORDS[table]
    assert ours == theirs


def test_drugs_last_as_long_as_in_the_cdm(both: Compared) -> None:
    assert both.ours(
        f"SELECT name, {back('drug_exposure_start_date')}, drug_concept_id, days_supply FROM drug_exposure"
        " JOIN who w USING (person_id)"
    ) == both.theirs(
        f"SELECT person_source_value, {day('drug_exposure_start_date')}, {whole('drug_concept_id')},"
        f" {whole('days_supply')} FROM drug_exposure JOIN person USING (person_id)"
    )


def test_values_and_units_are_those_of_the_cdm(both: Compared) -> None:
    columns = "measurement_source_value, round(CAST(value_as_number AS DOUBLE), 6)"
    unit = "coalesce(CAST(unit_concept_id AS BIGINT), 0)"
    ours = both.ours(
        f"SELECT name, {back('measurement_date')}, {columns}, {unit}, unit_source_value FROM measurement"
        " JOIN who w USING (person_id)"
    )
    theirs = both.theirs(
        f"SELECT person_source_value, {day('measurement_date')}, {columns}, {unit}, unit_source_value"
        " FROM measurement JOIN person USING (person_id)"
    )
    found: Counter[str] = Counter()
    for *_, number, concept, text in (theirs - ours).elements():
        assert concept == 0
        if number is None:
            found["measurement: a unit of no number is not kept"] += 1
        else:
            assert text in ("U/L", "{score}")
            found["measurement: a unit that theirs has as 0 and the vocabulary has a concept for"] += 1
    assert all(concept or number is None for *_, number, concept, _ in ours - theirs)
    assert (ours - theirs).total() == (theirs - ours).total()
    assert found == {name: count for name, count in EXPLAINED.items() if name.startswith("measurement")}


def test_periods_are_of_every_record_and_not_of_visits_alone(both: Compared) -> None:
    ours = both.ours(
        f"SELECT name, {back('observation_period_start_date')}, {back('observation_period_end_date')}"
        " FROM observation_period JOIN who w USING (person_id)"
    )
    theirs = both.theirs(
        f"SELECT person_source_value, {day('observation_period_start_date')},"
        f" {day('observation_period_end_date')} FROM observation_period JOIN person USING (person_id)"
    )
    wider = {name: (first, last) for name, first, last in (ours - theirs)}
    for name, first, last in theirs - ours:
        assert wider[name][0] <= first
        assert wider[name][1] >= last
    assert len(wider) == EXPLAINED["observation_period: theirs is of visits, ours of every record"]


def test_eras_are_those_of_the_cdm_but_for_conditions_without_an_end(both: Compared) -> None:
    ours = both.ours(
        f"SELECT name, condition_concept_id, {back('condition_era_start_date')},"
        f" {back('condition_era_end_date')}, condition_occurrence_count"
        " FROM condition_era JOIN who w USING (person_id)"
    )
    era = f"{day('condition_era_start_date')}, {{}}, {whole('condition_occurrence_count')}"
    theirs = both.theirs(
        f"SELECT person_source_value, {whole('condition_concept_id')},"
        f" {era.format(day('condition_era_end_date'))} FROM condition_era JOIN person USING (person_id)"
    )
    one_less = both.theirs(
        f"SELECT person_source_value, {whole('condition_concept_id')},"
        f" {era.format(day('condition_era_end_date') + ' - 1')} FROM condition_era"
        " JOIN person USING (person_id)"
    )
    assert sum(ours.values()) == 469
    assert (ours - theirs).total() == EXPLAINED[
        "condition_era: a condition without an end lasts one day more in theirs"
    ]
    assert not (ours - theirs) - one_less
