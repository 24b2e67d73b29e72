"""Series of images are events of a patient's timeline, with their record time, provenance and export."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("pydicom")

from node.ingest.registry import READERS
from node.provenance import NoSuchRecord, trace
from node.timeline import hidden_events, timeline
from node.timeline_copy import copy_events
from node.timeline_meds import export
from node.timeline_sql import Copied, Scope, filled
from node.timeline_tables import EventKind
from tests.node.ingest.test_dicom import SERIES, STUDY, image, save
from tests.node.ingest.test_image_tables import MEASURING
from tests.node.made_facts import CLOCK, ENTRIES, Hospital, hospital, person

PATIENT = "P-0042"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    made.options["readers"] = (*ENTRIES, *(entry for entry in READERS if entry.name == "fhir"), MEASURING)
    made.write("people", [person(PATIENT)])
    yield made
    made.store.close()
    made.vault.close()


def images(site: Hospital, **scope: Any) -> list[dict[str, Any]]:
    wanted = Scope(site.person_id(PATIENT), kinds=(EventKind.IMAGE,), **scope)
    found: list[dict[str, Any]] = timeline(site.store, wanted).to_pylist()
    return found


def shift(site: Hospital) -> timedelta:
    return timedelta(days=int(site.vault.pseudonyms([PATIENT], namespace="mrn").shift_days[0]))


def study(site: Hospital, *, instances: int, updated: str) -> Path:
    """A study as FHIR tells it, at its last update."""
    told = {
        "resourceType": "ImagingStudy",
        "id": "x1",
        "status": "available",
        "meta": {"lastUpdated": updated},
        "subject": {"reference": "Patient/p"},
        "started": "2020-01-01",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
        "series": [{"uid": SERIES, "modality": {"code": "MR"}, "numberOfInstances": instances}],
    }
    patient = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1970-01-01"}
    path = site.folder / f"study-{updated[:10]}.ndjson"
    path.write_text(json.dumps(patient) + "\n" + json.dumps(told) + "\n")
    return path


def test_a_series_is_one_event_of_its_modality_moved_with_the_patients_days(site: Hospital) -> None:
    for place in range(2):
        save(site.folder / f"{place}.dcm", image())
    site.take()
    (event,) = images(site)
    assert event["time"] == datetime(2024, 3, 1, tzinfo=UTC) + shift(site)
    assert event["precision"] == "day"  # the CDM has no time of day for a series
    assert (event["table"], event["source_value"]) == ("image_occurrence", "CT")
    assert (event["value_number"], event["value_text"]) == (2.0, "CHEST")
    whole = timeline(site.store, Scope(site.person_id(PATIENT)))
    assert set(whole["kind"].to_pylist()) == {"image", "measurement"}
    said = repr(whole.to_pylist())
    for identity in (STUDY, SERIES, PATIENT, "Secret", site.vault.dicom_uid(SERIES)):
        assert identity not in said


def test_the_time_of_recording_decides_when_an_image_was_known(site: Hospital) -> None:
    save(site.folder / "a.dcm", image())
    site.take()
    made = datetime(2024, 3, 1, 9, 30, tzinfo=UTC) + shift(site)  # 10:30 at +01:00
    assert images(site, as_of=made - timedelta(seconds=1)) == []
    assert len(images(site, as_of=made + timedelta(seconds=1))) == 1
    assert hidden_events(site.store, Scope(site.person_id(PATIENT), as_of=made + timedelta(days=1))) == 0


def test_a_study_that_grew_is_as_it_stood_then(site: Hospital) -> None:
    site.take(study(site, instances=5, updated="2020-01-02T00:00:00Z"))
    site.take(study(site, instances=9, updated="2020-02-02T00:00:00Z"))
    (person_id,) = site.rows("SELECT person_id FROM image_occurrence")[0]
    for day, expected in (("2020-01-01", []), ("2020-01-20", [5.0]), ("2020-03-01", [9.0])):
        days = site.rows("SELECT image_occurrence_date - DATE '2020-01-01' FROM image_occurrence")[0][0]
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=days)
        found = timeline(site.store, Scope(person_id, as_of=moment, kinds=(EventKind.IMAGE,)))
        assert found["value_number"].to_pylist() == expected
    copy_events(site.store)
    as_loaded = timeline(site.store, Scope(person_id, upto_load=1, kinds=(EventKind.IMAGE,)))
    assert as_loaded["value_number"].to_pylist() == [5.0]


def test_the_copy_of_all_events_has_them_and_one_of_an_earlier_version_is_made_anew(site: Hospital) -> None:
    save(site.folder / "a.dcm", image())
    site.take()
    slow = images(site)
    copy_events(site.store)
    cursor = site.store.cursor()
    assert filled(site.store, cursor) is Copied.IN_ORDER
    assert images(site) == slow
    # as a version left it that knew no images
    cursor.execute("DELETE FROM fedtwin_timeline WHERE kind = 'image'; DELETE FROM fedtwin_timeline_format")
    assert filled(site.store, cursor) is Copied.NO
    assert images(site) == slow
    cursor.close()
    path = site.store.path
    site.store.close()
    site.store = type(site.store).open(path)
    assert site.rows("SELECT count(*) FROM fedtwin_timeline") == [(0,)]
    copy_events(site.store)
    assert images(site) == slow


def test_the_dataset_of_events_has_the_series_by_its_modality(site: Hospital, tmp_path: Path) -> None:
    save(site.folder / "a.dcm", image())
    site.take()
    export(site.store, tmp_path / "meds", scope=Scope(kinds=(EventKind.IMAGE,)), now=CLOCK.now())
    rows = pq.read_table(tmp_path / "meds" / "data" / "0.parquet").to_pylist()
    (row,) = [row for row in rows if row["table"] == "image_occurrence"]
    assert row["code"] == "SOURCE/image_occurrence/CT"
    assert (row["numeric_value"], row["text_value"]) == (1.0, "CHEST")


def test_a_series_and_what_was_measured_in_it_say_where_they_come_from(site: Hospital) -> None:
    save(site.folder / "a.dcm", image())
    site.take()
    (series,) = site.rows("SELECT image_occurrence_id FROM image_occurrence")[0]
    (feature,) = site.rows("SELECT min(image_feature_id) FROM image_feature")[0]
    for table, record, place in (
        ("image_occurrence", series, "series"),
        ("image_feature", feature, "feature"),
    ):
        found = trace(site.store, table, record)
        assert found.person_id == site.person_id(PATIENT)
        (origin,) = found.origins
        assert origin["read_by"].startswith("dicom")
        assert origin["place"].startswith(place)
    with pytest.raises(NoSuchRecord):
        trace(site.store, "image_feature", 1)


def test_images_of_two_numbers_of_one_patient_stand_in_one_timeline(site: Hospital) -> None:
    save(site.folder / "a.dcm", image(PatientID="OLD"))
    merge = {"record": 1, "place": "", "action": "merge", "kind": "person", "patient": "OLD"}
    site.write("merge", [merge | {"other_patient": PATIENT, "patient_namespace": "mrn"}])
    site.take()
    (event,) = images(site)
    assert event["time"] == datetime(2024, 3, 1, tzinfo=UTC) + shift(site)
