"""DICOM's dates and times, moved by a patient's days or cut to the year, in their own notation."""

from __future__ import annotations

import re
from datetime import date, timedelta

from deid.dates import DatePractice

_DA = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with points: ACR-NEMA's way
_DT = re.compile(r"(\d{4})(\d{2})?(\d{2})?((?:\d{2}){0,3}(?:\.\d{1,6})?)([+-]\d{4})?")
_TM = re.compile(r"\d{2}:?(?:\d{2}:?(?:\d{2}(?:\.\d{1,6})?)?)?")


def moved(text: str, vr: str, *, shift_days: int, practice: DatePractice) -> str | None:
    """Return a DA, DT or TM value as it may be kept; None if it is no such value.

    A time of day stays under a shift, and goes where only years are kept.

    >>> moved("20240301", "DA", shift_days=-1, practice=DatePractice.SHIFTED)
    '20240229'
    """
    text = text.strip()
    if vr == "TM":
        if _TM.fullmatch(text) is None:
            return None
        return text if practice is DatePractice.SHIFTED else "000000"
    found = (_DA if vr == "DA" else _DT).fullmatch(text)
    if found is None:
        return None
    year, month, day = found[1], found[2] or "07", found[3] or "15"  # the middle of what is not said
    try:
        there = date(int(year), int(month), int(day)) + timedelta(days=shift_days)
    except (ValueError, OverflowError):
        return None
    if practice is DatePractice.YEAR_ONLY:
        return f"{year}0101" if vr == "DA" else year
    if vr == "DA":
        return f"{there:%Y%m%d}"
    digits = f"{there:%Y%m%d}"[: 8 if found[3] else 6 if found[2] else 4]
    return digits + found[4] + (found[5] or "")
