"""From columns as a source has them to samples: units converted, what is no measurement turned away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from node.ingest.facts import UTC, TurnedAway
from node.signals.kinds import SIGNALS, conversion
from node.signals.samples import SAMPLES

# Why a record gives no sample. Words of this list alone, never content.
NO_SIGNAL = "not-a-signal"  # a kind of record that holds no sample
NO_VALUE = "no-value"
BAD_VALUE = "not-a-number"
NO_TIME = "no-time"
BAD_TIME = "not-a-time"
UNKNOWN_UNIT = "unknown-unit"
IMPLAUSIBLE = "implausible-value"  # outside of what a living person can have
BACKWARDS = "ends-before-it-starts"
NO_CONFIDENCE = "no-confidence"  # the device itself says that it did not measure

EARLIEST = np.datetime64("1970-01-01", "us").astype(np.int64)  # no wearable is older than the clock
LATEST = np.datetime64("3500-01-01", "us").astype(np.int64)  # some public archives move dates centuries ahead


@dataclass(slots=True)
class Rows:
    """Columns of candidate samples while a reader fills them; `None` in `start` or `value` is turned away."""

    record: list[int] = field(default_factory=list)
    signal: list[str] = field(default_factory=list)
    start: list[int | None] = field(default_factory=list)  # microseconds
    end: list[int | None] = field(default_factory=list)
    offset: list[int | None] = field(default_factory=list)  # minutes
    value: list[float | None] = field(default_factory=list)
    unit: list[str] = field(default_factory=list)
    device: list[str] = field(default_factory=list)
    recorded: list[int | None] = field(default_factory=list)
    patient: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.record)

    def add(
        self,
        record: int,
        signal: str,
        start: int | None,
        value: float | None,
        unit: str,
        device: str,
        *,
        end: int | None = None,
        offset: int | None = None,
        recorded: int | None = None,
        patient: str | None = None,
    ) -> None:
        """Add one candidate."""
        self.record.append(record)
        self.signal.append(signal)
        self.start.append(start)
        self.end.append(end)
        self.offset.append(offset)
        self.value.append(value)
        self.unit.append(unit)
        self.device.append(device)
        self.recorded.append(recorded)
        self.patient.append(patient)

    def sift(self) -> tuple[pa.Table, list[TurnedAway]]:
        """Return the samples among the rows, and the others."""
        stamp = pa.timestamp("us")
        return sift(
            record=np.array(self.record, dtype=np.int64),
            signal=pa.array(self.signal, pa.string()),
            start=pa.array(self.start, pa.int64()).cast(stamp),
            end=pa.array(self.end, pa.int64()).cast(stamp),
            offset=pa.array(self.offset, pa.int16()),
            value=pa.array(self.value, pa.float64()),
            unit=pa.array(self.unit, pa.string()),
            device=pa.array(self.device, pa.string()),
            recorded=pa.array(self.recorded, pa.int64()).cast(stamp),
            patient=pa.array(self.patient, pa.string()),
        )


def sift(
    *,
    record: NDArray[np.int64],
    signal: pa.Array,
    start: pa.Array,
    end: pa.Array,
    offset: pa.Array,
    value: pa.Array,
    unit: pa.Array,
    device: pa.Array,
    recorded: pa.Array,
    patient: pa.Array,
) -> tuple[pa.Table, list[TurnedAway]]:
    """Return the rows that are samples, in their signals' units, and why the others are not."""
    rows = len(record)
    factor, shift, low, high, known = _by_kind(signal, unit)
    raw = value.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    values = raw * factor + shift
    moments = _numbers(start)
    ends = _numbers(end)
    has_end = ~np.asarray(end.is_null())
    with np.errstate(invalid="ignore"):
        tests = (
            ("unit", UNKNOWN_UNIT, ~known),
            ("start", NO_TIME, np.asarray(start.is_null())),
            ("start", BAD_TIME, (moments < EARLIEST) | (moments >= LATEST)),
            ("value", NO_VALUE, np.asarray(value.is_null())),
            ("value", BAD_VALUE, ~np.isfinite(values)),
            ("value", IMPLAUSIBLE, (values < low) | (values > high)),
            ("end", BACKWARDS, has_end & (ends < moments)),
        )
    turned_away: list[TurnedAway] = []
    stays = np.ones(rows, dtype=bool)
    for name, reason, wrong in tests:
        now = stays & wrong
        if now.any():
            turned_away += [
                TurnedAway(number, name, reason, whole_record=True) for number in record[now].tolist()
            ]
            stays &= ~now
    columns = {
        "record": pa.array(record),
        "patient": patient,
        "signal": signal,
        "start": start.cast(UTC),
        "end": end.cast(UTC),
        "utc_offset_min": offset,
        "value": pa.array(values),
        "device": device,
        "recorded": recorded.cast(UTC),
    }
    mask = pa.array(stays)
    return pa.Table.from_arrays([pc.filter(columns[name], mask) for name in SAMPLES.names], schema=SAMPLES), (
        turned_away
    )


def _numbers(moments: pa.Array) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = moments.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return numbers


def _by_kind(signal: pa.Array, unit: pa.Array) -> tuple[NDArray[Any], ...]:
    """Factor, offset, bounds of each row, and whether its unit is one of its signal's."""
    both = pc.binary_join_element_wise(signal, unit.fill_null(""), "\x1f").dictionary_encode()
    kinds = [text.split("\x1f", 1) for text in both.dictionary.to_pylist()]
    found = [conversion(name, written) for name, written in kinds]
    codes = both.indices.to_numpy(zero_copy_only=False)
    columns = (
        np.array([1.0 if pair is None else pair[0] for pair in found]),
        np.array([0.0 if pair is None else pair[1] for pair in found]),
        np.array([SIGNALS[name].low for name, _ in kinds]),
        np.array([SIGNALS[name].high for name, _ in kinds]),
        np.array([pair is not None for pair in found], dtype=bool),
    )
    return tuple(column[codes] for column in columns)


def no_samples() -> pa.Table:
    """Return a table of no samples."""
    return SAMPLES.empty_table()


def each_turned_away(records: Sequence[int], reason: str, *, field_name: str = "*") -> list[TurnedAway]:
    """Return whole records turned away for one reason."""
    return [TurnedAway(record, field_name, reason, whole_record=True) for record in records]
