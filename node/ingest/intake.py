"""Take in one table under its mapping: a delimited file, a Parquet file, rows of a database.

node.ingest.pipeline takes in whatever a hospital has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from deid.dates import DatePractice
from deid.vault import Vault
from node.ingest.delimited import open_delimited, sha256_of
from node.ingest.event_values import Redact
from node.ingest.mapping import Mapping, read_mapping
from node.ingest.parquet import is_parquet, open_parquet
from node.ingest.records import Records, Rules, records_of
from node.omop.loading import Again, Load, Source
from node.omop.store import OmopStore
from node.signals.belonging import FILE as BELONGING
from protocols.clock import Clock

BATCH_ROWS = 100_000  # a batch of a 14-column table takes some 50 MB


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file is."""

    source: str
    bytes_done: int
    bytes_total: int
    rows: int
    events: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file. `loaded` counts rows, `quarantined` values and rows that were turned away."""

    source: str
    mapping: str
    rows: int
    loaded: int
    quarantined: int
    events: dict[str, int]
    unknown_columns: tuple[str, ...]
    unchanged: bool = False
    rows_quarantined: int = 0  # rows that gave no record


class Table(Protocol):
    """An open table: its rows in batches of the columns that its mapping uses, and what it left out."""

    bytes_total: int
    bytes_done: int
    unknown_columns: tuple[str, ...]
    wrong_width: list[int]
    not_text: list[int]

    def batches(self, *, batch_rows: int) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield batches with the number of each row, from 1. Raises: UnreadableSource."""


def beside(folder: Path) -> tuple[Mapping, ...]:
    """Return the mappings that lie in a folder. Raises: MalformedMapping."""
    return tuple(read_mapping(file) for file in sorted(folder.glob("*.toml")) if _is_mapping(file))


def _is_mapping(file: Path) -> bool:
    """A TOML file beside the data is a mapping if it says `[source]`; then it has to be a right one.

    What says whose signals are (node.signals.belonging) has such a table too, and a name of its own.
    """
    return file.name != BELONGING and any(
        line.strip() == b"[source]" for line in file.read_bytes().splitlines()
    )


def is_source(file: Path) -> bool:
    """Return whether a file of a folder is data."""
    return file.is_file() and not file.name.startswith(".") and file.suffix != ".toml"


def rank(mapping: Mapping) -> int:
    """Return what comes first: persons, visits, then what refers to them."""
    if mapping.person is not None:
        return 0
    return 1 if mapping.visit is not None and mapping.visit.concept_id is not None else 2


def opened(file: Path, mapping: Mapping) -> Table:
    """Return a file's table. Raises: UnreadableSource if it is not as the mapping says."""
    return open_parquet(file, mapping) if is_parquet(file) else open_delimited(file, mapping)


def source_of(file: Path, mapping: Mapping) -> Source:
    """Return what a file under a mapping is known by."""
    kind = "parquet" if is_parquet(file) else "delimited"
    return Source(file.name, sha256_of(file), mapping.name, mapping.sha256, kind)


def ingest_table(
    source: Source,
    opening: Callable[[], Table],
    mapping: Mapping,
    store: OmopStore,
    vault: Vault,
    *,
    clock: Clock,
    progress: Callable[[Progress], None] | None,
    batch_rows: int,
    practice: DatePractice,
    again: Again,
    redact: Redact,
) -> FileReport:
    """Load one table under its mapping; it is opened if it has not been loaded before.

    Raises: UnreadableSource, AlreadyLoaded.
    """
    before = store.loaded(source_sha256=source.sha256, mapping_sha256=source.mapping_sha256)
    if before is not None:
        return FileReport(
            source.name,
            mapping.name,
            before.rows,
            0,
            before.quarantined,
            {},
            (),
            unchanged=True,
            rows_quarantined=before.rows_quarantined,
        )
    table = opening()
    now = clock.now()
    rules = Rules(
        mapping=mapping,
        source=source.name,
        practice=practice,
        latest_day=(now.date() - date(1970, 1, 1)).days + 1,  # a day's grace for time zones
        vault=vault,
        redact=redact,
    )
    loaded = 0
    with store.load(source, now=now, again=again) as load:
        load.name_concepts(mapping.local_concepts())
        for batch, rows in table.batches(batch_rows=batch_rows):
            records = records_of(batch, rows, rules, knows=load.knows)
            _append(load, records)
            load.rows += len(rows)
            loaded += records.rows_loaded
            if progress is not None:
                progress(
                    Progress(
                        source.name, table.bytes_done, table.bytes_total, load.rows, sum(load.events.values())
                    )
                )
        wrong = np.array(table.wrong_width, dtype=np.int64)
        load.quarantine("*", "wrong-number-of-fields", wrong, whole_row=True)
        not_text = np.array(table.not_text, dtype=np.int64)
        load.quarantine("*", "not-text", not_text, whole_row=True)
        load.rows += len(wrong) + len(not_text)
        load.rows_quarantined = load.rows - loaded
    return FileReport(
        source.name,
        mapping.name,
        load.rows,
        loaded,
        load.quarantined,
        dict(load.events),
        table.unknown_columns,
        rows_quarantined=load.rows_quarantined,
    )


def _append(load: Load, records: Records) -> None:
    if records.persons is not None:
        load.add_persons(*records.persons)
    if records.visits is not None:
        load.add_unless_there("visit_occurrence", "visit_occurrence_id", *records.visits)
    for deaths, rows in records.deaths:
        load.add_unless_there("death", "person_id", deaths, rows)
    for table, events, rows in records.events:
        load.add_events(table, events, rows)
    for item in records.quarantined:
        load.quarantine(item.field, item.reason, item.rows, whole_row=item.whole_row)
