"""Each check of the catalogue has data that pass it and data that fail it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from node.omop.store import OmopStore
from node.omop.tables import cdm_tables
from node.quality.catalogue import KINDS, Category, Check, catalogue
from node.quality.coverage import MIN_PERSONS, coverage
from node.quality.page import page
from node.quality.report import DamagedReport, Standing, report
from node.quality.running import Outcome, Status, run
from node.quality.standing import keep, standing

NOW = datetime(2026, 11, 21, tzinfo=UTC)
CONCEPTS = {  # id: domain, class
    8507: ("Gender", "Gender"),
    8532: ("Gender", "Gender"),
    8527: ("Race", "Race"),
    38003564: ("Ethnicity", "Ethnicity"),
    32817: ("Type Concept", "Type Concept"),
    32810: ("Type Concept", "Type Concept"),
    9201: ("Visit", "Visit"),
    317009: ("Condition", "Disorder"),
    26662: ("Condition", "Disorder"),  # of men only, says the catalogue
    1125315: ("Drug", "Ingredient"),
    4230911: ("Procedure", "Procedure"),
    3004410: ("Measurement", "Lab Test"),
    8554: ("Unit", "Unit"),
    4005823: ("Observation", "Observable"),
}
STATEMENTS = (
    "INSERT INTO person BY NAME SELECT 1 AS person_id, 8507 AS gender_concept_id, 1970 AS year_of_birth,"
    " 8527 AS race_concept_id, 38003564 AS ethnicity_concept_id, TIMESTAMP '1970-01-01' AS birth_datetime",
    "INSERT INTO observation_period VALUES (1, 1, DATE '2010-01-01', DATE '2015-01-01', 32817)",
    "INSERT INTO visit_occurrence BY NAME SELECT 1 AS visit_occurrence_id, 1 AS person_id,"
    " 9201 AS visit_concept_id, DATE '2010-01-01' AS visit_start_date, DATE '2010-01-05' AS visit_end_date,"
    " 32817 AS visit_type_concept_id, 'IP' AS visit_source_value",
    "INSERT INTO condition_occurrence BY NAME SELECT 1 AS condition_occurrence_id, 1 AS person_id,"
    " 317009 AS condition_concept_id, DATE '2010-01-02' AS condition_start_date,"
    " DATE '2010-01-03' AS condition_end_date, 32810 AS condition_type_concept_id,"
    " 1 AS visit_occurrence_id, 'J45' AS condition_source_value, 317009 AS condition_source_concept_id",
    "INSERT INTO condition_occurrence BY NAME SELECT 2 AS condition_occurrence_id, 1 AS person_id,"
    " 26662 AS condition_concept_id, DATE '2010-01-02' AS condition_start_date,"
    " 32817 AS condition_type_concept_id, 'N44' AS condition_source_value,"
    " 26662 AS condition_source_concept_id",
    "INSERT INTO condition_era VALUES (1, 1, 317009, DATE '2010-01-02', DATE '2010-01-03', 1)",
    "INSERT INTO drug_exposure BY NAME SELECT 1 AS drug_exposure_id, 1 AS person_id,"
    " 1125315 AS drug_concept_id, DATE '2010-01-02' AS drug_exposure_start_date,"
    " DATE '2010-01-10' AS drug_exposure_end_date, 32817 AS drug_type_concept_id, 10 AS days_supply",
    "INSERT INTO drug_era VALUES (1, 1, 1125315, DATE '2010-01-02', DATE '2010-01-10', 1, 0)",
    "INSERT INTO measurement BY NAME SELECT 1 AS measurement_id, 1 AS person_id,"
    " 3004410 AS measurement_concept_id, DATE '2010-01-02' AS measurement_date,"
    " 32817 AS measurement_type_concept_id, 6.5 AS value_as_number, 8554 AS unit_concept_id,"
    " 1 AS visit_occurrence_id, 'A1C' AS measurement_source_value",
    "INSERT INTO observation BY NAME SELECT 1 AS observation_id, 1 AS person_id,"
    " 4005823 AS observation_concept_id, DATE '2010-01-02' AS observation_date,"
    " 32817 AS observation_type_concept_id",
    "INSERT INTO death BY NAME SELECT 1 AS person_id, DATE '2015-01-01' AS death_date",
    "INSERT INTO concept_ancestor VALUES (4090861, 26662, 1, 1), (4090861, 4090861, 0, 0)",
)
# One check of each name, and what makes it fail. (name, table, field, part of the argument): statement
FAILS: dict[tuple[str, str, str, str], str] = {
    ("cdmTable", "note", "", ""): "DROP TABLE note",
    ("cdmField", "person", "day_of_birth", ""): "ALTER TABLE person DROP day_of_birth",
    ("cdmDatatype", "person", "year_of_birth", ""): "ALTER TABLE person ALTER year_of_birth TYPE DOUBLE"
    " USING year_of_birth + 0.5",
    ("isRequired", "condition_occurrence", "condition_type_concept_id", ""): "ALTER TABLE"
    " condition_occurrence ALTER condition_type_concept_id DROP NOT NULL; UPDATE condition_occurrence SET"
    " condition_type_concept_id = NULL",
    ("isPrimaryKey", "measurement", "measurement_id", ""): "INSERT INTO measurement FROM measurement",
    ("isForeignKey", "measurement", "person_id", ""): "UPDATE measurement SET person_id = 7",
    ("isForeignKey", "measurement", "measurement_concept_id", ""): "UPDATE measurement SET"
    " measurement_concept_id = 7",
    ("fkDomain", "measurement", "measurement_concept_id", ""): "UPDATE measurement SET"
    " measurement_concept_id = 317009",
    ("fkClass", "drug_era", "drug_concept_id", ""): "UPDATE drug_era SET drug_concept_id = 317009",
    ("isStandardValidConcept", "measurement", "measurement_concept_id", ""): "UPDATE concept SET"
    " standard_concept = NULL WHERE concept_id = 3004410",
    ("measureValueCompleteness", "person", "race_concept_id", ""): "ALTER TABLE person ALTER"
    " race_concept_id DROP NOT NULL; UPDATE person SET race_concept_id = NULL",
    ("standardConceptRecordCompleteness", "measurement", "measurement_concept_id", ""): "UPDATE measurement"
    " SET measurement_concept_id = 0",
    ("standardConceptRecordCompleteness", "measurement", "unit_concept_id", ""): "UPDATE measurement"
    " SET unit_concept_id = NULL",
    ("sourceConceptRecordCompleteness", "condition_occurrence", "condition_source_concept_id", ""): "UPDATE"
    " condition_occurrence SET condition_source_concept_id = 0",
    ("sourceValueCompleteness", "measurement", "measurement_source_value", ""): "UPDATE measurement SET"
    " measurement_concept_id = 0",
    ("plausibleValueLow", "drug_exposure", "days_supply", ""): "UPDATE drug_exposure SET days_supply = 0",
    ("plausibleValueLow", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '1940-01-01'",
    ("plausibleValueHigh", "person", "year_of_birth", ""): "UPDATE person SET year_of_birth = 2200",
    ("plausibleValueHigh", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '2200-01-01'",
    ("plausibleTemporalAfter", "visit_occurrence", "visit_end_date", ""): "UPDATE visit_occurrence SET"
    " visit_end_date = DATE '2009-12-31'",
    ("plausibleTemporalAfter", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '1969-12-31'",
    ("plausibleAfterBirth", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '1969-12-31'",
    ("plausibleDuringLife", "observation_period", "observation_period_end_date", ""): "UPDATE"
    " observation_period SET observation_period_end_date = DATE '2015-03-03'",
    ("plausibleBeforeDeath", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '2015-03-03'",
    ("plausibleStartBeforeEnd", "condition_occurrence", "condition_start_date", ""): "UPDATE"
    " condition_occurrence SET condition_start_date = DATE '2010-01-04'",
    ("withinVisitDates", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '2010-01-13'",
    ("plausibleGender", "condition_occurrence", "condition_concept_id", "26662:"): "UPDATE person SET"
    " gender_concept_id = 8532",
    ("plausibleGenderUseDescendants", "condition_occurrence", "condition_concept_id", "4090861"): "UPDATE"
    " person SET gender_concept_id = 8532",
    ("plausibleUnitConceptIds", "measurement", "measurement_concept_id", "3004410:"): "UPDATE measurement"
    " SET unit_concept_id = NULL",
    ("measurePersonCompleteness", "condition_occurrence", "", ""): "DELETE FROM condition_occurrence",
    ("measureConditionEraCompleteness", "condition_era", "", ""): "DELETE FROM condition_era",
    ("measureObservationPeriodOverlap", "observation_period", "", ""): "INSERT INTO observation_period"
    " VALUES (2, 1, DATE '2015-01-02', DATE '2016-01-01', 32817)",
    ("eventBeforeBirth", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '1969-12-31'",
    ("eventAfterDeath", "measurement", "measurement_date", ""): "UPDATE measurement SET"
    " measurement_date = DATE '2015-01-02'",
    ("claimBeforeVisit", "condition_occurrence", "condition_start_date", ""): "UPDATE condition_occurrence"
    " SET condition_start_date = DATE '2009-12-31'",
}


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb", threads=1) as store:
        with store.writing() as writer:
            for statement in STATEMENTS:
                writer.execute(statement)
            for concept, (domain, kind) in CONCEPTS.items():
                writer.execute(
                    "INSERT INTO concept VALUES (?, 'made', ?, 'Made', ?, 'S', ?, DATE '1970-01-01',"
                    " DATE '2099-12-31', NULL)",
                    [concept, domain, kind, str(concept)],
                )
        yield store


def one(name: str, table: str, field: str, argument: str) -> Check:
    (found,) = [
        check
        for check in catalogue()
        if (check.name, check.table, check.field) == (name, table, field) and argument in check.argument
    ]
    return found


def outcome(store: OmopStore, check: Check) -> Outcome:
    (found,) = run(store, [check])
    return found


@pytest.mark.parametrize("named", FAILS, ids=[".".join(part for part in key if part) for key in FAILS])
def test_a_check_passes_clean_data_and_fails_what_it_is_for(
    clean: OmopStore, named: tuple[str, str, str, str]
) -> None:
    check = one(*named)
    before = outcome(clean, check)
    assert before.status is Status.PASSED, before
    with clean.writing() as writer:
        writer.execute(FAILS[named])
    with _again(clean) as again:
        after = outcome(again, check)
    assert after.status is Status.FAILED, after
    assert 0 < after.failing <= after.of


def _again(store: OmopStore) -> OmopStore:
    """A reader that has seen nothing of the tables yet, nor made what is missing."""
    path = store.path
    store.close()
    return OmopStore.open(path, read_only=True)


def test_every_kind_of_check_is_tried_here_and_has_words() -> None:
    names = {check.name for check in catalogue()}
    assert {name for name, *_ in FAILS} == names == set(KINDS)
    tables = cdm_tables()
    for check in catalogue():
        assert not check.field or check.field in tables[check.table].columns
        assert 0 <= check.limit_percent <= 100


def test_nothing_of_clean_data_fails_and_no_check_stumbles(clean: OmopStore) -> None:
    found = run(clean)
    assert not [o for o in found if o.status is Status.ERROR]
    failed = [o.check for o in found if o.status is Status.FAILED]
    # its one person lacks procedures, notes and source concepts: that is not wrong, only incomplete
    assert {check.kind.category for check in failed} <= {Category.COMPLETENESS}
    assert sum(o.status is Status.PASSED for o in found) > 500


def test_empty_tables_and_an_empty_vocabulary_are_not_applicable(tmp_path: Path) -> None:
    with OmopStore.open(tmp_path / "empty.duckdb") as store:
        found = run(store)
        assert {o.check.name for o in found if o.status is Status.PASSED} == {"cdmTable", "cdmField"}
        assert {o.status for o in found} == {Status.PASSED, Status.NOT_APPLICABLE}
        assert coverage(store).share is None
        assert Standing.of(report(store, now=NOW)).mapping_coverage is None


def test_one_check_that_cannot_run_hides_no_other(clean: OmopStore) -> None:
    """A column of another type than the CDM's, as a foreign tool may have made it."""
    with clean.writing() as writer:
        writer.execute("ALTER TABLE drug_exposure ALTER days_supply TYPE VARCHAR USING 'ten'")
    found = {o.check: o for o in run(clean, [c for c in catalogue() if c.table == "drug_exposure"])}
    stumbled = {(check.name, check.field) for check, o in found.items() if o.status is Status.ERROR}
    assert stumbled == {("plausibleValueLow", "days_supply"), ("plausibleValueHigh", "days_supply")}
    assert found[one("isPrimaryKey", "drug_exposure", "drug_exposure_id", "")].status is Status.PASSED
    assert found[one("cdmDatatype", "drug_exposure", "days_supply", "")].status is Status.FAILED


def test_coverage_names_codes_of_many_persons_only(clean: OmopStore) -> None:
    with clean.writing() as writer:
        for code, persons in (("GLU", MIN_PERSONS), ("seen by Dr Meier", MIN_PERSONS - 1)):
            writer.execute(
                "INSERT INTO measurement BY NAME SELECT 100 * ? + range AS measurement_id,"
                " range AS person_id, 0 AS measurement_concept_id, DATE '2010-01-02' AS measurement_date,"
                " 32817 AS measurement_type_concept_id, ? AS measurement_source_value FROM range(?)",
                [persons, code, persons],
            )
    found = coverage(clean)
    assert [(code.code, code.records) for code in found.unmapped] == [("GLU", MIN_PERSONS)]
    assert found.rare == 1
    (measured,) = [table for table in found.tables if table.table == "measurement"]
    assert (measured.records, measured.mapped) == (1 + 2 * MIN_PERSONS - 1, 1)
    assert (measured.codes, measured.codes_mapped) == (3, 1)
    assert "Meier" not in page(report(clean, now=NOW))


def test_the_report_adds_up_and_is_read_back(clean: OmopStore, tmp_path: Path) -> None:
    found = report(clean, now=NOW)
    total = found["summary"]
    assert total["passed"] + total["failed"] + total["not_applicable"] == len(found["checks"])
    for parts in (found["by_category"], found["by_check"]):
        for key in ("passed", "failed", "not_applicable"):
            assert sum(part[key] for part in parts.values()) == total[key]
    assert found["epoch"] == clean.epoch()
    path = tmp_path / "quality.json"
    assert standing(path) is None
    keep(path, found)
    stands = standing(path)
    assert stands is not None
    assert (stands.pass_rate, stands.made_at) == (total["pass_rate"], NOW)
    path.write_text(path.read_text().replace('"pass_rate":', '"pass_rate":1'))
    assert standing(path) is None
    for damaged in ({}, [], {"format": "other"}, {**found, "made_at": "2026-01-01"}):
        with pytest.raises(DamagedReport):
            Standing.of(damaged)


class _Page(HTMLParser):
    """What a page would run or fetch, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_runs_nothing_fetches_nothing_and_escapes_what_it_shows(clean: OmopStore) -> None:
    found = report(clean, now=NOW)
    found["mapping"]["top_unmapped"] = [
        {"table": "measurement", "code": "<script>alert(1)</script>", "records": 12}
    ]
    parsed = _Page()
    parsed.feed(page(found))
    assert "script" not in parsed.tags
    assert parsed.fetched == []
    assert "<script>alert(1)</script>" in parsed.words
    assert "prefers-color-scheme: dark" in page(found)
    assert "url(" not in page(found)
    assert "@import" not in page(found)


def test_the_openly_licensed_example_cdm_has_the_known_result(shared_data: Path) -> None:
    """OHDSI's GiBleed: a vocabulary of 442 concepts, no death, and dates before 1950."""
    path = shared_data / "omop_gibleed" / "GiBleed_5.4.duckdb"
    if not path.exists():
        pytest.skip("needs ../shared/data/omop_gibleed")
    with OmopStore.open(path, read_only=True, schema="cdm") as store:
        found = report(store, now=NOW)
    assert found["persons"] == 2_694
    assert found["summary"] == {
        "passed": 863,
        "failed": 55,
        "not_applicable": 877,
        "pass_rate": 0.940087,
    }
    failing = {
        (check["check"], check["table"], check["field"]): check["failing"]
        for check in found["checks"]
        if check["status"] == "failed"
    }
    assert failing["isPrimaryKey", "measurement", "measurement_id"] == 4_366
    assert failing["isForeignKey", "condition_occurrence", "condition_source_concept_id"] == 27
    assert failing["plausibleValueLow", "drug_era", "gap_days"] == 12_637
    assert found["mapping"]["share"] == 1.0
