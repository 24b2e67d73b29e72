"""Texts of DICOM objects without identity: by a finder, and by what the object itself says of its patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pydicom.dataset import Dataset

from deid.errors import NotRedacted
from deid.spans import Category, Finder, Known

MAX_LENGTHS = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "LT": 10240, "ST": 1024}
REMOVED = "REMOVED"
_IDS = {  # attributes whose values open a record
    "PatientID": Category.MRN, "OtherPatientIDs": Category.MRN, "IssuerOfPatientID": Category.HOSPITAL,
    "AccessionNumber": Category.ID, "AdmissionID": Category.ID, "MedicalRecordLocator": Category.MRN,
    "PatientTelephoneNumbers": Category.PHONE, "PatientInsurancePlanCodeSequence": Category.PLAN_ID,
    "MilitaryRank": Category.PROFESSION, "RequestedProcedureID": Category.ID, "StudyID": Category.ID,
    "PatientAddress": Category.ADDRESS, "FillerOrderNumberImagingServiceRequest": Category.ID,
    "PlacerOrderNumberImagingServiceRequest": Category.ID, "PatientBirthDate": Category.DATE,
}  # fmt: skip
_SHORTEST = {Category.NAME: 3}  # letters of a name that is looked for in any text: "Li" is in too many
_SHORTEST_ID = 4
_MAX_DEPTH = 16  # of nested sequences; the standard's own have less than ten
_REMEMBERED = 10_000


class Texts:
    """Cleans the texts of one object. Prints nothing of what it knows."""

    def __init__(self, finder: Finder | None, known: Sequence[Known]) -> None:
        self._finder = finder
        self._known = list(known)
        self._sweep = _pattern(known)
        self.clean = lru_cache(_REMEMBERED)(self._clean)

    def swept(self, text: str) -> str:
        """Return the text without what is known of the patient and of the persons named in the object."""
        return self._sweep.sub(REMOVED, text) if self._sweep is not None else text

    def _clean(self, text: str) -> str | None:
        """Return the text without identity, None if it could not be checked."""
        if not text.strip():
            return text
        if self._finder is None:
            return None
        try:
            (spans,) = self._finder.find([text], known=[self._known])
        except NotRedacted:
            return None
        pieces, done = [], 0
        for span in spans:
            pieces += [text[done : span.start], f"[{span.category.value.upper()}]"]
            done = span.end
        return self.swept("".join([*pieces, text[done:]]))


def fitted(text: str, vr: str) -> str:
    """Return the text cut to what its value representation holds, without signs that would split it."""
    if vr in ("AE", "CS", "SH", "LO", "UC"):
        text = text.replace("\\", "/")
    return text[: MAX_LENGTHS.get(vr, len(text))]


def known_of(dataset: Dataset) -> list[Known]:
    """Return what an object itself says of its patient and of the persons who are named in it."""
    found: dict[tuple[Category, str], Known] = {}
    for category, value in _identifiers(dataset, 0):
        for text in _forms(category, value):
            found.setdefault((category, text.casefold()), Known(category, text))
    return list(found.values())


def _identifiers(dataset: Dataset, depth: int) -> Iterable[tuple[Category, str]]:
    for tag in dataset.keys():  # noqa: SIM118 (a Dataset iterates over its elements)
        try:
            element = dataset[tag]
            vr, value = element.VR, element.value
        except Exception:  # noqa: S112 (a value that cannot be parsed is none that can be looked for)
            continue
        if vr == "SQ" and depth < _MAX_DEPTH:
            for item in value or []:
                yield from _identifiers(item, depth + 1)
        elif vr == "PN" or element.keyword in _IDS:
            category = Category.NAME if vr == "PN" else _IDS[element.keyword]
            values = value if isinstance(value, (list, tuple)) or hasattr(value, "insert") else [value]
            yield from ((category, str(one)) for one in values if one and vr != "SQ")


def _forms(category: Category, value: str) -> list[str]:
    """The ways in which an identifier is written in texts."""
    if category is Category.NAME:
        parts = [part for part in re.split(r"[\^=,;\s]+", value) if part]
        return [*parts, " ".join(parts)] if len(parts) > 1 else parts
    if category is Category.DATE:
        day = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", value)
        if day is None:
            return []
        year, month, date = day.groups()
        forms = [value, f"{year}-{month}-{date}", f"{year}/{month}/{date}", f"{date}.{month}.{year}"]
        for sign in "/-":
            forms += [f"{month}{sign}{date}{sign}{year}", f"{date}{sign}{month}{sign}{year}"]
            forms.append(f"{int(month)}{sign}{int(date)}{sign}{year}")
        return forms
    return [value.strip()] if value.strip() else []


def _pattern(known: Iterable[Known]) -> re.Pattern[str] | None:
    words = {
        each.value
        for each in known
        if len(each.value) >= _SHORTEST.get(each.category, _SHORTEST_ID) and each.value != REMOVED
    }
    if not words:
        return None
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    # a name may stand next to a sign or a digit, not inside a longer word
    return re.compile(
        r"(?<![^\W\d_])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![^\W\d_])", re.IGNORECASE
    )
