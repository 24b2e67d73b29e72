"""Continuous glucose monitors: CSV of Dexcom Clarity and of FreeStyle LibreView.

A record is a line below the header. Lines that hold no glucose (alerts, insulin, food, notes, the patient's
name and date of birth) are turned away; nothing of them is kept. Both write the clock on the wall.

"Low" and "High" become the limits of the device, 40 and 400 mg/dL: a mean over them is a bound, a time in
range is not touched by it. FreeStyle's
order of day and month depends on the reader's language: it is told from the
whole file, in which readings follow one another; a file that leaves it open is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.facts import TurnedAway
from node.ingest.readers.signal_files import is_zip, whole_text
from node.signals.intake import SignalFacts
from node.signals.samples import SampleBatch
from node.signals.sifting import BAD_TIME, BAD_VALUE, NO_SIGNAL, NO_TIME, Rows

MAX_FILE = 1 << 28  # 256 MiB: a sensor gives 100,000 lines in a year, of 100 bytes
LIMITS_MG_DL = {"low": 40.0, "high": 400.0, "lo": 40.0, "hi": 400.0}
EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
_DEXCOM_TIME = "Timestamp (YYYY-MM-DDThh:mm:ss)"
_GLUCOSE = ("Glucose Value (mg/dL)", "Glucose Value (mmol/L)")
_LIBRE_FORMATS = (
    "%m-%d-%Y %I:%M %p", "%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M",
    "%d/%m/%y %H:%M", "%m/%d/%y %H:%M", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%m/%d/%Y %I:%M %p", "%d/%m/%Y %I:%M %p", "%d-%m-%Y %I:%M %p",
)  # fmt: skip
# FreeStyle's record types that hold glucose, and their columns.
_HISTORIC, _SCAN, _STRIP = "0", "1", "2"


class Cgm:
    """Reads glucose of Dexcom Clarity and FreeStyle LibreView CSV."""

    name = "cgm"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether the first lines are one of the two headers."""
        if is_zip(path):
            return False
        with path.open("rb") as file:
            head = file.read(2048).decode("utf-8-sig", errors="replace")
        return _DEXCOM_TIME in head or ("Device Timestamp" in head and "Record Type" in head)

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> SignalFacts:
        """Return this reader as one of facts, with raw samples beside the store."""
        return SignalFacts.beside(store_folder, self, vault=vault, latest_day=latest_day)

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the glucose samples. Raises: UnreadableSource."""
        text = whole_text(path, limit=MAX_FILE)
        dexcom = _DEXCOM_TIME in text[:2048]
        lines = csv.reader(io.StringIO(text, newline=""))
        try:
            header = _header(lines, _DEXCOM_TIME if dexcom else "Device Timestamp")
            if header is None:
                raise UnreadableSource(path.name, "no header of a glucose monitor")
            body = list(lines)
        except csv.Error:
            raise UnreadableSource(path.name, "not CSV") from None
        convert = _dexcom(header) if dexcom else _libre(header, body, path.name)
        for start in range(0, len(body), batch_records):
            rows, turned_away = Rows(), []
            part = body[start : start + batch_records]
            for number, line in enumerate(part, start + 1):
                reason = convert(rows, number, line)
                if reason is not None:
                    turned_away.append(TurnedAway(number, "*", reason, whole_record=True))
            table, wrong = rows.sift()
            done = len(text) * (start + len(part)) // len(body)
            yield SampleBatch(table, turned_away + wrong, len(part), done, wall_clock=True)


def _header(lines: Iterator[list[str]], wanted: str) -> dict[str, int] | None:
    for _, line in zip(range(5), lines, strict=False):
        names = [name.strip() for name in line]
        if wanted in names:
            return {name: place for place, name in enumerate(names)}
    return None


def micros(moment: datetime) -> int:
    """Return microseconds since 1970 of a clock without a zone."""
    return (moment - EPOCH) // MICROSECOND


def _glucose(text: str, unit: str) -> tuple[float, str] | None:
    limit = LIMITS_MG_DL.get(text.strip().lower())
    if limit is not None:
        return limit, "mg/dL"
    try:
        # LibreView writes a decimal comma where the reader's language does
        return float(text.replace(",", ".")), unit
    except ValueError:
        return None


def _dexcom(header: dict[str, int]):  # type: ignore[no-untyped-def]
    clock = header[_DEXCOM_TIME]
    kind = header.get("Event Type", -1)
    column = next((name for name in _GLUCOSE if name in header), None)
    unit = "mmol/L" if column is not None and "mmol" in column else "mg/dL"

    def convert(rows: Rows, number: int, line: list[str]) -> str | None:
        if column is None or max(clock, kind, header[column]) >= len(line) or kind < 0:
            return NO_SIGNAL
        event = line[kind]
        if event not in ("EGV", "Calibration"):
            return NO_SIGNAL
        if not line[clock]:
            return NO_TIME
        try:
            moment = datetime.fromisoformat(line[clock])
        except ValueError:
            return BAD_TIME
        if moment.tzinfo is not None:
            return BAD_TIME
        found = _glucose(line[header[column]], unit)
        if found is None:
            return BAD_VALUE
        signal = "glucose" if event == "EGV" else "blood_glucose"  # calibrated by a drop of blood
        rows.add(number, signal, micros(moment), found[0], found[1], "cgm")
        return None

    return convert


def _libre(header: dict[str, int], body: list[list[str]], name: str):  # type: ignore[no-untyped-def]
    clock, kind = header["Device Timestamp"], header.get("Record Type", -1)
    columns: dict[str, tuple[str, int, str]] = {}
    for place_name, place in header.items():
        for record_type, words, signal in (
            (_HISTORIC, "Historic Glucose", "glucose"),
            (_SCAN, "Scan Glucose", "glucose"),
            (_STRIP, "Strip Glucose", "blood_glucose"),
        ):
            if place_name.startswith(words):
                columns[record_type] = (signal, place, "mmol/L" if "mmol" in place_name else "mg/dL")
    glucose = [line for line in body if len(line) > max(clock, kind) and kind >= 0 and line[kind] in columns]
    written = _format_of([line[clock].strip() for line in glucose], name)

    def convert(rows: Rows, number: int, line: list[str]) -> str | None:
        found_kind = columns.get(line[kind]) if len(line) > max(clock, kind) and kind >= 0 else None
        if found_kind is None or found_kind[1] >= len(line):
            return NO_SIGNAL
        try:
            moment = datetime.strptime(line[clock].strip(), written)
        except ValueError:
            return BAD_TIME if line[clock].strip() else NO_TIME
        found = _glucose(line[found_kind[1]], found_kind[2])
        if found is None:
            return BAD_VALUE
        rows.add(number, found_kind[0], micros(moment), found[0], found[1], "cgm")
        return None

    return convert


def _format_of(clocks: list[str], name: str) -> str:
    """Return the format in which the readings follow one another most closely.

    Raises: UnreadableSource if two orders of day and month fit equally well and mean different moments.
    """
    if not clocks:
        return _LIBRE_FORMATS[0]
    best: list[tuple[int, float, str, list[datetime]]] = []
    for written in _LIBRE_FORMATS:
        moments: list[datetime] = []
        for text in clocks:
            try:
                moments.append(datetime.strptime(text, written))
            except ValueError:
                continue
        if moments:
            ordered = sorted(moments)
            widest = max(
                ((after - before).total_seconds() for before, after in pairwise(ordered)),
                default=0.0,
            )
            best.append((-len(moments), widest, written, moments))
    if not best:
        raise UnreadableSource(name, "its times are in no format that is known")
    best.sort(key=lambda found: found[:3])
    first = best[0]
    for other in best[1:]:
        if other[:2] == first[:2] and other[3] != first[3]:
            raise UnreadableSource(name, "day and month cannot be told apart in it")
    return first[2]
