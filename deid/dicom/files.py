"""Folders of DICOM files without identity.

Output files are called by their new UIDs, `study/series/instance.dcm`. What cannot be made safe is left out
and reported with a word that says why, under its own path: that report stays in the hospital. A file is there
whole or not at all, and only its owner may read it.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

from deid.dates import DatePractice
from deid.dicom.engine import Deidentifier
from deid.dicom.identities import Identities
from deid.dicom.ocr import Ocr
from deid.dicom.pixels import Scan, TextBlanker
from deid.dicom.profile import RESEARCH, Option, Profile
from deid.errors import NotDeidentified
from deid.spans import Finder
from deid.vault import Vault
from privacy import private_files

MAX_BYTES = 1 << 32
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")  # unpack to anything before a byte is seen
# what values that are no values do when they are used; what is said of it may repeat them
_FAULTS = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
NOT_DICOM, TOO_LARGE, DEFLATED, DAMAGED = "not-dicom", "too-large", "deflated", "damaged"
UNREADABLE = "unreadable"  # the file may not be read, or is gone


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that was left out, and why."""

    source: Path
    reason: str


@dataclass(slots=True)
class Report:
    """What became of the files: files = written + quarantined."""

    files: int = 0
    written: list[Path] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)  # tags that no dictionary knows, dropped

    @property
    def reasons(self) -> dict[str, int]:
        """How many files were left out, by reason."""
        return dict(Counter(each.reason for each in self.quarantined).most_common())


def deidentifier(
    vault: Vault,
    *,
    project: str = "",
    options: frozenset[Option] = RESEARCH,
    finder: Finder | None = None,
    ocr: Ocr | None = None,
    scan: Scan = Scan.ALL,
    practice: DatePractice = DatePractice.SHIFTED,
) -> Deidentifier:
    """Return what de-identifies objects under a hospital's vault.

    Args:
        project: whose export it is; two projects' cannot be joined. Empty: the hospital's own store.
        finder: finds identity in texts. Without one, options that clean texts are left out, and texts go.
        ocr: `deid.dicom.ocr.Tesseract.found()`; None: images at risk are refused.
    """
    if finder is None:
        options -= {Option.CLEAN_DESCRIPTORS, Option.CLEAN_STRUCTURED_CONTENT}
    pixels = TextBlanker(Option.CLEAN_PIXELS in options, ocr, scan)
    return Deidentifier(
        Profile(options), Identities(vault, project=project), pixels=pixels, finder=finder, practice=practice
    )


def deidentify_path(
    source: Path,
    target: Path,
    made: Deidentifier,
    *,
    by_patient: bool = False,
    progress: Callable[[int, Path], None] | None = None,
) -> Report:
    """De-identify a file, or every file below a folder, into `target`.

    Args:
        by_patient: put a folder called by the patient's pseudonym above the study's.
        progress: told after each file: how many are done, and the source's path.
    Raises: ValueError if the target lies in the source.
    """
    source, target = source.resolve(), target.resolve()
    if source.is_dir() and target.is_relative_to(source):
        raise ValueError("the target may not lie in the source")
    report = Report()
    for file in _files(source):
        report.files += 1
        try:
            done = made.deidentify(read(file))
            place = _place(target / done.patient.id if by_patient else target, done.dataset)
            _write(done.dataset, place)
        except NotDeidentified as error:
            report.quarantined.append(Quarantined(file, error.reason))
        except _FAULTS:
            report.quarantined.append(Quarantined(file, DAMAGED))
        else:
            report.written.append(place)
            report.unknown.update(done.unknown)
        if progress is not None:
            progress(report.files, file)
    return report


def read(path: Path) -> FileDataset:
    """Return a file's object.

    Raises: NotDeidentified: unreadable, not-dicom, too-large, deflated, damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(132)
        size = path.stat().st_size
    except OSError:
        raise NotDeidentified(UNREADABLE) from None
    if head[128:] != b"DICM":
        raise NotDeidentified(NOT_DICOM)
    if size > MAX_BYTES:
        raise NotDeidentified(TOO_LARGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they repeat values
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if str(meta.get("TransferSyntaxUID", "")) in _DEFLATED:
                raise NotDeidentified(DEFLATED)
            dataset = pydicom.dcmread(path)
            for element in dataset.iterall():  # pydicom parses when asked: here, where faults are expected
                element.value  # noqa: B018
        except NotDeidentified:
            raise
        except Exception:  # a parser of hostile bytes raises whatever it met, with content in it
            raise NotDeidentified(DAMAGED) from None
    return dataset


def encoded(dataset: FileDataset) -> bytes:
    """Return a whole DICOM file. Raises: NotDeidentified ("damaged")."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset.save_as(buffer, enforce_file_format=True)
        except Exception:  # what cannot be encoded; the message may hold it
            raise NotDeidentified(DAMAGED) from None
    return buffer.getvalue()


def _place(target: Path, dataset: FileDataset) -> Path:
    uids = [str(dataset.get(f"{level}InstanceUID") or "") for level in ("Study", "Series", "SOP")]
    if not all(uids):
        raise NotDeidentified("no-uid")
    if not all(set(uid) <= set("0123456789.") for uid in uids):
        raise NotDeidentified(DAMAGED)
    return target / uids[0] / uids[1] / f"{uids[2]}.dcm"


def _write(dataset: FileDataset, place: Path) -> None:
    for folder in reversed(place.parents):
        if not folder.exists():
            private_files.make_folder(folder)
    private_files.write(place, encoded(dataset))


def _files(source: Path) -> Iterator[Path]:
    """The files below a folder, in order; no links, no hidden ones."""
    if source.is_file():
        yield source
        return
    for file in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(source).parts)
        if file.is_file() and not file.is_symlink() and not hidden:
            yield file
