"""DICOM files: what a series is, for image_occurrence, and features of images that are asked for.

A record is a file. Each file of a series gives the fact of the series again, under the same key, with the
number of instances that are known by then; so files may come one by one, late, twice and in any order. What
describes a series (modality, body part, date) is the same in all of its files by the standard's own rule.

UIDs are remapped through the vault (2.25.<keyed number>, the same as in de-identified files): the hospital's
own never leave the reader. A patient's id is of the issuer that the object names, else of "mrn". Names,
descriptions and private elements are not read. Only headers are read, unless features are asked for.

Turned away: what is no DICOM, encapsulated documents, what holds no image; and secondary captures (scanned
letters, screens, with identity in their pixels) where there is no OCR that could find it. These, modalities
whose pixels often show names (ultrasound, endoscopy, photographs...) and files that say so give no features.

Dataset: OHDSI medical imaging extension, image_occurrence (`details`: image_study_uid, image_series_uid,
modality, anatomic_site, laterality, number_of_instances) and image_feature (Park et al. 2024, J Imaging
Inform Med 37:899).
"""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset

from deid.dicom.ocr import Tesseract
from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.facts import Action, FactBatch, Kind, Precision, TurnedAway, table_of
from node.ingest.readers.dicom_files import NAME, VERSION, is_dicom
from node.ingest.readers.image_features import Extractor
from privacy import private_files

DCM = "http://dicom.nema.org/resources/ontology/DCM"
FEATURES = "local:ibsi"
EHR, ALGORITHM = 32817, 32880  # OMOP type concepts
MAX_FILE = 1 << 32
MAX_PIXELS = 1 << 26  # 64 million: 512 MB as float64
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")  # unpack to anything before a byte is seen
AT_RISK = frozenset(("US", "IVUS", "ES", "XC", "GM", "SC", "OT", "DOC", "RF", "XA", "OP", "ECG", "HC", "SR"))
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID",
    "IssuerOfPatientID", "Modality", "BodyPartExamined", "Laterality", "ImageLaterality", "StudyDate",
    "StudyTime", "SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC", "Rows", "Columns", "BurnedInAnnotation",
]  # fmt: skip
_UID = re.compile(r"\A[0-9.]{1,64}\Z")
_WORD = re.compile(r"\A[A-Z0-9_ ]{1,16}\Z")  # the standard's defined terms; anything else may be text
NO_DICOM, SECONDARY, DOCUMENT, NO_IMAGE = (
    "not-dicom",
    "secondary-capture",
    "encapsulated-document",
    "not-an-image",
)
NO_PATIENT, NO_UID, NO_DATE, DEFLATED = "no-patient", "no-uid", "no-date", "deflated"


@dataclass(frozen=True, slots=True)
class _Moment:
    start: datetime
    offset_min: int | None
    precision: Precision


class DicomFacts:
    """Reads DICOM files as facts (node.ingest.facts.Reader), counting the instances of each series."""

    def __init__(
        self, index: Path, *, vault: Vault, extractor: Extractor | None = None, ocr: bool | None = None
    ) -> None:
        """Args: ocr, whether there is one; None: look for it."""
        self.name = NAME if extractor is None else f"{NAME}+{extractor.name}"
        self.version = VERSION if extractor is None else f"{VERSION}+{extractor.version}"
        self._index = index
        self._vault = vault
        self._extractor = extractor
        self._ocr = has_ocr() if ocr is None else ocr

    def reads(self, path: Path) -> bool:
        """Return whether the file has DICOM's mark, or is called .dcm."""
        return is_dicom(path)

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield the one record of a file. Raises: UnreadableSource for a file of more than 4 GiB."""
        size = path.stat().st_size
        if size > MAX_FILE:
            raise UnreadableSource(path.name, "more than 4 GiB")
        found = _header(path)
        rows: list[dict[str, object]] | str = found if isinstance(found, str) else self._rows(found, path)
        if isinstance(rows, str):
            yield FactBatch(table_of([]), [TurnedAway(1, "*", rows, whole_record=True)], 1, size)
        else:
            yield FactBatch(table_of(rows), [], 1, size)

    def remapped(self, uid: str) -> str:
        """Return the UID that stands for a hospital's: the same for the same, and not to be undone."""
        return self._vault.dicom_uid(uid)

    def _rows(self, header: Dataset, path: Path) -> list[dict[str, object]] | str:
        """Return the facts of a file, or why it has none."""
        reason = _refused(header, ocr=self._ocr)
        if reason is not None:
            return reason
        uids = [_text(header, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        patient, when = _text(header, "PatientID"), _moment(header)
        if not all(_UID.match(uid) for uid in uids):
            return NO_UID
        if not patient:
            return NO_PATIENT
        if when is None:
            return NO_DATE
        study, series, instance = (self.remapped(uid) for uid in uids)
        instances = self._count(series, instance)
        modality = _term(header, "Modality")
        shared: dict[str, object] = {
            "record": 1,
            "action": Action.ASSERT.value,
            "patient": patient,
            "patient_namespace": _text(header, "IssuerOfPatientID")
            or "mrn",  # as de-identified files have it
            "start": when.start,
            "utc_offset_min": when.offset_min,
            "precision": when.precision.value,
            "version": when.start + timedelta(microseconds=instances),
        }
        details = {
            "image_study_uid": study,
            "image_series_uid": series,
            "modality": modality,
            "anatomic_site": _term(header, "BodyPartExamined"),
            "laterality": _term(header, "ImageLaterality") or _term(header, "Laterality"),
            "number_of_instances": str(instances),
        }
        rows = [
            shared
            | {
                "place": "series",
                "key": f"series/{series}",
                "kind": Kind.IMAGE.value,
                "type_concept_id": EHR,
                "codes": [{"system": DCM, "code": modality, "display": None}],
                "details": [(name, value) for name, value in details.items() if value],
            }
        ]
        return rows + self._features(header, path, shared, series, instance, modality)

    def _features(
        self,
        header: Dataset,
        path: Path,
        shared: dict[str, object],
        series: str,
        instance: str,
        modality: str,
    ) -> list[dict[str, object]]:
        """Return the features of the pixels, if they are asked for and not at risk."""
        if (
            self._extractor is None
            or modality in AT_RISK
            or is_secondary(_text(header, "SOPClassUID"))
            or _term(header, "BurnedInAnnotation") == "YES"
        ):
            return []
        return [
            shared
            | {
                "place": f"feature/{feature.code}",
                "key": f"image/{instance}/{self._extractor.name}/{feature.code}",
                "version": shared["start"],
                "kind": Kind.MEASUREMENT.value,
                "type_concept_id": ALGORITHM,
                "codes": [{"system": FEATURES, "code": feature.code, "display": feature.name}],
                "value_number": feature.value,
                "unit": feature.unit,
                "status": "final",
                "other_key": f"series/{series}",
                "details": [("image_series_uid", series), ("image_feature_type", "radiomics")],
            }
            for feature in _extracted(path, self._extractor)
        ]

    def _count(self, series: str, instance: str) -> int:
        """Remember an instance (remapped UIDs alone); return how many its series has."""
        if not self._index.exists():
            private_files.write(self._index, b"")
        connection = sqlite3.connect(self._index, isolation_level=None)
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS instance (series TEXT, instance TEXT,"
                " PRIMARY KEY (series, instance))"
            )
            connection.execute("INSERT OR IGNORE INTO instance VALUES (?, ?)", [series, instance])
            row = connection.execute("SELECT count(*) FROM instance WHERE series = ?", [series]).fetchone()
            return int(row[0])
        finally:
            connection.close()


def _header(path: Path) -> Dataset | str:
    """Return the elements that we read, or why there are none. What pydicom complains of is not repeated."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return NO_DICOM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if str(meta.get("TransferSyntaxUID", "")) in _DEFLATED:
                return DEFLATED
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        except Exception:  # a parser of hostile bytes raises whatever it met, with content in it
            return NO_DICOM


def has_ocr() -> bool:
    """Return whether this machine can find writing in pixels."""
    return Tesseract.found() is not None


def is_secondary(sop_class: str) -> bool:
    """Return whether objects of a class are secondary captures."""
    return sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}.")


def not_taken(sop_class: str, *, ocr: bool) -> bool:
    """Return whether objects of a class are turned away: documents, and without OCR secondary captures."""
    return sop_class.startswith(ENCAPSULATED) or (is_secondary(sop_class) and not ocr)


def _refused(header: Dataset, *, ocr: bool) -> str | None:
    kind = _text(header, "SOPClassUID")
    if kind.startswith(ENCAPSULATED):
        return DOCUMENT
    if not_taken(kind, ocr=ocr):
        return SECONDARY
    pixels = _number(header, "Rows") * _number(header, "Columns")
    return None if pixels > 0 and _term(header, "Modality") else NO_IMAGE


def _text(header: Dataset, name: str) -> str:
    try:
        value: Any = header.get(name)
        return "" if value is None else str(value).strip().strip("\0")
    except Exception:  # pydicom converts when asked, and raises what it met
        return ""


def _number(header: Dataset, name: str) -> int:
    text = _text(header, name)
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _term(header: Dataset, name: str) -> str:
    """Return a code of the standard; what is not shaped like one might say anything, and is dropped."""
    text = _text(header, name).upper()
    return text if _WORD.match(text) else ""


def _moment(header: Dataset) -> _Moment | None:
    for level in ("Series", "Study"):
        day = _text(header, f"{level}Date").replace(".", "")
        clock = _text(header, f"{level}Time").replace(":", "")
        try:
            date = datetime.strptime(day, "%Y%m%d")
        except ValueError:
            continue
        offset = _offset(_text(header, "TimezoneOffsetFromUTC"))
        for written in ("%H%M%S.%f", "%H%M%S", "%H%M"):
            try:
                time = datetime.strptime(clock, written)
            except ValueError:
                continue
            local = datetime.combine(date.date(), time.time())
            return _Moment(local - timedelta(minutes=offset or 0), offset, Precision.SECOND)
        return _Moment(date, None, Precision.DAY)
    return None


def _offset(text: str) -> int | None:
    if re.fullmatch(r"[+-]\d{4}", text) is None:
        return None
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    return None if minutes > 16 * 60 else (-minutes if text[0] == "-" else minutes)


def _extracted(path: Path, extractor: Extractor) -> tuple[Any, ...]:
    """Return features of the pixels; none where they cannot be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = pydicom.dcmread(path)
            size = int(image.Rows) * int(image.Columns) * int(image.get("NumberOfFrames") or 1)
            if size > MAX_PIXELS or int(image.get("SamplesPerPixel", 1)) != 1:
                return ()
            pixels = image.pixel_array.astype("float64")
            slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
            spacing = tuple(float(step) for step in image.get("PixelSpacing") or (1.0, 1.0))
        except Exception:  # as above
            return ()
    return extractor.features(pixels * slope + intercept, spacing_mm=spacing)


pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
