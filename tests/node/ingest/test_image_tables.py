"""Series of images and what was measured in them, in the tables of OHDSI's imaging extension."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pydicom")

from node.ingest.registry import READERS, Entry
from tests.node.ingest.test_dicom import PIXELS, SERIES, STUDY, image, save
from tests.node.made_facts import ENTRIES, Hospital, hospital, person

MEASURING = Entry("dicom", "node.ingest.readers.dicom_files", "DicomWithFeatures", "imaging")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    made.options["readers"] = (*ENTRIES, *(entry for entry in READERS if entry.name == "fhir"), MEASURING)
    yield made
    made.store.close()
    made.vault.close()


def described(site: Hospital, patient: str = "P-0042") -> None:
    site.write("people", [person(patient)])


def test_a_series_is_one_record_and_what_was_measured_leads_to_it(site: Hospital) -> None:
    described(site)
    for place in range(2):
        save(site.folder / f"{place}.dcm", image())
    report = site.take()
    assert sum(source.quarantined for source in report.sources) == 0
    rows = site.rows(
        "SELECT image_occurrence_id, person_id, image_study_uid, image_series_uid, modality_source_value,"
        " anatomic_site_source_value, number_of_instances FROM image_occurrence"
    )
    occurrence = rows[0][0]
    uids = (site.vault.dicom_uid(STUDY), site.vault.dicom_uid(SERIES))
    assert rows == [(occurrence, site.person_id("P-0042"), *uids, "CT", "CHEST", 2)]
    features = site.rows(
        "SELECT image_occurrence_id, value_as_number FROM image_feature"
        " JOIN measurement ON measurement_id = image_feature_event_id"
        " WHERE measurement_source_value = 'stat_mean'"
    )
    assert features == [(occurrence, (PIXELS * 2.0 - 10).mean())] * 2
    assert site.rows(
        "SELECT count(*) FROM image_feature f ANTI JOIN image_occurrence USING (image_occurrence_id)"
    ) == [(0,)]
    provenance = site.rows(
        "SELECT DISTINCT place FROM fedtwin_provenance WHERE table_name = 'image_occurrence'"
    )
    assert provenance == [("series",)]


def test_the_days_of_a_series_move_with_the_patients_others(site: Hospital) -> None:
    described(site)
    save(site.folder / "a.dcm", image())
    site.take()
    shift = int(site.vault.pseudonyms(["P-0042"], namespace="mrn").shift_days[0])
    assert site.rows("SELECT image_occurrence_date - DATE '2024-03-01' FROM image_occurrence") == [(shift,)]


def test_files_in_any_order_and_again_give_the_same_store(site: Hospital, tmp_path: Path) -> None:
    described(site)
    made = [save(site.folder / f"{place}.dcm", image()) for place in range(3)]
    site.take(site.folder / "people.facts", *made)
    before = site.store.content_hash()
    assert not site.take(*made).fresh
    assert site.store.content_hash() == before
    other = hospital(tmp_path / "other")
    other.options = site.options
    for path in (made[2], made[0], site.folder / "people.facts", made[1]):
        other.take(path)
    query = "SELECT image_occurrence_id, person_id, number_of_instances FROM image_occurrence"
    assert other.rows(query) == site.rows(query)
    other.store.close()
    other.vault.close()


def test_images_of_a_patient_nobody_described_wait_and_of_who_withdrew_leave(site: Hospital) -> None:
    save(site.folder / "a.dcm", image())
    site.take()
    assert site.rows("SELECT count(*) FROM image_occurrence") == [(0,)]
    described(site)
    site.take()
    assert site.rows("SELECT count(*) > 0 FROM image_feature") == [(True,)]
    left = {"record": 1, "place": "", "action": "withdraw", "kind": "person", "patient": "P-0042"}
    site.write("left", [left | {"patient_namespace": "mrn"}])
    site.take()
    for table in ("image_occurrence", "image_feature", "measurement"):
        assert site.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_an_issuer_of_the_patients_id_is_its_namespace(site: Hospital) -> None:
    save(site.folder / "a.dcm", image(IssuerOfPatientID="OTHER"))
    site.take()
    waiting = site.rows("SELECT person_id FROM fedtwin_waiting_image_occurrence")
    assert waiting == [(site.person_id("P-0042", "OTHER"),)]
    assert waiting != [(site.person_id("P-0042"),)]


def test_a_study_told_by_fhir_has_the_same_uids_as_its_files(site: Hospital) -> None:
    people = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1970-01-01"}
    study = {
        "resourceType": "ImagingStudy",
        "id": "x1",
        "status": "available",
        "subject": {"reference": "Patient/p"},
        "started": "2020-01-01",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
        "series": [
            {"uid": SERIES, "modality": {"code": "MR"}, "bodySite": {"code": "HEAD"}, "numberOfInstances": 9}
        ],
    }
    path = site.folder / "study.ndjson"
    path.write_text(json.dumps(people) + "\n" + json.dumps(study) + "\n")
    site.take()
    assert site.rows(
        "SELECT image_study_uid, image_series_uid, modality_source_value, anatomic_site_source_value,"
        " number_of_instances FROM image_occurrence"
    ) == [(site.vault.dicom_uid(STUDY), site.vault.dicom_uid(SERIES), "MR", "HEAD", 9)]
    stored = repr(site.rows("FROM image_occurrence")) + repr(site.rows("FROM fedtwin_provenance"))
    assert SERIES not in stored
    assert STUDY not in stored
