"""Images that a node keeps: de-identified, under the UIDs that image_occurrence has for them.

images/<study>/<series>/<instance>.dcm
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from deid.dates import DatePractice
from deid.dicom.files import deidentifier, deidentify_path
from deid.dicom.ocr import Tesseract
from deid.spans import Finder
from deid.vault import Vault


def keep(
    files: Sequence[Path], folder: Path, *, vault: Vault, finder: Finder | None, practice: DatePractice
) -> Counter[str]:
    """Write what can be made safe into `folder`; return how many were kept, and how many not by reason.

    Guarantee: nothing else of the files is written. The same file gives the same result again.
    """
    made = deidentifier(vault, finder=finder, ocr=Tesseract.found(), practice=practice)
    counts: Counter[str] = Counter()
    for file in files:
        report = deidentify_path(file, folder, made, by_patient=True)
        counts["kept"] += len(report.written)
        counts.update(report.reasons)
    return counts


def forget(person_ids: Iterable[int], folder: Path) -> int:
    """Remove all images of persons; return of how many there were any."""
    there = [folder / str(person) for person in person_ids if (folder / str(person)).is_dir()]
    for images in there:
        shutil.rmtree(images)
    return len(there)
