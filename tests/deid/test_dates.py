"""Dates move by whole days and keep intervals; nobody is older than 90."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.dates import MAX_SHIFT_DAYS, DatePractice, capped_year_of_birth, shift_of, stored_days, year_of

days = st.integers(-20_000, 30_000)


@given(st.lists(days, min_size=2, max_size=20), st.binary(min_size=8, max_size=32))
def test_intervals_of_one_patient_stay(moments: list[int], secret: bytes) -> None:
    true = np.array(moments)
    shift = np.full(len(true), shift_of(secret))
    stored = stored_days(true, shift, DatePractice.SHIFTED)
    assert (np.diff(stored) == np.diff(true)).all()
    assert (np.abs(stored - true) > 0).all()
    assert (np.abs(stored - true) <= MAX_SHIFT_DAYS).all()


def test_all_shifts_occur_and_zero_does_not() -> None:
    found = {shift_of(number.to_bytes(8, "big")) for number in range(730)}
    assert found == set(range(-365, 366)) - {0}
    with pytest.raises(ValueError, match="8 secret bytes"):
        shift_of(b"short")


@given(days)
def test_safe_harbor_keeps_the_year_only(day: int) -> None:
    stored = stored_days(np.array([day]), np.array([77]), DatePractice.YEAR_ONLY)
    assert year_of(stored) == year_of(np.array([day]))
    assert str(stored.astype("datetime64[D]")[0]).endswith("-01-01")


def test_ages_above_89_are_one_category() -> None:
    years = capped_year_of_birth(np.array([1900, 1930, 1931, 1990]), np.full(4, 2020))
    assert (2020 - years).tolist() == [90, 90, 89, 30]
