"""Take in whatever a hospital has: each file by the mapping or the reader that is for it, in one loop.

Guarantee: a file is one load and one transaction; the same bytes by the same reader (or mapping), vocabulary
and rules are loaded once, so that an ingest that was interrupted is resumed by starting it again. For each
source, records in = stored + quarantined, or the file is not loaded. No identifier, and no file name that
might hold one, reaches the store. Memory is bounded by a batch of records, not by the file.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from deid.dates import DatePractice
from deid.text import Redactor
from deid.vault import Vault
from node.ingest import code_words, collector, intake
from node.ingest.delimited import sha256_of
from node.ingest.errors import NoMapping, UnreadableSource
from node.ingest.fact_rules import FactRules
from node.ingest.facts import Reader
from node.ingest.harmonize import Count, Harmonizer
from node.ingest.intake import FileReport, Progress
from node.ingest.mapping import Mapping, packaged
from node.ingest.reading_apart import FROM_BYTES, ReadingApart, can_be_apart, usable_processes
from node.ingest.registry import READERS, Entry, reader_for
from node.omop import fact_persons, vocabulary
from node.omop.concepts import Concepts
from node.omop.fact_loading import HELD_FACTS, Reading
from node.omop.loading import Again, Loaded, Source
from node.omop.store import OmopStore
from node.signals.intake import FOLDER as SIGNALS
from node.signals.raw import RawSamples
from protocols.clock import Clock

if TYPE_CHECKING:
    from node.ingest.database import Database

BATCH_RECORDS = 20_000  # some 50 MB of facts at 5 facts a record
_FIRST = ("patient", "patients", "beneficiary", "encounter", "encounters", "visits")
# Names of files that say what is in them and not of whom; others are stored as a keyed number.
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{2,40}(?:[._-]?[0-9]{1,3})?(?:\.[a-z0-9]{1,8}){1,3}")
_PLAIN_WORDS = frozenset(
    (
        "patient", "patients", "encounter", "encounters", "condition", "conditions", "observation",
        "observations", "procedure", "procedures", "medication", "medications", "medicationrequest",
        "medicationadministration", "medicationdispense", "medicationstatement", "immunization",
        "immunizations", "allergyintolerance", "diagnosticreport", "documentreference", "imagingstudy",
        "device", "explanationofbenefit", "claim", "claims", "consent", "coverage", "careplan", "careteam",
        "goal", "practitioner", "practitionerrole", "organization", "location", "provenance",
        "servicerequest", "supplydelivery", "specimen", "beneficiary", "carrier", "inpatient", "outpatient",
        "prescription", "drug", "events", "labs", "results", "visits", "export", "facts", "messages",
        "pharmacy", "enrollment",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one file. `reasons` counts quarantined records, `values_quarantined` single fields."""

    source: str
    format: str
    mapping: str
    records_in: int
    stored: int
    quarantined: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    values_quarantined: int = 0
    superseded: int = 0
    records: dict[str, int] = field(default_factory=dict)
    unchanged: bool = False
    unreadable: str | None = None
    delimited: FileReport | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of all files of one call."""

    sources: tuple[SourceReport, ...]
    without_reader: tuple[str, ...] = ()

    @property
    def fresh(self) -> tuple[SourceReport, ...]:
        """Those that had not been loaded before."""
        return tuple(source for source in self.sources if not source.unchanged)

    @property
    def records(self) -> dict[str, int]:
        """New CDM records by table."""
        total: Counter[str] = Counter()
        for source in self.fresh:
            total.update(source.records)
        return dict(total)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What holds for every file of one ingest."""

    store: OmopStore
    vault: Vault
    clock: Clock
    rules: FactRules = field(default_factory=FactRules)
    practice: DatePractice = DatePractice.SHIFTED
    again: Again = Again.REFUSE
    batch_records: int = BATCH_RECORDS
    held_facts: int = HELD_FACTS  # staged in memory, or one batch more
    batch_rows: int = intake.BATCH_ROWS  # of delimited files
    readers: tuple[Entry, ...] = READERS
    progress: Callable[[Progress], None] | None = None
    processes: int = field(default_factory=usable_processes)  # this one, and those that read ahead of it
    apart_from_bytes: int = FROM_BYTES  # of files; fewer are read in this process

    def ingest(self, paths: Sequence[Path], *, mappings: Sequence[Mapping] | None = None) -> Report:
        """Load files, and every file of folders.

        Args: mappings: for delimited files; they go before those beside the data, readers, and our own.
        Raises: NoMapping if nothing can be read; MalformedMapping, AlreadyLoaded, ReaderUnavailable,
            ReaderLost, Unaccounted. A file that is not what it seems is reported as unreadable, and the rest
            is loaded.
        """
        plan, without = self._plan(paths, mappings)
        redact = Redactor()
        reports = []
        with closing(self.store.cursor()) as cursor:
            cursor.execute("SET schema = 'main'")
            concepts = Concepts(cursor)
            sha256 = cache(sha256_of)  # a file that is read ahead is asked about twice
            with self._apart(plan, sha256) as apart:
                for file, found in plan:
                    if isinstance(found, Mapping):
                        reports.append(self._mapped(file, found, redact))
                    else:
                        reports.append(self.load(file, found, concepts, redact, apart=apart, sha256=sha256))
        return self._settled(reports, without)

    def _apart(
        self, plan: Sequence[tuple[Path, Mapping | Reader]], sha256: Callable[[Path], str]
    ) -> ReadingApart:
        """Return the files that may be read in other processes, as `load` will ask for them."""

        def wanted(file: Path, reader: Reader) -> bool:
            return self._before(self._source(file, reader, sha256)[0]) is None

        return ReadingApart(
            [
                (file, self._bound(found))
                for file, found in plan
                if not isinstance(found, Mapping) and can_be_apart(found)
            ],
            wanted=wanted,
            batch_records=self.batch_records,
            processes=self.processes,
            from_bytes=self.apart_from_bytes,
        )

    def ingest_rows(self, database: Database, mappings: Sequence[Mapping]) -> Report:
        """Load rows of an open database, each mapping's by itself, persons first.

        Raises: UnreadableSource, AlreadyLoaded; ValueError for a mapping that does not say which rows.
        """
        redact = Redactor()
        reports = []
        for mapping in sorted(mappings, key=lambda one: (intake.rank(one), one.name)):
            table = database.rows(mapping)
            source = Source(table.name, table.sha256, mapping.name, mapping.sha256, "sql")
            reports.append(self._table(source, partial(_itself, table), mapping, redact))
        return self._settled(reports)

    def _settled(self, reports: list[SourceReport], without: tuple[str, ...] = ()) -> Report:
        """Draw what follows from the records, also of an ingest that ended before it came to this."""
        self._follow()
        self.store.derive()
        self.store.settle()
        return Report(tuple(reports), without)

    def load(
        self,
        file: Path,
        reader: Reader,
        concepts: Concepts,
        redact: Redactor,
        *,
        apart: ReadingApart | None = None,
        sha256: Callable[[Path], str] = sha256_of,
    ) -> SourceReport:
        """Load one file by its reader; what follows from it (`OmopStore.derive`) is the caller's to ask for.

        Raises: AlreadyLoaded, ReaderLost, Unaccounted.
        """
        began = time.monotonic()
        reader = self._bound(reader)
        source, reading = self._source(file, reader, sha256)
        before = self._before(source)
        if before is not None:
            return self._unchanged(file, reader, before.load_id)
        now = self.clock.now()
        size = file.stat().st_size
        try:
            with self.store.load_facts(
                source, reading, now=now, again=self.again, held_facts=self.held_facts
            ) as load:
                harmonizer = Harmonizer(
                    load,
                    self.vault,
                    concepts,
                    source_name=source.name,
                    source_sha256=source.sha256,
                    rules=self.rules,
                    practice=self.practice,
                    latest_day=(now.date() - date(1970, 1, 1)).days + 1,  # a day's grace for time zones
                    redact=redact,
                    marks_parts=getattr(reader, "marks_parts", False),
                )
                if apart is None:
                    batches = reader.read(file, batch_records=self.batch_records)
                else:
                    batches = apart.batches(file, reader)
                while True:
                    with collector.paused():
                        batch = next(batches, None)
                        if batch is None:
                            break
                        harmonizer.take(batch)
                    count = harmonizer.count
                    if self.progress is not None:
                        self.progress(
                            Progress(
                                file.name, min(batch.bytes_done, size), size, count.records_in, count.stored
                            )
                        )
                    del batch  # while the next one comes
                harmonizer.words.note(load.cursor, self.vault)
                count = harmonizer.count
                load.records, load.records_quarantined = count.records_in, count.quarantined
                load.seconds = time.monotonic() - began
        except UnreadableSource as error:
            return _unreadable(file, reader.name, reader.name, error.reason, time.monotonic() - began)
        return _report(
            file,
            reader,
            count,
            seconds=time.monotonic() - began,
            superseded=load.superseded,
            values=load.quarantined - count.quarantined,
            records=dict(load.events),
        )

    def _follow(self) -> None:
        """Bring what lies beside the store after it: words and raw samples of who withdrew go, raw samples of
        somebody who turned out to be another become that one's.
        """
        with self.store.writing(events=False) as writer:
            code_words.forget(writer)
        folder = self.store.path.parent / SIGNALS
        if not folder.is_dir():
            return
        raw = RawSamples(folder)
        with raw.writing(), closing(self.store.cursor()) as cursor:
            there = set(raw.persons())
            for person in there.intersection(fact_persons.withdrawn(cursor).tolist()):
                raw.forget(person)
            names = fact_persons.canonical(cursor)
            for person in sorted(there & names.keys()):
                into, days = names[person]
                raw.merge(person, into, days=days if self.practice is DatePractice.SHIFTED else 0)

    def _bound(self, reader: Reader) -> Reader:
        """Tell a reader whose clock a time is by, and one that keeps raw samples where, and who is who."""
        zoned = getattr(reader, "in_zone", None)
        if zoned is not None and self.rules.zone:
            reader = zoned(self.rules.zone)
        bind = getattr(reader, "bind", None)
        if bind is None:
            return reader
        latest_day = (self.clock.now().date() - date(1970, 1, 1)).days + 1
        bound: Reader = bind(self.store.path.parent, vault=self.vault, latest_day=latest_day)
        return bound

    def _plan(
        self, paths: Sequence[Path], mappings: Sequence[Mapping] | None
    ) -> tuple[list[tuple[Path, Mapping | Reader]], tuple[str, ...]]:
        """Which file is read by what, in the order of loading: persons first, so that least has to wait."""
        by_mapping: list[tuple[Path, Mapping | Reader]] = []
        by_reader: list[tuple[Path, Mapping | Reader]] = []
        without = []
        beside: dict[Path, tuple[Mapping, ...]] = {}
        for file in _files(paths):
            if file.parent not in beside:
                beside[file.parent] = intake.beside(file.parent)
            found = _fitting(file, (*(mappings or ()), *beside[file.parent]))
            if found is None and mappings and len(mappings) == 1 and list(paths) == [file]:
                found = mappings[
                    0
                ]  # one file and one mapping were handed in: it is for it, whatever its name
            if found is None and (reader := reader_for(file, self.readers)) is not None:
                by_reader.append((file, reader))
            elif found is not None or (found := _fitting(file, packaged())) is not None:
                by_mapping.append((file, found))
            else:
                without.append(file.name)
        if not by_mapping and not by_reader:
            raise NoMapping(paths[0].name if paths else "nothing")
        by_mapping.sort(key=lambda pair: (intake.rank(pair[1]), pair[0].name))  # type: ignore[arg-type]
        by_reader.sort(key=lambda pair: _place(pair[0].name))
        return by_mapping + by_reader, tuple(without)

    def _mapped(self, file: Path, mapping: Mapping, redact: Redactor) -> SourceReport:
        """Load one file under its mapping, whole or not at all; one that is not as it says is reported."""
        began = time.monotonic()
        source = intake.source_of(file, mapping)
        try:
            return self._table(source, partial(intake.opened, file, mapping), mapping, redact)
        except UnreadableSource as error:
            seconds = time.monotonic() - began
            return _unreadable(file, source.format, mapping.name, error.reason, seconds)

    def _table(
        self, source: Source, opening: Callable[[], intake.Table], mapping: Mapping, redact: Redactor
    ) -> SourceReport:
        began = time.monotonic()
        report = intake.ingest_table(
            source,
            opening,
            mapping,
            self.store,
            self.vault,
            clock=self.clock,
            progress=self.progress,
            batch_rows=self.batch_rows,
            practice=self.practice,
            again=self.again,
            redact=redact.redact,
        )
        reasons: dict[str, int] = {}
        if not report.unchanged and report.rows > report.loaded:
            reasons = self._reasons(mapping, source.sha256)
        return SourceReport(
            source=source.name,
            format=source.format,
            mapping=mapping.name,
            records_in=report.rows,
            stored=report.rows - report.rows_quarantined,
            quarantined=report.rows_quarantined,
            seconds=time.monotonic() - began,
            reasons=reasons,
            values_quarantined=report.quarantined - sum(reasons.values()),
            records=dict(report.events),
            unchanged=report.unchanged,
            delimited=report,
        )

    def _reasons(self, mapping: Mapping, sha256: str) -> dict[str, int]:
        rows = self.store.connection.con.execute(
            "SELECT reason, count(*) FROM fedtwin_quarantine JOIN fedtwin_load USING (load_id)"
            " WHERE source_sha256 = ? AND mapping_sha256 = ? AND whole_row GROUP BY reason ORDER BY 2 DESC",
            [sha256, mapping.sha256],
        ).fetchall()
        return dict(rows)

    def _source(self, file: Path, reader: Reader, sha256: Callable[[Path], str]) -> tuple[Source, Reading]:
        """What a file and the way it is read are known by."""
        reading = Reading(reader.name, reader.version, self._vocabulary())
        content = _content(file, reader, sha256)
        return Source(self._stored_name(file), content, reader.name, self._digest(reading)), reading

    def _before(self, source: Source) -> Loaded | None:
        return self.store.loaded(source_sha256=source.sha256, mapping_sha256=source.mapping_sha256)

    def _unchanged(self, file: Path, reader: Reader, load_id: int) -> SourceReport:
        row = self.store.connection.con.execute(
            "SELECT rows, records_quarantined FROM fedtwin_load WHERE load_id = ?", [load_id]
        ).fetchone()
        assert row is not None, "it was found a moment ago"
        count = Count(row[0], row[0] - row[1], row[1])
        return _report(file, reader, count, seconds=0.0, unchanged=True)

    def _vocabulary(self) -> str | None:
        """The name of what codes are mapped by: the vocabulary, and the hospital's own mappings."""
        loaded = vocabulary.loaded(self.store)
        own = self.store.connection.con.execute(
            "SELECT count(*), sum(CAST(md5_number_lower(CAST(m AS VARCHAR)) AS HUGEINT))"
            " FROM source_to_concept_map m"
        ).fetchone()
        parts = [loaded.version, loaded.source_sha256[:12]] if loaded else []
        if own and own[0]:
            parts.append(f"own mappings {hashlib.sha256(str(own).encode()).hexdigest()[:12]}")
        return ", ".join(parts) or None

    def _digest(self, reading: Reading) -> str:
        return hashlib.sha256(repr((reading, self.rules, self.practice.value)).encode()).hexdigest()

    def _stored_name(self, file: Path) -> str:
        words = re.split(r"[._-]|[0-9]+", file.name.lower())
        if _PLAIN_NAME.fullmatch(file.name) and words[0] in _PLAIN_WORDS:
            return file.name
        number = int(self.vault.record_ids([str(file.name).encode()], label="file name")[0])
        return f"file-{number:016x}"


def _content(file: Path, reader: Reader, sha256: Callable[[Path], str]) -> str:
    """What a file is known by: its bytes, and whose they are where its folder says that."""
    found = sha256(file)
    belongs = getattr(reader, "belongs_to", None)
    whose = None if belongs is None else belongs(file)
    return found if whose is None else hashlib.sha256(f"{found} {whose}".encode()).hexdigest()


def _report(
    file: Path,
    reader: Reader,
    count: Count,
    *,
    seconds: float,
    superseded: int = 0,
    values: int = 0,
    records: dict[str, int] | None = None,
    unchanged: bool = False,
) -> SourceReport:
    return SourceReport(
        source=file.name,
        format=reader.name,
        mapping=reader.name,
        records_in=count.records_in,
        stored=count.stored,
        quarantined=count.quarantined,
        seconds=seconds,
        reasons=dict(count.reasons.most_common()),
        values_quarantined=max(values, 0),
        superseded=superseded,
        records=records or {},
        unchanged=unchanged,
    )


def _unreadable(file: Path, kind: str, mapping: str, reason: str, seconds: float) -> SourceReport:
    return SourceReport(file.name, kind, mapping, 0, 0, 0, seconds, unreadable=reason)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of folders, by name; no links, no hidden ones, no mappings."""
    for path in paths:
        if path.is_dir():
            yield from (
                file
                for file in sorted(path.rglob("*"))
                if intake.is_source(file)
                and not file.is_symlink()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
        else:
            yield path


def _place(file_name: str) -> int:
    """Whose files are read before others, which would wait for them: by the first word of the name."""
    word = re.split(r"[^a-z]", file_name.lower())[0]
    return _FIRST.index(word) if word in _FIRST else len(_FIRST)


def _fitting(file: Path, mappings: Iterable[Mapping]) -> Mapping | None:
    return next((mapping for mapping in mappings if mapping.fits(file.name)), None)


def _itself(table: intake.Table) -> intake.Table:
    return table
