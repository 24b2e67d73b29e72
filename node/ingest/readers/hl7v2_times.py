"""HL7's TS and DTM as UTC with their precision and offset.

A time of day without an offset is that of the message (MSH-7); if that has none, of the hospital's zone where
the reader was told one; else it stands as written, as if its clock were UTC, and says no offset.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from node.ingest.facts import Precision

FORM = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?)?)?)?)?"
    r"([+-][0-9]{4})?",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
YEARS = range(1800, 2200)  # outside of them a clock or a default was wrong
MAX_OFFSET_MIN = 14 * 60  # the largest that any clock shows
LONGEST = len("YYYYMMDDHHMMSS.ffffff+ZZZZ")
CACHED = 1 << 14  # the results of a panel share their time


class Moment(NamedTuple):
    """A time as far as it was said. us: microseconds since 1970 in UTC; of a date its first instant there."""

    us: int
    precision: str
    offset_min: int | None

    @property
    def day(self) -> int:
        """Days since 1970."""
        return self.us // 86_400_000_000


def moment(text: str, default_offset: int | None = None, zone: str = "") -> Moment | None:
    """Return the time that `text` says, or None if it is not a time of HL7.

    >>> moment("202005")
    Moment(us=1588291200000000, precision='month', offset_min=None)
    >>> moment("20200501140643+0200").us - moment("20200501140643").us == -2 * 3600 * 10**6
    True
    >>> moment("20200230") is None
    True
    """
    return _moment(text, default_offset, zone) if len(text) <= LONGEST else None


@lru_cache(maxsize=CACHED)
def _moment(text: str, default_offset: int | None, zone: str) -> Moment | None:
    found = FORM.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    ahead = default_offset if offset is None else _ahead(offset)
    if int(year) not in YEARS or (offset is not None and ahead is None):
        return None
    try:
        at = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if hour is None:
            known = Precision.YEAR if month is None else Precision.MONTH if day is None else Precision.DAY
            return Moment((at - EPOCH) // MICROSECOND, known.value, None)
        at = at.replace(hour=int(hour), minute=int(minute or 0), second=int(second or 0))
    except ValueError:
        return None
    if ahead is None and zone:
        local = at.replace(tzinfo=ZoneInfo(zone)).utcoffset() or timedelta()
        ahead = int(local.total_seconds() // 60)
    us = (at - EPOCH) // MICROSECOND + int((fraction or "").ljust(6, "0")) - (ahead or 0) * 60_000_000
    return Moment(us, Precision.SECOND.value, ahead)


def _ahead(offset: str) -> int | None:
    hours, minutes = int(offset[1:3]), int(offset[3:])
    ahead = hours * 60 + minutes
    if minutes > 59 or ahead > MAX_OFFSET_MIN:
        return None
    return -ahead if offset[0] == "-" else ahead
