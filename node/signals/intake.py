"""A file of signals comes in: raw samples are merged into their days, touched windows are summarized anew.

`SignalFacts` makes a reader of facts out of a reader of samples. It is the one reader with a memory (the raw
samples), which is what lets a late sample correct a window: the facts of a file are the windows that it
touched, computed from everything that is known of them, under keys that replace what was said before.

The file is read as a whole before anything is merged; one that turns out to be damaged leaves nothing.
Merging
is idempotent, so a file that is read again after a crash gives the same samples and the same facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deid.vault import Vault
from node.ingest.facts import SCHEMA, UTC, FactBatch, TurnedAway
from node.signals import belonging
from node.signals.belonging import Whose
from node.signals.clocks import MINUTE, WallClock, offsets_of_utc
from node.signals.kinds import SIGNALS
from node.signals.raw import RAW, Addition, RawSamples
from node.signals.samples import SampleBatch, SignalReader
from node.signals.summaries import DAY, POLICY, join, samples_of, summaries
from node.signals.summary_facts import PersonDay, facts_of

NO_PATIENT = "no-patient"
FUTURE = "implausible-date"  # the harmonizer's word
FOLDER = "signals"
ROWS_AT_ONCE = 250_000  # samples whose windows are summarized together: some 100 MB
SORT_MEMORY = "512MB"  # what does not fit is sorted on the disk, in the node's home
_DRAFT = pa.schema(
    [
        pa.field("person", pa.int64()),
        pa.field("day", pa.int64()),
        pa.field("patient", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("shift_days", pa.int64()),
        pa.field("record", pa.int64()),
        *(field for field in RAW if field.name != "holds"),
    ]
)


@dataclass(frozen=True, slots=True)
class _Day:
    """One person's day of a file: what the file has of it."""

    person: int
    day: int
    whose: PersonDay
    rows: pa.Table


class SignalFacts:
    """Reads signals as facts (node.ingest.facts.Reader), storing raw samples on the way."""

    def __init__(
        self,
        reader: SignalReader,
        *,
        raw: RawSamples,
        vault: Vault,
        latest_day: int | None = None,
        whose: Callable[[Path], Whose] = belonging.whose,
    ) -> None:
        """latest_day: days since 1970 after which no sample can have been taken; None: no bound."""
        self.name = reader.name
        self.version = f"{reader.version}+{POLICY}"
        self._reader = reader
        self._raw = raw
        self._vault = vault
        self._whose = whose
        self._latest_day = latest_day
        self.added = 0  # samples of the last file that were new
        self.known = 0  # and that were there before, or twice in it

    @classmethod
    def beside(
        cls, store_folder: Path, reader: SignalReader, *, vault: Vault, latest_day: int | None
    ) -> SignalFacts:
        """Return the reader with its raw samples in the folder of the store."""
        return cls(reader, raw=RawSamples(store_folder / FOLDER), vault=vault, latest_day=latest_day)

    def reads(self, path: Path) -> bool:
        """Return whether the file is for this reader."""
        return self._reader.reads(path)

    def belongs_to(self, path: Path) -> str | None:
        """Return a keyed name of whose the file is and by which clock; None if nobody said.

        The same bytes of another wearer are another file. Raises: MalformedMapping for a wrong signals.toml.
        """
        said = self._whose(path)
        if said.patient is None:
            return None
        name = "\x1f".join((said.namespace, said.patient, str(said.zone or "")))
        return f"{int(self._vault.record_ids([name.encode()], label='wearer')[0]):016x}"

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield first what was turned away, with the records, and then the facts, with none.

        Guarantee: raw samples are durable before the first fact of them is yielded.
        Raises: UnreadableSource; MalformedMapping for a wrong signals.toml.
        """
        said = self._whose(path)
        clock = None if said.zone is None else WallClock(said.zone)
        self.added = self.known = 0
        with self._raw.writing() as drafts:
            numbers = itertools.count()
            for batch in self._reader.samples(path, batch_records=batch_records):
                table, turned_away = self._placed(batch, said, clock)
                if len(table):
                    file = drafts / f"{next(numbers):06d}.parquet"
                    pq.write_table(table, file, compression="zstd")
                yield FactBatch(
                    SCHEMA.empty_table(),
                    [*batch.turned_away, *turned_away],
                    batch.records,
                    batch.bytes_done,
                    kept=len(table),
                )
            if next(numbers):
                for table in self._merged(drafts):
                    yield FactBatch(table)

    def _placed(
        self, batch: SampleBatch, said: Whose, clock: WallClock | None
    ) -> tuple[pa.Table, list[TurnedAway]]:
        """Return the samples under their pseudonyms, shifted, with their local day."""
        samples = batch.samples
        patient = pc.fill_null(samples["patient"], pa.scalar(said.patient, pa.string()))
        known = pc.is_valid(patient)
        turned_away = _away(samples, known, "patient", NO_PATIENT)
        if self._latest_day is not None:
            bound = pa.scalar((self._latest_day + 1) * DAY).cast(pa.timestamp("us")).cast(UTC)
            past = pc.less(samples["start"], bound)
            turned_away += _away(samples.filter(known), past.filter(known), "start", FUTURE)
            known = pc.and_(known, past)
        own = pc.is_valid(samples["patient"])  # the source's own ids, in the source's own namespace
        namespace = pc.if_else(own, batch.namespace or said.namespace, said.namespace)
        samples, patient, namespace = (part.filter(known) for part in (samples, patient, namespace))
        if not len(samples):
            return _DRAFT.empty_table(), turned_away
        start, offset, moved = _moments(samples, batch.wall_clock, clock, said.zone)
        person, shift = self._pseudonyms(patient, namespace)
        by_shift = shift * DAY
        end = _moved(samples["end"], by_shift + moved)
        at = np.where(
            np.isin(samples["signal"].to_numpy(zero_copy_only=False), _BY_END) & ~np.asarray(end.is_null()),
            end.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False),
            start + by_shift,
        )
        minutes = offset.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        columns = {
            "person": pa.array(person),
            "day": pa.array((at + minutes * MINUTE) // DAY),
            "patient": patient,
            "namespace": namespace,
            "shift_days": pa.array(shift),
            "record": samples["record"],
            "signal": samples["signal"],
            "start": pa.array(start + by_shift).cast(pa.timestamp("us")),
            "device": samples["device"],
            "recorded": _moved(samples["recorded"], by_shift),
            "value": samples["value"],
            "end": end,
            "utc_offset_min": offset,
        }
        return pa.table([columns[field.name] for field in _DRAFT], schema=_DRAFT), turned_away

    def _pseudonyms(
        self, patient: pa.ChunkedArray, namespace: pa.ChunkedArray
    ) -> tuple[np.ndarray, np.ndarray]:
        both = pc.binary_join_element_wise(namespace, patient, "\x1f").combine_chunks().dictionary_encode()
        pairs = [text.split("\x1f", 1) for text in both.dictionary.to_pylist()]
        person, shift = np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=np.int64)
        for name in {name for name, _ in pairs}:
            places = [place for place, pair in enumerate(pairs) if pair[0] == name]
            found = self._vault.pseudonyms([pairs[place][1] for place in places], namespace=name)
            person[places], shift[places] = found.ids, found.shift_days
        codes = both.indices.to_numpy(zero_copy_only=False)
        return person[codes], shift[codes]

    def _merged(self, drafts: Path) -> Iterator[pa.Table]:
        """Merge day by day; yield the facts of the touched windows."""
        held: list[_Day] = []
        rows = 0
        for found in _days(drafts):
            held.append(found)
            rows += len(found.rows) + self._raw.rows(found.person, found.day)
            if rows >= ROWS_AT_ONCE:
                yield from self._facts(held)
                held, rows = [], 0
        if held:
            yield from self._facts(held)

    def _facts(self, days: list[_Day]) -> Iterator[pa.Table]:
        merged = self._raw.add([Addition(day.person, day.day, _raw_of(day.rows)) for day in days])
        rows = pa.concat_tables([day.rows for day in days]).combine_chunks()
        self.added += merged.added
        self.known += len(rows) - merged.added
        touched = np.repeat(np.arange(len(days)), [len(day.rows) for day in days])
        both = [
            samples_of(merged.samples, merged.place),
            samples_of(rows, touched, rows["record"].to_numpy()),
        ]
        groups = [day.whose for day in days]
        tables = [facts_of(summary, groups) for summary in summaries(join(both))]
        tables = [table for table in tables if len(table)]
        if tables:
            yield pa.concat_tables(tables).sort_by([("record", "ascending"), ("place", "ascending")])


def _away(samples: pa.Table, good: pa.ChunkedArray, name: str, reason: str) -> list[TurnedAway]:
    return [
        TurnedAway(record, name, reason, whole_record=True)
        for record in samples["record"].filter(pc.invert(good)).to_pylist()
    ]


_BY_END = [name for name, signal in SIGNALS.items() if signal.by_end]


def _raw_of(rows: pa.Table) -> pa.Table:
    table = rows.select([name for name in RAW.names if name != "holds"])
    return table.append_column(RAW.field("holds"), pa.repeat(pa.scalar(True), len(table))).cast(RAW)


def _moments(
    samples: pa.Table, wall_clock: bool, clock: WallClock | None, zone: ZoneInfo | None
) -> tuple[np.ndarray, pa.Array, np.ndarray]:
    """Return starts in UTC (µs), offsets, and by how much each was moved from what the batch has."""
    start = samples["start"].cast(pa.int64()).to_numpy().copy()
    offset = samples["utc_offset_min"].combine_chunks()
    moved = np.zeros_like(start)
    silent = np.asarray(offset.is_null())
    if zone is None or clock is None or not silent.any():
        return start, offset, moved
    minutes = offset.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64).copy()
    if wall_clock:
        names = pc.binary_join_element_wise(
            samples["patient"].fill_null(""), samples["signal"], samples["device"], "/"
        )
        minutes[silent] = clock.offsets(start[silent], names.filter(pa.array(silent)).to_pylist())
        moved[silent] = -minutes[silent] * MINUTE
    else:
        minutes[silent] = offsets_of_utc(start[silent], zone)
    return start + moved, pa.array(minutes).cast(pa.int16()), moved


def _moved(column: pa.ChunkedArray, by_us: np.ndarray) -> pa.Array:
    numbers = column.cast(pa.int64()).combine_chunks()
    return pc.add(numbers, pa.array(by_us)).cast(pa.timestamp("us"))


def _days(drafts: Path) -> Iterator[_Day]:
    """Yield each person's each day of the file, in order."""
    config: dict[str, Any] = {"memory_limit": SORT_MEMORY, "temp_directory": str(drafts), "threads": "1"}
    with duckdb.connect(config=config) as connection:
        connection.execute("SET preserve_insertion_order = true")
        order = "person, day, record"
        reader = connection.execute(
            f"SELECT * FROM read_parquet(?) ORDER BY {order}",  # noqa: S608 (a constant)
            [str(drafts / "*.parquet")],
        ).to_arrow_reader(100_000)
        held: list[pa.Table] = []
        for batch in reader:
            table = pa.Table.from_batches([batch]).cast(_DRAFT)
            person, day = table["person"].to_numpy(), table["day"].to_numpy()
            cuts = np.flatnonzero((person[1:] != person[:-1]) | (day[1:] != day[:-1])) + 1
            bounds = [0, *cuts.tolist(), len(table)]
            for begin, end in itertools.pairwise(bounds):
                part = table.slice(begin, end - begin)
                if held and _place(held[0]) != _place(part):
                    yield _day(held)
                    held = []
                held.append(part)
        if held:
            yield _day(held)


def _place(table: pa.Table) -> tuple[int, int]:
    return table["person"][0].as_py(), table["day"][0].as_py()


def _day(parts: list[pa.Table]) -> _Day:
    rows = pa.concat_tables(parts).combine_chunks()
    person, day = _place(rows)
    first = rows.slice(0, 1).to_pylist()[0]
    return _Day(person, day, PersonDay(first["patient"], first["namespace"], first["shift_days"]), rows)
