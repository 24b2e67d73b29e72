"""Files of wearables and monitors become samples; what is none is turned away with a reason, never quoted."""

import gzip
import json
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.readers.apple_health import AppleHealth
from node.ingest.readers.cgm import Cgm
from node.ingest.readers.fitbit import Fitbit
from node.ingest.readers.wfdb_numerics import WfdbNumerics
from node.signals.samples import SignalReader
from tests.node.signals.made_signals import dexcom, export, fitbit_heart, hearts, libre, record, wfdb


def read(
    reader: SignalReader, path: Path, *, batch_records: int = 1000
) -> tuple[list[dict[str, Any]], Counter[str], int]:
    """All samples, reasons and the number of records; the books are balanced on the way."""
    samples: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    records = 0
    seen: set[int] = set()
    for batch in reader.samples(path, batch_records=batch_records):
        rows = batch.samples.to_pylist()
        numbers = [row["record"] for row in rows] + [item.record for item in batch.turned_away]
        assert len(numbers) == len(set(numbers)) == batch.records
        assert seen.isdisjoint(numbers)
        seen.update(numbers)
        samples += rows
        reasons.update(item.reason for item in batch.turned_away)
        records += batch.records
    assert seen == set(range(1, records + 1))
    return samples, reasons, records


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Apple Health


def test_an_export_gives_samples_in_canonical_units(tmp_path: Path) -> None:
    path = write(
        tmp_path / "export.xml",
        export(
            record("HeartRate", "2024-03-01 10:00:00 +0100", 61),
            record("OxygenSaturation", "2024-03-01 10:00:00 +0100", 0.97, unit="%"),
            record("BodyMass", "2024-03-01 10:00:00 +0100", 150, unit="lb"),
            record("BloodGlucose", "2024-03-01 10:00:00 +0100", 5.5, unit="mmol&lt;180.1558800000541&gt;/L"),
            record("BodyTemperature", "2024-03-01 10:00:00 +0100", 98.6, unit="degF"),
            record(
                "StepCount", "2024-03-01 10:00:00 +0100", 12, unit="count", end="2024-03-01 10:05:00 +0100"
            ),
        ),
    )
    assert AppleHealth().reads(path)
    samples, reasons, _ = read(AppleHealth(), path)
    values = {row["signal"]: row["value"] for row in samples}
    assert values == pytest.approx(
        {
            "heart_rate": 61,
            "spo2": 97,
            "body_weight": 68.0388555,
            "blood_glucose": 99.0858,
            "body_temperature": 37.0,
            "steps": 12,
        }
    )
    assert not reasons
    steps = next(row for row in samples if row["signal"] == "steps")
    assert steps["start"] == datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert steps["end"] == datetime(2024, 3, 1, 9, 5, tzinfo=UTC)
    assert steps["utc_offset_min"] == 60
    assert {row["device"] for row in samples} == {"watch"}


def test_what_is_no_sample_is_turned_away_by_reason(tmp_path: Path) -> None:
    good = "2024-03-01 10:00:00 +0100"
    path = write(
        tmp_path / "export.xml",
        export(
            record("HeartRate", good, "many"),
            record("HeartRate", good, 900),
            record("HeartRate", "yesterday", 60),
            record("HeartRate", "2024-02-30 10:00:00 +0100", 60),
            record("HeartRate", "2024-03-01 10:00:00 +9900", 60),
            record("HeartRate", good, 60, unit="furlong"),
            record("HeartRate", good, 60, end="2024-03-01 09:00:00 +0100"),
            record("DietaryWater", good, 60),
            '<Workout workoutActivityType="x"><WorkoutRoute/></Workout>',
            record("HeartRate", "", 60),
            record("HeartRate", good, "nan"),
        ),
    )
    samples, reasons, records = read(AppleHealth(), path)
    assert not samples
    assert records == 11
    assert reasons == {
        "not-a-number": 2,
        "implausible-value": 1,
        "not-a-time": 3,
        "unknown-unit": 1,
        "ends-before-it-starts": 1,
        "not-a-signal": 2,
        "no-time": 1,
    }


def test_sleep_beats_and_what_a_person_typed(tmp_path: Path) -> None:
    night = 'startDate="2024-03-01 23:00:00 +0100" endDate="2024-03-02 01:30:00 +0100"'
    sleep = 'type="HKCategoryTypeIdentifierSleepAnalysis" value="HKCategoryValueSleepAnalysis'
    beats = (
        "<HeartRateVariabilityMetadataList>"
        '<InstantaneousBeatsPerMinute bpm="60" time="11:59:59.50 PM"/>'
        '<InstantaneousBeatsPerMinute bpm="50" time="12:00:01.00 AM"/>'
        '<InstantaneousBeatsPerMinute bpm="50" time="noon"/>'
        "</HeartRateVariabilityMetadataList>"
    )
    path = write(
        tmp_path / "export.xml",
        export(
            f'<Record {sleep}AsleepDeep" {night}/>',
            f'<Record {sleep}InBed" {night}/>',
            record("HeartRateVariabilitySDNN", "2024-03-01 23:59:58 +0100", 40, unit="ms", inner=beats),
            record(
                "BodyMass",
                "2024-03-01 10:00:00 +0100",
                70,
                unit="kg",
                inner='<MetadataEntry key="HKWasUserEntered" value="1"/>',
            ),
        ),
    )
    for batch_records in (1, 1000):
        samples, reasons, _ = read(AppleHealth(), path, batch_records=batch_records)
        by_signal = {row["signal"]: row for row in samples}
        assert by_signal["sleep"]["value"] == 150
        assert by_signal["body_weight"]["device"] == "manual"
        intervals = [(row["value"], row["start"]) for row in samples if row["signal"] == "rr_interval"]
        assert intervals == [
            (1000.0, datetime(2024, 3, 1, 22, 59, 59, 500_000, tzinfo=UTC)),
            (1200.0, datetime(2024, 3, 1, 23, 0, 1, tzinfo=UTC)),
        ]
        assert reasons == {"not-a-signal": 1, "not-a-time": 1}


def test_a_small_batch_gives_the_same_as_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.ingest.readers.apple_health_xml.CHUNK", 512)
    clocks = [
        (f"{hour:02d}:{minute:02d}:00", 60 + minute) for hour in range(10) for minute in range(0, 60, 5)
    ]
    path = write(tmp_path / "export.xml", export(*hearts("2024-03-01", clocks), '<Workout a="b"/>'))
    small, large = read(AppleHealth(), path, batch_records=1), read(AppleHealth(), path)
    assert small == large
    assert len(large[0]) == 120


def test_the_zip_of_the_phone_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("apple_health_export/export_cda.xml", "<ClinicalDocument/>")
        archive.writestr("apple_health_export/export.xml", export(*hearts("2024-03-01", [("10:00:00", 60)])))
        archive.writestr("../../etc/passwd", "x")
    before = sorted(tmp_path.iterdir())
    assert AppleHealth().reads(path)
    assert len(read(AppleHealth(), path)[0]) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_zip_bomb_is_refused_before_it_fills_anything(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("export.xml", "w") as file:
        file.write(b"<HealthData>")
        for _ in range(64):
            file.write(b" " * (1 << 20))
        file.write(b"</HealthData>")
    with pytest.raises(UnreadableSource, match="far more"):
        read(AppleHealth(), path)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE HealthData [<!ENTITY a "SECRET"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE HealthData [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE HealthData [<!ENTITY % p SYSTEM "http://10.0.0.1/x.dtd"> %p;]>',
    ],
)
def test_xml_entities_are_refused(tmp_path: Path, doctype: str) -> None:
    path = write(tmp_path / "export.xml", export(record("HeartRate", "x", "&a;"), doctype=doctype))
    with pytest.raises(UnreadableSource) as caught:
        read(AppleHealth(), path)
    assert "SECRET" not in str(caught.value)


def test_an_entity_nobody_declared_and_an_external_dtd_lead_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path / "export.xml", export(record("HeartRate", "x", "&a;"), doctype=""))
    with pytest.raises(UnreadableSource):
        read(AppleHealth(), path)
    beats = hearts("2024-03-01", [("10:00:00", 60)])
    outside = export(*beats, doctype='<!DOCTYPE HealthData SYSTEM "http://10.0.0.1/x.dtd">')
    assert len(read(AppleHealth(), write(path, outside))[0]) == 1


def test_the_malformed_document_type_of_some_phones_is_read(tmp_path: Path) -> None:
    broken = "<!DOCTYPE HealthData [\n<!ATTLIST Record\n  device CDATA #IMPLIED\n<!ELEMENT broken\n]>\n"
    path = write(tmp_path / "export.xml", export(*hearts("2024-03-01", [("10:00:00", 60)]), doctype=broken))
    assert len(read(AppleHealth(), path)[0]) == 1


def test_an_element_without_an_end_does_not_fill_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "export.xml", b"<HealthData><Record type='" + b"a" * (16 << 20))
    with pytest.raises(UnreadableSource, match="without an end"):
        read(AppleHealth(), path)


def test_damage_anywhere_is_an_error_without_content(tmp_path: Path) -> None:
    whole = export(*hearts("2024-03-01", [(f"10:{minute:02d}:00", 60) for minute in range(30)]))
    for cut in range(40, len(whole) - 14, 211):
        for damaged in (whole[:cut], whole[:cut] + b"<\x00&\xff" + whole[cut + 4 :]):
            path = write(tmp_path / "export.xml", damaged)
            with pytest.raises(UnreadableSource) as caught:
                read(AppleHealth(), path)
            assert "Annas" not in str(caught.value)
            assert "SECRET" not in str(caught.value)


# Glucose monitors


def test_dexcom_gives_glucose_and_not_the_name_above_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clarity.csv",
        dexcom(
            [
                ("2024-03-01T10:00:00", "EGV", 100),
                ("2024-03-01T10:05:00", "EGV", "Low"),
                ("2024-03-01T10:10:00", "EGV", "High"),
                ("2024-03-01T10:15:00", "Calibration", 99),
                ("2024-03-01T10:20:00", "Insulin", ""),
                ("yesterday", "EGV", 100),
                ("", "EGV", 100),
                ("2024-03-01T10:25:00", "EGV", "?"),
            ]
        ),
    )
    assert Cgm().reads(path)
    samples, reasons, records = read(Cgm(), path)
    assert [(row["signal"], row["value"]) for row in samples] == [
        ("glucose", 100),
        ("glucose", 40),
        ("glucose", 400),
        ("blood_glucose", 99),
    ]
    assert records == 9
    assert reasons == {"not-a-signal": 2, "not-a-time": 1, "no-time": 1, "not-a-number": 1}
    assert samples[0]["utc_offset_min"] is None


def test_millimoles_are_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", dexcom([("2024-03-01T10:00:00", "EGV", 5.5)], unit="mmol/L"))
    assert read(Cgm(), path)[0][0]["value"] == pytest.approx(99.0858)
    path = write(
        tmp_path / "l.csv",
        libre([("2024-03-01 10:00", "0", "5,5")], unit="mmol/L").replace(b"5,5", b'"5,5"', 1),
    )
    assert read(Cgm(), path)[0][0]["value"] == pytest.approx(99.0858)


def test_freestyles_order_of_day_and_month_is_told_from_the_whole_file(tmp_path: Path) -> None:
    quarters = [
        (day, f"{hour:02d}:{minute:02d}")
        for day in (11, 12)
        for hour in range(24)
        for minute in (0, 15, 30, 45)
    ]
    for written in ("%m/{d}/%y", "{d}-%m-%Y"):
        lines = [
            (datetime(2024, 3, 1).strftime(written.replace("{d}", f"{day:02d}")) + f" {clock}", "0", 100)
            for day, clock in quarters
        ]
        samples = read(Cgm(), write(tmp_path / "libre.csv", libre(lines)))[0]
        assert samples[0]["start"] == datetime(2024, 3, 11, tzinfo=UTC)
        assert samples[-1]["start"] == datetime(2024, 3, 12, 23, 45, tzinfo=UTC)


def test_a_file_that_leaves_day_and_month_open_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "libre.csv", libre([("03/04/2024 10:00", "0", 100), ("03/04/2024 10:15", "1", 90)])
    )
    with pytest.raises(UnreadableSource, match="day and month"):
        read(Cgm(), path)


def test_a_csv_of_anything_else_is_not_for_this_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "labs.csv", b"mrn,taken_at,result\n1,2024-03-01,5\n")
    assert not any(reader.reads(path) for reader in (Cgm(), Fitbit(), AppleHealth(), WfdbNumerics()))


# Fitbit


def test_fitbits_heart_rate_is_in_utc_and_says_when_it_did_not_measure(tmp_path: Path) -> None:
    path = write(
        tmp_path / "heart_rate-2024-03-01.json",
        fitbit_heart([("03/01/24 00:00:05", 62, 2), ("03/01/24 00:00:10", 70, 0), ("soon", 62, 3)]),
    )
    assert Fitbit().reads(path)
    batch = next(iter(Fitbit().samples(path, batch_records=10)))
    assert not batch.wall_clock
    samples, reasons, _ = read(Fitbit(), path)
    assert [(row["value"], row["start"]) for row in samples] == [
        (62, datetime(2024, 3, 1, 0, 0, 5, tzinfo=UTC))
    ]
    assert reasons == {"no-confidence": 1, "not-a-time": 1}


def test_fitbits_other_files(tmp_path: Path) -> None:
    files: dict[str, bytes] = {
        "steps-2024-03-01.json": json.dumps([{"dateTime": "03/01/24 00:01:00", "value": "17"}]).encode(),
        "sleep-2024-03-01.json": json.dumps(
            [
                {
                    "logId": 1,
                    "startTime": "2024-03-01T23:10:00.000",
                    "endTime": "2024-03-02T06:40:00.000",
                    "minutesAsleep": 400,
                }
            ]
        ).encode(),
        "resting_heart_rate-2024.json": json.dumps(
            [
                {"dateTime": "03/01/24 00:00:00", "value": {"date": "03/01/24", "value": 58.5}},
                {"dateTime": "03/02/24 00:00:00", "value": {"date": None, "value": 0.0}},
            ]
        ).encode(),
        "Minute SpO2 - 2024-03-01.csv": b"timestamp,value\n"
        b"2024-03-01T06:11:00Z,95.3\n2024-03-01T06:12:00Z,\n",
        "Heart Rate Variability Details - 2024-03-01.csv": (
            b"timestamp,rmssd,coverage,low_frequency,high_frequency\n2024-03-01T02:05:00,44.1,0.9,1,2\n"
        ),
        "heartrate_seconds_merged.csv": b"Id,Time,Value\n"
        b"77,3/1/2024 7:21:00 AM,97\n78,3/1/2024 7:21:00 PM,98\n",
    }
    found: dict[str, Any] = {}
    for name, data in files.items():
        path = write(tmp_path / name, data)
        assert Fitbit().reads(path), name
        samples, reasons, _ = read(Fitbit(), path)
        found[name.split("-")[0].split("_m")[0].strip()] = [
            (row["signal"], row["value"], row["patient"]) for row in samples
        ] + list(reasons)
    assert found == {
        "steps": [("steps", 17, None)],
        "sleep": [("sleep", 400, None)],
        "resting_heart_rate": [("resting_heart_rate", 58.5, None), "no-value"],
        "Minute SpO2": [("spo2", 95.3, None), "no-value"],
        "Heart Rate Variability Details": [("hrv_rmssd", 44.1, None)],
        "heartrate_seconds": [("heart_rate", 97, "77"), ("heart_rate", 98, "78")],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"[",
        b"{}",
        b"[1, null, []]",
        b'[{"dateTime": {}}]',
        b'[{"dateTime": "03/01/24 00:00:05", "value": null}]',
        b'[{"dateTime": "03/01/24 00:00:05", "value": {"bpm": "x"}}]',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_strange_json_gives_no_sample_and_no_crash(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "heart_rate-2024-03-01.json", data)
    try:
        samples, _, _ = read(Fitbit(), path)
    except UnreadableSource:
        return
    assert not samples


def test_gzip_is_unpacked_and_a_bomb_of_it_refused(tmp_path: Path) -> None:
    path = tmp_path / "heart_rate-2024-03-01.json.gz"
    path.write_bytes(gzip.compress(fitbit_heart([("03/01/24 00:00:05", 62, 2)])))
    assert len(read(Fitbit(), path)[0]) == 1
    path.write_bytes(gzip.compress(b"[" + b" " * (64 << 20)))
    with pytest.raises(UnreadableSource, match="far more"):
        read(Fitbit(), path)
    path.write_bytes(gzip.compress(b"[]")[:-4])
    with pytest.raises(UnreadableSource, match="unpacked"):
        read(Fitbit(), path)


# WFDB


def test_numerics_are_scaled_and_gaps_turned_away(tmp_path: Path) -> None:
    path = wfdb(tmp_path, [[600, 970, 5], [-32768, 0, 6]], ["HR", "SpO2", "Mystery"], gain="10/bpm")
    path.write_text(path.read_text().replace("10/bpm 16 0 970", "10/% 16 0 970"))
    assert WfdbNumerics().reads(path)
    samples, reasons, records = read(WfdbNumerics(), path)
    assert records == 6
    assert [(row["record"], row["signal"], row["value"]) for row in samples] == [
        (1, "heart_rate", 60.0),
        (2, "spo2", 97.0),
    ]
    assert reasons == {"no-value": 1, "implausible-value": 1, "not-a-signal": 2}
    assert samples[0]["start"] == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert samples[0]["device"] == "monitor"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r1n.dat", "../r1n.dat"),
        ("r1n.dat", "/etc/passwd"),
        ("r1n.dat", "none.dat"),
        (" 16 10", " 212 10"),
        ("0.0166666666667/125", "125"),
        ("0.0166666666667/125", "nan"),
        ("r1n 1", "r1n/3 1"),
        ("r1n 1", "r1n 9"),
        (" 2 10:00", " 3 10:00"),
        (" 1210 0", " 1211 0"),
        ("10:00:00 01/03/2024", ""),
        ("10:00:00", "99:99:99"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = wfdb(tmp_path, [[600], [610]], ["HR"])
    assert len(read(WfdbNumerics(), path)[0]) == 2
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UnreadableSource):
        read(WfdbNumerics(), path)


def test_a_link_in_place_of_the_data_is_refused(tmp_path: Path) -> None:
    path = wfdb(tmp_path, [[600], [610]], ["HR"])
    (tmp_path / "r1n.dat").rename(tmp_path / "elsewhere")
    (tmp_path / "r1n.dat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnreadableSource, match="missing"):
        read(WfdbNumerics(), path)


# What the shared examples give. The sums of the WFDB record are those of the `wfdb` package 4.3.1,
# less what no living person has (a heart rate of 11.5; zeros, which monitors write for nothing).


@pytest.mark.parametrize(
    ("file", "reader", "records", "signals", "reasons"),
    [
        (
            "wearables/apple_health_export.xml",
            AppleHealth(),
            5,
            {"body_mass_index": (1, 22.5312), "heart_rate": (1, 72)},
            {"not-a-signal": 3},
        ),
        ("wearables/test_file.csv", Cgm(), 2159, {"glucose": (2148, 240354)}, {"not-a-signal": 11}),
        ("wearables/test_file_freestyle.csv", Cgm(), 5260, {"glucose": (5210, 502324)}, {"not-a-signal": 50}),
        (
            "vitals/s00001-2896-10-10-00-31n.hea",
            WfdbNumerics(),
            19_360,
            {
                "heart_rate": (1889, 106444.8 - 11.5),
                "pulse_rate": (1573, 87716.1),
                "spo2": (1573, 152767.1),
                "nbp_systolic": (152, 20012),
                "nbp_diastolic": (152, 9805),
                "nbp_mean": (152, 13157),
                "abp_systolic": (7, 971.4),
                "abp_diastolic": (7, 478.1),
                "abp_mean": (8, 680.6),
            },
            {"implausible-value": 6604, "no-value": 5352},
        ),
    ],
)
def test_golden_summary_of_shared_files(
    shared_data: Path,
    file: str,
    reader: SignalReader,
    records: int,
    signals: dict[str, tuple[int, float]],
    reasons: dict[str, int],
) -> None:
    path = shared_data / file
    assert reader.reads(path)
    samples, away, count = read(reader, path)
    found = {
        signal: (
            len(values := [row["value"] for row in samples if row["signal"] == signal]),
            pytest.approx(sum(values)),
        )
        for signal in {row["signal"] for row in samples} - {"respiratory_rate"}
    }
    assert count == records
    assert found == signals
    assert away == reasons


@pytest.mark.parametrize("encoding", ["UTF-9", "idna", "utf-32", "\u202e"])
def test_an_export_in_an_encoding_that_nobody_knows_is_refused(tmp_path: Path, encoding: str) -> None:
    """A history: expat asks Python for encodings that it does not know, and Python's error came through."""
    good = export(*hearts("2024-03-01", [("10:00:00", 60)])).decode()
    path = write(tmp_path / "export.xml", good.replace("UTF-8", encoding, 1).encode())
    with pytest.raises(UnreadableSource):
        read(AppleHealth(), path)
