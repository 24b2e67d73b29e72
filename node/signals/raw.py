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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
_PLACE = "place"
_SYNCED_AT_ONCE = 8  # a disk makes many files durable in one go
_DAYS_AT_ONCE = 100
_BY_END = [name for name, signal in SIGNALS.items() if signal.by_end]
_DAY = re.compile(r"\A(-?\d{4,5}-\d{2}-\d{2})\.parquet\Z")
_PERSON = re.compile(r"\A[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True)
class Addition:
    """Samples (RAW, `holds` ignored) of one person's day; `day` is shifted, days since 1970."""

    person: int
    day: int
    samples: pa.Table


@dataclass(frozen=True, slots=True)
class Merged:
    """Days after samples were added: all of their samples, of which of the days each is, how many are new."""

    samples: pa.Table
    place: NDArray[np.int64]
    added: int


class RawSamples:
    """The folder of raw samples. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_files.make_folder(folder)

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

    def rows(self, person: int, day: int) -> int:
        """Return how many samples a day has, those that do not hold among them."""
        path = self._path(person, day)
        return int(pq.read_metadata(path).num_rows) if path.is_file() else 0

    def add(self, additions: Sequence[Addition]) -> Merged:
        """Add samples to days, each named once; return the whole of these days, and make them durable.

        Guarantee: after a crash each day's file is the old or the new one; when this returns, all are new.
        """
        paths = [self._path(one.person, one.day) for one in additions]
        before = [_read(path) for path in paths]
        tables, places = [], []
        for place, (one, old) in enumerate(zip(additions, before, strict=True)):
            for table in (old, one.samples):
                if table is not None:
                    tables.append(table)
                    places.append(np.full(len(table), place, dtype=np.int64))
        if not tables:
            return Merged(RAW.empty_table(), np.zeros(0, dtype=np.int64), 0)
        samples, place_of = _as_sets(pa.concat_tables(tables), np.concatenate(places))
        bounds = np.searchsorted(place_of, np.arange(len(additions) + 1)).tolist()
        added = 0
        drafts = []
        for place, (path, old) in enumerate(zip(paths, before, strict=True)):
            fresh = bounds[place + 1] - bounds[place] - (0 if old is None else len(old))
            if fresh:
                added += fresh
                private_files.make_folder(path.parent)
                drafts.append(_draft(path, samples.slice(bounds[place], bounds[place + 1] - bounds[place])))
        self._settle(drafts)
        return Merged(samples, place_of, added)

    def _settle(self, drafts: Sequence[Path]) -> None:
        """Put drafts in place, durably: contents first, then names."""
        if not drafts:
            return
        with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
            list(pool.map(_sync, drafts))
        for draft in drafts:
            draft.replace(draft.with_name(draft.name[1:]))
        for folder in sorted({draft.parent for draft in drafts}):
            private_files.sync_folder(folder)
        private_files.sync_folder(self._folder)

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
        days_of = self.days(person)
        for begin in range(0, len(days_of), _DAYS_AT_ONCE):
            moved = []
            for day in days_of[begin : begin + _DAYS_AT_ONCE]:
                found = _read(self._path(person, day))
                assert found is not None, "it was listed"
                for name in ("start", "end", "recorded"):
                    place = found.schema.get_field_index(name)
                    found = found.set_column(place, RAW.field(name), pc.add(found[name], delta))
                moved.append(Addition(into, day + days, found))
            self.add(moved)
        self.forget(person)

    def _person(self, person: int) -> Path:
        return self._folder / f"{person:016x}"

    def _path(self, person: int, day: int) -> Path:
        return self._person(person) / f"{date(1970, 1, 1) + timedelta(days=day)}.parquet"


def _draft(path: Path, samples: pa.Table) -> Path:
    """Write what will be at `path` beside it; what a crash leaves of it is no day, and written over."""
    draft = path.with_name(f".{path.name}")  # one process writes, under the lock
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private_files.FILE_MODE)
    with os.fdopen(handle, "wb") as stream:
        pq.write_table(samples, stream, compression="zstd", use_dictionary=["signal", "device"])
    return draft


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    return pq.read_table(io.BytesIO(path.read_bytes()), schema=RAW)


def _as_sets(samples: pa.Table, place: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return each sample of each place once, in one order; of contradicting ones the last holds."""
    names = [name for name, _ in _ORDER]
    ordered = samples.select(names).append_column(_PLACE, pa.array(place))
    ordered = ordered.sort_by([(_PLACE, "ascending"), *_ORDER]).combine_chunks()
    differs = {name: _differs(ordered, [name]) for name in (_PLACE, *names)}
    fresh = np.logical_or.reduce(list(differs.values()))
    alone = differs[_PLACE] | differs["signal"] | differs["start"] | differs["device"]
    ordered = ordered.filter(pa.array(fresh))
    if alone[fresh].all():
        holds = np.ones(len(ordered), dtype=bool)
    else:
        ordered, holds = _judged(ordered)
    table = ordered.select(names).append_column(RAW.field("holds"), pa.array(holds)).cast(RAW)
    return table, ordered[_PLACE].to_numpy()


def _judged(ordered: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Return the rows by their moments, and which of them hold."""
    # Those of one moment on one clock contradict one another; of sleep, those that end together, because
    # an end says to which day it belongs. Nulls of `recorded` sort last, and mean "nobody knows": they yield.
    by_end = pc.is_in(ordered["signal"], value_set=pa.array(_BY_END, pa.string()))
    until = pc.if_else(by_end, ordered["end"], pa.scalar(None, STAMP))
    ordered = ordered.append_column("until", until)
    ordered = ordered.append_column("known", pc.is_valid(ordered["recorded"]))
    moment = [_PLACE, "signal", "start", "device", "utc_offset_min", "until"]
    order = [*moment, "known", *(name for name, _ in _ORDER if name not in moment)]
    ordered = ordered.sort_by([(name, "ascending") for name in order]).combine_chunks()
    leads = _differs(ordered, moment)
    return ordered, np.append(leads[1:], True)


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
