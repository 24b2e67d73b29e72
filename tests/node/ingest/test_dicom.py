"""DICOM files become facts of series, without UIDs, names or pixels that might show one."""

import gc
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pynetdicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402 (after the skip)
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402
from pynetdicom import AE  # noqa: E402

from deid.vault import PseudonymKey, Vault  # noqa: E402
from node.ingest.dicom_scp import Listening, StorageService  # noqa: E402
from node.ingest.readers.dicom import DicomFacts  # noqa: E402
from node.ingest.readers.dicom_files import DicomReader  # noqa: E402
from node.ingest.readers.image_features import FirstOrder, shape, statistics  # noqa: E402
from tests.privacy.seeded_bits import SeededBits  # noqa: E402

# pynetdicom leaves a socket to the garbage collector when a peer ends the association while data come
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
STUDY, SERIES = "1.2.3.4.5.111", "1.2.3.4.5.222"
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def image(**changes: Any) -> Dataset:
    """A CT slice of a patient whose name is in it."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = STUDY, SERIES
    made.PatientID, made.PatientName, made.PatientBirthDate = "P-0042", "Secret^Name", "19700101"
    made.SeriesDescription = "Secret description"
    made.Modality, made.BodyPartExamined, made.Laterality = "CT", "CHEST", "L"
    made.SeriesDate, made.SeriesTime, made.TimezoneOffsetFromUTC = "20240301", "103000.5", "+0100"
    made.Rows, made.Columns = PIXELS.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelSpacing = [2.0, 0.5]
    made.RescaleSlope, made.RescaleIntercept = 2, -10
    made.PixelData = PIXELS.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def save(path: Path, made: Dataset) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(autouse=True)
def _sockets_are_collected_here() -> Iterator[None]:
    """So that what the library left is not met by the test of something else."""
    yield
    gc.collect()


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(b"k" * 32), bits=SeededBits(1))


def read(reader: DicomFacts, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    batches = list(reader.read(path, batch_records=100))
    assert sum(batch.records for batch in batches) == 1
    rows = [row for batch in batches for row in batch.facts.to_pylist()]
    away = [item.reason for batch in batches for item in batch.turned_away]
    assert bool(rows) != bool(away), "a record gives facts or is turned away"
    return rows, away


def test_a_series_is_one_fact_that_counts_its_instances(tmp_path: Path, vault: Vault) -> None:
    reader = DicomReader().bind(tmp_path, vault=vault, latest_day=None)
    slices = [save(tmp_path / f"{place}.dcm", image()) for place in range(3)]
    found = [read(reader, path)[0][0] for path in (*slices, slices[0])]
    assert len({row["key"] for row in found}) == 1
    assert [dict(row["details"])["number_of_instances"] for row in found] == ["1", "2", "3", "3"]
    assert found[2]["version"] == found[3]["version"] > found[1]["version"] > found[0]["version"]
    row, details = found[-1], dict(found[-1]["details"])
    assert row["start"] == datetime(2024, 3, 1, 9, 30, 0, 500_000, tzinfo=UTC)
    assert (row["utc_offset_min"], row["precision"], row["kind"]) == (60, "second", "image")
    assert (row["patient"], row["codes"][0]["code"]) == ("P-0042", "CT")
    assert (details["anatomic_site"], details["laterality"]) == ("CHEST", "L")
    assert stat.S_IMODE((tmp_path / "imaging.sqlite").stat().st_mode) == 0o600


def test_no_uid_name_or_text_of_the_hospital_is_in_a_fact_or_the_index(tmp_path: Path, vault: Vault) -> None:
    made = image()
    rows, _ = read(DicomFacts(tmp_path / "i.sqlite", vault=vault), save(tmp_path / "a.dcm", made))
    said = repr(rows).encode() + (tmp_path / "i.sqlite").read_bytes()
    for secret in (STUDY, SERIES, str(made.SOPInstanceUID), "Secret", "19700101", "1970-01-01"):
        assert secret.encode() not in said
    other = Vault.open(tmp_path / "v2.sqlite", key=PseudonymKey(b"o" * 32), bits=SeededBits(1))
    again = DicomFacts(tmp_path / "j.sqlite", vault=other)
    assert again.remapped(SERIES) != DicomFacts(tmp_path / "i.sqlite", vault=vault).remapped(SERIES)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated-document"),
        ({"Rows": None}, "not-an-image"),
        ({"PatientID": ""}, "no-patient"),
        ({"SeriesInstanceUID": "../../etc"}, "no-uid"),
        ({"SeriesDate": "soon"}, "no-date"),
    ],
)
def test_what_is_turned_away(tmp_path: Path, vault: Vault, changes: dict[str, Any], reason: str) -> None:
    path = save(tmp_path / "a.dcm", image(**changes))
    assert read(DicomFacts(tmp_path / "i.sqlite", vault=vault, ocr=False), path)[1] == [reason]


def test_with_ocr_a_screen_is_a_series_without_features_and_a_letter_is_still_none(
    tmp_path: Path, vault: Vault
) -> None:
    reader = DicomFacts(tmp_path / "i.sqlite", vault=vault, extractor=FirstOrder(), ocr=True)
    screen = image(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CT")
    rows, _ = read(reader, save(tmp_path / "a.dcm", screen))
    assert [row["kind"] for row in rows] == ["image"]
    letter = save(tmp_path / "b.dcm", image(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"))
    assert read(reader, letter)[1] == ["encapsulated-document"]


def test_features_are_of_rescaled_pixels_and_of_no_modality_at_risk(tmp_path: Path, vault: Vault) -> None:
    reader = DicomFacts(tmp_path / "i.sqlite", vault=vault, extractor=FirstOrder())
    rows, _ = read(reader, save(tmp_path / "a.dcm", image()))
    values = {row["codes"][0]["code"]: row["value_number"] for row in rows[1:]}
    hounsfield = PIXELS.astype(float) * 2 - 10
    assert values["stat_mean"] == hounsfield.mean()
    assert values["stat_var"] == pytest.approx(hounsfield.var())
    assert values["morph_area_pixels"] == 64
    assert values["morph_box_height"] == 16
    assert {row["other_key"] for row in rows[1:]} == {rows[0]["key"]}
    for changes in ({"Modality": "US"}, {"BurnedInAnnotation": "YES"}):
        rows, _ = read(reader, save(tmp_path / "b.dcm", image(**changes)))
        assert [row["kind"] for row in rows] == ["image"]
    assert len(read(DicomFacts(tmp_path / "i.sqlite", vault=vault), tmp_path / "a.dcm")[0]) == 1


def test_first_order_statistics_are_ibsis() -> None:
    """The phantom of IBSI's reference manual (section 5.1): its 74 voxels and their statistics."""
    counts = {1: 50, 3: 1, 4: 16, 6: 7}
    found = {
        item.code: item.value
        for item in statistics(np.repeat(list(counts), list(counts.values())).astype(float))
    }
    expected = {
        "stat_mean": 2.15, "stat_var": 3.05, "stat_skew": 1.08, "stat_kurt": -0.355, "stat_median": 1,
        "stat_min": 1, "stat_p10": 1, "stat_p90": 4, "stat_max": 6, "stat_iqr": 3, "stat_range": 5,
        "stat_mad": 1.55, "stat_rmad": 1.11, "stat_energy": 567, "stat_rms": 2.77,
    }  # fmt: skip
    assert found == pytest.approx(expected, rel=5e-3)


def test_a_mask_has_a_shape_and_an_empty_one_no_features() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    assert FirstOrder().features(PIXELS.astype(float), spacing_mm=(2.0, 0.5), mask=mask) == ()
    mask[2:4, 1:6] = True
    assert {item.code: item.value for item in shape(mask, (2.0, 0.5))} == {
        "morph_area_pixels": 10, "morph_box_height": 4, "morph_box_width": 2.5,
    }  # fmt: skip


def test_damage_is_turned_away_and_quoted_nowhere(tmp_path: Path, vault: Vault) -> None:
    whole = save(tmp_path / "a.dcm", image()).read_bytes()
    reader = DicomFacts(tmp_path / "i.sqlite", vault=vault, extractor=FirstOrder())
    rng = np.random.default_rng(5)
    path = tmp_path / "b.dcm"
    path.write_bytes(b"no DICOM, whatever its name says")
    assert read(reader, path)[1] == ["not-dicom"]
    for _ in range(150):
        raw = bytearray(whole[: int(rng.integers(0, len(whole)))] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, max(1, len(raw)), 4).tolist():
            if raw:
                raw[place] = int(rng.integers(0, 256))
        path.write_bytes(bytes(raw))
        rows, _ = read(reader, path)
        assert "Secret" not in repr(rows)


# The service


def send(
    address: tuple[str, int], made: Dataset, *, sender: str = "CT1", called: str = "FEDTWIN"
) -> int | None:
    """Send one object; its status, or None if the association or the object was refused."""
    entity = AE(ae_title=sender)
    entity.add_requested_context(made.SOPClassUID, [ExplicitVRLittleEndian])
    association = entity.associate(*address, ae_title=called)
    if not association.is_established:
        return None
    try:
        return association.send_c_store(made).get("Status")  # type: ignore[no-any-return]
    except ValueError:  # its kind was not accepted
        return None
    finally:
        association.release()


def test_what_is_confirmed_is_on_the_disk_and_nobody_else_may_send(tmp_path: Path, vault: Vault) -> None:
    inbox = tmp_path / "inbox"
    with StorageService(inbox, Listening("FEDTWIN", ("CT1",), port=0), ocr=False) as service:
        assert service.address[0] == "127.0.0.1"
        assert send(service.address, image()) == 0
        (path,) = inbox.iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert send(service.address, image(), sender="EVIL") is None
        assert send(service.address, image(), called="OTHER") is None
        assert send(service.address, image(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")) is None
        assert len(list(inbox.iterdir())) == service.stored == 1
    rows, _ = read(DicomFacts(tmp_path / "i.sqlite", vault=vault), path)
    assert rows[0]["patient"] == "P-0042"


def test_screens_are_taken_where_the_writing_in_them_can_be_found(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    with StorageService(inbox, Listening("FEDTWIN", ("CT1",), port=0), ocr=True) as service:
        assert send(service.address, image(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")) == 0
        assert send(service.address, image(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")) is None
        assert service.stored == 1


def test_an_object_beyond_the_limit_is_not_taken(tmp_path: Path) -> None:
    with StorageService(
        tmp_path / "inbox", Listening("FEDTWIN", ("CT1",), port=0, max_object=4096)
    ) as service:
        assert send(service.address, image()) == 0
        big = image(PixelData=bytes(2 << 20))
        assert send(service.address, big) != 0
        assert service.refused >= 1
        assert len(list((tmp_path / "inbox").iterdir())) == 1


def test_a_full_disk_is_no_success(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    with StorageService(inbox, Listening("FEDTWIN", ("CT1",), port=0)) as service:
        inbox.rmdir()
        assert send(service.address, image()) == 0xA700
