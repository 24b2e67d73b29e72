"""Dates moved by a patient's secret days, in the form they were written in.

Full dates move by the same number of days, so the days between two of them stay true. A month moves by where
its fifteenth falls, a year by where its first of July falls, a day without a year as in a year without a leap
day (one on 29 February as in a leap year). A weekday moves with its date. What cannot be read, and a day that
does not exist, is not moved at all: it becomes a tag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

_WEEK = 7
_TWO_DIGIT_PIVOT = 50  # 49 is 2049, 50 is 1950
_PLAIN_YEAR, _LEAP_YEAR = 2001, 2000
MONTHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
         "November", "December"),
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ),
    "es": (
        ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
         "noviembre", "diciembre"),
        ("ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic"),
    ),
}  # fmt: skip
WEEKDAYS: tuple[tuple[str, ...], ...] = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
)


@dataclass(frozen=True, slots=True)
class DateShift:
    """By how many whole days a patient's dates move. Prints as hidden.

    `keep_weekday` rounds the shift to whole weeks: weekdays stay true and 730 possible shifts become 104.
    """

    days: int
    keep_weekday: bool = False
    day_first: bool = False  # 3/4 is the third of April

    def __post_init__(self) -> None:
        if self.days == 0:
            raise ValueError("a shift of no days moves nothing")

    def __repr__(self) -> str:
        return "DateShift(<hidden>)"

    @property
    def moved_days(self) -> int:
        """The days by which dates move, never 0."""
        if not self.keep_weekday:
            return self.days
        weeks = round(self.days / _WEEK)
        return _WEEK * (weeks or (1 if self.days > 0 else -1))


_MONTH = "|".join(
    sorted({name for pair in MONTHS.values() for names in pair for name in names} | {"Sept"}, key=len)[::-1]
)
_DAY_NAME = "|".join(sorted((name for names in WEEKDAYS for name in names), key=len)[::-1])
_NUMBER, _YEAR = r"(?P<d>\d{1,2})(?P<th>st|nd|rd|th)?", r"(?P<y>['’]?\d{2}|\d{4})"
_FORMS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})(?P<s>[-/.]?)(?P<m>\d{2})(?P=s)(?P<d>\d{2})",
        r"(?P<y>\d{4})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})",
        rf"(?P<m>\d{{1,2}})(?P<s>\s?[-/.]\s?)(?P<d>\d{{1,2}})(?P=s){_YEAR}",
        rf"(?P<mon>{_MONTH})\b\.?[\s-]*{_NUMBER}(?:(?:,|\s+of|-|\s)\s*{_YEAR})?",
        rf"{_NUMBER}(?:\s+(?:of|de)\s+|[\s-]*)(?P<mon>{_MONTH})\b\.?(?:(?:,|\s+of|\s+de|\s+del|-|\s)\s*{_YEAR})?",
        rf"(?P<mon>{_MONTH})\b\.?(?:,|\s+of|\s+de|\s+del|[-/])?\s*(?P<y>\d{{4}}|['’]\d{{2}})",
        r"(?P<m>\d{1,2})[-/](?P<y>\d{4})",
        r"(?P<y>\d{4})[-/](?P<m>\d{1,2})",
        r"(?P<m>\d{1,2})(?P<s>[-/])(?P<d>\d{1,2})",
        rf"(?P<mon>{_MONTH})\.?",
        r"(?P<y>\d{4}|['’]\d{2})(?:s\b)?",
    )
]
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?\s*(?:[ap]\.?m\.?|h|hrs|Z|[+-]\d{2}:?\d{2})?"
_AROUND = re.compile(
    rf"(?P<before>(?:(?P<wd>{_DAY_NAME})\b[.,]?\s*|(?:on|the|in|year|el|en|año|mes de)\s+)*)(?P<core>.*?)"
    rf"(?P<after>(?:[\s,T]*(?:at|@)?\s*{_TIME})?[\s,(]*(?:(?P<wd2>{_DAY_NAME})\b[.)]?)?[\s.,)]*)",
    re.IGNORECASE | re.DOTALL,
)


def shifted_date(value: str, shift: DateShift) -> str | None:
    """Return the date moved, written as it was; None if it cannot be read as one.

    >>> shifted_date("March 3rd, 2013", DateShift(30)), shifted_date("03/29/13", DateShift(5))
    ('April 2nd, 2013', '04/03/13')
    """
    around = _AROUND.fullmatch(value)
    if around is None:
        return None
    days = shift.moved_days
    new: list[tuple[int, int, str]] = []
    for name in ("wd", "wd2"):
        if around[name]:
            new.append((*around.span(name), _weekday(around[name], days)))
    if around["core"]:
        for form in _FORMS:
            match = form.fullmatch(around["core"])
            made = _moved(match, shift) if match else None
            if match is not None and made is not None:
                start = around.start("core")
                new += [(start + match.start(n), start + match.end(n), text) for n, text in made.items()]
                break
        else:
            return None
    for start, end, text in sorted(new, reverse=True):
        value = value[:start] + text + value[end:]
    return value if new else None


def _moved(match: re.Match[str], shift: DateShift) -> dict[str, str] | None:
    """The new text of each part of a date; None if there is no such day."""
    parts = {name: text for name, text in match.groupdict().items() if text}
    month = _month_of(parts["mon"]) if "mon" in parts else int(parts.get("m", 0))
    day = int(parts.get("d", 0))
    as_written = True
    if "m" in parts and "d" in parts and match.start("m") < match.start("d"):
        numeric_order = "y" not in parts or match.start("d") < match.start("y")
        if numeric_order and (month > 12 or (shift.day_first and day <= 12)):
            month, day, as_written = day, month, False
    year = _year_of(parts["y"]) if "y" in parts else None
    try:
        before = date(
            year if year is not None else _LEAP_YEAR if (month, day) == (2, 29) else _PLAIN_YEAR,
            month or 7,
            day or (15 if month else 1),
        )
        after = before + timedelta(days=shift.moved_days)
    except (ValueError, OverflowError):
        return None
    made: dict[str, str] = {}
    if "y" in parts:
        mark = parts["y"].rstrip("0123456789")
        made["y"] = mark + (
            f"{after.year:04}" if len(parts["y"]) == 4 and not mark else f"{after.year % 100:02}"
        )
    if "mon" in parts:
        made["mon"] = _month_like(parts["mon"], after.month)
    # 10/28 does not show whether it has leading zeros; two numbers of two digits are taken to
    widths = [len(parts[name]) for name in ("m", "d") if name in parts]
    padded = min(widths, default=0) == 2 and (len(widths) == 2 or (parts.get("d") or parts["m"])[0] == "0")
    if "m" in parts:
        made["m"] = _written(after.month if as_written else after.day, padded=padded)
    if "d" in parts:
        made["d"] = _written(after.day if as_written else after.month, padded=padded)
    if "th" in parts:
        made["th"] = _ordinal(after.day)
    return made


def _year_of(text: str) -> int:
    number = int(text.lstrip("'’"))
    if len(text) == 4 and text.isdigit():
        return number
    return number + (2000 if number < _TWO_DIGIT_PIVOT else 1900)


def _written(number: int, *, padded: bool) -> str:
    return f"{number:02}" if padded else str(number)


def _ordinal(day: int) -> str:
    return "th" if 11 <= day % 100 <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _month_of(name: str) -> int:
    folded = name.casefold()[:3]
    for language in MONTHS.values():
        for place, short in enumerate(language[1]):
            if short.casefold() == folded:
                return place + 1
    raise ValueError("no month")  # the patterns hold names of months only


def _month_like(model: str, month: int) -> str:
    folded = "sep" if model.casefold() == "sept" else model.casefold()
    for language in MONTHS.values():
        for names in language:
            if folded in (name.casefold() for name in names):
                return _cased(model, names[month - 1])
    raise ValueError("no month")  # as above


def _weekday(model: str, days: int) -> str:
    for names in WEEKDAYS:
        folded = [name.casefold() for name in names]
        if model.casefold() in folded:
            return _cased(model, names[(folded.index(model.casefold()) + days) % _WEEK])
    raise ValueError("no weekday")  # as above


def _cased(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.lower() if model.islower() else word.capitalize()
