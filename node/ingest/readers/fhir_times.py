"""FHIR's date, dateTime and instant as UTC with their precision and offset. Nothing is guessed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from node.ingest.facts import Precision

FORM = re.compile(
    r"(?P<year>[0-9]{4})"
    r"(?:-(?P<month>[0-9]{2})"
    r"(?:-(?P<day>[0-9]{2})"
    r"(?:T(?P<clock>[0-9]{2}:[0-9]{2})(?P<second>:[0-9]{2})?(?:\.(?P<fraction>[0-9]{1,12}))?"
    r"(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_OFFSET_MIN = 14 * 60  # FHIR's own limit
CACHED = 1 << 16  # a panel's results share their time; a batch rarely has more
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)", re.ASCII)
ZONE = re.compile(r"(?:\.(?P<fraction>[0-9]{1,12}))?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


class Moment(NamedTuple):
    """A time as far as it was said.

    us: microseconds since 1970 in UTC; of a date its first instant, as if its day were a day of UTC.
    offset_min: what the local clock was ahead of UTC; None if not said. lost_time: a time of day was given
    without its zone, so only the day was kept.
    """

    us: int
    precision: str
    offset_min: int | None
    lost_time: bool = False


@lru_cache(maxsize=CACHED)
def moment(text: str) -> Moment | None:
    """Return the time that `text` says, or None if it is not a FHIR date, dateTime or instant.

    A leap second is the second after it. Seconds may be missing, which FHIR does not allow but servers write.

    >>> moment("2020-02")
    Moment(us=1580515200000000, precision='month', offset_min=None, lost_time=False)
    >>> moment("2020-02-30") is None
    True
    """
    if len(text) >= len("2020-02-03T04:05:06Z") and text[10] == "T":  # as nearly all are written
        day_us, clock_us, behind = _day_us(text[:10]), _clock_us(text[11:19]), _behind(text[19:])
        if day_us is not None and clock_us is not None and behind is not None:
            us = day_us + clock_us + behind[0]
            return Moment(us, _SECOND, behind[1]) if FIRST_US <= us <= LAST_US else None
    return by_form(text)


def by_form(text: str) -> Moment | None:
    """Return the same, in whatever form FHIR allows: `moment` without its shorter way."""
    found = FORM.fullmatch(text)
    if found is None:
        return None
    year, month, day, clock, second, fraction, zone = found.groups()
    precision = Precision.YEAR if month is None else Precision.MONTH if day is None else Precision.DAY
    try:
        at = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if clock is None or zone is None:
            return Moment((at - EPOCH) // MICROSECOND, precision.value, None, lost_time=clock is not None)
        at = at.replace(hour=int(clock[:2]), minute=int(clock[3:]))
    except ValueError:
        return None
    seconds, offset = int(second[1:]) if second else 0, offset_min(zone)
    if seconds > 60 or offset is None:
        return None
    us = (at - EPOCH) // MICROSECOND + seconds * 1_000_000 - offset * 60_000_000
    us += int((fraction or "0")[:6].ljust(6, "0"))
    return Moment(us, Precision.SECOND.value, offset) if FIRST_US <= us <= LAST_US else None


_SECOND = Precision.SECOND.value


@lru_cache(maxsize=CACHED)
def _day_us(text: str) -> int | None:
    """Return where a day begins, None if it is none."""
    if DAY.fullmatch(text) is None:
        return None
    try:
        return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MICROSECOND
    except ValueError:
        return None


@lru_cache(maxsize=CACHED)
def _clock_us(text: str) -> int | None:
    found = CLOCK.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds = map(int, found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000


@lru_cache(maxsize=CACHED)
def _behind(text: str) -> tuple[int, int] | None:
    """Return what ".678-05:00" adds to a clock's time for UTC, and its offset in minutes."""
    found = ZONE.fullmatch(text)
    offset = None if found is None else offset_min(found["zone"])
    if found is None or offset is None:
        return None
    return int((found["fraction"] or "0")[:6].ljust(6, "0")) - offset * 60_000_000, offset


FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def offset_min(zone: str) -> int | None:
    """Return how many minutes a zone is ahead of UTC, or None if no clock shows it."""
    if zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[4:])
    ahead = hours * 60 + minutes
    if minutes > 59 or ahead > MAX_OFFSET_MIN:
        return None
    return -ahead if zone[0] == "-" else ahead
