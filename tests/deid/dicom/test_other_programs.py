"""Against other programs: dicom-anonymizer, which has the same table, and dciodvfy, which knows the IODs."""

import copy
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.dataset import Dataset, FileDataset

from deid.dicom.engine import Deidentifier
from deid.dicom.identities import Identities
from deid.dicom.pixels import TextBlanker
from deid.dicom.profile import RESEARCH, Option, Profile, rules
from tests.deid.dicom.objects import (
    CR,
    CT,
    SC,
    US,
    Blind,
    NoPixels,
    PlantedWords,
    base,
    encoded,
    every_attribute,
    marker,
    tag_of,
    vr_of,
    with_pixels,
)


def test_nothing_survives_here_that_dicom_anonymizer_removes(identities: Identities) -> None:
    """Values that its 2026c table takes out of an object with every attribute are out of ours, too."""
    source = every_attribute()
    for tag in (0x00340001, 0x0072006D, 0x00720065, 0x04000310):  # it fails on bytes in some of them
        source.pop(tag, None)
    theirs = copy.deepcopy(source)
    anonymize_dataset(theirs, base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))
    ours = Deidentifier(Profile(frozenset()), identities, pixels=NoPixels()).deidentify(source).dataset
    compared = 0
    for rule in rules().values():
        tag, vr = tag_of(rule), vr_of(rule)
        if tag not in source or vr == "SQ":
            continue
        value = str(marker(tag, vr))
        if tag not in theirs or str(theirs[tag].value) != value:
            compared += 1
            assert tag not in ours or str(ours[tag].value) != value, rule
    assert compared > 550


def test_we_remove_what_dicom_anonymizer_leaves_in_place(identities: Identities) -> None:
    """Removed attributes are gone here; its own code keeps a date of year 1 for them."""
    source = every_attribute()
    ours = Deidentifier(Profile(frozenset()), identities, pixels=NoPixels()).deidentify(source).dataset
    removed = [tag_of(rule) for rule in rules().values() if rule.basic == "X"]
    assert len(removed) == 415
    assert not [f"{tag:08X}" for tag in removed if tag in ours]


def complete(sop_class: str, modality: str) -> FileDataset:
    """An image that dciodvfy has little to say about."""
    dtype = np.uint16 if sop_class in (CT, CR) else np.uint8
    dataset = with_pixels(base(sop_class, modality=modality), np.zeros((64, 64), dtype))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if sop_class == CT else ["ORIGINAL", "PRIMARY"]
    dataset.BitsStored, dataset.HighBit = (12, 11) if dtype == np.uint16 else (8, 7)
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "S-77", "1", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A-4711", "Smith^Ann"
    dataset.PatientOrientation, dataset.PositionReferenceIndicator = ["L", "P"], ""
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240229"
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101113"
    dataset.BodyPartExamined, dataset.Laterality = "CHEST", ""
    dataset.InstitutionName, dataset.StationName = "St Mary", "CT7"
    dataset.StudyDescription = "CHEST for Smith"
    if sop_class != SC:
        del dataset.ConversionType
    if sop_class == CT:
        dataset.FrameOfReferenceUID = "1.2.3.4.5.6"
        dataset.PixelSpacing, dataset.SliceThickness = ["1", "1"], "1"
        dataset.ImagePositionPatient = ["0", "0", "0"]
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "HU"
        dataset.KVP, dataset.AcquisitionNumber = "120", "1"
    if sop_class == CR:
        dataset.ViewPosition = "PA"
    return dataset


def said(path: Path, dataset: Dataset) -> Counter[str]:
    """What dciodvfy calls errors in an object."""
    path.write_bytes(encoded(dataset))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any("Image" in line for line in lines), "it names the IOD that it checks"
    return Counter(line for line in lines if line.startswith("Error"))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("options", [frozenset[Option](), RESEARCH], ids=["basic", "research"])
@pytest.mark.parametrize(("sop_class", "modality"), [(CT, "CT"), (CR, "CR"), (US, "US"), (SC, "OT")])
def test_objects_are_no_less_valid_than_before(
    identities: Identities, tmp_path: Path, sop_class: str, modality: str, options: frozenset[Option]
) -> None:
    source = complete(sop_class, modality)
    pixels = TextBlanker(cleans=True, ocr=Blind())
    made = Deidentifier(Profile(options), identities, pixels=pixels, finder=PlantedWords())
    before = said(tmp_path / "before.dcm", source)
    after = said(tmp_path / "after.dcm", made.deidentify(source).dataset)
    assert not after - before
    broken = complete(sop_class, modality)
    del broken.SOPClassUID, broken.StudyInstanceUID
    broken.SOPClassUID = sop_class
    assert said(tmp_path / "broken.dcm", broken) - before, "it sees a missing UID"
