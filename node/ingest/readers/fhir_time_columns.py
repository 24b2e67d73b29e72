"""Times of many resources at once: `fhir_times.moment` by columns, for the forms that nearly all have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from node.ingest.facts import Precision
from node.ingest.readers.fhir_times import CACHED, MAX_OFFSET_MIN, moment

SHAPES = (None, Precision.SECOND, Precision.DAY, Precision.MONTH, Precision.YEAR)  # how a time is said
NOT_SAID, SECOND, UNUSABLE = 0, 1, len(SHAPES)
_NUMBERS = {precision: number for number, precision in enumerate(SHAPES)}
_WITH_OFFSET, _IN_UTC = "0000-00-00T00:00:00+00:00", "0000-00-00T00:00:00Z"
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
FEW = 16  # texts: fewer are not worth the columns


@lru_cache(maxsize=CACHED)
def said(text: str | None) -> tuple[int, int, int]:
    """Return a time's microseconds since 1970, its offset in minutes (0 if it has none), and its shape."""
    if text is None:
        return 0, 0, NOT_SAID
    at = moment(text) if text else None
    if at is None or at.lost_time:  # to be noted, as the reader of single resources does
        return 0, 0, UNUSABLE
    return at.us, at.offset_min or 0, _NUMBERS[Precision(at.precision)]


def all_said(texts: Sequence[str | None]) -> np.ndarray:
    """Return what `said` does, a row for each text."""
    found = np.zeros((len(texts), 3), dtype=np.int64)
    lengths = np.array([-1 if text is None else len(text) for text in texts])
    left = lengths >= 0
    for form in (_WITH_OFFSET, _IN_UTC):
        some = np.flatnonzero(lengths == len(form))
        if len(some) >= FEW:
            written = [texts[place] for place in some.tolist()] if len(some) < len(texts) else texts
            left[some] = ~_filled_in(form, written, found, some)  # type: ignore[arg-type]  # they have a length
    rest = np.flatnonzero(left)
    if len(rest):
        found[rest] = [said(texts[place]) for place in rest.tolist()]
    return found


def _filled_in(form: str, texts: Sequence[str], found: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Put times of one form into the rows at `places`; return which of the texts have it, and are times."""
    joined = "".join(texts)
    if not joined.isascii():
        return np.zeros(len(texts), dtype=bool)
    signs = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(len(texts), len(form))
    digits = signs.astype(np.int64) - ord("0")
    good = np.ones(len(texts), dtype=bool)
    for place, sign in enumerate(form):
        column = signs[:, place]
        if sign == "0":
            good &= (column >= ord("0")) & (column <= ord("9"))
        elif sign == "+":
            good &= (column == ord("+")) | (column == ord("-"))
        else:
            good &= column == ord(sign)

    def pair(place: int) -> np.ndarray:
        return digits[:, place] * 10 + digits[:, place + 1]

    year, month, day = pair(0) * 100 + pair(2), pair(5), pair(8)
    hour, minute, second = pair(11), pair(14), pair(17)
    # the year 1 and 9999 are left to who knows where time ends
    good &= (year > 1) & (year < 9999) & (month >= 1) & (month <= 12) & (day >= 1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    in_month = np.where(good, month, 1)
    good &= day <= _DAYS[in_month - 1] + (leap & (in_month == 2))
    good &= (hour < 24) & (minute < 60) & (second <= 60)
    offset = np.zeros(len(texts), dtype=np.int64)
    if form == _WITH_OFFSET:
        offset = pair(20) * 60 + pair(23)
        good &= (pair(23) < 60) & (offset <= MAX_OFFSET_MIN)
        offset = np.where(signs[:, 19] == ord("-"), -offset, offset)
    months = np.where(good, (year - 1970) * 12 + in_month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    at = ((days * 24 + hour) * 60 + minute - offset) * 60 + second
    rows = np.stack([at * 1_000_000, offset, np.full(len(texts), SECOND)], axis=1)
    found[places[good]] = rows[good]
    return good
