"""Facts become records: mapped, converted, routed, traced; what is turned away is counted, never quoted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deid.dates import DatePractice
from node.ingest.errors import MalformedMapping, NoMapping, Unaccounted
from node.ingest.fact_rules import FactRules, TextPolicy, read_rules
from node.ingest.facts import FactBatch, table_of
from node.ingest.registry import Entry
from node.omop.errors import AlreadyLoaded
from node.omop.loading import Again
from tests.node.made_facts import (
    CLOCK,
    DRUG,
    HEART,
    HEART_VALUE,
    LAB,
    SMOKES,
    STENT,
    Hospital,
    event,
    hospital,
    person,
)  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    yield made
    made.store.close()
    made.vault.close()


def test_codes_become_standard_concepts_and_keep_what_they_were(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [event("condition", "P", "old heart")],
        [event("condition", "P", "nobody's code")],
        [event("condition", "P", "nobody's code", codes=["nobody's code", HEART])],
    )
    site.take()
    assert site.rows(
        "SELECT condition_concept_id, condition_source_value, condition_source_concept_id"
        " FROM condition_occurrence ORDER BY ALL"
    ) == [(0, "nobody's code", 0), (5_000_010, "heart", 5_000_010), (5_000_010, "old heart", 5_000_011)]


def test_a_code_of_two_concepts_gives_two_records_where_each_belongs(site: Hospital) -> None:
    site.write("a", [person("P")], [event("condition", "P", "two")])
    report = site.take()
    assert report.records == {"person": 1, "condition_occurrence": 1, "observation": 1}
    assert site.rows("SELECT observation_concept_id FROM observation") == [(5_000_013,)]
    assert site.rows("SELECT transformations FROM fedtwin_provenance WHERE table_name = 'observation'") == [
        ("shifted mapped routed",)
    ]


@pytest.mark.parametrize(
    ("kind", "code", "table"),
    [
        ("procedure", HEART, "condition_occurrence"),
        ("condition", LAB, "measurement"),
        ("observation", DRUG, "drug_exposure"),
        ("drug", STENT, "device_exposure"),
        ("measurement", SMOKES, "observation"),
        ("condition", "dead end", "procedure_occurrence"),  # no standard concept: its own domain
        ("device", "unknown", "device_exposure"),  # no concept at all: the kind
        ("measurement", "yes", "observation"),  # a domain without records of its own
    ],
)
def test_the_domain_of_the_concept_decides_about_the_table(
    site: Hospital, kind: str, code: str, table: str
) -> None:
    site.write("a", [person("P")], [event(kind, "P", code)])
    assert site.take().records == {"person": 1, table: 1}


def test_maps_to_value_and_coded_and_worded_values(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [event("observation", "P", HEART_VALUE)],
        [event("observation", "P", SMOKES, value_codes=["yes"])],
        [event("measurement", "P", LAB, value_text="Positive")],
    )
    site.take()
    assert site.rows(
        "SELECT observation_concept_id, value_as_concept_id, value_source_value FROM observation ORDER BY 1"
    ) == [(5_000_013, 5_000_015, None), (5_000_020, 5_000_015, "yes")]
    assert site.rows("SELECT value_as_concept_id, value_source_value FROM measurement") == [
        (9191, "Positive")
    ]


def test_values_are_kept_in_the_one_unit_of_their_measurement(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [event("measurement", "P", LAB, value_number=5.0, unit="mmol/L", range_low=4.0, value_operator="<")],
        [event("measurement", "P", LAB, value_number=90.0, unit="mg/dL")],
        [event("measurement", "P", LAB, value_number=7.0, unit="furlong")],
    )
    site.take()
    assert site.rows(
        "SELECT round(value_as_number, 3), unit_concept_id, unit_source_value, value_source_value,"
        " round(range_low, 3), operator_concept_id FROM measurement ORDER BY 1"
    ) == [
        (7.0, None, "furlong", "7.0", None, None),
        (90.0, 8840, "mg/dL", "90.0", None, None),
        (90.078, 8840, "mmol/L", "<5.0", 72.062, 4171756),
    ]
    assert site.rows(
        "SELECT count(*) FROM fedtwin_provenance WHERE transformations LIKE '%unit-converted%'"
    ) == [(1,)]


def test_states_and_intents_that_do_not_count_are_turned_away_and_counted(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [event("procedure", "P", "x", status="in-progress")],
        [event("procedure", "P", "x", status="completed")],
        [event("measurement", "P", LAB, status="preliminary")],
        [event("condition", "P", HEART, status="refuted")],
        [event("drug", "P", DRUG, details={"intent": "proposal"})],
    )
    (source,) = site.take().sources
    assert (source.records_in, source.stored, source.quarantined) == (6, 2, 4)
    assert source.reasons == {"status": 4}
    again = site.take(rules=FactRules(status={}, intent={}))  # other rules: the file is loaded anew
    assert again.sources[0].stored == 6
    assert site.rows("SELECT count(*) FROM procedure_occurrence") == [(2,)]


def test_dates_are_local_shifted_and_traced(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [event("condition", "P", HEART, "2020-03-01T23:30+00:00", utc_offset_min=120, precision="second",
               version="2020-03-05T00:00")],
        [event("drug", "P", DRUG, "2020-03-02", precision="day", days_supply=10)],
    )  # fmt: skip
    site.take()
    ((day, stamp),) = site.rows(
        "SELECT condition_start_date, condition_start_datetime FROM condition_occurrence"
    )
    ((drug, clock, end),) = site.rows(
        "SELECT drug_exposure_start_date, drug_exposure_start_datetime, drug_exposure_end_date"
        " FROM drug_exposure"
    )
    assert (stamp.hour, stamp.minute, stamp.date()) == (1, 30, day)
    assert day == drug  # 23:30 in UTC is the next day on the local clock
    assert clock is None
    assert (end - drug).days == 9
    shift = int(site.vault.pseudonyms(["P"], namespace="mrn").shift_days[0])
    ((recorded, offset, row, place, source),) = site.rows(
        "SELECT recorded_at, utc_offset_min, source_row, place, source_name FROM fedtwin_provenance"
        " JOIN fedtwin_load USING (load_id) WHERE table_name = 'condition_occurrence'"
    )
    assert (recorded.date() - day).days == 3  # the true distance: 5 and 2 March
    assert abs((day - CLOCK.now().date()).days) > 0
    assert shift != 0
    assert (offset, row, place) == (120, 2, "")
    assert source.startswith("file-")


def test_the_year_only_practice_keeps_years(site: Hospital) -> None:
    site.write("a", [person("P")], [event("condition", "P", HEART, version="2020-06-05T10:00")])
    site.take(practice=DatePractice.YEAR_ONLY)
    assert site.rows(
        "SELECT condition_start_date::VARCHAR, condition_start_datetime FROM condition_occurrence"
    ) == [("2020-01-01", None)]
    assert site.rows(
        "SELECT DISTINCT recorded_at::VARCHAR FROM fedtwin_provenance WHERE recorded_at NOTNULL"
    ) == [("2020-01-01 00:00:00",)]


def test_ages_are_capped_however_late_the_last_record_comes(site: Hospital) -> None:
    site.write("a", [person("P", birth="1915-05-05")], [event("condition", "P", HEART, "1990-01-01")])
    site.take()
    site.write("b", [event("condition", "P", HEART, "2020-01-01")])
    site.take(again=Again.ADD)
    ((born, last),) = site.rows(
        "SELECT year_of_birth, year(observation_period_end_date) FROM person"
        " JOIN observation_period USING (person_id)"
    )
    assert born == last - 90
    assert site.rows("SELECT year_of_birth FROM fedtwin_held_person") == [(born,)]


def test_visits_link_events_and_bound_the_observation_period(site: Hospital) -> None:
    visit = {"kind": "visit", "patient": "P", "encounter": "E", "codes": [{"code": "IMP"}]}
    site.write(
        "a",
        [event("condition", "P", HEART, encounter="E")],
        [visit | {"start": "2020-02-28", "end": "2020-03-09"}],
        [person("P")],
    )
    site.take()
    assert site.rows(
        "SELECT visit_concept_id, visit_end_date - visit_start_date, condition_start_date - visit_start_date,"
        " observation_period_end_date - observation_period_start_date FROM condition_occurrence"
        " JOIN visit_occurrence USING (visit_occurrence_id, person_id)"
        " JOIN observation_period USING (person_id)"
    ) == [(9201, 10, 2, 10)]


def test_deaths_coverage_costs_links_and_eras(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [{"kind": "death", "patient": "P", "start": "2021-05-01", "codes": [HEART]}],
        [{"kind": "coverage", "patient": "P", "start": "2020-01-01", "end": "2020-12-31",
          "details": {"payer": "Medicare"}}],
        [event("drug", "P", DRUG, "2020-03-01", days_supply=10, key="rx1", charged=12.5, currency="USD")],
        [event("drug", "P", DRUG, "2020-04-01", days_supply=10, key="rx2")],
        [event("drug", "P", DRUG, "2020-09-01", days_supply=10, key="rx3")],
        [event("condition", "P", HEART, key="c1")],
        [{"kind": "cost", "patient": "P", "key": "k1", "other_key": "rx2", "paid": 3.0}],
        [{"kind": "link", "patient": "P", "key": "rx1", "other_key": "c1"}],
    )  # fmt: skip
    assert site.take().sources[0].quarantined == 0
    assert site.rows("SELECT cause_concept_id FROM death") == [(5_000_010,)]
    assert site.rows("SELECT payer_source_value FROM payer_plan_period") == [("Medicare",)]
    assert site.rows(
        "SELECT total_charge, total_paid, cost_domain_id, days_supply FROM cost"
        " JOIN drug_exposure ON cost_event_id = drug_exposure_id ORDER BY 1"
    ) == [(12.5, None, "Drug", 10), (None, 3.0, "Drug", 10)]
    assert site.rows(
        "SELECT count(*) FROM fact_relationship JOIN drug_exposure ON fact_id_1 = drug_exposure_id"
        " JOIN condition_occurrence ON fact_id_2 = condition_occurrence_id"
    ) == [(1,)]
    assert site.rows("SELECT drug_concept_id, drug_exposure_count, gap_days FROM drug_era ORDER BY 2") == [
        (5_000_018, 1, 0), (5_000_018, 2, 21),
    ]  # fmt: skip
    assert site.rows("SELECT condition_occurrence_count FROM condition_era") == [(1,)]


def test_text_stays_out_unless_the_hospital_lets_it_in_redacted(site: Hospital) -> None:
    note = {
        "kind": "note",
        "patient": "P",
        "start": "2020-03-01",
        "text": "Call Mr Alder at 555-123-4567. Well.",
    }
    site.write("a", [person("P")], [note], [event("measurement", "P", LAB, value_text="see Mr Alder")])
    (source,) = site.take().sources
    assert (source.stored, source.reasons) == (2, {"text-withheld": 1})
    assert source.values_quarantined == 1
    assert site.rows("SELECT value_source_value FROM measurement") == [(None,)]
    site.take(rules=FactRules(values=TextPolicy.REDACTED, notes=TextPolicy.REDACTED))
    ((text,),) = site.rows("SELECT note_text FROM note")
    assert "Alder" not in text
    assert "555" not in text
    assert text.endswith("Well.")
    assert site.rows("SELECT value_source_value FROM measurement") == [("see Mr [NAME]",)]


def test_no_identifier_reaches_the_store(site: Hospital) -> None:
    canaries = (
        "CANARY-MRN",
        "CANARY-KEY",
        "CANARY-VISIT",
        "Canaryname",
        "CANARY-DETAIL",
        "1960-05-05",
        "CANARY-TO",
    )
    site.write(
        "CANARY-MRN",
        [person("CANARY-MRN", text="Canaryname")],
        [event("condition", "CANARY-MRN", HEART, key="CANARY-KEY", encounter="CANARY-VISIT",
               text="Canaryname", details={"udi": "CANARY-DETAIL"})],
        [event("measurement", "CANARY-MRN", LAB, value_text="Canaryname", dose="Canaryname")],
        [event("condition", "CANARY-MRN", HEART, "1850-01-01")],
        [{"kind": "person", "patient": "CANARY-MRN", "action": "merge", "other_patient": "CANARY-TO"}],
    )  # fmt: skip
    site.take()
    site.store.settle(always=True)
    site.store.connection.con.execute("CHECKPOINT")
    looked = 0
    for path in site.store.path.parent.glob("*"):
        if path.is_file():
            looked += 1
            content = path.read_bytes()
            for canary in canaries:
                assert canary.encode() not in content, (path.name, canary)
    assert looked >= 2


def test_a_reader_that_loses_a_record_is_an_error_and_loads_nothing(site: Hospital) -> None:
    site.write("a", [person("P")], [])
    with pytest.raises(Unaccounted) as caught:
        site.take()
    assert (caught.value.records_in, caught.value.stored, caught.value.quarantined) == (2, 1, 0)
    assert site.rows("SELECT count(*) FROM fedtwin_load") == [(0,)]


def test_what_a_reader_turned_away_counts(site: Hospital) -> None:
    site.write("a", [person("P")], {"away": "not-clinical"}, [event("condition", "P", HEART, start=None)])
    (source,) = site.take().sources
    assert (source.records_in, source.stored, source.quarantined) == (3, 1, 2)
    assert source.reasons == {"not-clinical": 1, "missing-date": 1}
    assert site.rows("SELECT source_row, field, reason, whole_row FROM fedtwin_quarantine ORDER BY 1") == [
        (2, "*", "not-clinical", True), (3, "start", "missing-date", True),
    ]  # fmt: skip
    assert site.take().sources[0].quarantined == 2  # unchanged, and still told


def test_a_second_file_of_a_name_adds_by_key_and_is_refused_without(site: Hospital) -> None:
    site.write("a", [person("P")], [event("condition", "P", HEART, key="c1")])
    site.take()
    site.write("a", [event("condition", "P", HEART, key="c2")])
    site.take()
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(2,)]
    site.write("a", [person("P")], [event("condition", "P", HEART)])
    with pytest.raises(AlreadyLoaded):
        site.take()
    site.take(again=Again.REPLACE)
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(1,)]


def test_facts_and_delimited_files_come_in_together(site: Hospital) -> None:
    (site.folder / "m.toml").write_text(
        '[source]\nname = "m"\nversion = 1\nfiles = ["p*.csv"]\n[patient]\ncolumn = "mrn"\n'
        'namespace = "mrn"\n'
        '[person]\nbirth_date = { column = "dob", format = "%Y-%m-%d" }\n'
    )
    (site.folder / "p.csv").write_text("mrn,dob\nP,1960-05-05\n,1970-01-01\n")
    site.write("a", [event("condition", "P", HEART)])
    (site.folder / "photo.jpg").write_bytes(b"x")
    report = site.take()
    assert report.without_reader == ("photo.jpg",)
    found = [(one.source, one.records_in, one.stored, one.quarantined, one.reasons) for one in report.sources]
    assert found == [
        ("p.csv", 2, 1, 1, {"missing-patient": 1}), ("a.facts", 1, 1, 0, {}),
    ]  # fmt: skip
    assert site.rows("SELECT count(*) FROM condition_occurrence JOIN person USING (person_id)") == [(1,)]


def test_nothing_that_anybody_reads(site: Hospital) -> None:
    (site.folder / "photo.jpg").write_bytes(b"x")
    with pytest.raises(NoMapping):
        site.take()


def test_the_rules_of_a_hospital(tmp_path: Path) -> None:
    path = tmp_path / "ingest.toml"
    assert read_rules(path) == FactRules()
    path.write_text('[status]\nprocedure = ["Completed", "in-progress"]\n[text]\nnotes = "redacted"\n')
    rules = read_rules(path)
    assert rules.counts("procedure", "in-progress", None)
    assert not rules.counts("measurement", "preliminary", None)
    assert rules.notes is TextPolicy.REDACTED
    for wrong in ("[status]\nshoes = []\n", "[text]\nnotes = 1\n", "x", '[text]\nvalues = "all"\n'):
        path.write_text(wrong)
        with pytest.raises(MalformedMapping):
            read_rules(path)


class Unkeyed:
    """Gives more records than it says."""

    name = "wrong"
    version = "1"

    def reads(self, path: Path) -> bool:
        return True

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        fact = {"place": "", "action": "assert", "kind": "person", "patient": "P"}
        yield FactBatch(table_of([fact | {"record": 1}, fact | {"record": 2}]), records=1)


def test_a_reader_that_makes_records_up_is_an_error_too(site: Hospital) -> None:
    (site.folder / "x").write_bytes(b"x")
    with pytest.raises(Unaccounted):
        site.take(readers=(Entry("wrong", __name__, "Unkeyed"),))
