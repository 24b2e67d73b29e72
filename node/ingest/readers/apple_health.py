"""Apple Health's export: export.xml, alone or inside the export.zip as the phone makes it.

Records in are `Record` elements, the beats inside of them (`InstantaneousBeatsPerMinute`) and the other
elements that stand where records do (workouts, daily rings, clinical documents), which are turned away.
`sourceName` ("Anna's iPhone"), routes, positions and metadata are never kept; of `device` its kind alone.

The file is streamed. Its document type is cut off before it is parsed: some versions of iOS write one that is
not XML, and nothing else can declare an entity. One that declares any is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.facts import TurnedAway
from node.ingest.readers.signal_files import Stream, is_zip, opened, zipped
from node.signals.intake import SignalFacts
from node.signals.samples import SampleBatch
from node.signals.sifting import BAD_TIME, BAD_VALUE, NO_SIGNAL, Rows, each_turned_away, no_samples, sift

CHUNK = 1 << 20  # bytes fed at once
MAX_TOKEN = 1 << 22  # bytes without one complete element: 4 MiB is hundreds of times what a phone writes
PROLOG = 1 << 18  # bytes in which the document type has to end; Apple's has 8 kB
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
# What stands where a record does and holds no sample of ours.
_OTHER = frozenset(
    ("Workout", "ActivitySummary", "ClinicalRecord", "Audiogram", "VisionPrescription", "Correlation")
)
_NO_RECORD = (0, "", "", "", None, "", "", "")
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


class AppleHealth:
    """Reads export.xml and export.zip of Apple Health."""

    name = "apple-health"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether the file is an export: by its root element, or a zip that has one."""
        if is_zip(path):
            return any(_is_export(name) for name in zipped(path))
        with path.open("rb") as file:
            head = file.read(PROLOG)
        return b"<HealthData" in head and head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> SignalFacts:
        """Return this reader as one of facts, with raw samples beside the store."""
        return SignalFacts.beside(store_folder, self, vault=vault, latest_day=latest_day)

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the samples. Raises: UnreadableSource."""
        with opened(path, _is_export) as stream:
            records = _Records(path.name)
            for chunk in _checked(_without_doctype(stream, path.name), records, path.name):
                records.feed(chunk)
                if len(records.pending) >= batch_records or len(records.others) >= batch_records:
                    yield records.batch(stream.bytes_done)
            records.close()
            yield records.batch(stream.bytes_done, final=True)


def _is_export(name: str) -> bool:
    return name.lower().rsplit("/", 1)[-1] in (
        "export.xml",
        "exportar.xml",
        "exportieren.xml",
        "exportation.xml",
    )


def _without_doctype(stream: Stream, name: str) -> Iterator[bytes]:
    """Yield the bytes without the document type.

    Raises: UnreadableSource if it declares an entity, or does not end.
    """
    head = b""
    while b"<HealthData" not in head:
        more = stream.read(CHUNK)
        head += more
        if not more or len(head) > PROLOG + CHUNK:
            raise UnreadableSource(name, "no Apple Health export: there is no HealthData in it")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in head[:200]:
        raise UnreadableSource(name, "not UTF-8")
    root = head.index(b"<HealthData")
    prolog = head[:root]
    begin = prolog.find(b"<!DOCTYPE")
    if b"<!ENTITY" in prolog or b"<!entity" in prolog.lower():
        raise UnreadableSource(name, "declares XML entities, as no phone does: refused")
    if begin >= 0:
        prolog = prolog[:begin]
    yield prolog + head[root:]
    while chunk := stream.read(CHUNK):
        yield chunk


def _checked(chunks: Iterator[bytes], records: _Records, name: str) -> Iterator[bytes]:
    """Yield the chunks, as long as elements end in them."""
    fed = 0
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK):
            part = chunk[start : start + CHUNK]
            fed += len(part)
            yield part
            if fed - records.position > MAX_TOKEN:
                raise UnreadableSource(name, "an element without an end")


class _Records:
    """What the parser found since the last batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EntityDeclHandler = self._refuse
        parser.ExternalEntityRefHandler = self._refuse
        parser.buffer_text = False
        self._parser = parser
        self.position = 0  # of the last element that began
        self._number = 0
        self._covered = 0
        self.pending: list[tuple[Any, ...]] = []
        self.beats: list[tuple[int, str, str, str, str]] = []
        self.others: list[int] = []
        self._manual: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.Parse(chunk, False)
        except expat.ExpatError:
            raise UnreadableSource(self._name, f"not XML after record {self._number}") from None
        self.position = max(self.position, self._parser.CurrentByteIndex)

    def close(self) -> None:
        try:
            self._parser.Parse(b"", True)
        except expat.ExpatError:
            raise UnreadableSource(self._name, f"ends in the middle, after record {self._number}") from None

    def _refuse(self, *_: object) -> int:
        raise UnreadableSource(self._name, "declares XML entities, as no phone does: refused")

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "Record":
            self._number += 1
            get = attributes.get
            self.pending.append(
                (
                    self._number,
                    get("type", ""),
                    get("startDate", ""),
                    get("endDate", ""),
                    get("value"),
                    get("unit", ""),
                    get("device") or get("sourceName", ""),
                    get("creationDate", ""),
                )
            )
        elif element == "MetadataEntry":
            if attributes.get("key") == "HKWasUserEntered" and attributes.get("value") == "1":
                self._manual.add(self._number)
        elif element == "InstantaneousBeatsPerMinute":
            self._number += 1
            of = self.pending[-1] if self.pending else _NO_RECORD
            self.beats.append(
                (self._number, attributes.get("bpm", ""), attributes.get("time", ""), of[2], of[6])
            )
        elif element in _OTHER:
            self._number += 1
            self.others.append(self._number)

    def batch(self, bytes_done: int, *, final: bool = False) -> SampleBatch:
        """Return what was found since the last batch; the last record waits for its children unless final."""
        cut = self._number + 1 if final or not self.pending else self.pending[-1][0]
        taken = [row for row in self.pending if row[0] < cut]
        beats = [row for row in self.beats if row[0] < cut]
        others = [number for number in self.others if number < cut]
        self.pending = self.pending[len(taken) :]
        self.beats = self.beats[len(beats) :]
        self.others = self.others[len(others) :]
        samples, wrong = _quantities(taken, self._manual)
        of_beats, wrong_beats = _beats(beats)
        self._manual = {number for number in self._manual if number >= cut}
        count = cut - 1 - self._covered
        self._covered = cut - 1
        return SampleBatch(
            pa.concat_tables([samples, of_beats]),
            each_turned_away(others, NO_SIGNAL) + wrong + wrong_beats,
            count,
            bytes_done,
        )


def _quantities(rows: list[tuple[Any, ...]], manual: set[int]) -> tuple[pa.Table, list[TurnedAway]]:
    """Return samples of `Record` elements."""
    turned_away = []
    kept = []
    for row in rows:
        kind = row[1]
        if kind in _SIGNAL or (kind == _SLEEP and (row[4] or "").startswith(_ASLEEP)):
            kept.append(row)
        else:
            turned_away.append(TurnedAway(row[0], "type", NO_SIGNAL, whole_record=True))
    if not kept:
        return no_samples(), turned_away
    number, kind, start, end, value, unit, device, created = zip(*kept, strict=True)
    record = np.array(number, dtype=np.int64)
    starts, offsets = _moments(start)
    ends, _ = _moments(end)
    recorded, _ = _moments(created)
    signal = [_SIGNAL.get(name, "sleep") for name in kind]
    asleep = pa.array([name == _SLEEP for name in kind])
    minutes = pc.divide(
        pc.cast(pc.subtract(ends.cast(pa.int64()), starts.cast(pa.int64())), pa.float64()), 6e7
    )
    values = pc.if_else(asleep, minutes, _floats(value))
    units = [
        "min" if name == _SLEEP else _UNITS.get(text, text) for name, text in zip(kind, unit, strict=True)
    ]
    bad_time = pc.and_(starts.is_null(), pc.not_equal(pa.array(start, pa.string()), ""))
    bad_value = pc.and_(values.is_null(), pc.is_valid(pa.array(value, pa.string())))
    bad = np.asarray(pc.or_(bad_time, bad_value))
    if bad.any():
        for place in np.flatnonzero(bad).tolist():
            field, reason = ("startDate", BAD_TIME) if bad_time[place].as_py() else ("value", BAD_VALUE)
            turned_away.append(TurnedAway(number[place], field, reason, whole_record=True))
    devices = [_device(text) for text in device]
    if manual:
        devices = ["manual" if place in manual else kind for place, kind in zip(number, devices, strict=True)]
    good = pa.array(~bad)
    signals = pa.array(signal, pa.string())
    # An instant has the same start and end; only what adds up over an interval keeps its end.
    ends = pc.if_else(pc.equal(starts, ends), pa.scalar(None, pa.timestamp("us")), ends)
    table, wrong = sift(
        record=record[~bad],
        signal=signals.filter(good),
        start=starts.filter(good),
        end=ends.filter(good),
        offset=offsets.filter(good),
        value=_fractions(signals, values).filter(good),
        unit=pa.array(units, pa.string()).filter(good),
        device=pa.array(devices, pa.string()).filter(good),
        recorded=recorded.filter(good),
        patient=pa.nulls(int((~bad).sum()), pa.string()),
    )
    return table, turned_away + wrong


def _fractions(signal: pa.Array, values: pa.Array) -> pa.Array:
    """Apple writes .97 for 97 %; other apps that write into Health wrote 97."""
    percent = pc.and_(pc.equal(signal, "spo2"), pc.greater(values, 1.5))
    return pc.if_else(pc.fill_null(percent, False), pc.divide(values, 100), values)


def _floats(texts: tuple[str | None, ...]) -> pa.Array:
    column = pa.array(texts, pa.string())
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(column, r"^[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?$")
        return pc.cast(pc.if_else(number, column, pa.scalar(None, pa.string())), pa.float64())


def _moments(texts: tuple[str, ...]) -> tuple[pa.Array, pa.Array]:
    """Return UTC and offset of texts like "2018-09-10 02:28:55 -0700"; null for others."""
    column = pa.array(texts, pa.string())
    clock = _clocks(pc.utf8_slice_codeunits(column, 0, 19))
    zones = pc.utf8_slice_codeunits(column, 19, 40).dictionary_encode()
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


@lru_cache(maxsize=4096)
def _device(text: str) -> str:
    """Return the kind of a device from what Apple or its owner calls it."""
    words = text.lower()
    return next((kind for word, kind in _DEVICES if word in words), "other")


def _beats(rows: list[tuple[int, str, str, str, str]]) -> tuple[pa.Table, list[TurnedAway]]:
    """Return the intervals before each beat, in ms, from its rate and its time of day."""
    found = Rows()
    turned_away = []
    for record, rate, time_of_day, start, device in rows:
        moment = _beat(time_of_day, start)
        try:
            interval = 60_000 / float(rate)
        except (ValueError, ZeroDivisionError):
            turned_away.append(TurnedAway(record, "bpm", BAD_VALUE, whole_record=True))
            continue
        if moment is None:
            turned_away.append(TurnedAway(record, "time", BAD_TIME, whole_record=True))
            continue
        found.add(record, "rr_interval", moment[0], interval, "ms", _device(device), offset=moment[1])
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
