"""One open file of Synthea's: lines as rows, what is turned away of them, names for rows without an id."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import BinaryIO

from node.ingest.facts import Action, FactBatch, Precision, TurnedAway, table_of
from node.ingest.readers.claims_rows import amount

MAX_LINE_BYTES = 1 << 16  # the longest of Synthea's is below 2 KB
NAMESPACE = "synthea"

Row = dict[str, str]
Fact = dict[str, object]
Reading = Callable[["SyntheaFile", Row], "list[Fact] | str"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A day, or a moment in UTC."""

    at: datetime
    precision: str


@lru_cache(maxsize=1 << 15)
def moment(text: str) -> Moment | None:
    """Return a date or a date and time as Synthea writes it; None if it is none.

    >>> moment("2023-01-27T16:17:47Z").precision, moment("2023-01-27").precision, moment("2023-02-30")
    ('second', 'day', None)
    """
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return Moment(datetime(day.year, day.month, day.day, tzinfo=UTC), Precision.DAY.value)
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return Moment(found.astimezone(UTC), Precision.SECOND.value)
    except (ValueError, OverflowError):
        return None


_COMMON: Fact = {"action": Action.ASSERT.value, "patient_namespace": NAMESPACE, "place": ""}


@dataclass(slots=True)
class SyntheaFile:
    """One file while it is read."""

    raw: BinaryIO
    columns: list[str]
    reading: Reading
    _record: int = 0
    _turned_away: list[TurnedAway] = field(default_factory=list)
    _encounter: str = ""
    _names: Counter[str] = field(default_factory=Counter)

    def batches(self, batch_records: int) -> Iterator[FactBatch]:
        """Yield batches; a line too long for memory is passed over, and counted."""
        rows: list[Fact] = []
        first = 0
        while line := self.raw.readline(MAX_LINE_BYTES + 1):
            too_long = len(line) > MAX_LINE_BYTES
            while too_long and line and not line.endswith(b"\n"):
                line = self.raw.readline(MAX_LINE_BYTES)
            if not too_long and not line.strip():
                continue
            self._record += 1
            found = "too-long" if too_long else self._one(line)
            if isinstance(found, str):
                self._turned_away.append(TurnedAway(self._record, "", found, True))
            else:
                rows += [_COMMON | {"record": self._record} | fact for fact in found]
            if self._record - first >= batch_records:
                yield self._batch(rows, self._record - first)
                rows, first = [], self._record
        if self._record > first:
            yield self._batch(rows, self._record - first)

    def _batch(self, rows: list[Fact], records: int) -> FactBatch:
        turned_away, self._turned_away = self._turned_away, []
        return FactBatch(table_of(rows), turned_away, records, self.raw.tell())

    def _one(self, line: bytes) -> list[Fact] | str:
        try:
            values = fields(line)
        except UnicodeDecodeError:
            return "not-text"
        except csv.Error:
            return "bad-quotes"
        if len(values) != len(self.columns):
            return "bad-width"
        return self.reading(self, dict(zip(self.columns, map(str.strip, values), strict=True)))

    def note(self, name: str, reason: str) -> None:
        """Turn one field of the present record away."""
        self._turned_away.append(TurnedAway(self._record, name, reason, False))

    def number(self, row: Row, name: str) -> float | None:
        """Return a field as a number; one that is none is turned away."""
        text = row.get(name, "")
        if not text:
            return None
        found = amount(text)
        if found is None:
            self.note(name, "not-a-number")
        return found

    def until(self, row: Row, start: Moment) -> datetime | None:
        """Return when it ended; an end that cannot be is turned away."""
        text = row.get("STOP", "")
        if not text:
            return None
        end = moment(text)
        if end is None or (end.at < start.at and end.precision == start.precision):
            self.note("STOP", "bad-date" if end is None else "ends-before-it-starts")
            return None
        return end.at

    def key(self, what: str, row: Row, start: str) -> str:
        """Return a name for a row without an id."""
        encounter = row.get("ENCOUNTER") or row["PATIENT"]
        if encounter != self._encounter:  # rows stand by encounter: memory does not grow with the file
            self._encounter = encounter
            self._names.clear()
        name = f"{what}:{encounter}:{row['CODE']}:{start}"
        self._names[name] += 1
        return f"{name}:{self._names[name]}"


def fields(line: bytes) -> list[str]:
    """Return a line's fields. Raises: UnicodeDecodeError, csv.Error."""
    text = line.decode("utf-8").rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    rows = list(csv.reader([text], strict=True))
    return rows[0] if rows else []
