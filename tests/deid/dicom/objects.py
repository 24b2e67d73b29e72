"""Generated DICOM objects, a finder of planted words, and a cleaner of pixels that leaves them alone."""

import io
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from deid.dicom.ocr import Box
from deid.dicom.profile import Rule, rules
from deid.spans import Category, Known, Span

CT = "1.2.840.10008.5.1.4.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"
US = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTI = "1.2.840.10008.5.1.4.1.1.3.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
PATIENT_ID = "HOSP-4711-77"


class PlantedWords:
    """A finder (deid.spans.Finder) that finds words which begin with MK or Smith, and what is known."""

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        return [
            [Span(*match.span(), Category.NAME) for match in re.finditer(r"\bMK\w+|\bSmith\b", text)]
            for text in texts
        ]


class Blind:
    """An OCR (deid.dicom.ocr.Ocr) that reads nothing: for images at risk whose writing has strokes."""

    def words(self, image: NDArray[np.uint8]) -> list[Box]:
        assert image.dtype == np.uint8
        return []


class NoPixels:
    """For objects without pixels."""

    def clean(self, dataset: Dataset) -> None:
        assert "PixelData" not in dataset


def base(sop_class: str = CT, *, modality: str = "CT") -> FileDataset:
    """An object of a patient, valid as far as identity goes, without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5.300")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = "HOSPITALAE"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"HIDDEN" + b"\0" * 122)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = UID(sop_class)
    dataset.SOPInstanceUID = UID("1.2.3.4.5.300")
    dataset.StudyInstanceUID = UID("1.2.3.4.5.100")
    dataset.SeriesInstanceUID = UID("1.2.3.4.5.200")
    dataset.PatientID = PATIENT_ID
    dataset.PatientName = "Müstermann^Erika^^Dr"
    dataset.PatientBirthDate = "19510403"
    dataset.PatientSex = "F"
    dataset.Modality = modality
    dataset.StudyDate = "20240229"
    dataset.StudyTime = "101112"
    dataset.Manufacturer = "ACME"
    dataset.ConversionType = "WSD"
    return dataset


def with_pixels(dataset: FileDataset, pixels: np.ndarray) -> FileDataset:
    """Put an image into the object: (rows, columns) grey, (rows, columns, 3) colour, with frames before."""
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    frames = pixels.ndim - (3 if colour else 2)
    rows, columns = pixels.shape[frames : frames + 2]
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


def tag_of(rule: Rule) -> int:
    """One tag that a row of the table is about."""
    return int(rule.tag.replace("50xxxxxx", "50023000").replace("x", "0"), 16)


def marker(tag: int, vr: str) -> object:
    """A value of its own for each attribute, so that one which survives tells which it was."""
    day = f"19{tag % 89 + 10}{tag % 12 + 1:02}{tag % 28 + 1:02}"
    if vr in ("DS", "IS"):
        return str(tag % 999_983)
    if vr in ("US", "SS", "UL", "SL"):
        return tag % 32_749
    return {
        "DA": day,
        "DT": f"{day}111213",
        "TM": f"{tag % 24:02}{tag % 59:02}{tag % 57:02}",
        "UI": f"1.2.77.{tag}",
        "AS": f"{tag % 80 + 10:03}Y",
        "UR": f"http://mk{tag:08x}.example",
        "SQ": [_item(tag)],
    }.get(vr, f"MK{tag:08X}".encode() if vr in ("OB", "OW", "UN") else f"MK{tag:08X}")


def _item(tag: int) -> Dataset:
    item = Dataset()
    item.CodeValue = f"MK{tag:08X}"
    item.CodingSchemeDesignator = "99LOCAL"
    item.CodeMeaning = f"MK{tag:08X}M"
    item.ReferencedSOPInstanceUID = f"1.2.78.{tag}"
    return item


def vr_of(rule: Rule) -> str:
    """The value representation to write an attribute with; LO where the dictionary has none."""
    return {"": "LO", "OB or OW": "OW"}.get(rule.vr, rule.vr)


def every_attribute(sop_class: str = CT) -> FileDataset:
    """An object with each attribute of the table, each with its marker."""
    dataset = base(sop_class)
    for rule in rules().values():
        tag = tag_of(rule)
        if tag >> 16 in (0, 2):  # commands and file meta information stand in no data set
            continue
        dataset[tag] = DataElement(tag, vr_of(rule), marker(tag, vr_of(rule)))
    dataset.PatientID = PATIENT_ID
    return dataset


def encoded(dataset: FileDataset) -> bytes:
    """The object as a file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
