"""Taking in files from the command line: opens what ingest needs, and tells what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deid.vault import PseudonymKey, Vault
from fedtwin.screen import Exit, Stop
from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.ingest.errors import NoMapping
from node.ingest.fact_rules import read_rules
from node.ingest.intake import Progress
from node.ingest.mapping import Mapping, read_mapping
from node.ingest.pipeline import Pipeline, Report, SourceReport
from node.ingest.reading_apart import usable_processes
from node.keys import NodeKeys
from node.omop import starter
from node.omop.errors import AlreadyLoaded, StoreBusy
from node.omop.loading import Again
from node.omop.store import OmopStore
from node.timeline_copy import copy_events
from privacy import private_files
from privacy.rng import SecureBits
from protocols.clock import Clock, SystemClock

if TYPE_CHECKING:
    from node.ingest.database import Database

GENOMES = "genomes"  # genotypes, beside the store
GENOTYPES = "genotypes are taken in one file at a time, with whose they are: fedtwin node load-genomes FILE"
VAULT = "vault.sqlite"  # beside the keys and the ledger: it is backed up with them
Watcher = Callable[[str, int, int], None]  # source, bytes done, bytes in all

BUSY = (
    "the store is open in a running `fedtwin node serve`, and DuckDB lets one process in:"
    " stop it, run this again, start it again (questions that come meanwhile go without this hospital)"
)


# What the database of an ingest may hold in memory before it writes to a folder beside the store; with the
# vocabulary's words and a batch of facts the process then stays under 2 GB.
INGEST_MEMORY = "1GB"
RULES = "ingest.toml"  # what the hospital chose about facts (node.ingest.fact_rules)


def take_in(
    home: Path,
    paths: Sequence[Path],
    *,
    mappings: Sequence[Path],
    replace: bool,
    watch: Watcher,
    sql: str | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Load files and folders, or rows of the database `sql`, into the store of `home`: what came of it.

    Raises: Stop(REFUSED) while a node serves from this home, or for a file that has changed since it was
        loaded; Stop(USAGE) for a mapping that names no rows of the database; MalformedMapping, NoMapping,
        UnreadableSource, ReaderUnavailable, ReaderLost, Unaccounted, NotSuchUrl, NoDriver, DatabaseAway.
    """
    given = [read_mapping(file) for file in mappings]

    def progress(now: Progress) -> None:
        watch(now.source, now.bytes_done, now.bytes_total)

    if sql is not None:
        rowless = [file.name for file, one in zip(mappings, given, strict=True) if one.sql is None]
        if rowless:
            raise Stop(Exit.USAGE, f"{', '.join(rowless)}: no `sql` says which rows are for this mapping")
    with ExitStack() as opened:
        database = opened.enter_context(_database(sql)) if sql is not None else None
        store = opened.enter_context(open_store(home, memory=INGEST_MEMORY))
        try:
            report = load(
                home,
                store,
                paths,
                clock=SystemClock(),
                again=Again.REPLACE if replace else Again.REFUSE,
                mappings=given,
                progress=progress,
                database=database,
                processes=processes,
            )
        except AlreadyLoaded as error:
            raise Stop(Exit.REFUSED, f"{error} (--replace replaces it)") from None
        except NoMapping:
            if any(is_genotypes(file.name) for path in paths for file in (path, *path.rglob("*"))):
                raise Stop(Exit.USAGE, GENOTYPES) from None
            raise
        copy_events(store)  # so that a timeline is read in milliseconds
        patients = store.counts()["person"]
    fresh = report.fresh
    return {
        "sources": [_source(source) for source in report.sources],
        "files": [_file(source) for source in report.sources],
        "unchanged": sum(source.unchanged for source in report.sources),
        "rows": sum(source.records_in for source in fresh),
        "loaded": sum(source.stored for source in fresh),
        "quarantined": sum(source.quarantined + source.values_quarantined for source in fresh),
        "records": report.records,
        "patients": patients,
        "without_mapping": list(report.without_reader),
        "unknown_columns": [
            f"{source.source}: {name}"
            for source in report.sources
            if source.delimited is not None
            for name in source.delimited.unknown_columns
        ],
        "unreadable": [f"{one.source}: {one.unreadable}" for one in report.sources if one.unreadable],
    }


def load(
    home: Path,
    store: OmopStore,
    paths: Sequence[Path],
    *,
    clock: Clock,
    again: Again,
    mappings: Sequence[Mapping] = (),
    progress: Callable[[Progress], None] | None = None,
    bits: SecureBits | None = None,
    database: Database | None = None,
    processes: int | None = None,
) -> Report:
    """Load files, or a database's rows, into the open store of `home`, by the hospital's rules.

    Guarantee: who withdrew leaves with it, genotypes too, and the audit trail says what was taken in.
    Raises: as `Pipeline.ingest`.
    """
    where = NodeHome(home)
    key = PseudonymKey(NodeKeys.load(where.keys).pseudonym)
    with closing(Vault.open(home / VAULT, key=key, bits=bits or SecureBits())) as vault:
        starter.ensure(store, now=clock.now())
        pipeline = Pipeline(
            store,
            vault,
            clock,
            rules=read_rules(home / RULES),
            again=again,
            progress=progress,
            processes=usable_processes() if processes is None else processes,
        )
        if database is not None:
            report = pipeline.ingest_rows(database, mappings)
        else:
            report = pipeline.ingest(paths, mappings=mappings)
    forget_genomes(home, store)
    with closing(AuditLog(where.audit, clock=clock)) as log:
        for source in report.fresh:
            if source.unreadable is None:
                log.record(
                    AuditEvent.INGESTED,
                    mapping=_auditable(source.mapping),
                    rows_loaded=source.stored,
                    rows_quarantined=source.quarantined + source.values_quarantined,
                )
    return report


def _database(url: str) -> AbstractContextManager[Database]:
    from node.ingest.database import open_database  # SQLAlchemy takes a while to load

    return open_database(url)


def is_genotypes(name: str) -> bool:
    """Return whether a file of this name holds variants, for which `ingest` is not the way."""
    return name.lower().endswith((".vcf", ".vcf.gz", ".bcf"))


def forget_genomes(home: Path, store: OmopStore) -> None:
    """Remove the genotypes, and the rows of features, of whoever withdrew."""
    if (home / GENOMES).is_dir():
        from node.genomes.recording import withdrawn
        from node.genomes.store import GenomeStore

        for person_id in withdrawn(store):
            GenomeStore(home / GENOMES).forget(person_id)
    if NodeHome(home).features.is_dir():
        from node.features.store import FeatureStore
        from node.genomes.recording import withdrawn

        FeatureStore(NodeHome(home).features).forget(sorted(withdrawn(store)))


def quarantined(home: Path) -> list[dict[str, Any]]:
    """Return what was turned away, by file, field and reason; never what it said."""
    with open_store(home, read_only=True) as store:
        rows = store.connection.con.execute(
            "SELECT source_name, field, reason, count(*), min(source_row) FROM fedtwin_quarantine"
            " GROUP BY ALL ORDER BY count(*) DESC, source_name, field"
        ).fetchall()
    names = ("file", "field", "reason", "values", "first_row")
    return [dict(zip(names, row, strict=True)) for row in rows]


@contextmanager
def open_store(home: Path, *, read_only: bool = False, memory: str | None = None) -> Iterator[OmopStore]:
    """Open the store of `home`. `memory`: what DuckDB may hold, "1GB"; a part of the machine's by default.

    Raises: Stop(REFUSED) for writing while a node serves from it; Stop(USAGE) for reading what is not there.
    """
    path = NodeHome(home).store
    if read_only and not path.is_file():
        raise Stop(Exit.USAGE, f"{home} holds no data yet: fedtwin node ingest PATH")
    private_files.make_folder(path.parent)
    try:
        store = OmopStore.open(path, read_only=read_only, memory_limit=memory)
    except StoreBusy:
        raise Stop(Exit.REFUSED, BUSY) from None
    with store:
        yield store


def _source(report: SourceReport) -> dict[str, Any]:
    """What `--json` says of a source: records_in = stored + quarantined."""
    return {
        "source": report.source,
        "format": report.format,
        "mapping": report.mapping,
        "records_in": report.records_in,
        "stored": report.stored,
        "quarantined": report.quarantined,
        "reasons": report.reasons,
        "values_quarantined": report.values_quarantined,
        "superseded": report.superseded,
        "seconds": round(report.seconds, 3),
        "records": report.records,
        "unchanged": report.unchanged,
        "unreadable": report.unreadable,
    }


def _file(report: SourceReport) -> dict[str, Any]:
    return {
        "file": report.source,
        "mapping": report.mapping,
        "rows": report.records_in,
        "loaded": 0 if report.unchanged else report.stored,
        "quarantined": report.quarantined + report.values_quarantined,
        "records": report.records,
        "unchanged": report.unchanged,
    }


def _auditable(name: str) -> str:
    """Return a mapping's name in the form that the audit trail takes."""
    return re.sub(r"[^a-z0-9._-]", "-", name.lower()).lstrip("._-")[:64] or "unnamed"
