"""`fedtwin node listen-dicom`: takes images by C-STORE and STOW-RS, keeps them, and loads them in turn."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from deid.dates import DatePractice
from deid.notes import NoteFinder
from deid.vault import PseudonymKey, Vault
from fedtwin.node_ingest import INGEST_MEMORY, RULES, VAULT, load
from node import boundary
from node.home import NodeHome
from node.ingest import dicom_archive
from node.ingest.dicom_inbox import DicomInbox
from node.ingest.dicom_scp import Listening, StorageService
from node.ingest.dicom_stow import Counts, stow_app
from node.ingest.fact_rules import read_rules
from node.keys import NodeKeys
from node.omop.loading import Again
from node.omop.store import OmopStore
from node.timeline_copy import copy_events
from privacy import private_files
from privacy.rng import SecureBits
from protocols.clock import Clock

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stow:
    """The HTTP side: where, and the token that senders show."""

    host: str
    port: int
    token: str

    def __repr__(self) -> str:
        return f"Stow({self.host}, {self.port}, <hidden>)"


def inbox_of(home: Path) -> Path:
    """Return the folder of objects that are confirmed and not loaded yet."""
    return home / "inbox" / "dicom"


def images_of(home: Path) -> Path:
    """Return the folder of de-identified images."""
    return home / "images"


class DicomLoader:
    """Loads objects into this node's store; keeps them de-identified if asked to. One turn at a time."""

    def __init__(self, home: Path, *, clock: Clock, keep: bool) -> None:
        self._home = NodeHome(home)
        self._clock = clock
        self._keep = keep
        self._finder: NoteFinder | None = None
        NodeKeys.load(self._home.keys)  # without keys or with wrong rules nothing could be loaded:
        read_rules(home / RULES)  # say so before an object is confirmed

    def __call__(self, files: Sequence[Path]) -> list[Path]:
        """Load files and return those that are done with. Raises: StoreBusy while a node serves."""
        home = self._home.path
        private_files.make_folder(self._home.store.parent)
        with OmopStore.open(self._home.store, memory_limit=INGEST_MEMORY) as store:
            report = load(home, store, files, clock=self._clock, again=Again.REPLACE)
            copy_events(store)
            rows = store.connection.con.execute("SELECT person_id FROM fedtwin_withdrawn").fetchall()
        unreadable = {source.source for source in report.sources if source.unreadable}
        left = unreadable | set(report.without_reader)
        done = [file for file in files if file.name not in left]
        if self._keep:
            self._kept(done)
        dicom_archive.forget((int(row[0]) for row in rows), images_of(home))
        records = sum(source.records_in for source in report.fresh)
        LOG.info("loaded %d images", boundary.shown(records))
        return done

    def _kept(self, files: Sequence[Path]) -> None:
        home = self._home.path
        self._finder = self._finder or NoteFinder.open()
        key = PseudonymKey(NodeKeys.load(self._home.keys).pseudonym)
        with closing(Vault.open(home / VAULT, key=key, bits=SecureBits())) as vault:
            counts = dicom_archive.keep(
                files,
                images_of(home),
                vault=vault,
                finder=self._finder,
                practice=DatePractice.SHIFTED,
            )
        for reason, count in counts.items():
            LOG.info("images %s: %d", reason, boundary.shown(count))


async def listen(
    home: Path,
    *,
    store: Listening | None,
    stow: Stow | None,
    tls: ssl.SSLContext | None,
    clock: Clock,
    load_every_s: float,
    keep: bool,
) -> None:
    """Listen until SIGTERM or SIGINT; say on stdout when objects are taken. What came is loaded then."""
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    with closing(DicomInbox.open(inbox_of(home))) as inbox:
        loader = DicomLoader(home, clock=clock, keep=keep) if load_every_s else None
        counts = Counts()
        service: StorageService | None = None
        async with AsyncExitStack() as stack:
            said: dict[str, object] = {"listening": True, "tls": tls is not None}
            if store is not None:
                service = stack.enter_context(StorageService(inbox.folder, store, tls=tls))
                said["c_store"] = service.address[1]
            if stow is not None:
                from coordinator.gateway.listener import listening

                app = stow_app(inbox, token=stow.token, counts=counts)
                said["stow"] = await stack.enter_async_context(
                    listening(app, host=stow.host, port=stow.port, context=tls)
                )
            _tell(said)
            turns = asyncio.create_task(_turns(inbox, loader, load_every_s)) if loader else None
            await stopped.wait()
            if turns is not None:
                turns.cancel()
                await asyncio.gather(turns, return_exceptions=True)
        if loader is not None:
            await _turn(inbox, loader)
        stored = counts.stored + (service.stored if service is not None else 0)
        refused = counts.refused + (service.refused if service is not None else 0)
        _tell({"listening": False, "stored": stored, "refused": refused})


async def _turns(inbox: DicomInbox, loader: DicomLoader, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await _turn(inbox, loader)


async def _turn(inbox: DicomInbox, loader: DicomLoader) -> None:
    """Load what the inbox holds now; what fails waits for the next turn."""
    files = inbox.ready()
    if not files:
        return
    try:
        done = await asyncio.to_thread(loader, files)
    except Exception as error:  # an outage of the store must not end the listening; its text may quote
        LOG.warning("the inbox was not loaded, it is kept: %s", boundary.described(error))
        return
    for path in done:
        inbox.done(path)


def _tell(fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
