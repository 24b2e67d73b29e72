"""Raw samples: one Parquet file per person and day, in the node's home. They never leave it.

    signals/<person, 16 hex digits>/<day>.parquet     0600, in folders of 0700

Names are pseudonyms and shifted days; times inside are shifted by the person's days like every date of the
store, and the true days are in no file. `day` is the local one (of the sample's own clock).

A day's file is a set: what comes twice is there once, the order of loading leaves no trace. Of samples of one
signal, device kind, moment and offset that differ, the one that was recorded last holds, and the others
stay with holds =
false, so that adding files in any order gives the same file.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from node.signals.kinds import SIGNALS
from privacy import private_files

STAMP = pa.timestamp("us")  # shifted, so not a true moment: kept without a zone
RAW = pa.schema(
    [
        pa.field("signal", pa.string(), nullable=False),
        pa.field("start", STAMP, nullable=False),  # UTC, moved by the person's days
        pa.field("device", pa.string(), nullable=False),
        pa.field("recorded", STAMP),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("end", STAMP),
        pa.field("utc_offset_min", pa.int16()),
        pa.field("holds", pa.bool_(), nullable=False),
    ]
)
_ORDER = [(name, "ascending") for name in RAW.names if name != "holds"]
_BY_END = [name for name, signal in SIGNALS.items() if signal.by_end]
_DAY = re.compile(r"\A(-?\d{4,5}-\d{2}-\d{2})\.parquet\Z")
_PERSON = re.compile(r"\A[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True)
class Merged:
    """A day after samples were added: all of its samples, and how many of them are new."""

    samples: pa.Table
    added: int


class RawSamples:
    """The folder of raw samples. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_files.make_folder(folder)
        self._unsettled: set[Path] = set()

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Hold the folder for writing, and yield an empty one for drafts that is gone afterwards."""
        handle = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR, private_files.FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            drafts = self._folder / ".drafts"
            shutil.rmtree(drafts, ignore_errors=True)  # of a process that was killed
            try:
                yield private_files.make_folder(drafts)
            finally:
                shutil.rmtree(drafts, ignore_errors=True)
        finally:
            os.close(handle)

    def add(self, person: int, day: int, samples: pa.Table) -> Merged:
        """Add samples (RAW, `holds` ignored) to a day; return the whole of it.

        day: shifted, days since 1970. Guarantee: after a crash the file is the old or the new one; it is
        the new one once `settle` has returned.
        """
        path = self._path(person, day)
        before = _read(path)
        merged = _as_set(samples if before is None else pa.concat_tables([before, samples]))
        added = merged.num_rows - (0 if before is None else before.num_rows)
        if added:
            if path.parent not in self._unsettled:
                private_files.make_folder(path.parent)
                self._unsettled.add(path.parent)
            _write(path, merged)
        return Merged(merged, added)

    def settle(self) -> None:
        """Make what was added durable."""
        for folder in sorted(self._unsettled):
            private_files.sync_folder(folder)
        if self._unsettled:
            private_files.sync_folder(self._folder)
        self._unsettled.clear()

    def day(self, person: int, day: int) -> pa.Table:
        """Return the samples of a (shifted, local) day that hold."""
        found = _read(self._path(person, day))
        return RAW.empty_table() if found is None else found.filter(found["holds"])

    def days(self, person: int) -> list[int]:
        """Return the days that have samples, in order."""
        folder = self._person(person)
        names = (_DAY.match(file.name) for file in (folder.iterdir() if folder.is_dir() else ()))
        return sorted((date.fromisoformat(name[1]) - date(1970, 1, 1)).days for name in names if name)

    def persons(self) -> list[int]:
        """Return who has samples."""
        return sorted(int(file.name, 16) for file in self._folder.iterdir() if _PERSON.match(file.name))

    def forget(self, person: int) -> None:
        """Remove all samples of a person who withdrew."""
        shutil.rmtree(self._person(person), ignore_errors=True)
        private_files.sync_folder(self._folder)

    def merge(self, person: int, into: int, *, days: int) -> None:
        """Give a person's samples to somebody else, moved by `days` (the one's shift to the other's)."""
        delta = pa.scalar(timedelta(days=days), pa.duration("us"))
        for day in self.days(person):
            found = _read(self._path(person, day))
            if found is not None:
                for name in ("start", "end", "recorded"):
                    place = found.schema.get_field_index(name)
                    found = found.set_column(place, RAW.field(name), pc.add(found[name], delta))
                self.add(into, day + days, found)
        self.settle()
        self.forget(person)

    def _person(self, person: int) -> Path:
        return self._folder / f"{person:016x}"

    def _path(self, person: int, day: int) -> Path:
        return self._person(person) / f"{date(1970, 1, 1) + timedelta(days=day)}.parquet"


def _write(path: Path, samples: pa.Table) -> None:
    """As `private_files.write`, but for the folder, which is synced once for all of its files."""
    draft = path.with_name(f".{path.name}")  # one process writes, under the lock
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private_files.FILE_MODE)
    with os.fdopen(handle, "wb") as stream:
        pq.write_table(samples, stream, compression="zstd", use_dictionary=["signal", "device"])
        stream.flush()
        os.fdatasync(stream.fileno())
    draft.replace(path)


def _read(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    return pq.read_table(io.BytesIO(path.read_bytes()), schema=RAW)


def _as_set(samples: pa.Table) -> pa.Table:
    """Return each sample once, in one order; of those that contradict one another the last holds."""
    ordered = samples.select([name for name, _ in _ORDER]).sort_by(_ORDER)
    fresh = _differs(ordered, ordered.column_names)
    ordered = ordered.filter(pa.array(fresh))
    # Those of one moment on one clock contradict one another; of sleep, those that end together, because
    # an end says to which day it belongs. Nulls of `recorded` sort last, and mean "nobody knows": they yield.
    by_end = pc.is_in(ordered["signal"], value_set=pa.array(_BY_END, pa.string()))
    until = pc.if_else(by_end, ordered["end"], pa.scalar(None, STAMP))
    ordered = ordered.append_column("until", until)
    ordered = ordered.append_column("known", pc.is_valid(ordered["recorded"]))
    moment = ["signal", "start", "device", "utc_offset_min", "until"]
    order = [*moment, "known", *(name for name, _ in _ORDER if name not in moment)]
    ordered = ordered.sort_by([(name, "ascending") for name in order])
    leads = _differs(ordered, moment)
    ordered = ordered.select([name for name, _ in _ORDER])
    holds = np.append(leads[1:], True) if len(leads) else leads
    return ordered.append_column(RAW.field("holds"), pa.array(holds)).cast(RAW)


def _differs(table: pa.Table, names: list[str]) -> NDArray[np.bool_]:
    """Return for each row whether it differs from the one before; the first does."""
    rows = table.num_rows
    differs = np.zeros(rows, dtype=bool)
    if rows == 0:
        return differs
    differs[0] = True
    for name in names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type):
            codes = column.dictionary_encode().indices.to_numpy(zero_copy_only=False)
            differs[1:] |= codes[1:] != codes[:-1]
            continue
        null = np.asarray(column.is_null())
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False)
        differs[1:] |= (numbers[1:] != numbers[:-1]) | (null[1:] != null[:-1])
    return differs
