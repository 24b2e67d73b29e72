"""Fitbit: the JSON and CSV of a Google Takeout or account export, and the CSV of the Fitabase kind.

What is read, by the file's name: heart_rate-*.json, steps-*.json, resting_heart_rate-*.json, sleep-*.json,
"Minute SpO2 - *.csv", "Daily Respiratory Rate Summary*.csv", "Heart Rate Variability Details*.csv", and
by their header heartrate_seconds*.csv, minuteStepsNarrow*.csv, hourlySteps*.csv with an `Id` column (many
people in
a file).

The export's intraday series are in UTC (a property of the format; the local clock is not in it), its sleep
and
Fitabase's files show the clock on the wall. A record is one element of the JSON list, or one line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.facts import TurnedAway
from node.ingest.readers.cgm import micros
from node.ingest.readers.signal_files import is_zip, whole_text
from node.signals.intake import SignalFacts
from node.signals.samples import SampleBatch
from node.signals.sifting import BAD_TIME, BAD_VALUE, NO_CONFIDENCE, NO_SIGNAL, NO_TIME, NO_VALUE, Rows

MAX_FILE = 1 << 28  # 256 MiB: the export has one file a day or a month
_HOUR = 3_600_000_000
_MINUTE = 60_000_000
Row = dict[str, Any]
Convert = Callable[[Rows, int, Row], str | None]


class Fitbit:
    """Reads heart rate, steps, sleep, SpO2, breathing and variability of a Fitbit export."""

    name = "fitbit"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether name and first bytes are of a file of the list above."""
        if is_zip(path):
            return False
        if _json_kind(path.name) is not None:
            with path.open("rb") as file:
                head = file.read(400).lstrip(b"\xef\xbb\xbf \r\n\t")
            return head.startswith(b"[") and (
                b'"dateTime"' in head or b'"logId"' in head or head.strip() == b"[]"
            )
        if path.suffix.lower() != ".csv":
            return False
        with path.open("rb") as file:
            return _csv_kind(_names(file.readline(4096))) is not None

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> SignalFacts:
        """Return this reader as one of facts, with raw samples beside the store."""
        return SignalFacts.beside(store_folder, self, vault=vault, latest_day=latest_day)

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the samples. Raises: UnreadableSource."""
        text = whole_text(path, limit=MAX_FILE)
        kind = _json_kind(path.name)
        if kind is not None:
            convert, wall_clock = _JSON[kind]
            rows = _json_rows(text, path.name)
        else:
            named = _csv_kind(_names(text.split("\n", 1)[0].encode()))
            if named is None:
                raise UnreadableSource(path.name, "no file of Fitbit that is known")
            convert, wall_clock = _CSV[named]
            rows = _csv_rows(text, path.name)
        for start in range(0, len(rows), batch_records):
            part = rows[start : start + batch_records]
            found, turned_away = Rows(), []
            for number, row in enumerate(part, start + 1):
                reason = _converted(convert, found, number, row)
                if reason is not None:
                    turned_away.append(TurnedAway(number, "*", reason, whole_record=True))
            table, wrong = found.sift()
            done = len(text) * (start + len(part)) // len(rows)
            yield SampleBatch(
                table, turned_away + wrong, len(part), done, wall_clock=wall_clock, namespace="fitbit"
            )


def _converted(convert: Convert, found: Rows, number: int, row: object) -> str | None:
    """Convert one record; a shape that nobody foresaw turns away that record alone."""
    if not isinstance(row, dict):
        return NO_SIGNAL
    before = len(found)
    try:
        return convert(found, number, row)
    except (KeyError, TypeError, AttributeError):
        return NO_VALUE if len(found) == before else None
    except (ValueError, OverflowError):
        return BAD_VALUE


def _json_rows(text: str, name: str) -> list[Any]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableSource(name, "not JSON") from None
    if not isinstance(rows, list):
        raise UnreadableSource(name, "not a list of records")
    return rows


def _csv_rows(text: str, name: str) -> list[Row]:
    try:
        return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except csv.Error:
        raise UnreadableSource(name, "not CSV") from None


def _names(line: bytes) -> frozenset[str]:
    return frozenset(
        name.strip().strip('"') for name in line.decode("utf-8-sig", errors="replace").strip().split(",")
    )


def _json_kind(name: str) -> str | None:
    lowered = name.lower()
    if not lowered.endswith((".json", ".json.gz")):
        return None
    return next((kind for kind in _JSON if lowered.startswith(kind + "-")), None)


def _csv_kind(names: frozenset[str]) -> frozenset[str] | None:
    return next((kind for kind in _CSV if kind <= names), None)


def _clock(text: object, *formats: str) -> int | None:
    """Return microseconds of a time in one of the formats; null if it is in none."""
    if not isinstance(text, str):
        return None
    for written in formats:
        try:
            return micros(datetime.strptime(text, written))
        except ValueError:
            continue
    return None


def _iso(text: object) -> int | None:
    """Return microseconds in UTC of an ISO time, or of the clock on the wall if it has no zone."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return micros(moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment)


_TAKEOUT = ("%m/%d/%y %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")
_FITABASE = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M:%S")


def _missing(text: object) -> str:
    return BAD_TIME if text else NO_TIME


def _heart_rate(rows: Rows, number: int, row: Row) -> str | None:
    start = _clock(row["dateTime"], *_TAKEOUT)
    if start is None:
        return _missing(row["dateTime"])
    value = row["value"]
    if value.get("confidence") == 0:
        return NO_CONFIDENCE
    rows.add(number, "heart_rate", start, float(value["bpm"]), "/min", "tracker")
    return None


def _steps(rows: Rows, number: int, row: Row) -> str | None:
    start = _clock(row["dateTime"], *_TAKEOUT)
    if start is None:
        return _missing(row["dateTime"])
    rows.add(number, "steps", start, float(row["value"]), "count", "tracker", end=start + _MINUTE)
    return None


def _resting(rows: Rows, number: int, row: Row) -> str | None:
    start = _clock(row["dateTime"], *_TAKEOUT)
    if start is None:
        return _missing(row["dateTime"])
    value = float(row["value"]["value"])
    if value == 0:  # Fitbit's word for "none on that day"
        return NO_VALUE
    rows.add(number, "resting_heart_rate", start, value, "/min", "tracker")
    return None


def _sleep(rows: Rows, number: int, row: Row) -> str | None:
    start, end = _iso(row["startTime"]), _iso(row["endTime"])
    if start is None or end is None:
        return _missing(row["startTime"] and row["endTime"])
    rows.add(number, "sleep", start, float(row["minutesAsleep"]), "min", "tracker", end=end)
    return None


def _of_csv(
    signal: str, unit: str, time: str, value: str, *, formats: tuple[str, ...] = (), interval: int = 0
) -> Convert:
    def convert(rows: Rows, number: int, row: Row) -> str | None:
        start = _clock(row[time], *formats) if formats else _iso(row[time])
        if start is None:
            return _missing(row[time])
        if not row[value]:
            return NO_VALUE
        patient = row.get("Id")
        end = start + interval if interval else None
        rows.add(number, signal, start, float(row[value]), unit, "tracker", end=end, patient=patient)
        return None

    return convert


# How each is converted, and whether its times are the clock on the wall.
_JSON: dict[str, tuple[Convert, bool]] = {
    "heart_rate": (_heart_rate, False),
    "steps": (_steps, False),
    "resting_heart_rate": (_resting, True),
    "sleep": (_sleep, True),
}
_CSV: dict[frozenset[str], tuple[Convert, bool]] = {
    frozenset(("Id", "Time", "Value")): (
        _of_csv("heart_rate", "/min", "Time", "Value", formats=_FITABASE),
        True,
    ),
    frozenset(("Id", "ActivityMinute", "Steps")): (
        _of_csv("steps", "count", "ActivityMinute", "Steps", formats=_FITABASE, interval=_MINUTE),
        True,
    ),
    frozenset(("Id", "ActivityHour", "StepTotal")): (
        _of_csv("steps", "count", "ActivityHour", "StepTotal", formats=_FITABASE, interval=_HOUR),
        True,
    ),
    frozenset(("timestamp", "value")): (_of_csv("spo2", "%", "timestamp", "value"), False),
    frozenset(("timestamp", "rmssd", "coverage")): (_of_csv("hrv_rmssd", "ms", "timestamp", "rmssd"), True),
    frozenset(("timestamp", "daily_respiratory_rate")): (
        _of_csv("respiratory_rate", "/min", "timestamp", "daily_respiratory_rate"),
        True,
    ),
}
