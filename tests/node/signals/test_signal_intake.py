"""Raw samples are a set per person and day; summaries follow what is known, in any order."""

import itertools
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from node.ingest.errors import MalformedMapping, UnreadableSource
from node.ingest.readers.apple_health import AppleHealth
from node.ingest.readers.cgm import Cgm
from node.ingest.readers.fitbit import Fitbit
from node.ingest.registry import READERS
from node.omop.store import OmopStore
from node.signals.belonging import Whose, parse, whose
from node.signals.clocks import WallClock, offsets_of_utc
from node.signals.kinds import SIGNALS, UNITS
from node.signals.raw import RawSamples
from tests.node.made_facts import CLOCK, ENTRIES, hospital, person
from tests.node.signals.made_signals import Ward, dexcom, export, fitbit_heart, hearts, last, record

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path / "node")


def put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_an_hour_and_a_day_of_heart_rate(ward: Ward, tmp_path: Path) -> None:
    rates = [("10:00:00", 60), ("10:20:00", 80), ("10:40:00", 70), ("23:30:00", 50)]
    taken = ward.take(AppleHealth(), put(tmp_path, "export.xml", export(*hearts("2024-03-01", rates))))
    hour = "2024-03-01T10+60"
    assert taken.value("heart_rate.mean.hour", hour) == 70
    assert taken.value("heart_rate.sd.hour", hour) == 10
    assert taken.value("heart_rate.min.hour", hour) == 60
    assert taken.value("heart_rate.max.hour", hour) == 80
    assert taken.value("heart_rate.count.hour", hour) == 3
    assert taken.value("heart_rate.coverage.hour", hour) == 50  # three of six bins of ten minutes
    assert taken.value("heart_rate.mean.day", "2024-03-01") == 65
    assert taken.value("heart_rate.coverage.day", "2024-03-01") == pytest.approx(100 * 4 / 144)
    one = next(row for row in taken.rows() if row["key"] == f"signals/heart_rate.mean.hour/{hour}")
    assert one["start"] == datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert one["end"] == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert one["utc_offset_min"] == 60
    assert [code["code"] for code in one["codes"]] == ["8867-4", "heart_rate.mean.hour"]
    assert (one["patient"], one["patient_namespace"], one["unit"]) == ("P-0042", "mrn", "/min")
    sd = next(row for row in taken.rows() if row["place"] == "heart_rate.sd.day")
    assert [code["code"] for code in sd["codes"]] == ["heart_rate.sd.day"]
    assert (sd["precision"], sd["start"]) == ("day", datetime(2024, 3, 1, tzinfo=UTC))


def test_a_day_east_of_greenwich_is_its_own_day(ward: Ward, tmp_path: Path) -> None:
    """The harmonizer takes a day's start for its date: 00:30 in Tokyo is 15:30 of the day before in UTC."""
    data = export(*hearts("2024-03-01", [("00:30:00", 60)], "+0900"))
    taken = ward.take(AppleHealth(), put(tmp_path, "export.xml", data))
    day = next(row for row in taken.rows() if row["place"] == "heart_rate.mean.day")
    assert day["start"] == datetime(2024, 3, 1, tzinfo=UTC)
    assert day["utc_offset_min"] is None


def test_no_name_date_or_serial_is_in_a_path_or_a_raw_sample(ward: Ward, tmp_path: Path) -> None:
    ward.take(AppleHealth(), put(tmp_path, "export.xml", export(*hearts("2024-03-01", [("10:00:00", 60)]))))
    person, shift = ward.person()
    ((key, rows),) = ward.stored().items()
    true_day = (datetime(2024, 3, 1) - datetime(1970, 1, 1)).days
    assert key == f"{person:016x}/{true_day + shift}"
    assert rows[0]["start"] == datetime(2024, 3, 1, 9) + timedelta(days=shift)
    files = [path for path in ward.raw._folder.rglob("*")]
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        assert not any(
            word in str(path.relative_to(ward.folder)) for word in ("0042", "2024-03-01", "export")
        )
        if path.is_file():
            raw = path.read_bytes()
            assert not any(word in raw for word in (b"P-0042", b"SECRET", b"Annas", b"0042"))


def test_a_second_load_changes_nothing(ward: Ward, tmp_path: Path) -> None:
    path = put(
        tmp_path, "export.xml", export(*hearts("2024-03-01", [("10:00:00", 60), ("10:05:00", 61)]) * 2)
    )
    first = ward.take(AppleHealth(), path)
    held = ward.stored()
    files = {file: file.read_bytes() for file in ward.raw._folder.rglob("*.parquet")}
    second = ward.take(AppleHealth(), path)
    assert first.facts.equals(second.facts)
    assert ward.stored() == held
    assert {file: file.read_bytes() for file in ward.raw._folder.rglob("*.parquet")} == files
    assert first.value("heart_rate.count.day") == 2


def test_late_samples_correct_their_windows_and_no_others(ward: Ward, tmp_path: Path) -> None:
    early = export(*hearts("2024-03-01", [("10:00:00", 60), ("14:00:00", 90)]))
    late = export(*hearts("2024-03-01", [("10:30:00", 80)]))
    first = ward.take(AppleHealth(), put(tmp_path, "a.xml", early))
    second = ward.take(AppleHealth(), put(tmp_path, "b.xml", late))
    assert second.value("heart_rate.mean.hour") == 70  # the hour of 14 is not said again
    assert second.value("heart_rate.mean.day") == pytest.approx(230 / 3)
    held = last(first.rows() + second.rows())
    assert held["signals/heart_rate.mean.hour/2024-03-01T10+60"][1] == 70
    assert held["signals/heart_rate.mean.hour/2024-03-01T14+60"][1] == 90


def test_of_two_readings_of_one_moment_the_one_recorded_last_holds(ward: Ward, tmp_path: Path) -> None:
    when = "2024-03-01 10:00:00 +0100"
    first = export(record("HeartRate", when, 60, created="2024-03-01 10:00:00 +0100"))
    corrected = export(record("HeartRate", when, 64, created="2024-03-02 10:00:00 +0100"))
    for order in ((first, corrected), (corrected, first)):
        ward = Ward(ward.folder.with_name(f"n{order[0] is first}"))
        facts = [
            fact for data in order for fact in ward.take(AppleHealth(), put(tmp_path, "e.xml", data)).rows()
        ]
        assert last(facts)["signals/heart_rate.mean.hour/2024-03-01T10+60"][1] == 64
        assert [row["value"] for rows in ward.stored().values() for row in rows] == [64]


SAMPLE = st.tuples(
    st.sampled_from(["HeartRate", "StepCount", "OxygenSaturation"]),
    st.integers(0, 3 * 24 * 12 - 1),
    st.integers(31, 99),
    st.sampled_from(["+0100", "-0700", "+0545"]),
    st.integers(0, 2),
)


@settings(
    max_examples=10,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    files=st.lists(st.lists(SAMPLE, max_size=12), min_size=1, max_size=2), batch=st.sampled_from([1, 1000])
)
def test_files_in_any_order_and_twice_leave_the_same(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, int, str, int]]], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    paths = []
    for number, samples in enumerate(files):
        rows = []
        for kind, slot, value, offset, late in samples:
            start = datetime(2024, 3, 30, 22) + timedelta(minutes=5 * slot)
            clock = f"{start:%Y-%m-%d %H:%M:%S} {offset}"
            created = f"{start + timedelta(days=late):%Y-%m-%d %H:%M:%S} {offset}"
            unit = {"HeartRate": "count/min", "StepCount": "count", "OxygenSaturation": "%"}[kind]
            rows.append(record(kind, clock, value, unit=unit, created=created))
        paths.append(put(folder, f"{number}.xml", export(*rows)))
    ends = []
    for place, order in enumerate(itertools.permutations(paths)):
        ward = Ward(folder / f"node{place}")
        facts = []
        for path in (*order, *order[:1]):
            facts += ward.take(AppleHealth(), path, batch_records=batch).rows()
        ends.append((last(facts), ward.stored()))
    assert all(end == ends[0] for end in ends)


def test_a_damaged_file_leaves_nothing(ward: Ward, tmp_path: Path) -> None:
    whole = export(*hearts("2024-03-01", [(f"10:{minute:02d}:00", 60) for minute in range(50)]))
    with pytest.raises(UnreadableSource):
        ward.take(AppleHealth(), put(tmp_path, "export.xml", whole[:-40]), batch_records=1)
    assert not ward.stored()
    assert [path.name for path in ward.raw._folder.iterdir()] == [".lock"]


def test_a_file_that_is_nobodys_is_turned_away(ward: Ward, tmp_path: Path) -> None:
    ward.whose = Whose(None, "mrn", None)
    taken = ward.take(
        AppleHealth(), put(tmp_path, "e.xml", export(*hearts("2024-03-01", [("10:00:00", 60)])))
    )
    assert taken.reasons == {"no-patient": 1}
    assert not ward.stored()


def test_a_file_of_several_people_is_theirs(ward: Ward, tmp_path: Path) -> None:
    ward.whose = Whose(None, "mrn", None)
    lines = b"Id,Time,Value\n77,3/1/2024 7:21:00 AM,97\n78,3/1/2024 7:22:00 AM,98\n"
    taken = ward.take(Fitbit(), put(tmp_path, "heartrate_seconds_merged.csv", lines))
    means = [row for row in taken.rows() if row["place"] == "heart_rate.mean.day"]
    assert {(row["patient"], row["patient_namespace"], row["value_number"]) for row in means} == {
        ("77", "fitbit", 97),
        ("78", "fitbit", 98),
    }
    assert ward.raw.persons() == sorted(ward.person(name, "fitbit")[0] for name in ("77", "78"))


def test_who_withdraws_and_who_is_merged(ward: Ward, tmp_path: Path) -> None:
    path = put(tmp_path, "e.xml", export(*hearts("2024-03-01", [("10:00:00", 60)])))
    ward.take(AppleHealth(), path)
    person, shift = ward.person()
    into, other_shift = ward.person("P-0001")
    with ward.raw.writing():
        ward.raw.merge(person, into, days=other_shift - shift)
    assert ward.raw.persons() == [into]
    ((_, rows),) = ward.stored().items()
    assert rows[0]["start"] == datetime(2024, 3, 1, 9) + timedelta(days=other_shift)
    ward.raw.forget(into)
    assert ward.raw.persons() == []


# Clocks


def test_the_hour_that_happens_twice_is_two_hours(ward: Ward, tmp_path: Path) -> None:
    ward.whose = Whose("P-0042", "mrn", BERLIN)
    clocks = ["02:30:00", "02:45:00", "02:00:00", "02:15:00", "03:00:00"]  # set back between :45 and :00
    lines = [(f"2024-10-27T{clock}", "EGV", 100 + place) for place, clock in enumerate(clocks)]
    taken = ward.take(Cgm(), put(tmp_path, "c.csv", dexcom(lines)))
    assert taken.value("glucose.mean.hour", "2024-10-27T02+120") == 100.5
    assert taken.value("glucose.mean.hour", "2024-10-27T02+60") == 102.5
    assert taken.value("glucose.count.day") == 5
    starts = sorted((row["start"], row["value"]) for rows in ward.stored().values() for row in rows)
    minutes = [(start - starts[0][0]) / timedelta(minutes=1) for start, _ in starts]
    assert minutes == [0, 15, 30, 45, 90]
    assert [value for _, value in starts] == [100, 101, 102, 103, 104]


def test_days_of_23_and_25_hours_are_covered_by_so_many(ward: Ward, tmp_path: Path) -> None:
    """A sample every quarter from midnight to midnight covers all of a day, however long it is."""
    ward.whose = Whose("P-0042", "mrn", BERLIN)
    beats = []
    for day in (datetime(2024, 3, 31), datetime(2024, 10, 27), datetime(2024, 6, 1)):
        begin = day.replace(tzinfo=BERLIN).astimezone(UTC)
        end = (day + timedelta(days=1)).replace(tzinfo=BERLIN).astimezone(UTC)
        beats += [
            (f"{begin + timedelta(minutes=10 * step):%m/%d/%y %H:%M:%S}", 60, 3)
            for step in range(int((end - begin) / timedelta(minutes=10)))
        ]
    taken = ward.take(Fitbit(), put(tmp_path, "heart_rate-2024.json", fitbit_heart(beats)))
    for day, samples in (("2024-03-31", 23 * 6), ("2024-10-27", 25 * 6), ("2024-06-01", 24 * 6)):
        assert taken.value("heart_rate.coverage.day", day) == 100
        assert taken.value("heart_rate.count.day", day) == samples


@given(
    hour=st.integers(0, 24 * 366 - 1),
    minute=st.integers(0, 59),
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]
    ),
)
def test_a_moment_survives_the_wall_where_the_clock_is_not_ambiguous(
    hour: int, minute: int, zone: str
) -> None:
    name = ZoneInfo(zone)
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)
    micros = np.array([int(moment.timestamp()) * 1_000_000])
    offset = offsets_of_utc(micros, name)
    assert offset[0] == moment.astimezone(name).utcoffset() / timedelta(minutes=1)
    wall = micros + offset * 60_000_000
    back = WallClock(name).offsets(wall)
    local = moment.astimezone(name).replace(tzinfo=None)
    ambiguous = (
        local.replace(tzinfo=name, fold=0).utcoffset() != local.replace(tzinfo=name, fold=1).utcoffset()
    )
    assert ambiguous or back[0] == offset[0]


# What the summaries say


def test_time_in_range_is_battelinos(ward: Ward, tmp_path: Path) -> None:
    values = [50, 60, 69, 70, 100, 140, 180, 181, 250, 300]
    lines = [(f"2024-03-01T10:{place:02d}:00", "EGV", value) for place, value in enumerate(values)]
    taken = ward.take(Cgm(), put(tmp_path, "c.csv", dexcom(lines)))
    assert taken.value("glucose.tir.day") == 40
    assert taken.value("glucose.below_70.day") == 30
    assert taken.value("glucose.below_54.day") == 10
    assert taken.value("glucose.above_180.day") == 30
    assert taken.value("glucose.above_250.day") == 10
    assert taken.value("glucose.cv.day") == pytest.approx(
        100 * np.std(values, ddof=1) / np.mean(values), abs=1e-6
    )


def test_a_circadian_wave_is_found_and_half_a_day_is_not_enough(ward: Ward, tmp_path: Path) -> None:
    def wave(day: str, hours: int) -> list[str]:
        clocks = [(f"{h:02d}:{m:02d}:00", h + m / 60) for h in range(hours) for m in range(0, 60, 10)]
        return hearts(day, [(clock, 70 + 8 * np.cos(2 * np.pi * (at - 16) / 24)) for clock, at in clocks])

    data = export(*wave("2024-03-01", 24), *wave("2024-03-02", 12))
    taken = ward.take(AppleHealth(), put(tmp_path, "e.xml", data))
    assert taken.value("heart_rate.amplitude.day") == pytest.approx(8, abs=0.05)  # hourly means round it off
    assert taken.value("heart_rate.acrophase.day") == pytest.approx(16, abs=0.1)
    assert taken.value("heart_rate.mesor.day") == pytest.approx(70, abs=0.05)
    lowest = np.mean([70 + 8 * np.cos(2 * np.pi * (4 + m / 60 - 16) / 24) for m in (0, 10, 20)])
    assert taken.value("heart_rate.resting.day", "2024-03-01") == pytest.approx(lowest, abs=1e-6)


def test_a_phone_and_a_watch_do_not_walk_twice(ward: Ward, tmp_path: Path) -> None:
    def steps(clock: str, count: int, device: str) -> str:
        return record("StepCount", f"2024-03-01 {clock} +0100", count, unit="count", device=device)

    data = export(
        steps("10:00:00", 100, "Watch"),
        steps("10:20:00", 50, "Watch"),
        steps("10:05:00", 120, "iPhone"),
        steps("11:00:00", 10, "iPhone"),
    )
    taken = ward.take(AppleHealth(), put(tmp_path, "e.xml", data))
    assert taken.value("steps.total.hour", "2024-03-01T10+60") == 150
    assert taken.value("steps.total.day") == 160
    day = next(row for row in taken.rows() if row["place"] == "steps.total.day")
    assert day["codes"][0]["code"] == "41950-7"


def test_sleep_belongs_to_the_day_of_waking(ward: Ward, tmp_path: Path) -> None:
    data = export(
        '<Record type="HKCategoryTypeIdentifierSleepAnalysis" value="HKCategoryValueSleepAnalysisAsleepCore"'
        ' startDate="2024-03-01 23:00:00 +0100" endDate="2024-03-02 06:00:00 +0100"/>'
    )
    taken = ward.take(AppleHealth(), put(tmp_path, "e.xml", data))
    assert taken.value("sleep.total.day", "2024-03-02") == 420


def test_variability_is_of_beats_that_follow_one_another(ward: Ward, tmp_path: Path) -> None:
    def beat(rate: float, clock: str) -> str:
        return f'<InstantaneousBeatsPerMinute bpm="{rate}" time="{clock}"/>'

    beats = beat(60, "10:00:01.00") + beat(60_000 / 1100, "10:00:02.10") + beat(60_000 / 900, "10:05:00.00")
    data = export(record("HeartRateVariabilitySDNN", "2024-03-01 10:00:00 +0100", 40, unit="ms", inner=beats))
    taken = ward.take(AppleHealth(), put(tmp_path, "e.xml", data))
    assert taken.value("rr_interval.rmssd.hour") == pytest.approx(100, abs=1e-3)  # the third is minutes later
    assert taken.value("rr_interval.sdnn.hour") == pytest.approx(100, abs=1e-3)
    assert taken.value("hrv_sdnn.mean.day") == 40


def test_every_signal_has_a_unit_that_is_its_own(ward: Ward) -> None:
    for signal in SIGNALS.values():
        assert UNITS[signal.unit][signal.unit] == (1.0, 0.0)
        assert signal.low < signal.high


# Whose a file is


def test_signals_toml_says_whose_files_are(tmp_path: Path) -> None:
    (tmp_path / "signals.toml").write_text(
        '[source]\nnamespace = "study"\ntimezone = "Europe/Berlin"\n'
        '[patients]\n"export.xml" = "7"\n"anna/*" = "8"\n'
    )
    (tmp_path / "anna" / "fitbit").mkdir(parents=True)
    assert whose(tmp_path / "export.xml") == Whose("7", "study", BERLIN)
    assert whose(tmp_path / "anna" / "fitbit" / "steps-1.json") == Whose("8", "study", BERLIN)
    assert whose(tmp_path / "other.xml").patient is None


@pytest.mark.parametrize(
    "text",
    [
        "[",
        '[source]\nzone = "UTC"',
        '[source]\ntimezone = "Mars/Base"',
        '[source]\ntimezone = "../../etc/passwd"',
        '[patients]\n"a" = 7',
        '[people]\n"a" = "7"',
        '[source]\nnamespace = ""',
    ],
)
def test_a_wrong_signals_toml_is_an_error(text: str) -> None:
    with pytest.raises(MalformedMapping):
        parse(text.encode())


# Into the store


def test_signals_come_into_the_store_and_the_books_are_balanced(ward: Ward, tmp_path: Path) -> None:
    from node.ingest.pipeline import Pipeline

    folder = tmp_path / "files"
    put(folder, "signals.toml", b'[patients]\n"*" = "P-0042"\n')
    put(folder, "people.facts", json.dumps([person("P-0042")]).encode())
    put(
        folder,
        "export.xml",
        export(*hearts("2024-03-01", [("10:00:00", 60), ("10:30:00", 80)]), '<Workout a="b"/>'),
    )
    (tmp_path / "home").mkdir()
    names = ("apple-health", "fitbit", "cgm", "wfdb-numerics")
    readers = (*ENTRIES, *(entry for entry in READERS if entry.name in names))
    assert len(readers) == 5
    with OmopStore.open(tmp_path / "home" / "omop.duckdb") as store:
        report = Pipeline(store, ward.vault, CLOCK, readers=readers).ingest([folder])
        source, _ = report.sources
        assert (source.records_in, source.stored, source.quarantined) == (3, 2, 1)
        assert source.reasons == {"not-a-signal": 1}
        rows = store.connection.con.execute(
            "SELECT measurement_source_value, value_as_number, person_id FROM measurement"
        ).fetchall()
        late = put(folder, "later_export.xml", export(*hearts("2024-03-01", [("10:45:00", 100)])))
        Pipeline(store, ward.vault, CLOCK, readers=readers).ingest([folder])
        counted = store.connection.con.execute(
            "SELECT value_as_number FROM measurement WHERE value_as_number IN (70, 80) AND"
            " measurement_source_value LIKE '%8867-4%'"
        ).fetchall()
        raw = tmp_path / "home" / "signals" / f"{ward.person()[0]:016x}"
        assert raw.is_dir()
        leaves = put(
            tmp_path, "leaves.facts", b'[{"kind": "person", "action": "withdraw", "patient": "P-0042"}]'
        )
        Pipeline(store, ward.vault, CLOCK, readers=readers).ingest([leaves])
        assert store.connection.con.execute("SELECT count(*) FROM measurement").fetchall() == [(0,)]
        assert not raw.exists()
    assert late.is_file()
    assert {row[2] for row in rows} == {ward.person()[0]}
    assert counted == [(80.0,)]  # (60 + 80 + 100) / 3 in place of 70


def test_who_wears_what_may_lie_beside_the_files_that_a_node_takes_in(tmp_path: Path) -> None:
    """A history: what says whose signals are was taken for a mapping, and the whole ingest refused."""
    site = hospital(tmp_path, words=False)
    put(site.folder, "export.xml", export(*hearts("2024-03-01", [("10:00:00", 60)])))
    said = '[source]\nnamespace = "mrn"\ntimezone = "Europe/Berlin"\n[patients]\n"export.xml" = "0042"\n'
    put(site.folder, "signals.toml", said.encode())
    (report,) = site.take(readers=READERS).sources
    assert (report.records_in, report.stored, report.reasons) == (1, 1, {})
    site.store.close()
    site.vault.close()


def test_raw_samples_follow_a_merge(tmp_path: Path) -> None:
    site = hospital(tmp_path, words=False)
    put(site.folder, "export.xml", export(*hearts("2024-03-01", [("10:00:00", 60), ("10:30:00", 80)])))
    put(site.folder, "signals.toml", b'[source]\nnamespace = "mrn"\n[patients]\n"export.xml" = "P"\n')
    apple = tuple(entry for entry in READERS if entry.name == "apple-health")
    site.write("a", [person("P"), person("Q")])
    site.take(readers=(*ENTRIES, *apple))
    raw = RawSamples(tmp_path / "signals")
    (day,) = raw.days(site.person_id("P"))
    before = raw.day(site.person_id("P"), day)
    assert before.num_rows == 2
    merge = {"action": "merge", "kind": "person", "patient": "P", "other_patient": "Q"}
    site.take(site.write("b", [merge]))
    assert raw.persons() == [site.person_id("Q")]
    shifts = site.vault.pseudonyms(["P", "Q"], namespace="mrn").shift_days.tolist()
    (moved,) = raw.days(site.person_id("Q"))
    assert moved - day == shifts[1] - shifts[0]
    assert raw.day(site.person_id("Q"), moved)["value"].equals(before["value"])
    site.store.close()
    site.vault.close()
