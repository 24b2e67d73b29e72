"""Take in a hospital's files: the only reader of raw sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from deid.dates import DatePractice
from deid.text import Redactor
from deid.vault import Vault
from node.ingest.delimited import open_delimited, sha256_of
from node.ingest.errors import NoMapping
from node.ingest.event_values import Redact
from node.ingest.mapping import Mapping, packaged, read_mapping
from node.ingest.mapping_parts import Kind
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


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all files of one call."""

    files: tuple[FileReport, ...]
    without_mapping: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows read from files that were new."""
        return sum(file.rows for file in self.files if not file.unchanged)

    @property
    def loaded(self) -> int:
        """Rows that gave records."""
        return sum(file.loaded for file in self.files if not file.unchanged)

    @property
    def quarantined(self) -> int:
        """Values and rows that were turned away."""
        return sum(file.quarantined for file in self.files if not file.unchanged)

    @property
    def events(self) -> dict[str, int]:
        """New records by table."""
        total: Counter[str] = Counter()
        for file in self.files:
            if not file.unchanged:
                total.update(file.events)
        return dict(total)

    @property
    def unknown_columns(self) -> tuple[str, ...]:
        """`file: column` for each column that no mapping speaks of. They were dropped."""
        return tuple(f"{file.source}: {name}" for file in self.files for name in file.unknown_columns)


def ingest(
    path: Path | str,
    mapping: Mapping | Sequence[Mapping] | None,
    store: OmopStore,
    vault: Vault,
    *,
    clock: Clock,
    progress: Callable[[Progress], None] | None = None,
    batch_rows: int = BATCH_ROWS,
    practice: DatePractice = DatePractice.SHIFTED,
    again: Again = Again.REFUSE,
) -> IngestReport:
    """Load a file, or every file of a directory, into the store without direct identifiers.

    Guarantee: each file is loaded as a whole or not at all; the same bytes under the same mapping are loaded
    once. No source id, identifier column, unknown column or unredacted text reaches the store.

    Args:
        mapping: None chooses by file name: mappings beside the files first, then fedtwin's own.
        again: what happens to a file that was loaded before and has changed, or whose mapping has.
    Raises: NoMapping, MalformedMapping, UnreadableSource, AlreadyLoaded, NotRedacted. No error holds a value.
    """
    path = Path(path)
    chosen, skipped = plan(path, mapping)
    redact = _redactor(found for _, found in chosen)
    reports = tuple(
        ingest_file(
            file,
            found,
            store,
            vault,
            clock=clock,
            progress=progress,
            batch_rows=batch_rows,
            practice=practice,
            again=again,
            redact=redact,
        )
        for file, found in chosen
    )
    if any(not report.unchanged for report in reports):
        store.settle()
    return IngestReport(reports, skipped)


def plan(
    path: Path, mapping: Mapping | Sequence[Mapping] | None
) -> tuple[list[tuple[Path, Mapping]], tuple[str, ...]]:
    """Return which file is read by which mapping, in the order of loading, and the files that none fits.

    Persons come first, then visits, then what refers to them.
    Raises: NoMapping if nothing can be read; MalformedMapping.
    """
    if isinstance(mapping, Mapping) and path.is_file():
        return [(path, mapping)], ()
    candidates = _candidates(path, mapping)
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if is_source(file))
    chosen: list[tuple[Path, Mapping]] = []
    skipped: list[str] = []
    for file in files:
        found = next((candidate for candidate in candidates if candidate.fits(file.name)), None)
        if found is None:
            skipped.append(file.name)
        else:
            chosen.append((file, found))
    if not chosen:
        raise NoMapping(path.name)
    chosen.sort(key=lambda pair: (rank(pair[1]), pair[0].name))
    return chosen, tuple(skipped)


def _candidates(path: Path, mapping: Mapping | Sequence[Mapping] | None) -> tuple[Mapping, ...]:
    if isinstance(mapping, Mapping):
        return (mapping,)
    if mapping is not None:
        return tuple(mapping)
    folder = path.parent if path.is_file() else path
    return beside(folder) + packaged()


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


def _redactor(mappings: Iterable[Mapping]) -> Redact:
    """Presidio takes seconds to load: only where a mapping lets text pass."""
    if any(event.kind is Kind.TEXT for mapping in mappings for event in mapping.events):
        return Redactor().redact
    return _no_text


def _no_text(text: str) -> str:
    raise AssertionError("no mapping lets text pass")


def ingest_file(
    file: Path,
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
    """Load one file under its mapping. Raises: UnreadableSource, AlreadyLoaded."""
    source = Source(file.name, sha256_of(file), mapping.name, mapping.sha256)
    before = store.loaded(source_sha256=source.sha256, mapping_sha256=source.mapping_sha256)
    if before is not None:
        return FileReport(
            file.name,
            mapping.name,
            before.rows,
            0,
            before.quarantined,
            {},
            (),
            unchanged=True,
            rows_quarantined=before.rows_quarantined,
        )
    table = open_delimited(file, mapping)
    now = clock.now()
    rules = Rules(
        mapping=mapping,
        source=file.name,
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
                        file.name, table.bytes_done, table.bytes_total, load.rows, sum(load.events.values())
                    )
                )
        wrong = np.array(table.wrong_width, dtype=np.int64)
        load.quarantine("*", "wrong-number-of-fields", wrong, whole_row=True)
        not_text = np.array(table.not_text, dtype=np.int64)
        load.quarantine("*", "not-text", not_text, whole_row=True)
        load.rows += len(wrong) + len(not_text)
        load.rows_quarantined = load.rows - loaded
    return FileReport(
        file.name,
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
