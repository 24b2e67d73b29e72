"""Files come in: whole or not at all, once, without identity; what is wrong is noted without being quoted."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deid.dates import DatePractice
from deid.vault import PseudonymKey, Vault
from node.ingest.errors import NoMapping
from node.ingest.intake import FileReport, Progress
from node.ingest.mapping import Mapping, parse_mapping
from node.ingest.pipeline import Pipeline, Report
from node.omop.errors import AlreadyLoaded
from node.omop.loading import Again
from node.omop.store import OmopStore
from protocols.clock import FixedClock
from tests.privacy.seeded_bits import SeededBits

CLOCK = FixedClock(datetime(2026, 6, 1, tzinfo=UTC))
PATIENTS = """
[source]
name = "patients"
version = 1
files = ["patients*.csv"]
missing = ["", "NA"]
[patient]
column = "mrn"
[person]
birth_date = { column = "dob", format = "%d/%m/%Y" }
sex = { column = "sex", map = { M = 8507, F = 8532 } }
[columns.name]
identifier = true
[columns.hobby]
ignore = true
"""
LABS = """
[source]
name = "labs"
version = 1
files = ["labs*.csv", "labs*.csv.gz"]
missing = ["", "-9"]
[patient]
column = "mrn"
[date]
column = "taken"
format = "%Y-%m-%d %H:%M"
[visit]
column = "visit"
[[events]]
table = "measurement"
column = "value"
kind = "number"
concept = { column = "code", map = { SBP = 3004249, GLU = 3004501 } }
unit = { column = "unit", map = { "mm[Hg]" = 8876, "mg/dL" = 8840 } }
range = [0, 500]
"""
PEOPLE = (
    "mrn,name,dob,sex,hobby,shoe\nA-1,Ann Alder,05/03/1950,F,chess,38\nB-2,Bo Birch,17/11/1985,M,golf,44\n"
)
LABS_HEADER = "mrn,taken,code,value,unit,visit"
RESULTS = (
    f"{LABS_HEADER}\n"
    "A-1,2020-02-01 08:30,SBP,142,mm[Hg],V1\n"
    "A-1,2020-02-11 09:00,GLU,101.5,mg/dL,V2\n"
    "B-2,2021-07-01 10:00,SBP,118,mm[Hg],V3\n"
)


@dataclass
class Site:
    """One hospital on a disk."""

    folder: Path
    store: OmopStore
    vault: Vault

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def take(
        self, path: Path | None = None, mappings: Sequence[Mapping] | None = None, **options: Any
    ) -> Report:
        pipeline = Pipeline(self.store, self.vault, CLOCK, **options)
        return pipeline.ingest([path or self.folder], mappings=mappings)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.store.connection.con.execute(statement).fetchall()
        return found

    def quarantine(self) -> list[tuple[Any, ...]]:
        return self.rows(
            "SELECT source_name, source_row, field, reason, whole_row FROM fedtwin_quarantine ORDER BY ALL"
        )


def files(report: Report) -> list[FileReport]:
    """What is said of delimited files besides."""
    return [source.delimited for source in report.sources if source.delimited is not None]


def rows_in_and_loaded(report: Report) -> tuple[int, int, int]:
    """Rows of all files, how many gave records, and values and rows that were turned away."""
    every = files(report)
    return sum(f.rows for f in every), sum(f.loaded for f in every), sum(f.quarantined for f in every)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "in"
    folder.mkdir()
    vault = Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(3))
    with OmopStore.open(tmp_path / "omop.duckdb") as store:
        made = Site(folder, store, vault)
        made.write("patients.toml", PATIENTS)
        made.write("labs.toml", LABS)
        made.write("patients.csv", PEOPLE)
        made.write("labs.csv", RESULTS)
        yield made
    vault.close()


def test_a_directory_with_its_mappings_comes_in_persons_first(site: Site) -> None:
    report = site.take()
    assert [source.source for source in report.sources] == ["patients.csv", "labs.csv"]
    assert rows_in_and_loaded(report) == (5, 5, 0)
    assert report.records == {"measurement": 3}
    found = site.rows(
        "SELECT measurement_concept_id, value_as_number, unit_concept_id, measurement_source_value,"
        " unit_source_value, gender_concept_id FROM measurement JOIN person USING (person_id) ORDER BY 2"
    )
    assert found == [
        (3004501, 101.5, 8840, "GLU", "mg/dL", 8532),
        (3004249, 118.0, 8876, "SBP", "mm[Hg]", 8507),
        (3004249, 142.0, 8876, "SBP", "mm[Hg]", 8532),
    ]


def test_no_identifier_and_no_unknown_column_reaches_the_store(site: Site) -> None:
    # too long to come up in a file by chance
    long = {"A-1": "MRN-100281", "B-2": "MRN-200393", "Ann Alder": "Annabel Alderson", "chess": "chess-club"}
    for name, text in (("patients.csv", PEOPLE), ("labs.csv", RESULTS)):
        for short, other in long.items():
            text = text.replace(short, other)
        site.write(name, text)
    report = site.take()
    assert rows_in_and_loaded(report) == (5, 5, 0)
    site.store.settle(always=True)
    site.store.connection.con.execute("CHECKPOINT")
    assert [file.unknown_columns for file in files(report)] == [("shoe",), ()]
    for path in site.store.path.parent.iterdir():
        if path.is_file():
            content = path.read_bytes()
            for secret in ("Alderson", "Annabel", "MRN-", "05/03/1950", "1950-03-05", "chess-club"):
                assert secret.encode() not in content, (path.name, secret)
    assert site.rows("SELECT count(person_source_value) FROM person") == [(0,)]


def test_dates_move_and_intervals_and_times_of_day_stay(site: Site) -> None:
    site.take()
    first, second = site.rows(
        "SELECT measurement_date, measurement_datetime FROM measurement JOIN person USING (person_id)"
        " WHERE gender_concept_id = 8532 ORDER BY 1"
    )
    assert (second[0] - first[0]).days == 10
    assert 0 < abs((first[0] - datetime(2020, 2, 1).date()).days) <= 365
    assert (first[1].hour, first[1].minute) == (8, 30)
    assert first[1].date() == first[0]


def test_safe_harbor_practice_keeps_the_year_only(site: Site) -> None:
    site.take(practice=DatePractice.YEAR_ONLY)
    found = site.rows(
        "SELECT DISTINCT measurement_date::VARCHAR, measurement_datetime FROM measurement ORDER BY 1"
    )
    assert found == [("2020-01-01", None), ("2021-01-01", None)]


def test_the_same_patient_and_visit_meet_across_files(site: Site) -> None:
    visits = LABS.split("[[events]]")[0].replace('"labs"', '"visits"').replace("labs*", "visits*")
    site.write("visits.toml", visits.replace('column = "visit"', 'column = "visit"\nconcept_id = 9202'))
    site.write("visits.csv", "mrn,taken,visit\nA-1,2020-02-01 08:00,V1\nA-1,2020-02-01 08:00,V1\n")
    site.take()
    assert site.rows(
        "SELECT count(*), any_value(visit_concept_id), any_value(value_as_number) FROM visit_occurrence"
        " JOIN measurement USING (visit_occurrence_id, person_id)"
    ) == [(1, 9202, 142.0)]


def test_a_second_ingest_of_the_same_files_changes_nothing(site: Site) -> None:
    site.take()
    epoch, counts = site.store.epoch(), site.store.counts()
    again = site.take()
    assert all(source.unchanged for source in again.sources)
    assert (again.fresh, again.records) == ((), {})
    assert (site.store.epoch(), site.store.counts()) == (epoch, counts)


def test_a_changed_file_is_refused_until_somebody_says_what_it_is(site: Site) -> None:
    site.take()
    site.write("labs.csv", RESULTS.replace(",142,", ",143,"))
    with pytest.raises(AlreadyLoaded, match=r"labs\.csv"):
        site.take()
    site.take(again=Again.REPLACE)
    assert site.rows("SELECT value_as_number FROM measurement ORDER BY 1") == [(101.5,), (118.0,), (143.0,)]


def test_provenance_leads_from_a_record_to_its_row(site: Site) -> None:
    site.take()
    assert site.rows(
        "SELECT source_name, source_row, mapping_name, loaded_at::VARCHAR FROM measurement m"
        " JOIN fedtwin_provenance p ON (p.table_name, p.record_id) = ('measurement', m.measurement_id)"
        " JOIN fedtwin_load USING (load_id) WHERE value_as_number = 118"
    ) == [("labs.csv", 3, "labs", "2026-06-01 00:00:00")]


def test_bad_rows_are_quarantined_by_place_and_reason(site: Site) -> None:
    site.write(
        "labs.csv",
        "mrn,taken,code,value,unit,visit\n"
        ",2020-02-01 08:30,SBP,142,mm[Hg],V1\n"  # 1 nobody
        "C-3,2020-02-01 08:30,SBP,142,mm[Hg],V1\n"  # 2 not described
        "A-1,,SBP,142,mm[Hg],V1\n"  # 3
        "A-1,2020-02-30 08:30,SBP,142,mm[Hg],V1\n"  # 4 no such day
        "A-1,2036-02-01 08:30,SBP,142,mm[Hg],V1\n"  # 5 has not happened
        "A-1,2020-02-01 08:30,SBP,tall,mm[Hg],V1\n"  # 6
        "A-1,2020-02-01 08:30,SBP,501,mm[Hg],V1\n"  # 7
        "A-1,2020-02-01 08:30,SBP,142,kPa,V1\n"  # 8
        "A-1,2020-02-01 08:30,,142,mm[Hg],V1\n"  # 9
        "A-1,2020-02-01 08:30,SBP,142\n"  # 10 too short
        "A-1,2020-02-01 08:30,XYZ,7,mg/dL,V1\n"  # 11 unmapped is kept, as concept 0
        "A-1,2020-02-01 08:30,SBP,-9.0,mm[Hg],V1\n"  # 12 missing
        "A-1,2020-02-01 08:30,SBP,1e3000,mm[Hg],V1\n",  # 13
    )
    report = site.take()
    assert site.quarantine() == [
        ("labs.csv", 1, "mrn", "missing-patient", True),
        ("labs.csv", 2, "person", "unknown-person", True),
        ("labs.csv", 3, "taken", "missing-date", True),
        ("labs.csv", 4, "taken", "bad-date", True),
        ("labs.csv", 5, "taken", "implausible-date", True),
        ("labs.csv", 6, "value", "not-a-number", False),
        ("labs.csv", 7, "value", "out-of-range", False),
        ("labs.csv", 8, "unit", "unknown-unit", False),
        ("labs.csv", 9, "code", "missing-code", False),
        ("labs.csv", 10, "*", "wrong-number-of-fields", True),
        ("labs.csv", 13, "value", "not-a-number", False),
    ]
    labs = files(report)[1]
    assert (labs.rows, labs.quarantined, labs.events) == (13, 11, {"measurement": 1})
    assert site.rows("SELECT measurement_concept_id, measurement_source_value FROM measurement") == [
        (0, None)
    ]


def test_row_numbers_hold_across_batches_and_short_rows(site: Site) -> None:
    lines = ["mrn,taken,code,value,unit,visit"]
    for row in range(1, 2001):
        bad = row in (7, 1000, 1999)
        lines.append(
            "A-1,short" if row in (3, 990, 1500) else f"A-1,2020-02-01 08:30,SBP,{'x' if bad else 1},,V"
        )
    site.write("labs.csv", "\n".join(lines) + "\n")
    site.take(batch_rows=97)
    assert [(row, reason) for _, row, _, reason, _ in site.quarantine()] == [
        (3, "wrong-number-of-fields"),
        (7, "not-a-number"),
        (990, "wrong-number-of-fields"),
        (1000, "not-a-number"),
        (1500, "wrong-number-of-fields"),
        (1999, "not-a-number"),
    ]
    assert site.rows(
        "SELECT count(*), max(source_row) FROM fedtwin_provenance WHERE table_name = 'measurement'"
    ) == [(1994, 2000)]


def test_one_value_out_of_range_can_spoil_its_row(site: Site) -> None:
    site.write("labs.toml", LABS.replace("range = [0, 500]", 'range = [0, 130]\nout_of_range = "row"'))
    report = site.take()
    assert files(report)[1].loaded == 2
    assert ("labs.csv", 1, "value", "out-of-range", True) in site.quarantine()


def test_a_person_without_a_year_of_birth_is_turned_away(site: Site) -> None:
    site.write("patients.csv", PEOPLE.replace("05/03/1950", "31/02/1950").replace("17/11/1985", "NA"))
    site.write("labs.csv", RESULTS.splitlines()[0] + "\n")
    report = site.take()
    assert rows_in_and_loaded(report)[1] == 0
    assert {(row, reason) for _, row, _, reason, whole in site.quarantine() if whole} == {
        (1, "missing-year-of-birth"),
        (2, "missing-year-of-birth"),
    }


def test_a_category_a_condition_a_drug_and_a_death(site: Site) -> None:
    site.write(
        "visits.toml",
        """
[source]
name = "mixed"
version = 1
files = ["mixed.txt"]
delimiter = "|"
encoding = "latin-1"
header = false
columns = ["mrn", "day", "smoker", "grade", "code", "stop", "died"]
[patient]
column = "mrn"
[date]
column = "day"
format = "%d.%m.%Y"
[[events]]
table = "observation"
column = "smoker"
kind = "category"
name = "Smoking"
concept_id = 2000000007
values = { "ja" = 1, "nein" = 0, "früher" = 2 }
value_concepts = { "ja" = 45877994 }
[[events]]
table = "condition_occurrence"
column = "grade"
above = 0
concept_id = 317576
[[events]]
table = "drug_exposure"
concept = { column = "code", map = { C09 = 1308216 } }
end = { column = "stop", format = "%d.%m.%Y" }
[[events]]
table = "death"
column = "died"
present = ["1"]
concept_id = 0
""",
    )
    (site.folder / "mixed.txt").write_bytes(
        "A-1|01.02.2020|früher|2.0|C09|11.02.2020|0\nB-2|01.02.2020|ja|0|C09||1\nB-2|01.02.2020|?|x||01.01.2019|1\n".encode(
            "latin-1"
        )
    )
    report = site.take()
    assert files(report)[-1].events == {
        "observation": 2, "condition_occurrence": 1, "drug_exposure": 2, "death": 1,
    }  # fmt: skip
    smoking = site.rows(
        "SELECT value_as_number, value_as_concept_id, value_source_value, concept_name FROM observation"
        " JOIN concept ON concept_id = observation_concept_id ORDER BY 1"
    )
    assert smoking == [(1.0, 45877994, "ja", "Smoking"), (2.0, None, "früher", "Smoking")]
    lengths = site.rows(
        "SELECT drug_exposure_end_date - drug_exposure_start_date FROM drug_exposure ORDER BY 1"
    )
    assert lengths == [(0,), (10,)]
    assert [reason for *_, reason, _ in site.quarantine()] == ["not-a-number", "unmapped-value"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # spaCy's import of typer
def test_text_passes_only_redacted(site: Site) -> None:
    site.write(
        "notes.toml",
        """
[source]
name = "notes"
version = 1
files = ["notes.csv"]
[patient]
column = "mrn"
[date]
column = "day"
[[events]]
table = "observation"
column = "remark"
kind = "text"
name = "Remark"
concept_id = 2000000008
""",
    )
    site.write(
        "notes.csv",
        'mrn,day,remark\nA-1,2020-02-01,"Mr Alder, MRN 99-1,\nEF 40%"\nB-2,2020-02-01,'
        + "x" * 250_000
        + "\n",
    )
    site.take()
    assert site.rows("SELECT value_as_string FROM observation") == [("Mr [NAME], MRN [MRN],\nEF 40%",)]
    assert site.quarantine() == [("notes.csv", 2, "remark", "not-redacted", False)]


def test_ages_above_89_are_capped_at_the_time_of_the_record(site: Site) -> None:
    site.write("patients.csv", PEOPLE.replace("05/03/1950", "05/03/1915"))
    site.take()
    oldest = site.rows(
        "SELECT max(year(measurement_date) - year_of_birth) FROM measurement JOIN person USING (person_id)"
    )
    assert oldest == [(90,)]


def test_a_failure_in_the_middle_of_a_file_leaves_nothing_of_it(site: Site) -> None:
    site.write("labs.csv", RESULTS + "\n".join(["A-1,2020-02-01 08:30,SBP,1,,V"] * 500) + "\n")

    def crash(progress: Progress) -> None:
        if progress.source == "labs.csv" and progress.rows > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.take(progress=crash, batch_rows=100)
    assert site.rows("SELECT count(*) FROM measurement") == [(0,)]
    assert site.rows("SELECT source_name FROM fedtwin_load") == [("patients.csv",)]
    assert site.take().records == {"measurement": 503}


def test_progress_is_told(site: Site) -> None:
    told: list[Progress] = []
    site.take(progress=told.append, batch_rows=2)
    assert [(step.source, step.rows) for step in told] == [
        ("patients.csv", 2),
        ("labs.csv", 2),
        ("labs.csv", 3),
    ]
    assert all(0 <= step.bytes_done <= step.bytes_total for step in told)
    assert told[-1].events == 3


def test_compressed_files_and_byte_order_marks(site: Site) -> None:
    (site.folder / "labs.csv").unlink()
    (site.folder / "labs.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + RESULTS.encode()))
    assert site.take().records == {"measurement": 3}


def test_row_numbers_hold_across_blocks_of_the_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.ingest.delimited.BLOCK_BYTES", 500)
    wrong = {1, 2, 30, 31, 32, 400, 777, 999, 1000}
    lines = [f"A-1,2020-02-01 08:30,SBP,{row % 400},,V" for row in range(1, 1001)]
    site.write(
        "labs.csv",
        "\n".join([LABS_HEADER, *("A-1,short" if n in wrong else line for n, line in enumerate(lines, 1))]),
    )
    site.take()
    assert {row for _, row, *_ in site.quarantine()} == wrong
    mixed = site.rows(
        "SELECT count(*) FROM measurement JOIN fedtwin_provenance ON table_name = 'measurement'"
        " AND record_id = measurement_id WHERE value_as_number != source_row % 400"
    )
    assert mixed == [(0,)]
    assert site.rows("SELECT count(*) FROM measurement") == [(1000 - len(wrong),)]


@pytest.mark.parametrize("content", ["", RESULTS.splitlines()[0], RESULTS.splitlines()[0] + "\n"])
def test_a_file_without_rows_is_no_error(site: Site, content: str) -> None:
    site.write("labs.csv", content)
    assert files(site.take())[1].rows == 0


def test_what_cannot_be_read_is_said_without_quoting_it(site: Site) -> None:
    for content in (
        RESULTS.replace("value", "amount"),
        RESULTS.replace("unit,visit", "unit,unit"),
        RESULTS.replace("mrn,", "m\rn,", 1),  # a history: Python's csv.Error came through
    ):
        (site.folder / "labs.csv").write_bytes(content.encode("latin-1"))
        report = site.take(again=Again.REPLACE)
        (one,) = [one for one in report.sources if one.unreadable]
        assert (one.source, one.records_in, one.stored, one.quarantined) == ("labs.csv", 0, 0, 0)
        assert "A-1" not in str(one)
    assert site.rows("SELECT count(*) FROM measurement") == [(0,)]


def test_a_file_that_cannot_be_read_leaves_the_others_and_what_it_gave_before(site: Site) -> None:
    (site.folder / "labs.csv").rename(site.folder / "labs1.csv")
    site.take()
    before = site.rows("SELECT count(*) FROM measurement")
    site.write("labs1.csv", RESULTS.replace("value", "amount"))
    site.write("labs2.csv", RESULTS.replace("142", "143"))
    report = site.take(again=Again.REPLACE)
    assert [one.unreadable for one in report.sources if one.unreadable] == [
        "the mapping's column 'value' is not in the header"
    ]
    assert {one.source for one in report.fresh if not one.unreadable} == {"labs2.csv"}
    (more,) = site.rows("SELECT count(*) FROM measurement")[0]
    assert more == 2 * before[0][0]
    assert all(one.records_in == one.stored + one.quarantined for one in report.sources)
    site.write("labs1.csv", RESULTS)  # it was mended
    assert not any(one.unreadable for one in site.take(again=Again.REPLACE).sources)
    assert site.rows("SELECT count(*) FROM measurement") == [(more,)]


def test_a_row_that_is_no_text_is_turned_away_and_the_others_are_not(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    """A history: Arrow told of such a row on standard error where it was too long as well."""
    rows = (
        b"A-1,2020-02-01 08:30,SBP,142,mm[Hg],V1",
        b"A-1,2020-02-01 08:30,SBP,142,\xff\xfe,Smith",
        b"A-1,2020-02-01 08:30,SBP,142,\xff\xfe,Smith,too many",
        b"A-1,2020-02-02 08:30,SBP,143,mm[Hg],V1",
    )
    (site.folder / "labs.csv").write_bytes(b"\n".join([LABS_HEADER.encode(), *rows, b""]))
    report = site.take()
    assert (files(report)[1].rows, files(report)[1].loaded) == (4, 2)
    assert {(row, reason) for _, row, _, reason, whole in site.quarantine() if whole} == {
        (2, "not-text"),
        (3, "wrong-number-of-fields"),
    }
    assert "".join(capfd.readouterr()) == ""


def test_a_damaged_archive_is_said_to_be_one(site: Site) -> None:
    (site.folder / "labs.csv").unlink()
    packed = gzip.compress(RESULTS.encode())
    for damaged in (packed[:-9], packed[:40] + b"\x00" * 20 + packed[60:], b"\x1f\x8b" + packed):
        (site.folder / "labs.csv.gz").write_bytes(damaged)
        (one,) = [one for one in site.take(again=Again.REPLACE).sources if one.unreadable]
        assert "damaged" in str(one.unreadable)


def test_files_without_a_mapping_are_named_and_a_lone_one_is_an_error(site: Site) -> None:
    site.write("other.dat", "1,2\n")
    assert site.take().without_reader == ("other.dat",)
    with pytest.raises(NoMapping, match=r"other\.dat"):
        site.take(site.folder / "other.dat")


def test_a_mapping_handed_in_needs_no_pattern(site: Site) -> None:
    site.take(site.folder / "patients.csv")
    odd = site.write("odd name.tsv", RESULTS.replace(",", "\t"))
    mapping = parse_mapping(LABS.replace('name = "labs"', 'name = "l"\ndelimiter = "\\t"').encode(), file="x")
    report = site.take(odd, [mapping])
    assert report.records == {"measurement": 3}
