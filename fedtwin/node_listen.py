"""`fedtwin node listen-mllp`: takes HL7 v2 messages, keeps them, and loads them into the store in turn."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

from fedtwin.node_ingest import INGEST_MEMORY, RULES, load
from node import boundary
from node.home import NodeHome
from node.ingest.fact_rules import read_rules
from node.ingest.inbox import Inbox
from node.ingest.mllp import listening, load_in_turn, load_once
from node.ingest.mllp_senders import Limits
from node.keys import NodeKeys
from node.omop.loading import Again
from node.omop.store import OmopStore
from node.timeline_copy import copy_events
from privacy import private_files
from protocols.clock import Clock

LOG = logging.getLogger(__name__)


def inbox_of(home: Path) -> Path:
    """Return the folder of messages that are acknowledged and not loaded yet."""
    return home / "inbox" / "hl7v2"


class StoreLoader:
    """Loads files of the inbox into this node's store, which is opened for each turn only."""

    def __init__(self, home: Path, *, clock: Clock) -> None:
        self._home = NodeHome(home)
        self._clock = clock
        NodeKeys.load(self._home.keys)  # without keys or with wrong rules nothing could be loaded:
        read_rules(home / RULES)  # say so before a message is acknowledged

    def __call__(self, files: Sequence[Path]) -> Iterable[Path]:
        """Load files and return those that are in the store now. Raises: StoreBusy while a node serves."""
        private_files.make_folder(self._home.store.parent)
        with OmopStore.open(self._home.store, memory_limit=INGEST_MEMORY) as store:
            report = load(self._home.path, store, files, clock=self._clock, again=Again.REPLACE)
            copy_events(store)  # of the patients that the messages are about
        unreadable = {source.source for source in report.sources if source.unreadable}
        left = unreadable | set(report.without_reader)
        records = sum(source.records_in for source in report.fresh)
        LOG.info("loaded %d messages", boundary.shown(records))
        return [file for file in files if file.name not in left]


async def listen(
    home: Path,
    *,
    host: str,
    port: int,
    clock: Clock,
    limits: Limits,
    tls: ssl.SSLContext | None,
    load_every_s: float,
) -> None:
    """Listen until SIGTERM or SIGINT; say on stdout when messages are taken. At the end what came is loaded.

    `load_every_s` 0 only keeps the messages: `fedtwin node ingest` of the inbox loads them.
    """
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    with closing(Inbox.open(inbox_of(home), clock=clock)) as inbox:
        load = StoreLoader(home, clock=clock) if load_every_s else None
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(
                listening(inbox, host=host, port=port, clock=clock, limits=limits, tls=tls)
            )
            _tell({"listening": True, "host": host, "port": listener.port, "tls": tls is not None})
            if load is not None:
                turns = asyncio.create_task(load_in_turn(inbox, load, every_s=load_every_s))
                await stopped.wait()
                turns.cancel()
                await asyncio.gather(turns, return_exceptions=True)
            else:
                await stopped.wait()
        if load is not None:
            await load_once(inbox, load)
        _tell({"listening": False, "answers": dict(listener.counts)})


def _tell(fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
