"""Folders: what is written where, what is left out and why, and that neither names nor logs hold identity."""

import logging
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deid.dicom.files import deidentifier, deidentify_path, read
from deid.dicom.profile import RESEARCH
from deid.errors import NotDeidentified
from deid.vault import PseudonymKey, Vault
from tests.deid.dicom.objects import PATIENT_ID, PlantedWords, base, encoded, every_attribute, with_pixels
from tests.privacy.seeded_bits import SeededBits


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault", key=PseudonymKey(bytes(range(32))), bits=SeededBits(3))


def hospital(folder: Path) -> Path:
    """A folder as a hospital has it: names in file names, and files that are not what they seem."""
    folder.mkdir()
    (folder / "Muestermann_Erika").mkdir()
    for number in range(3):
        image = with_pixels(base(), np.full((16, 16), number, np.uint16))
        image.SOPInstanceUID = f"1.2.3.4.5.30{number}"
        (folder / "Muestermann_Erika" / f"CT {number}.dcm").write_bytes(encoded(image))
    letter = base("1.2.840.10008.5.1.4.1.1.104.1", modality="DOC")
    (folder / "letter.dcm").write_bytes(encoded(letter))
    screen = with_pixels(base("1.2.840.10008.5.1.4.1.1.6.1", modality="US"), np.zeros((16, 16), np.uint8))
    (folder / "screen.dcm").write_bytes(encoded(screen))
    (folder / "notes.txt").write_text("Erika Müstermann")
    (folder / "cut.dcm").write_bytes(encoded(base())[:420])
    return folder


def test_files_are_called_by_their_new_uids_and_the_rest_is_explained(
    tmp_path: Path, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[int] = []
    made = deidentifier(vault, finder=PlantedWords(), ocr=None)
    report = deidentify_path(
        hospital(tmp_path / "in"), tmp_path / "out", made, progress=lambda done, _file: seen.append(done)
    )
    assert report.files == len(report.written) + len(report.quarantined) == 7
    assert seen == list(range(1, 8))
    assert report.reasons.pop("encapsulated-document") == report.reasons["no-ocr"] == 1
    assert report.reasons["not-dicom"] == 1
    assert {each.source.name for each in report.quarantined} >= {"letter.dcm", "screen.dcm", "notes.txt"}
    there = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(there) == sorted(report.written)
    for path in there:
        result = pydicom.dcmread(path)
        names = [result.StudyInstanceUID, result.SeriesInstanceUID, f"{result.SOPInstanceUID}.dcm"]
        assert list(path.relative_to(tmp_path / "out").parts) == names
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes().lower()
        for word in ("stermann", "erika", PATIENT_ID.lower(), "1.2.3.4.5", "19510403"):
            assert word.encode() not in content
    assert "stermann" not in caplog.text.lower()


def test_the_same_folder_gives_the_same_files(tmp_path: Path, vault: Vault) -> None:
    source = hospital(tmp_path / "in")
    for name in ("one", "two"):
        deidentify_path(source, tmp_path / name, deidentifier(vault, finder=PlantedWords()))
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.dcm")}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) >= 3


def test_without_a_finder_texts_go(tmp_path: Path, vault: Vault) -> None:
    image = base()
    image.StudyDescription = "CHEST"
    (tmp_path / "one.dcm").write_bytes(encoded(image))
    report = deidentify_path(tmp_path / "one.dcm", tmp_path / "out", deidentifier(vault, options=RESEARCH))
    result = pydicom.dcmread(report.written[0])
    assert "StudyDescription" not in result
    codes = {str(code.CodeValue) for code in result.DeidentificationMethodCodeSequence}
    assert not codes & {"113104", "113105"}


def test_a_file_that_cannot_be_read_is_left_out_and_does_not_end_the_run(tmp_path: Path) -> None:
    """A folder of a hospital has files of others, and files that move away while it is read."""
    with pytest.raises(NotDeidentified, match="unreadable"):
        read(tmp_path / "gone.dcm")
    with pytest.raises(NotDeidentified, match="unreadable"):
        read(tmp_path)


def test_the_target_may_not_lie_in_the_source(tmp_path: Path, vault: Vault) -> None:
    with pytest.raises(ValueError, match="target"):
        deidentify_path(tmp_path, tmp_path / "out", deidentifier(vault))


def test_damaged_files_never_stop_the_others(tmp_path: Path, vault: Vault) -> None:
    """1 % of the bytes of a file with every attribute is changed, 150 times: each is written or explained."""
    rng = np.random.default_rng(8)
    whole = np.frombuffer(encoded(every_attribute()), np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(150):
        changed = whole.copy()
        places = rng.integers(132, len(whole), max(1, int(rng.integers(1, len(whole) // 100))))
        changed[places] = rng.integers(0, 256, len(places))
        (folder / f"{number}.dcm").write_bytes(changed.tobytes())
    report = deidentify_path(folder, tmp_path / "out", deidentifier(vault, finder=PlantedWords()))
    assert report.files == len(report.written) + len(report.quarantined) == 150
    assert report.quarantined
