"""Question sessions that are open before the question comes, so that a count waits for no key.

For the set of connected nodes, and for the sets that recent questions used, a session of 64 steps is kept and
replaced in the background before its steps run out. A session in which a node was lost is not used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from coordinator.broker import Broker
from coordinator.exchange import Withdrawn
from coordinator.sums import SumService, SumSession
from protocols.ids import NodeId
from protocols.refusal import Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

PURPOSE = "questions"
STEPS = 64  # one set-up per 64 questions: shares for all of them are about 8 kB per pair of nodes
RENEW_AT = 16  # steps left when the next session is opened in the background
SETTLE_S = 0.2  # after a node came or went: others often do at the same moment
RETRY_S = 30.0  # after a set of nodes could not open a session
MAX_SETS = 4  # sets of participants kept ready; the least recently used goes first


class StandingSessions:
    """Keeps question sessions ready. A Listener of the broker, to be named after the SumService."""

    def __init__(self, broker: Broker, sums: SumService, *, minimum_sites: int, tolerance: int) -> None:
        self._broker = broker
        self._sums = sums
        self._minimum_sites = minimum_sites
        self.tolerance = tolerance
        self._ready: dict[frozenset[NodeId], SumSession] = {}  # in order of use, oldest first
        self._opening: dict[frozenset[NodeId], asyncio.Task[SumSession]] = {}
        self._refusing: frozenset[NodeId] = frozenset()  # left out of what is opened in advance
        self._changed = asyncio.Event()

    async def take(self, participants: Collection[NodeId]) -> tuple[SumSession, int]:
        """Return a session of exactly these participants and a step of it that nobody else has.

        Raises: Withdrawn, Refused: as SumService.open.
        """
        wanted = frozenset(participants)
        session = self._ready.get(wanted)
        if session is None or not session.whole:
            session = await self._opened(wanted)
        step = session.take_step()
        self._ready[wanted] = self._ready.pop(wanted, session)
        if session.steps_left < RENEW_AT:
            self._open(wanted)
        return session, step

    async def keep_ready(self) -> None:
        """Hold a session for the set of connected nodes until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_S)
            self._changed.clear()
            self._forget_broken()
            wanted = self._broker.connected() - self._refusing
            if len(wanted) < self._minimum_sites or self._is_ready(wanted):
                continue
            try:
                await self._opened(wanted)
            except Withdrawn as withdrawn:
                self._refusing |= {withdrawn.node}
                self._changed.set()
            except Refused as refused:
                log.info("no standing session for %d nodes: %s", len(wanted), refused.code.value)
                asyncio.get_running_loop().call_later(RETRY_S, self._changed.set)

    def look_again(self) -> None:
        """Something changed that may let a session be opened, or has ended one."""
        self._changed.set()

    # ---- Listener ----

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """A node came: it may accept now what it refused before."""
        self._refusing -= {node}
        self._changed.set()

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Frames are the SumService's."""

    def lost(self, node: NodeId) -> None:
        """A node went: sessions with it are closed."""
        self._changed.set()

    # ---- the rest ----

    def _is_ready(self, wanted: frozenset[NodeId]) -> bool:
        session = self._ready.get(wanted)
        return session is not None and session.whole

    async def _opened(self, wanted: frozenset[NodeId]) -> SumSession:
        return await asyncio.shield(self._open(wanted))

    def _open(self, wanted: frozenset[NodeId]) -> asyncio.Task[SumSession]:
        """Start opening a session for a set of nodes, unless that is under way."""
        task = self._opening.get(wanted)
        if task is None:
            task = self._opening[wanted] = asyncio.create_task(self._opening_of(wanted))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody waits
        return task

    async def _opening_of(self, wanted: frozenset[NodeId]) -> SumSession:
        try:
            session = await self._sums.open(
                wanted, steps=STEPS, purpose=PURPOSE, tolerance=min(self.tolerance, len(wanted) - 1)
            )
        finally:
            del self._opening[wanted]
        if wanted in self._ready:
            self._ready.pop(wanted).retire()
        self._ready[wanted] = session
        while len(self._ready) > MAX_SETS:
            self._ready.pop(next(iter(self._ready))).retire()
        return session

    def _forget_broken(self) -> None:
        for wanted, session in list(self._ready.items()):
            if not session.whole:
                self._ready.pop(wanted).retire()
