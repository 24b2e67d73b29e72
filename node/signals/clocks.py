"""From a clock on the wall to UTC and back, over the hours that happen twice and those that never do.

Where clocks are set back, an hour is shown twice. A device writes in order: the first pass is the earlier
one,
until its clock jumps back. Where they are set forward, a clock that was not moved in time shows an hour that
does not exist: it counts on from before (PEP 495, fold 0).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

MINUTE = 60_000_000  # microseconds
QUARTER = 15 * MINUTE  # every change of an offset since 1970 falls on a quarter of an hour
EPOCH = datetime(1970, 1, 1)
Numbers = NDArray[np.int64]


class WallClock:
    """Tells offsets of wall clocks in one zone, in the order in which a device wrote them."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._last: dict[str, int] = {}  # per series, the last ambiguous time that was shown
        self._second: set[str] = set()  # series whose clock was set back

    def offsets(self, clock_us: Numbers, series: list[str] | None = None) -> Numbers:
        """Return minutes east of UTC for times on the wall (µs since 1970).

        series: what runs in order by itself (one device's one signal); by default all of them together.
        """
        quarters, places = np.unique(clock_us // QUARTER, return_inverse=True)
        first = np.array([self._offset(int(quarter), fold=0) for quarter in quarters], dtype=np.int64)
        second = np.array([self._offset(int(quarter), fold=1) for quarter in quarters], dtype=np.int64)
        offsets = first[places]
        ambiguous = np.flatnonzero((first > second)[places])
        for place in ambiguous.tolist():
            name = series[place] if series is not None else ""
            clock = int(clock_us[place])
            last = self._last.get(name)
            if last is not None and abs(clock - last) > 12 * 60 * MINUTE:
                self._second.discard(name)  # another year's hour
            elif last is not None and clock < last:
                self._second.add(name)
            self._last[name] = clock
            if name in self._second:
                offsets[place] = second[places[place]]
        return offsets

    def _offset(self, quarter: int, *, fold: int) -> int:
        moment = EPOCH + timedelta(microseconds=quarter * QUARTER)
        return _minutes(moment.replace(tzinfo=self._zone, fold=fold))


def offsets_of_utc(utc_us: Numbers, zone: ZoneInfo) -> Numbers:
    """Return minutes east of UTC that clocks in the zone show at moments in UTC (µs since 1970)."""
    quarters, places = np.unique(utc_us // QUARTER, return_inverse=True)
    found = [
        _minutes(
            (EPOCH + timedelta(microseconds=int(quarter) * QUARTER)).replace(tzinfo=UTC).astimezone(zone)
        )
        for quarter in quarters
    ]
    return np.array(found, dtype=np.int64)[places]


def _minutes(moment: datetime) -> int:
    offset = moment.utcoffset()
    return 0 if offset is None else round(offset.total_seconds() / 60)
