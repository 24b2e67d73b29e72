"""WFDB records of numerics, as PhysioNet and bedside archives have them: a header and a file of 16-bit
numbers.

Source: header(5) and signal(5) of the WFDB Applications Guide. Format 16 (two's complement, little-endian,
interleaved) is what numerics are stored in; records in other formats are refused, as waveforms are: raw
waveforms belong into a waveform store, not into a patient's days. Each channel's checksum is verified.

A record of this source is one number of one channel; one that was not measured (-32768) is turned away.
The time is
the clock on the wall, as the header says; a header without a date is refused. Patient's age and sex in its
comments are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.facts import TurnedAway
from node.ingest.readers.cgm import micros
from node.signals.intake import SignalFacts
from node.signals.samples import SampleBatch
from node.signals.sifting import NO_SIGNAL, NO_VALUE, no_samples, sift

INVALID = -32768
MAX_HEADER = 1 << 20
MAX_HZ = 1.0  # numerics come once a second or less; what is faster is a waveform
_SIGNALS = {
    "HR": "heart_rate",
    "PULSE": "pulse_rate",
    "RESP": "respiratory_rate",
    "RR": "respiratory_rate",
    "SPO2": "spo2",
    "%SPO2": "spo2",
    "ABPSYS": "abp_systolic",
    "ABPDIAS": "abp_diastolic",
    "ABPMEAN": "abp_mean",
    "ABP SYS": "abp_systolic",
    "ABP DIAS": "abp_diastolic",
    "ABP MEAN": "abp_mean",
    "NBPSYS": "nbp_systolic",
    "NBPDIAS": "nbp_diastolic",
    "NBPMEAN": "nbp_mean",
    "NBP SYS": "nbp_systolic",
    "NBP DIAS": "nbp_diastolic",
    "NBP MEAN": "nbp_mean",
}
_GAIN = re.compile(r"\A([-+0-9.eE]+)(?:\((-?\d+)\))?(?:/(\S+))?\Z")
_PLAIN = re.compile(r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}\Z")


@dataclass(frozen=True, slots=True)
class Channel:
    """One signal line of a header."""

    file: str
    gain: float
    baseline: int
    unit: str
    initial: int | None
    checksum: int | None
    description: str


@dataclass(frozen=True, slots=True)
class Header:
    """A record's header. `hz` is frames a second."""

    hz: float
    frames: int | None
    begin: datetime
    channels: tuple[Channel, ...]


class WfdbNumerics:
    """Reads a .hea file and the .dat beside it."""

    name = "wfdb-numerics"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether this is a header whose first line is one of WFDB."""
        if path.suffix != ".hea":
            return False
        with path.open("rb") as file:
            first = file.read(4096).lstrip()
        return re.match(rb"\S+(/\d+)?[ \t]+\d+([ \t]|\r|\n|\Z)", first) is not None

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> SignalFacts:
        """Return this reader as one of facts, with raw samples beside the store."""
        return SignalFacts.beside(store_folder, self, vault=vault, latest_day=latest_day)

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the numbers, frame by frame. Raises: UnreadableSource."""
        header = read_header(path)
        channels = len(header.channels)
        data = _data(path, header)
        step = max(1, batch_records // channels)
        for first in range(0, len(data), step):
            yield _batch(header, data, first, min(len(data), first + step))


def _batch(header: Header, data: np.ndarray, first: int, last: int) -> SampleBatch:
    channels = len(header.channels)
    microseconds = np.rint(np.arange(first, last) * (1e6 / header.hz)).astype(np.int64) + micros(header.begin)
    tables: list[pa.Table] = []
    turned_away: list[TurnedAway] = []
    for place, channel in enumerate(header.channels):
        signal = _SIGNALS.get(channel.description.upper())
        numbers = np.arange(first, last, dtype=np.int64) * channels + place + 1
        raw = data[first:last, place]
        missing = raw == INVALID
        reason, away = (NO_SIGNAL, np.ones_like(missing)) if signal is None else (NO_VALUE, missing)
        turned_away += [
            TurnedAway(number, f"channel[{place + 1}]", reason, whole_record=True)
            for number in numbers[away].tolist()
        ]
        if signal is None or away.all():
            continue
        count = int((~away).sum())
        values = np.round((raw[~away].astype(np.float64) - channel.baseline) / channel.gain, 9)
        stamp = pa.timestamp("us")
        table, wrong = sift(
            record=numbers[~away],
            signal=pa.array([signal] * count, pa.string()),
            start=pa.array(microseconds[~away]).cast(stamp),
            end=pa.nulls(count, stamp),
            offset=pa.nulls(count, pa.int16()),
            value=pa.array(values),
            unit=pa.array([channel.unit] * count, pa.string()),
            device=pa.array(["monitor"] * count, pa.string()),
            recorded=pa.nulls(count, stamp),
            patient=pa.nulls(count, pa.string()),
        )
        tables.append(table)
        turned_away += wrong
    samples = pa.concat_tables(tables) if tables else no_samples()
    return SampleBatch(samples, turned_away, (last - first) * channels, last * channels * 2, wall_clock=True)


def read_header(path: Path) -> Header:
    """Return what a header says. Raises: UnreadableSource."""
    with path.open("rb") as file:
        raw = file.read(MAX_HEADER + 1)
    if len(raw) > MAX_HEADER:
        raise UnreadableSource(path.name, "a header of more than a megabyte")
    lines = [
        line.strip()
        for line in raw.decode("utf-8", errors="replace").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise UnreadableSource(path.name, "an empty header")
    words = lines[0].split()
    try:
        count = int(words[1])
        hz = float(words[2].split("/")[0]) if len(words) > 2 else 250.0  # header(5)'s default
        frames = int(words[3]) if len(words) > 3 and int(words[3]) > 0 else None
    except (ValueError, IndexError):
        raise UnreadableSource(path.name, "its record line is malformed") from None
    if "/" in words[0]:
        raise UnreadableSource(path.name, "a record of several segments: give its segments one by one")
    if not 0 < hz <= MAX_HZ:
        raise UnreadableSource(path.name, "a waveform: more than one sample a second")
    if not 0 < count <= 1000 or len(lines) < count + 1:
        raise UnreadableSource(path.name, "it has not as many signal lines as it says")
    begin = _begin(words[4:6])
    if begin is None:
        raise UnreadableSource(path.name, "no base time and date: its samples have no moment")
    return Header(hz, frames, begin, tuple(_channel(line, path.name) for line in lines[1 : count + 1]))


def _begin(words: list[str]) -> datetime | None:
    """Return time and date: `[[hh:]mm:]ss[.sss]` and `DD/MM/YYYY`."""
    if len(words) < 2:
        return None
    try:
        parts = [float(part) for part in words[0].split(":")]
        day = datetime.strptime(words[1], "%d/%m/%Y")
        if len(parts) > 3 or not all(0 <= part < 60 for part in parts):
            return None
        seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
        return day + timedelta(seconds=round(seconds, 6))
    except (ValueError, OverflowError):
        return None


def _channel(line: str, name: str) -> Channel:
    words = line.split(maxsplit=8)
    try:
        file, form = words[0], words[1]
        gain = _GAIN.match(words[2]) if len(words) > 2 else None
        adc_zero = int(words[4]) if len(words) > 4 else 0
        initial = int(words[5]) if len(words) > 5 else None
        checksum = int(words[6]) if len(words) > 6 else None
        scale = float(gain[1]) if gain else 200.0  # header(5)'s default
    except (ValueError, IndexError):
        raise UnreadableSource(name, "a malformed signal line") from None
    if form != "16":
        raise UnreadableSource(name, "a format other than 16")
    if _PLAIN.match(file) is None:
        raise UnreadableSource(name, "its data lie in another folder: refused")
    return Channel(
        file=file,
        gain=scale if scale and np.isfinite(scale) else 200.0,
        baseline=int(gain[2]) if gain and gain[2] else adc_zero,
        unit=(gain[3] if gain and gain[3] else "").strip(),
        initial=initial,
        checksum=checksum,
        description=words[8].strip() if len(words) > 8 else "",
    )


def _data(path: Path, header: Header) -> np.ndarray:
    """Return frames by channels. Raises: UnreadableSource for a missing, short or altered file."""
    files = {channel.file for channel in header.channels}
    if len(files) != 1:
        raise UnreadableSource(path.name, "channels in several files")
    channels = len(header.channels)
    file = path.parent / files.pop()
    if file.is_symlink() or not file.is_file():
        raise UnreadableSource(path.name, "its data file is missing")
    size = file.stat().st_size
    frames = size // (2 * channels)
    if size != frames * 2 * channels or (header.frames is not None and frames != header.frames):
        raise UnreadableSource(path.name, "its data file is longer or shorter than the header says")
    if frames == 0:
        return np.empty((0, channels), dtype="<i2")
    data = np.memmap(file, dtype="<i2", mode="r", shape=(frames, channels))
    for place, channel in enumerate(header.channels):
        total = int(data[:, place].astype(np.int64).sum())
        if channel.checksum is not None and (total - channel.checksum) % 65536:
            raise UnreadableSource(path.name, "a checksum that does not fit its data")
    return data
