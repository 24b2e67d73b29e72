"""How a round, on its own thread, reaches this hospital's secure sums, which live in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from node.sums import OpenSession
from privacy import study_noise
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundRequest
from protocols.study import Study

LOOP_GRACE_S = 60.0  # beyond the loop's own deadlines: then the loop is gone, and the thread must not hang

Words = NDArray[np.uint64]
T = TypeVar("T")


class Sums(Protocol):
    """The secure sums a trainer adds to: node.sums.SumSessions, and sim.federation's in one process."""

    async def opened(self, session: SessionId) -> OpenSession:
        """Return the session once it is ready. Raises: Refused."""
        ...

    def is_open(self, session: SessionId) -> bool:
        """Return whether a contribution to this session could leave now."""
        ...

    async def contribute(
        self,
        session: SessionId,
        step: int,
        context: bytes,
        vector: Words,
        *,
        lanes: int,
        before_reveal: Callable[[], None] | None = None,
    ) -> None:
        """Send `vector`, masked, `lanes` numbers to a word. Raises: Refused."""
        ...

    async def prepare(
        self, session: SessionId, step: int, context: bytes, length: int, *, lanes: int
    ) -> None:
        """Do ahead what can be done ahead of a step's vector. Raises: Refused."""
        ...

    async def result(self, session: SessionId, step: int, *, deadline_s: float) -> Words:
        """Return the total. Raises: Refused."""
        ...

    async def withdraw(self, session: SessionId, code: RefusalCode) -> None:
        """Say that no further input will come from here."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RoundSums:
    """The secure sums as a round's thread sees them. `deadline_s`: from our input to the total."""

    sums: Sums
    loop: asyncio.AbstractEventLoop
    deadline_s: float

    def opened(self, session: SessionId) -> OpenSession:
        """Return the session once it is ready. Raises: Refused, TimeoutError."""
        return self._in_loop(self.sums.opened(session)).result(LOOP_GRACE_S)

    def must_be_open(self, session: SessionId) -> None:
        """Refuse, before anything is paid for, where nothing could leave. Raises: Refused(NOT_READY)."""
        if not self.sums.is_open(session):
            raise Refused(RefusalCode.NOT_READY)

    def prepare(self, session: SessionId, step: int, context: bytes, length: int, *, lanes: int) -> None:
        """Have what can be done ahead of a step done meanwhile. If that fails, so will the step."""
        self._in_loop(self.sums.prepare(session, step, context, length, lanes=lanes))

    def send(
        self,
        session: SessionId,
        step: int,
        context: bytes,
        vector: Words,
        *,
        lanes: int,
        before_reveal: Callable[[], None],
    ) -> Future[Words]:
        """Let a vector leave, masked; its total is for `total`. What it costs has to be committed before."""

        async def exchange() -> Words:
            await self.sums.contribute(
                session, step, context, vector, lanes=lanes, before_reveal=before_reveal
            )
            return await self.sums.result(session, step, deadline_s=self.deadline_s)

        return self._in_loop(exchange())

    def total(self, sending: Future[Words]) -> Words:
        """Wait for the total of what was sent. Raises: Refused, TimeoutError."""
        return sending.result(self.deadline_s + LOOP_GRACE_S)

    def withdraw(self, session: SessionId, code: RefusalCode) -> None:
        """Say that no further input will come from here. Raises: TimeoutError."""
        self._in_loop(self.sums.withdraw(session, code)).result(LOOP_GRACE_S)

    def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


def check_session(study: Study, request: RoundRequest, session: OpenSession, *, sums: int) -> None:
    """Refuse a session that was not opened for just this round and its `sums`. Raises: Refused."""
    found = session.parameters
    if (
        found.purpose != study_noise.session_purpose(request.plan_hash)
        or found.round != request.round
        or found.steps != sums
    ):
        raise Refused(RefusalCode.PROTOCOL_VIOLATION)
    if session.participants < study.sites.minimum:
        raise Refused(RefusalCode.TOO_FEW_SITES)
    if session.tolerance < study.sites.tolerance:
        raise Refused(RefusalCode.NOT_ALLOWED)
