"""Columns of text, or of typed dates, read by their distinct values: each parsed once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_DAY_US = 86_400_000_000
_CARRIED_DAYS = (1, 2, 3)  # where "30 February" lands: the only days that a too large day of month becomes


class Column:
    """One column of a batch: its distinct `texts` without outer blanks, and which row has which (`index`)."""

    def __init__(self, values: pa.Array | pa.ChunkedArray) -> None:
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        encoded = values.dictionary_encode(null_encoding="encode")
        self.index: np.ndarray = encoded.indices.to_numpy(zero_copy_only=False)
        self._typed: pa.Array | None = (
            None  # the distinct dates or moments of a column that says it holds them
        )
        if pa.types.is_temporal(encoded.dictionary.type):
            self._typed = encoded.dictionary
            self.texts: pa.Array = pc.fill_null(_written(encoded.dictionary), "")
        else:
            self.texts = pc.utf8_trim_whitespace(encoded.dictionary)

    def spread(self, of_texts: np.ndarray) -> np.ndarray:
        """Return for each row what `of_texts` says of its text."""
        rows: np.ndarray = of_texts[self.index]
        return rows

    def rows_of(self, of_texts: pa.Array) -> pa.Array:
        """Return for each row what the Arrow array `of_texts` says of its text."""
        return of_texts.take(pa.array(self.index))

    @cached_property
    def numbers(self) -> np.ndarray:
        """The distinct texts as numbers; NaN where a text is none, or is too large for one."""
        good = pc.match_substring_regex(self.texts, _NUMBER)
        cast = pc.cast(pc.if_else(good, self.texts, None), pa.float64())
        found: np.ndarray = cast.to_numpy(zero_copy_only=False).astype(np.float64)
        found[~np.isfinite(found)] = np.nan
        return found

    def missing(self, codes: Iterable[str]) -> np.ndarray:
        """Return which distinct texts are one of `codes`: as text, or as number if the code is one."""
        return self.look_up(list(dict.fromkeys(codes)), as_numbers=True) >= 0

    def look_up(self, codes: Collection[str], *, as_numbers: bool) -> np.ndarray:
        """Return for each distinct text its place among `codes`, or -1.

        Args:
            as_numbers: whether "1.0" is the code "1". Not for codes of a vocabulary: 250.0 is not 250.00.
        """
        if not codes:
            return np.full(len(self.texts), -1)
        places = pc.index_in(self.texts, value_set=pa.array(list(codes), pa.string()))
        found: np.ndarray = pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        if as_numbers:
            numeric = [
                (place, number) for place, code in enumerate(codes) if (number := _number(code)) is not None
            ]
            if numeric and (found < 0).any():
                for place, number in numeric:
                    found[(found < 0) & (self.numbers == number)] = place
        return found

    def moments(self, form: str) -> np.ndarray:
        """Return the distinct texts as microseconds since 1970-01-01; NOT_A_MOMENT where one is no date.

        Args: form: of text; a column that came with a type for dates needs none.
        """
        if self._typed is not None:
            typed = self._typed.cast(pa.timestamp("us")).cast(pa.int64())
            known: np.ndarray = pc.fill_null(typed, NOT_A_MOMENT).to_numpy(zero_copy_only=False).copy()
            return known
        parsed = pc.strptime(self.texts, format=form, unit="us", error_is_null=True)
        stamps: np.ndarray = (
            pc.fill_null(parsed.cast(pa.int64()), NOT_A_MOMENT).to_numpy(zero_copy_only=False).copy()
        )
        days = pc.fill_null(pc.day(parsed), 0).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.isin(days, _CARRIED_DAYS)):
            if not _is_real_day(self.texts[place].as_py(), form):
                stamps[place] = NOT_A_MOMENT
        return stamps


NOT_A_MOMENT = int(np.iinfo(np.int64).min)


def days_of(moments: np.ndarray) -> np.ndarray:
    """Return whole days since 1970-01-01; NOT_A_MOMENT must be masked by the caller."""
    days: np.ndarray = moments // _DAY_US
    return days


def time_of_day(moments: np.ndarray) -> np.ndarray:
    """Return microseconds since midnight."""
    rest: np.ndarray = moments % _DAY_US
    return rest


def moment_at(days: np.ndarray, time_of_day_us: np.ndarray) -> np.ndarray:
    """Return the moment of a day and a time of day."""
    moments: np.ndarray = days * _DAY_US + time_of_day_us
    return moments


def _written(typed: pa.Array) -> pa.Array:
    """Dates and moments as text, to the second."""
    if pa.types.is_date(typed.type):
        return pc.strftime(typed, format="%Y-%m-%d")
    return pc.strftime(typed.cast(pa.timestamp("s"), safe=False), format="%Y-%m-%d %H:%M:%S")


def _number(code: str) -> float | None:
    try:
        return float(code)
    except ValueError:
        return None


def _is_real_day(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True
