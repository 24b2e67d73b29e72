"""From records of an Apple Health export to samples, in columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from node.ingest.facts import TurnedAway
from node.ingest.readers.apple_health_xml import Record, said
from node.signals.sifting import BAD_TIME, BAD_VALUE, NO_SIGNAL, Rows, no_samples, sift

_QUANTITY = "HKQuantityTypeIdentifier"
_SIGNAL = {
    _QUANTITY + name: signal
    for name, signal in {
        "HeartRate": "heart_rate",
        "RestingHeartRate": "resting_heart_rate",
        "WalkingHeartRateAverage": "walking_heart_rate",
        "HeartRateVariabilitySDNN": "hrv_sdnn",
        "OxygenSaturation": "spo2",
        "RespiratoryRate": "respiratory_rate",
        "BodyTemperature": "body_temperature",
        "BodyMass": "body_weight",
        "BodyMassIndex": "body_mass_index",
        "Height": "body_height",
        "BloodPressureSystolic": "bp_systolic",
        "BloodPressureDiastolic": "bp_diastolic",
        "BloodGlucose": "blood_glucose",
        "VO2Max": "vo2_max",
        "StepCount": "steps",
        "DistanceWalkingRunning": "distance",
        "FlightsClimbed": "flights_climbed",
        "ActiveEnergyBurned": "active_energy",
        "BasalEnergyBurned": "basal_energy",
        "AppleExerciseTime": "exercise_time",
    }.items()
}
_SLEEP = "HKCategoryTypeIdentifierSleepAnalysis"
_ASLEEP = "HKCategoryValueSleepAnalysisAsleep"  # and what follows: Core, Deep, REM, Unspecified
_UNITS = {"mmol<180.1558800000541>/L": "mmol/L", "mmol<180.15588000005408>/l": "mmol/L", "%": "fraction"}
_TIME = re.compile(r"\A\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2} [+-]\d{4}\Z")
_OF_DAY = re.compile(
    r"\A(\d{1,2})[:.](\d{2})[:.](\d{2})(?:[.,](\d{1,6}))?(?:[\s\u202f]*([AaPp])\.?[Mm]\.?)?\Z"
)
_DEVICES = (
    ("watch", "watch"),
    ("scale", "scale"),
    ("withings", "scale"),
    ("iphone", "phone"),
    ("cgm", "cgm"),
)


def quantity_samples(
    numbers: NDArray[np.int64], records: Sequence[Record], manual: set[int]
) -> tuple[pa.Table, list[TurnedAway]]:
    """Return the samples of `Record` elements, and why the others give none.

    Args: manual: the numbers of those that a person typed in.
    """
    if not records:
        return no_samples(), []
    columns = [pa.array(column, pa.binary()).cast(pa.string()) for column in zip(*records, strict=True)]
    kind, source, device, unit, recorded, start, end, value = columns
    signal = _each(kind, _SIGNAL.get)
    is_sleep = pc.equal(kind, _SLEEP)
    asleep = pc.and_(is_sleep, pc.starts_with(value, _ASLEEP))
    wanted = pc.or_(pc.is_valid(signal), asleep)
    turned_away = [
        TurnedAway(number, "type", NO_SIGNAL, whole_record=True)
        for number in numbers[~np.asarray(wanted)].tolist()
    ]
    signal = pc.if_else(asleep, "sleep", signal)
    columns = [
        column.filter(wanted)
        for column in (signal, asleep, source, device, unit, recorded, start, end, value)
    ]
    signal, asleep, source, device, unit, recorded, start, end, value = columns
    numbers = numbers[np.asarray(wanted)]
    starts, offsets = _moments(start)
    ends, _ = _moments(end)
    created, _ = _moments(recorded)
    minutes = pc.divide(
        pc.cast(pc.subtract(ends.cast(pa.int64()), starts.cast(pa.int64())), pa.float64()), 6e7
    )
    value = pc.if_else(pc.equal(value, ""), pa.scalar(None, pa.string()), value)
    values = pc.if_else(asleep, minutes, _floats(pc.if_else(asleep, pa.scalar(None, pa.string()), value)))
    units = pc.if_else(asleep, "min", _each(unit, _unit))
    bad_time = pc.and_(starts.is_null(), pc.not_equal(start, ""))
    bad_value = pc.and_(values.is_null(), pc.is_valid(value))
    bad = np.asarray(pc.or_(bad_time, bad_value))
    for place in np.flatnonzero(bad).tolist():
        field, reason = ("startDate", BAD_TIME) if bad_time[place].as_py() else ("value", BAD_VALUE)
        turned_away.append(TurnedAway(int(numbers[place]), field, reason, whole_record=True))
    devices = _each(pc.if_else(pc.equal(device, ""), source, device), _device)
    if manual:
        by_hand = pa.array(np.isin(numbers, np.fromiter(manual, np.int64, len(manual))))
        devices = pc.if_else(by_hand, "manual", devices)
    # An instant has the same start and end; only what adds up over an interval keeps its end.
    ends = pc.if_else(pc.equal(starts, ends), pa.scalar(None, pa.timestamp("us")), ends)
    good = pa.array(~bad)
    table, wrong = sift(
        record=numbers[~bad],
        signal=signal.filter(good),
        start=starts.filter(good),
        end=ends.filter(good),
        offset=offsets.filter(good),
        value=_fractions(signal, values).filter(good),
        unit=units.filter(good),
        device=devices.filter(good),
        recorded=created.filter(good),
        patient=pa.nulls(int((~bad).sum()), pa.string()),
    )
    return table, turned_away + wrong


def _each(texts: pa.Array, made: Callable[[str], str | None]) -> pa.Array:
    """Apply a function once to each of the different texts."""
    coded = texts.dictionary_encode()
    return pa.array([made(text) for text in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def _fractions(signal: pa.Array, values: pa.Array) -> pa.Array:
    """Apple writes .97 for 97 %; other apps that write into Health wrote 97."""
    percent = pc.and_(pc.equal(signal, "spo2"), pc.greater(values, 1.5))
    return pc.if_else(pc.fill_null(percent, False), pc.divide(values, 100), values)


def _floats(column: pa.Array) -> pa.Array:
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(column, r"^[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?$")
        return pc.cast(pc.if_else(number, column, pa.scalar(None, pa.string())), pa.float64())


def _moments(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return UTC and offset of texts like "2018-09-10 02:28:55 -0700"; null for others."""
    zones = pc.utf8_slice_codeunits(column, 19, 40).dictionary_encode()
    clock = _clocks(pc.utf8_slice_codeunits(column, 0, 19))
    minutes = pa.array([_offset(text) for text in zones.dictionary.to_pylist()], pa.int16()).take(
        zones.indices
    )
    micros = pc.multiply(minutes.cast(pa.int64()), 60_000_000)
    return pc.subtract(clock.cast(pa.int64()), micros).cast(pa.timestamp("us")), minutes


def _clocks(column: pa.Array) -> pa.Array:
    """Return the clock on the wall; null where it is none. Arrow's cast knows which days there are."""
    stamp = pa.timestamp("us")
    try:
        return column.cast(stamp)
    except pa.ArrowInvalid:
        return pa.array([_clock(text) for text in column.to_pylist()], stamp)


def _clock(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _offset(text: str) -> int | None:
    if re.fullmatch(r" [+-]\d{4}", text) is None:
        return None
    minutes = int(text[2:4]) * 60 + int(text[4:6])
    return None if minutes > 16 * 60 else (-minutes if text[1] == "-" else minutes)


def _unit(text: str) -> str:
    unit = said(text)
    return _UNITS.get(unit, unit)


@lru_cache(maxsize=4096)
def _device(text: str) -> str:
    """Return the kind of a device from what Apple or its owner calls it."""
    words = said(text).lower()
    return next((kind for word, kind in _DEVICES if word in words), "other")


def beat_samples(beats: Sequence[tuple[int, str, str, Record]]) -> tuple[pa.Table, list[TurnedAway]]:
    """Return the intervals before each beat, in ms, from its rate and its time of day."""
    found = Rows()
    turned_away = []
    for record, rate, time_of_day, of in beats:
        _, source, device, _, _, start, _, _ = of
        moment = _beat(time_of_day, start.decode())
        try:
            interval = 60_000 / float(rate)
        except (ValueError, ZeroDivisionError):
            turned_away.append(TurnedAway(record, "bpm", BAD_VALUE, whole_record=True))
            continue
        if moment is None:
            turned_away.append(TurnedAway(record, "time", BAD_TIME, whole_record=True))
            continue
        found.add(
            record,
            "rr_interval",
            moment[0],
            interval,
            "ms",
            _device((device or source).decode()),
            offset=moment[1],
        )
    table, wrong = found.sift()
    return table, turned_away + wrong


def _beat(time_of_day: str, start: str) -> tuple[int, int] | None:
    """Return the moment (µs, UTC) and offset (min) of a beat in the record that began at `start`."""
    match = _OF_DAY.match(time_of_day)
    if match is None or _TIME.match(start) is None:
        return None
    offset = _offset(start[19:])
    hour, minute, second = (int(match[place]) for place in (1, 2, 3))
    if match[5]:
        hour = hour % 12 + (12 if match[5] in "Pp" else 0)
    try:
        began = datetime.strptime(start[:19], "%Y-%m-%d %H:%M:%S")
        at = began.replace(
            hour=hour, minute=minute, second=second, microsecond=int((match[4] or "0").ljust(6, "0"))
        )
    except ValueError:
        return None
    if offset is None:
        return None
    if began - at > timedelta(hours=12):  # past midnight
        at += timedelta(days=1)
    micros = (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    return micros - offset * 60_000_000, offset
