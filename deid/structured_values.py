"""One value of a field made fit to pass, by the action that the table names for it.

Everything hangs on whose record it is: dates move by that patient's days, texts get that patient's
surrogates. Where the patient is not known, what would hang on them is dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from deid.dates import OLDEST_AGE_YEARS as CAPPED_AGE
from deid.dates import DatePractice
from deid.errors import NotRedacted
from deid.spans import Finder, Known
from deid.structured import Action, restricted_zip3
from deid.surrogates import Replacement, Style, replaced
from deid.surrogates_dates import DateShift
from deid.vault import Vault

RESTRICTED_ZIP3 = "000"  # 45 CFR 164.514(b)(2)(i)(B)(2)
_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?(?:[T ](.+))?\Z")
_PACKED = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2,6}(?:\.\d+)?)?([+-]\d{4})?\Z")  # HL7 v2, CMS
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})\Z")  # US order
_NUMBER = re.compile(r"[<>=]{0,2}\s*[-+]?\d{1,7}(?:\.\d+)?(?:\s*[-:/]\s*\d{1,7}(?:\.\d+)?)?%?\Z")
_CODE = re.compile(r"(?=\D*\d)[A-Za-z]{0,3}\d{0,4}(?:[.-][0-9A-Za-z]{1,5})?\Z")  # with a digit in it
_WORDS = frozenset(  # results that are a word, and no name
    (
        "positive", "negative", "pos", "neg", "normal", "abnormal", "reactive", "nonreactive", "detected",
        "undetected", "present", "absent", "yes", "no", "true", "false", "high", "low", "none", "unknown",
        "pending", "trace", "clear", "cloudy", "yellow", "male", "female", "+", "++", "+++", "++++", "-",
    )
)  # fmt: skip
_REFERENCE = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/([^/|#]+)(?:/_history/.*)?\Z")


class Unfit(Exception):
    """A value that cannot be made fit to pass. `reason` is a word of a short list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose record it is. Prints as hidden."""

    pseudonym: str
    shift_days: int
    replacement: Replacement

    def __repr__(self) -> str:
        return "Patient(<hidden>)"


@dataclass(slots=True)
class Tally:
    """What happened to each field: how many values passed, and how many did not, by reason."""

    passed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # fields that the table does not name


@dataclass(frozen=True)
class Cleaner:
    """Applies actions to values. `finder` None: texts are dropped. `today` caps years of birth."""

    vault: Vault
    today: date
    namespace: str = "mrn"
    project: str = ""
    practice: DatePractice = DatePractice.SHIFTED
    style: Style = Style.SURROGATE
    finder: Finder | None = None
    _patients: dict[str, Patient] = field(default_factory=dict)

    def patient(self, source_id: str) -> Patient:
        """Return whose id it is; a patient not seen before gets a secret in the vault."""
        found = self._patients.get(source_id)
        if found is None:
            drawn = self.vault.pseudonyms([source_id], namespace=self.namespace, project=self.project)
            (key,) = self.vault.surrogate_keys([source_id], namespace=self.namespace, project=self.project)
            days = int(drawn.shift_days[0])
            shift = DateShift(days) if self.practice is DatePractice.SHIFTED else None
            found = Patient(str(drawn.ids[0]), days, Replacement(self.style, key, shift))
            if len(self._patients) > 50_000:  # some 20 MB
                self._patients.clear()
            self._patients[source_id] = found
        return found

    def value(  # noqa: C901 (one line for each action)
        self, action: Action, raw: str, patient: Patient | None, *, known: Sequence[Known] = ()
    ) -> str:
        """Return what may pass of a value that is not empty.

        Args: known: what the same record says of its patient, to be found in its texts.
        Raises: Unfit, with a reason and no content.
        """
        match action:
            case Action.KEEP:
                return raw
            case Action.PSEUDONYM:
                return self.patient(raw).pseudonym
            case Action.RECORD:
                return self._record(raw)
            case Action.REFERENCE:
                return self._reference(raw)
            case Action.ZIP3:
                return zip3(raw)
            case Action.AGE:
                return capped_age(raw)
            case Action.DATE:
                return self._date(raw, patient)
            case Action.BIRTH | Action.YEAR:
                return self._birth_year(raw, patient)
            case Action.TEXT:
                return self._text(raw, patient, known)
            case Action.VALUE:
                return raw if is_plain_value(raw) else self._text(raw, patient, known)
        raise Unfit("dropped")

    def _record(self, raw: str) -> str:
        label = f"table record {self.project}"
        return str(self.vault.record_ids([raw.encode()], label=label)[0])

    def _reference(self, raw: str) -> str:
        """Type/id, both ends of which are pseudonyms alike; anything else is a record."""
        found = _REFERENCE.fullmatch(raw)
        if found is None:
            return f"urn:record:{self._record(raw)}"
        kind, number = found.groups()
        return f"{kind}/{self.patient(number).pseudonym if kind == 'Patient' else self._record(number)}"

    def _date(self, raw: str, patient: Patient | None) -> str:
        if self.practice is DatePractice.YEAR_ONLY:
            return str(_parts(raw)[0])
        if patient is None:
            raise Unfit("no-patient")
        return shifted(raw, patient.shift_days)

    def _birth_year(self, raw: str, patient: Patient | None) -> str:
        """The year of the birth as moved, or of who is over 89 the year of who is 90."""
        year, month, day = _parts(raw)
        if self.practice is DatePractice.SHIFTED and month and day:
            if patient is None:
                raise Unfit("no-patient")
            year = (_day(year, month, day) + timedelta(days=patient.shift_days)).year
        return str(max(year, self.today.year - CAPPED_AGE))

    def _text(self, raw: str, patient: Patient | None, known: Sequence[Known]) -> str:
        if self.finder is None:
            raise Unfit("no-finder")
        if patient is None and self.style is Style.SURROGATE:
            raise Unfit("no-patient")
        try:
            (spans,) = self.finder.find([raw], known=[known])
        except NotRedacted:
            raise Unfit("not-redacted") from None
        replacement = patient.replacement if patient else Replacement(self.style)
        return replaced(raw, spans, replacement, known=known).text


def zip3(raw: str) -> str:
    """Return the first three digits of a ZIP code, or 000 for an area of 20,000 people or fewer.

    >>> zip3("02139-4307"), zip3("03601")
    ('021', '000')

    Raises: Unfit for anything but a ZIP code of the USA.
    """
    digits = raw.strip()
    if not re.fullmatch(r"\d{5}(?:-?\d{4})?|\d{3}", digits):
        raise Unfit("not-a-zip-code")
    return RESTRICTED_ZIP3 if digits[:3] in restricted_zip3() else digits[:3]


def capped_age(raw: str) -> str:
    """Return an age in years, 90 for any above 89. Raises: Unfit if it is no number."""
    try:
        age = float(raw)
    except ValueError:
        raise Unfit("not-a-number") from None
    if not 0 <= age < 150:
        raise Unfit("not-an-age")
    return raw.strip() if age < CAPPED_AGE else str(CAPPED_AGE)


def is_plain_value(raw: str) -> bool:
    """Return whether a value is a number, a ratio or a short code, and so no words. Long digits are none.

    >>> [is_plain_value(one) for one in ("7.4", "1:128", "NEG", "E11.9", "Ann", "555-01-9999", "12345678")]
    [True, True, True, True, False, False, False]
    """
    text = raw.strip()
    return bool(_NUMBER.match(text) or _CODE.match(text)) or text.lower() in _WORDS


def shifted(raw: str, days: int) -> str:
    """Return a date or a moment moved by whole days, written as it was. Raises: Unfit.

    >>> shifted("2020-02-28T10:00:00Z", 2), shifted("20200228", 2), shifted("2/28/2020", 2)
    ('2020-03-01T10:00:00Z', '20200301', '3/1/2020')
    """
    year, month, day = _parts(raw)
    moved = _day(year, month or 7, day or (15 if month else 1)) + timedelta(days=days)
    text = raw.strip()
    if _SLASHED.match(text):
        return f"{moved.month}/{moved.day}/{moved.year}"
    dash = "-" if _ISO.match(text) and not text.isdigit() else ""
    parts = [f"{moved.year:04}", f"{moved.month:02}", f"{moved.day:02}"][: 1 + bool(month) + bool(day)]
    length = sum(map(len, parts)) + len(dash) * (len(parts) - 1)
    return dash.join(parts) + text[length:]


def _parts(raw: str) -> tuple[int, int, int]:
    """Year, month and day, the last two 0 where the date does not say. Raises: Unfit."""
    text = raw.strip()
    if (found := _SLASHED.match(text)) is not None:
        month, day, year = (int(part) for part in found.groups())
    else:
        found = _ISO.match(text) or _PACKED.match(text)
        if found is None:
            raise Unfit("not-a-date")
        year, month, day = (int(part or 0) for part in found.groups()[:3])
    _day(year, month or 1, day or 1)
    return year, month, day


def _day(year: int, month: int, day: int) -> date:
    try:
        return date(year, month, day)
    except ValueError:
        raise Unfit("not-a-date") from None
