"""Hours and days of samples as numbers: the resolution policy.

Windows are of the local clock of each sample (its own offset): an hour is one pass of the clock's hand, so
the
hour that happens twice in autumn is two windows; a day is a local calendar day of 23 to 25 hours. A sample
lies
in the window in which it starts; sleep in the day in which it ends. A sample without an offset lies as if UTC
were local.

Level (heart rate, SpO2, glucose, pressures...), hour and day: mean, sd (n - 1), min, max, count over the
samples, unweighted; coverage: share of the window's bins (kinds.bin_s) that hold a sample. Signals
measured a few
times a day have days alone.
Total (steps, distance, energy, sleep): the sum of what starts in the hour, of the kind of device that counted
most in that hour, because a phone and a watch count the same steps; a day is the sum of its hours.
Beats: sdnn and rmssd (ms) over an hour and a day, of one kind of device (that with most beats); successive
differences only where the second beat follows the first within 1.5 times its interval.

Days also have:
- glucose: time in range 70-180 mg/dL, below 70, below 54, above 180, above 250 as % of readings, and cv (%).
  Source: Battelino et al. 2019, Diabetes Care 42(8):1593. Their targets are for 14 days with 70 % of
  readings:
  average days with the coverage as weight.
- heart rate: `resting`, the lowest mean of a half hour of the clock with three samples or more (ours; what
a device
  calls resting heart rate is the signal resting_heart_rate); `mesor`, `amplitude` and `acrophase` of a
  cosinor.

A window's version is when it was complete (its end, or its last sample's recording if later) plus one
microsecond
for each sample ever stored in it: adding samples always raises it, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from node.signals.cosinor import cosinor
from node.signals.kinds import SIGNALS, Form

POLICY = 1  # raised whenever the same samples would give other summaries
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NO_OFFSET = 32_767  # no clock shows it
RESTING_MIN_SAMPLES = 3
_NAMES = tuple(sorted(SIGNALS))
_CODE = {name: place for place, name in enumerate(_NAMES)}
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Window(StrEnum):
    """What is summarized."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Summary:
    """One kind of number over some windows, in parallel arrays.

    group: which person's day (index of the caller's); start, end: UTC µs, shifted as the samples are; local:
    µs that the clock showed at the start; offset: minutes, NO_OFFSET if unknown; version: µs; record: the
    smallest number of a record that touched the window.
    """

    signal: str
    window: Window
    statistic: str
    unit: str
    group: Ints
    start: Ints
    end: Ints
    local: Ints
    offset: Ints
    version: Ints
    record: Ints
    value: Floats


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of some persons' days as arrays. `record` > 0: it only marks that a record touched here."""

    group: Ints
    signal: Ints
    at: Ints  # where it counts: its start, or its end if it counts by that
    local: Ints
    offset: Ints
    value: Floats
    device: Ints
    recorded: Ints  # the smallest number if unknown
    holds: NDArray[np.bool_]
    record: Ints

    def where(self, rows: NDArray[np.bool_]) -> Samples:
        """Return some of the rows."""
        return Samples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def samples_of(table: pa.Table, group: Ints, record: Ints | None = None) -> Samples:
    """Return a table's (RAW columns) samples as arrays; `record` makes them marks of what was touched."""
    signal = _codes(table["signal"], _CODE)
    start = _numbers(table["start"], 0)
    end = _numbers(table["end"], 0)
    by_end = np.array([SIGNALS[name].by_end for name in _NAMES])[signal] & (end > 0)
    at = np.where(by_end, end, start)
    offset = _numbers(table["utc_offset_min"], NO_OFFSET)
    return Samples(
        group=group,
        signal=signal,
        at=at,
        local=at + np.where(offset == NO_OFFSET, 0, offset) * MINUTE,
        offset=offset,
        value=table["value"].to_numpy(),
        device=_hashes(table["device"]),
        recorded=_numbers(table["recorded"], np.iinfo(np.int64).min),
        holds=table["holds"].to_numpy() if "holds" in table.column_names else np.ones(len(table), dtype=bool),
        record=np.zeros(len(table), dtype=np.int64) if record is None else record,
    )


def join(parts: list[Samples]) -> Samples:
    """Return all rows of several."""
    return Samples(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Samples.__dataclass_fields__)
    )


def summaries(samples: Samples) -> Iterator[Summary]:
    """Yield the summaries of every window that a record touched."""
    for code in np.unique(samples.signal).tolist():
        signal = SIGNALS[_NAMES[code]]
        of_signal = samples.where(samples.signal == code)
        if signal.hourly or signal.form is Form.BEATS:
            yield from _of_windows(_Windows(of_signal, signal.name, Window.HOUR))
        yield from _of_windows(_Windows(of_signal, signal.name, Window.DAY))


class _Windows:
    """The touched windows of one signal: bounds, versions, and the samples that hold, sorted into them."""

    def __init__(self, samples: Samples, name: str, window: Window) -> None:
        self.signal = SIGNALS[name]
        self.window = window
        width = HOUR if window is Window.HOUR else DAY
        keys = [samples.group, samples.local // width]
        if window is Window.HOUR:
            keys.append(samples.offset)
        ids = _ids(keys)
        touched = np.zeros(ids.max() + 1, dtype=bool)
        touched[ids[samples.record > 0]] = True
        keep = touched[ids]
        samples, ids = samples.where(keep), (np.cumsum(touched) - 1)[ids[keep]]
        self.count = int(touched.sum())
        marks = samples.record > 0
        self.record = np.full(self.count, np.iinfo(np.int64).max)
        np.minimum.at(self.record, ids[marks], samples.record[marks])
        stored, places = samples.where(~marks), ids[~marks]
        ahead = np.diff(places)
        if not ((ahead > 0) | ((ahead == 0) & (np.diff(stored.at) > 0))).all():
            order = np.lexsort((stored.value, stored.device, stored.at, places))
            stored, places = stored.where(order), places[order]  # type: ignore[arg-type]
        first = np.searchsorted(places, np.arange(self.count))
        rows = np.bincount(places, minlength=self.count)
        last = first + rows - 1
        self.group = stored.group[first]
        self.offset = stored.offset[first]
        self.local = stored.local[first] // width * width
        self.start = self.local - np.where(self.offset == NO_OFFSET, 0, self.offset) * MINUTE
        drift = np.where(
            (self.offset == NO_OFFSET) | (stored.offset[last] == NO_OFFSET),
            0,
            stored.offset[last] - self.offset,
        )
        # A day on which the clock was set forward is shorter. A traveller's is as long as their clock said.
        self.width = width - (drift * MINUTE if window is Window.DAY else 0)
        self.width = np.clip(self.width, width // 2, width * 3 // 2)
        self.end = self.start + self.width
        # Each sample's own clock says when the window is over for it: a maximum never falls when samples
        # come.
        over = (stored.local // width + 1) * width
        over -= np.where(stored.offset == NO_OFFSET, 0, stored.offset) * MINUTE
        known = np.maximum.reduceat(np.maximum(over, stored.recorded), first) if self.count else first
        self.version = known + rows
        holds = stored.holds
        self.samples, self.places = stored.where(holds), places[holds]
        self.first = np.searchsorted(self.places, np.arange(self.count))
        self.rows = np.bincount(self.places, minlength=self.count)

    def summary(self, statistic: str, value: Floats, *, unit: str | None = None) -> Summary:
        """Return one number of each window; those that are NaN do not exist."""
        there = np.isfinite(value)
        return Summary(
            signal=self.signal.name,
            window=self.window,
            statistic=statistic,
            unit=self.signal.unit if unit is None else unit,
            group=self.group[there],
            start=self.start[there],
            end=self.end[there],
            local=self.local[there],
            offset=self.offset[there],
            version=self.version[there],
            record=self.record[there],
            value=value[there],
        )

    def sums(self, values: Floats) -> Floats:
        """Return the sum of one value per sample, by window."""
        return np.add.reduceat(values, self.first)

    def coverage(self) -> Floats | None:
        """Return the share of bins with a sample, in %; None where the window is one bin."""
        width = self.signal.bin_s * SECOND
        if width * 2 > (HOUR if self.window is Window.HOUR else DAY):
            return None
        bin_of = self.samples.at // width
        fresh = np.ones(len(bin_of), dtype=bool)  # each window's samples are in order of time
        fresh[1:] = (self.places[1:] != self.places[:-1]) | (bin_of[1:] != bin_of[:-1])
        bins = np.bincount(self.places[fresh], minlength=self.count)
        return np.minimum(100.0, 100.0 * bins * width / self.width)


def _of_windows(windows: _Windows) -> Iterator[Summary]:
    if windows.count == 0:
        return
    form = windows.signal.form
    yield windows.summary("count", windows.rows.astype(np.float64), unit="1")
    if form is Form.LEVEL:
        yield from _levels(windows)
    elif form is Form.TOTAL:
        yield windows.summary("total", _totals(windows))
    else:
        yield from _beats(windows)
    coverage = windows.coverage()
    if coverage is not None:
        yield windows.summary("coverage", coverage, unit="%")


def _levels(windows: _Windows) -> Iterator[Summary]:
    values = windows.samples.value
    mean = windows.sums(values) / windows.rows
    squares = windows.sums((values - mean[windows.places]) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.where(windows.rows > 1, np.sqrt(squares / (windows.rows - 1)), np.nan)
    yield windows.summary("mean", mean)
    yield windows.summary("sd", sd)
    yield windows.summary("min", np.minimum.reduceat(values, windows.first))
    yield windows.summary("max", np.maximum.reduceat(values, windows.first))
    if windows.window is Window.DAY and windows.signal.name == "glucose":
        shares = {
            "tir": (values >= 70) & (values <= 180),
            "below_70": values < 70,
            "below_54": values < 54,
            "above_180": values > 180,
            "above_250": values > 250,
        }
        for name, inside in shares.items():
            yield windows.summary(
                name, 100 * windows.sums(inside.astype(np.float64)) / windows.rows, unit="%"
            )
        yield windows.summary("cv", 100 * sd / mean, unit="%")
    if windows.window is Window.DAY and windows.signal.name == "heart_rate":
        yield windows.summary("resting", _resting(windows))
        mesor, amplitude, acrophase = _circadian(windows)
        yield windows.summary("mesor", mesor)
        yield windows.summary("amplitude", amplitude)
        yield windows.summary("acrophase", acrophase, unit="h")


def _means_of(windows: _Windows, width: int) -> tuple[Ints, Ints, Floats, Ints]:
    """Return window, number of the part, mean and count of each part (of `width` µs, local clock)."""
    part = windows.samples.local // width
    ids = _ids([windows.places, part])
    rows = np.bincount(ids)
    window_of, part_of = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    window_of[ids], part_of[ids] = windows.places, part
    return window_of, part_of, np.bincount(ids, windows.samples.value) / rows, rows


def _resting(windows: _Windows) -> Floats:
    places, _, means, rows = _means_of(windows, HOUR // 2)
    lowest = np.full(windows.count, np.inf)
    enough = rows >= RESTING_MIN_SAMPLES
    np.minimum.at(lowest, places[enough], means[enough])
    return np.where(np.isfinite(lowest), lowest, np.nan)


def _circadian(windows: _Windows) -> tuple[Floats, Floats, Floats]:
    places, hours, means, _ = _means_of(windows, HOUR)
    found = np.full((3, windows.count), np.nan)
    bounds = np.searchsorted(places, np.arange(windows.count + 1))
    for place in range(windows.count):
        begin, end = bounds[place], bounds[place + 1]
        fit = cosinor(hours[begin:end] % 24 + 0.5, means[begin:end])
        if fit is not None:
            found[:, place] = fit.mesor, fit.amplitude, fit.acrophase_h
    return found[0], found[1], found[2]


def _totals(windows: _Windows) -> Floats:
    """Return per window the sum over its hours of what the device kind that counted most counted."""
    hour_of = _ids([windows.places, windows.samples.local // HOUR, windows.samples.offset])
    counted = _ids([hour_of, windows.samples.device])
    sums = np.bincount(counted, windows.samples.value)
    hour_counted = np.zeros(len(sums), dtype=np.int64)
    hour_counted[counted] = hour_of
    most = np.zeros(int(hour_of.max()) + 1)
    np.maximum.at(most, hour_counted, sums)
    window_of = np.zeros(len(most), dtype=np.int64)
    window_of[hour_of] = windows.places
    return np.bincount(window_of, most, minlength=windows.count).astype(np.float64)


def _beats(windows: _Windows) -> Iterator[Summary]:
    """SDNN and RMSSD, of the kind of device with most beats in the window."""
    sdnn, rmssd = np.full(windows.count, np.nan), np.full(windows.count, np.nan)
    for place in range(windows.count):
        rows = slice(windows.first[place], windows.first[place] + windows.rows[place])
        device = windows.samples.device[rows]
        kinds, counts = np.unique(device, return_counts=True)
        chosen = device == kinds[np.argmax(counts)]
        at, interval = windows.samples.at[rows][chosen], windows.samples.value[rows][chosen]
        if len(interval) > 1:
            sdnn[place] = np.std(interval, ddof=1)
            follows = np.diff(at) <= 1.5 * interval[1:] * 1000
            if follows.any():
                rmssd[place] = np.sqrt(np.mean(np.diff(interval)[follows] ** 2))
    yield windows.summary("sdnn", sdnn)
    yield windows.summary("rmssd", rmssd)


def _ids(keys: list[Ints]) -> Ints:
    """Return a number for each row, the same for the same keys, in the keys' order."""
    ids = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        codes, found = _ranked(key)
        ids = _ranked(ids * found + codes)[0]
    return ids


def _ranked(numbers: Ints) -> tuple[Ints, int]:
    """Return the place of each number among the different ones, and how many these are."""
    ahead = np.diff(numbers, prepend=numbers[:1])
    if (ahead >= 0).all():
        ranks = np.cumsum(ahead > 0, dtype=np.int64)
        return ranks, int(ranks[-1]) + 1 if len(ranks) else 0
    coded = pa.array(numbers).dictionary_encode()
    found = coded.dictionary.to_numpy()
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.argsort(found)] = np.arange(len(found))
    return rank[coded.indices.to_numpy()], len(found)


def _codes(column: pa.ChunkedArray, known: dict[str, int]) -> Ints:
    encoded = column.combine_chunks().dictionary_encode()
    table = np.array([known[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    found: Ints = table[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _hashes(column: pa.ChunkedArray) -> Ints:
    """Return a number for each device kind that does not depend on what else is in the column."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    table = np.array(
        [int.from_bytes(name.encode()[:7].ljust(7, b"\0"), "big") for name in names], dtype=np.int64
    )
    found: Ints = table[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _numbers(column: pa.ChunkedArray, missing: int) -> Ints:
    return column.cast(pa.int64()).combine_chunks().fill_null(missing).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
