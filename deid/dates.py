"""Dates and ages without the days that identify.

Shifted dates are an expert-determination practice (45 CFR 164.514(b)(1)): every date of a patient moves by
the same secret number of whole days, so intervals, order and time of day stay true. Safe Harbor (b)(2) keeps
the year only. A hospital chooses; `DatePractice` says which one a store was made with.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MAX_SHIFT_DAYS = 365  # a year either way hides season and weekday, and keeps the era of care
OLDEST_AGE_YEARS = 90  # 45 CFR 164.514(b)(2)(i)(C): all ages over 89 are one category, "90 or older"

Days = NDArray[np.int64]


class DatePractice(StrEnum):
    """How dates are stored."""

    SHIFTED = "shifted"  # expert determination: whole-day shift per patient
    YEAR_ONLY = "year-only"  # Safe Harbor: 1 January of the year; intervals within a year are lost


def shift_of(secret: bytes) -> int:
    """Return a shift of -365 to 365 whole days, never 0, from at least 8 secret bytes.

    Guarantee: each of the 730 shifts is equally likely up to 2^-54.
    """
    if len(secret) < 8:
        raise ValueError("a date shift needs 8 secret bytes")
    step = int.from_bytes(secret[:8], "big") % (2 * MAX_SHIFT_DAYS) - MAX_SHIFT_DAYS
    return step if step < 0 else step + 1


def stored_days(days: Days, shift_days: Days, practice: DatePractice) -> Days:
    """Return the dates to store, as days since 1970-01-01, for true dates in the same unit."""
    if practice is DatePractice.SHIFTED:
        return days + shift_days
    years = days.astype("datetime64[D]").astype("datetime64[Y]")
    return years.astype("datetime64[D]").astype(np.int64)


def year_of(days: Days) -> Days:
    """Return the calendar year of each date."""
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def capped_year_of_birth(year_of_birth: Days, year_of_event: Days) -> Days:
    """Return years of birth by which nobody is older than 90 in the year of their event.

    >>> capped_year_of_birth(np.array([1920, 1950]), np.array([2020, 2020])).tolist()
    [1930, 1950]
    """
    return np.maximum(year_of_birth, year_of_event - OLDEST_AGE_YEARS)
