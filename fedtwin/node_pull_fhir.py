"""`fedtwin node pull-fhir`: fetches an export from a FHIR server, and loads it into this node's store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedtwin.node_ingest import INGEST_MEMORY, load, open_store
from fedtwin.screen import Exit, Stop
from node.ingest.fhir_export import Pulled, Wanted, pull
from node.ingest.fhir_export_errors import ExportFailed, ExportRefused
from node.ingest.fhir_export_http import BackendClient, Requests, checked, client
from node.ingest.fhir_export_state import Folder
from node.ingest.pipeline import Report
from node.omop.loading import Again
from node.timeline_copy import copy_events
from privacy.rng import SecureBits
from protocols.clock import Clock


@dataclass(frozen=True, slots=True)
class Server:
    """A FHIR server as this node sees it. authority: the only one to trust, None for the system's."""

    url: str
    who: BackendClient | None = None
    authority: Path | None = None


def folder_of(home: Path, base: str) -> Folder:
    """Return where exports of one server come in; its address stands in no name."""
    name = hashlib.sha256(base.encode()).hexdigest()[:16]
    return Folder(home / "inbox" / "fhir" / name)


def pull_fhir(
    home: Path,
    server: Server,
    wanted: Wanted,
    *,
    full: bool,
    keep: bool,
    clock: Clock,
    watch: Callable[[str, int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Pull what is new since the last whole pull (all of it if `full`), load it, and drop the files.

    The files are dropped only once all of them are in the store; `keep` leaves them until the next pull.

    Raises: Stop(REFUSED) if the server says no or the node serves, Stop(FAULT) for an outage (call again to
    go on); UnsafeAddress, BadKey, ValueError.
    """
    base, bits = checked(server.url, step="address").rstrip("/"), SecureBits()
    folder = folder_of(home, base)
    if wanted.since is None and not full:
        wanted = replace(wanted, since=folder.last(wanted.question(base)))
    try:
        with client(authority=server.authority) as http:
            requests = Requests(
                base, http, server.who, clock=clock, sleep=sleep, nonce=lambda: bits.bytes(16).hex()
            )
            pulled = pull(wanted, requests, folder, clock=clock, watch=watch)
    except ExportRefused as error:
        raise Stop(Exit.REFUSED, str(error)) from None
    except ExportFailed as error:
        raise Stop(Exit.FAULT, f"{error}; run it again to go on") from None
    report = _load(home, pulled, clock=clock, bits=bits) if pulled.files else None
    sources = report.sources if report is not None else ()
    left = [source.source for source in sources if source.unreadable]
    left += report.without_reader if report is not None else ()
    if not left:
        folder.taken_in(wanted.question(base), pulled.export, keep=keep)
    return {
        "files": len(pulled.files),
        "bytes": pulled.bytes,
        "resumed": pulled.resumed,
        "since": wanted.since,
        "true_at": pulled.export.transaction_time,
        "error_files": pulled.export.errors,
        "not_loaded": left,
        "records_in": sum(source.records_in for source in sources),
        "stored": sum(source.stored for source in sources),
        "quarantined": sum(source.quarantined for source in sources),
        "sources": [
            {
                "source": source.source,
                "records_in": source.records_in,
                "stored": source.stored,
                "quarantined": source.quarantined,
                "reasons": source.reasons,
                "seconds": round(source.seconds, 3),
            }
            for source in sources
        ],
    }


def _load(home: Path, pulled: Pulled, *, clock: Clock, bits: SecureBits) -> Report:
    with open_store(home, memory=INGEST_MEMORY) as store:
        report = load(home, store, pulled.files, clock=clock, again=Again.REPLACE, bits=bits)
        copy_events(store)
    return report
