"""Columns that come with a type, as the rules of a mapping take them: text, or days and moments.

A mapping speaks of text, so that the same rows give the same records however they are kept:

    whole numbers           without a point, from columns of fractions too: 42.0 is "42"
    other numbers           the shortest text that is the same number; decimals with the digits they have
    true and false          "true" and "false"
    dates and moments       stay what they are, so that a `format` of the mapping is not needed and not used;
                            where their text is asked for, 2020-01-31 or 2020-01-31 08:30:00
    moments with a zone     on the clock of the mapping's `zone`, UTC if it names none
    no value                the empty text
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REPLACED = "\N{REPLACEMENT CHARACTER}"
_WHOLE_BELOW = 2.0**53  # above it a double no longer tells neighbours apart
_FIRST_DAY = int(np.datetime64("0001-01-01", "D").astype(np.int64))  # outside these there is no calendar;
_LAST_DAY = int(np.datetime64("9999-12-31", "D").astype(np.int64))  # a day there is implausible, and stays so
_DAY_IN = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def refusal(kind: pa.DataType) -> str | None:
    """Return what a column of this type is called if no mapping can use it."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        return "a column of structures or lists"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "a column of bytes and not of text"
    if pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return "a column of durations"
    return None


def mappable(values: pa.Array, *, zone: str) -> pa.Array:
    """Return a column as text, date32 or timestamp[us]; no value is the empty text, or null for dates.

    Args:
        zone: of IANA, whose clock moments with a zone are read on.
    Raises: ValueError if `refusal` says why.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if refusal(kind) is not None:
        raise ValueError("no mapping can use such a column")
    if pa.types.is_timestamp(kind):
        return _moments(values, zone)
    if pa.types.is_date(kind):
        return _days(values)
    if pa.types.is_floating(kind):
        return pc.fill_null(_fractions(values), "")
    return pc.fill_null(values.cast(pa.string()), "")


def not_text(values: pa.Array) -> np.ndarray:
    """Return which rows of a column of text are none: not UTF-8, or already replaced where they come from."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return np.zeros(len(values), dtype=bool)
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.binary() if pa.types.is_string(values.type) else pa.large_binary())
        return np.array([not _is_text(item) for item in raw.to_pylist()], dtype=bool)
    found: np.ndarray = pc.fill_null(pc.match_substring(values, REPLACED), False).to_numpy(
        zero_copy_only=False
    )
    return found


def _is_text(item: bytes | None) -> bool:
    try:
        return item is None or REPLACED not in item.decode()
    except UnicodeDecodeError:
        return False


def _fractions(values: pa.Array) -> pa.Array:
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    wide = values.cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), _WHOLE_BELOW))
    whole = pc.fill_null(whole, False)
    as_whole = pc.if_else(whole, wide, 0.0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, as_whole, values.cast(pa.string()))


def _days(values: pa.Array) -> pa.Array:
    days = values.cast(pa.date32(), safe=False).cast(pa.int32())
    return _within(days, _FIRST_DAY, _LAST_DAY).cast(pa.int32()).cast(pa.date32())


def _moments(values: pa.Array, zone: str) -> pa.Array:
    unit = values.type.unit
    day = _DAY_IN[unit]
    counts = values.cast(pa.int64())
    if unit != "ns":  # 64 bits of nanoseconds end within the calendar
        counts = _within(counts, _FIRST_DAY * day, (_LAST_DAY + 1) * day - 1)
    plain = counts.cast(pa.timestamp(unit)).cast(pa.timestamp("us"), safe=False)
    if values.type.tz is None or zone == "UTC":
        return plain
    return pc.local_timestamp(plain.cast(pa.int64()).cast(pa.timestamp("us", tz=zone)))


def _within(counts: pa.Array, first: int, last: int) -> pa.Array:
    """What lies outside becomes the end that it is beyond: an implausible date either way."""
    return pc.max_element_wise(
        pc.min_element_wise(counts, pa.scalar(last, counts.type), skip_nulls=False),
        pa.scalar(first, counts.type),
        skip_nulls=False,
    )


def on_clock(moment: datetime, zone: str) -> datetime:
    """Return the clock's time of a moment that knows its zone; others stand as they are."""
    if moment.tzinfo is None:
        return moment
    from zoneinfo import ZoneInfo

    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
