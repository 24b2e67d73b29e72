"""What one session of secure sums needs of its back-end, and the session as a back-end sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.bell import Bell
from coordinator.broker import Broker
from privacy.lanes import LaneVector
from privacy.secure_sum import SessionParameters
from protocols.ids import NodeId, SessionId
from protocols.pieces import pieces
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

REVEAL_DEADLINE_S = 15.0  # opening shares is milliseconds; a stream that is cut without notice takes 15 s


@dataclass(frozen=True, slots=True)
class StepTotal:
    """The sum of the contributors' inputs of one step, modulo 2^64."""

    sum: LaneVector
    contributors: tuple[NodeId, ...]

    @property
    def total(self) -> NDArray[np.uint64]:
        """The numbers of the sum."""
        return self.sum.signed()

    def narrowed(self) -> StepTotal:
        """Return it with as many numbers in a word as they allow, as it is sent."""
        return replace(self, sum=self.sum.narrowed())

    def results(self, session: SessionId, step: int) -> Iterator[pb.SumResult]:
        """Yield it as it crosses the wire, in pieces if it is long."""
        for piece in pieces(self.sum.words.size):
            yield pb.SumResult(
                session_id=session.raw,
                step=step,
                total=self.sum.words[piece].tobytes(),
                contributors=len(self.contributors),
                offset=piece.start,
                length=self.sum.length,
                lanes=self.sum.lanes,
            )


class Withdrawn(Refused):
    """A node left a session that was being opened. Carries who and its code."""

    def __init__(self, node: NodeId, code: RefusalCode) -> None:
        super().__init__(code)
        self.node = node


@dataclass
class Members:
    """Who takes part in a session and is still there, and how to reach and wait for them."""

    parameters: SessionParameters
    tolerance: int
    broker: Broker
    alive: set[NodeId]
    left: dict[NodeId, RefusalCode] = field(default_factory=dict)
    bell: Bell = field(default_factory=Bell)
    closed: bool = False

    @property
    def id(self) -> bytes:
        """The session's id, as frames carry it."""
        return self.parameters.session_id.raw

    @property
    def fewest(self) -> int:
        """How many must be in a sum: as many as the threshold, and as the noise was planned for."""
        return max(self.parameters.threshold, len(self.parameters.participants) - self.tolerance)

    def opening(self) -> pb.SumOpen:
        """Return the session's terms."""
        return pb.SumOpen(
            session_id=self.id,
            participants=[node.raw for node in self.parameters.participants],
            threshold=self.parameters.threshold,
            steps=self.parameters.steps,
            purpose=self.parameters.purpose,
            round=self.parameters.round,
            tolerance=self.tolerance,
        )

    def send(self, nodes: Iterable[NodeId], frame: pb.CoordinatorFrame) -> None:
        """Queue one frame for several nodes."""
        self.broker.send_all(nodes, frame)

    async def everybody(self, came: Callable[[], bool], *, deadline_s: float) -> None:
        """Wait until all have said something. Raises: Withdrawn, Refused."""
        whole = len(self.parameters.participants)
        if not await self.bell.until(
            lambda: came() or self.closed or len(self.alive) < whole, timeout_s=deadline_s
        ):
            raise Refused(RefusalCode.DEADLINE)
        for node, code in self.left.items():
            raise Withdrawn(node, code)
        if self.closed or len(self.alive) < whole:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)

    async def enough_of(
        self,
        came: Collection[NodeId],
        survivors: Iterable[NodeId],
        *,
        fewest: int,
        timeout_s: float,
        refusal: RefusalCode = RefusalCode.TOO_MANY_DROPOUTS,
    ) -> None:
        """Wait until `came`, which fills up meanwhile, holds `fewest`, while so many survivors still could.

        Raises: Refused(refusal) if they do not.
        """
        nodes = set(survivors)
        await self.bell.until(
            lambda: self.closed or len(came) >= fewest or len(set(came) | (nodes & self.alive)) < fewest,
            timeout_s=timeout_s,
        )
        self.must_be_open()
        if len(came) < fewest:
            raise Refused(refusal)

    def must_be_open(self) -> None:
        """Raise Refused if the session was closed meanwhile."""
        if self.closed:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)

    def enough(self, nodes: Iterable[NodeId]) -> tuple[NodeId, ...]:
        """Return who is in a sum. Raises: Refused if that is too few."""
        found = tuple(nodes)
        if len(found) < self.fewest:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
        return found


class Exchange(Protocol):
    """One session's messages at the coordinator."""

    async def open(self, *, deadline_s: float) -> None:
        """Bring every participant to where it can send inputs. Raises: Withdrawn, Refused."""

    def taken(self, step: int) -> None:
        """A step was given out: its inputs will be asked for."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take one frame of a participant. Raises: ValueError if it breaks the protocol."""

    def sent(self, step: int) -> set[NodeId]:
        """Return whose inputs of a step are here."""

    def drop(self, node: NodeId) -> None:
        """A participant is gone."""

    async def total(self, step: int) -> StepTotal:
        """Take no more inputs, and return the total of those that came. Raises: Refused."""

    def close(self) -> None:
        """The session is over."""
