"""Secure sums over the nodes' streams: sessions of many steps, and the totals that come out of them.

Guarantee: what this module holds of one hospital is a masked vector; only `SumSession.step` returns numbers,
and they are totals. A step ends by its deadline. A hospital whose stream ends is dropped from every step it
has not yet sent its input to, at once, and from all later ones. Nothing here decides who may take part: each
node checks that itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coordinator.bell import Bell
from coordinator.broker import Broker
from privacy.errors import UnopenedMask
from privacy.secure_sum import SealedShares, SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from protocols.ids import MalformedId, NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

OPEN_DEADLINE_S = 20.0  # key agreement and shares of 64 steps take a node well under a second
REVEAL_DEADLINE_S = 15.0  # opening shares is milliseconds; a stream that is cut without notice takes 15 s
MAX_VECTOR_BYTES = 240 * 2**20  # below the largest frame


@dataclass(frozen=True, slots=True)
class StepTotal:
    """The sum of the contributors' inputs of one step, modulo 2^64."""

    total: NDArray[np.uint64]
    contributors: tuple[NodeId, ...]


@dataclass
class _Step:
    """What has come in for one step."""

    sent: set[NodeId] = field(default_factory=set)
    survivors: tuple[NodeId, ...] = ()
    revealed: set[NodeId] = field(default_factory=set)
    excused: set[NodeId] = field(default_factory=set)  # said that they will not send
    closed: bool = False


class Withdrawn(Refused):
    """A node left a session that was being opened. Carries who and its code."""

    def __init__(self, node: NodeId, code: RefusalCode) -> None:
        super().__init__(code)
        self.node = node


class SumSession:
    """One open session. Steps may run at the same time; each step runs once."""

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        tolerance: int,
        broker: Broker,
        forget: Callable[[SessionId], None],
    ) -> None:
        self.parameters = parameters
        self.tolerance = tolerance
        self.alive = set(parameters.participants)
        self.closed = False
        self._broker = broker
        self._forget = forget
        self._collector = SumCollector(parameters)
        self._bell = Bell()
        self._advertised: set[NodeId] = set()
        self._shared: set[NodeId] = set()
        self._left: dict[NodeId, RefusalCode] = {}
        self._steps: dict[int, _Step] = {}
        self._next_step = 0
        self._retired = False
        self._unfinished = 0  # steps that were taken and have not ended

    @property
    def id(self) -> SessionId:
        """The session's id."""
        return self.parameters.session_id

    @property
    def participants(self) -> tuple[NodeId, ...]:
        """Who the session was opened with, ascending."""
        return self.parameters.participants

    @property
    def steps_left(self) -> int:
        """How many steps `take_step` can still give."""
        return 0 if self.closed or self._retired else self.parameters.steps - self._next_step

    @property
    def whole(self) -> bool:
        """Whether nobody has left and a step can be taken."""
        return self.steps_left > 0 and len(self.alive) == len(self.participants)

    def take_step(self) -> int:
        """Return the next step's number; nobody else gets it. It ends with `step` or with `skip`.

        Raises: Refused(NOT_READY) if none is left.
        """
        if not self.steps_left:
            raise Refused(RefusalCode.NOT_READY)
        self._next_step += 1
        self._unfinished += 1
        return self._next_step - 1

    def excuse(self, node: NodeId, *, step: int) -> None:
        """Stop waiting for a node that said it will not send an input for this step."""
        self._steps.setdefault(step, _Step()).excused.add(node)
        self._bell.ring()

    def skip(self) -> None:
        """End a step that was taken and will not be run."""
        self._unfinished -= 1
        self._close_if_retired()

    def retire(self) -> None:
        """Give out no more steps, and close once those that were taken have ended."""
        self._retired = True
        self._close_if_retired()

    async def step(self, step: int, *, deadline_s: float, broadcast: bool = False) -> StepTotal:
        """Return the total of one step that was taken and whose inputs the nodes have been asked for.

        Args:
            deadline_s: seconds that the nodes have to send their inputs; who is late is a dropout.
            broadcast: send the total to every participant too (training; the total is noisy).
        Raises: Refused(TOO_MANY_DROPOUTS) if fewer than participants minus tolerance remain, or too few
            open the masks; Refused(PROTOCOL_VIOLATION) if what came does not add up.
        """
        try:
            return await self._step(step, deadline_s=deadline_s, broadcast=broadcast)
        finally:
            self._unfinished -= 1
            self._close_if_retired()

    async def _step(self, step: int, *, deadline_s: float, broadcast: bool) -> StepTotal:
        state = self._steps.setdefault(step, _Step())
        await self._bell.until(
            lambda: self.closed or self.alive - state.excused <= state.sent, timeout_s=deadline_s
        )
        self._must_be_open()
        state.survivors = self._collector.close(step)
        state.closed = True
        fewest = max(self.parameters.threshold, len(self.participants) - self.tolerance)
        if len(state.survivors) < fewest:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
        announcement = pb.SumSurvivors(
            session_id=self.id.raw, step=step, survivors=[node.raw for node in state.survivors]
        )
        self._broker.send_all(state.survivors, pb.CoordinatorFrame(sum_survivors=announcement))
        total = await self._opened_total(step, state)
        if broadcast:
            result = self._result(step, total, state.survivors)
            self._broker.send_all(sorted(self.alive), pb.CoordinatorFrame(sum_result=result))
        return StepTotal(total, state.survivors)

    def close(self, refusal: RefusalCode | None = None) -> None:
        """End the session at every participant. Steps that are still running end with TOO_MANY_DROPOUTS."""
        if not self.closed:
            self.closed = True
            closing = pb.SumClose(session_id=self.id.raw, refusal=refusal.value if refusal else "")
            self._broker.send_all(sorted(self.alive), pb.CoordinatorFrame(sum_close=closing))
            self._forget(self.id)
            self._bell.ring()

    def _close_if_retired(self) -> None:
        if self._retired and self._unfinished == 0:
            self.close()

    # ---- opening ----

    async def _open(self, *, deadline_s: float) -> None:
        opening = pb.SumOpen(
            session_id=self.id.raw,
            participants=[node.raw for node in self.participants],
            threshold=self.parameters.threshold,
            steps=self.parameters.steps,
            purpose=self.parameters.purpose,
            round=self.parameters.round,
            tolerance=self.tolerance,
        )
        everybody = set(self.participants)
        self._broker.send_all(self.participants, pb.CoordinatorFrame(sum_open=opening))
        await self._everybody(lambda: self._advertised == everybody, deadline_s)
        envelopes = {str(node): advert for node, advert in self._collector.adverts().items()}
        adverts = pb.SumAdverts(session_id=self.id.raw, envelopes=envelopes)
        self._broker.send_all(self.participants, pb.CoordinatorFrame(sum_adverts=adverts))
        await self._everybody(lambda: self._shared == everybody, deadline_s)
        for node in self.participants:
            sealed = {str(sender): data for sender, data in self._collector.outgoing(node).items()}
            delivery = pb.SumDeliver(session_id=self.id.raw, sealed=sealed)
            self._broker.send(node, pb.CoordinatorFrame(sum_deliver=delivery))

    async def _everybody(self, came: Callable[[], bool], deadline_s: float) -> None:
        whole = len(self.participants)
        if not await self._bell.until(
            lambda: came() or self.closed or len(self.alive) < whole, timeout_s=deadline_s
        ):
            raise Refused(RefusalCode.DEADLINE)
        for node, code in self._left.items():
            raise Withdrawn(node, code)
        if self.closed or len(self.alive) < whole:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)

    # ---- what the nodes send ----

    def _heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take one frame of a participant. Raises: ValueError if it breaks the protocol."""
        match frame.WhichOneof("body"):
            case "sum_advert":
                self._collector.advert(node, frame.sum_advert.envelope)
                self._advertised.add(node)
            case "sum_shares":
                sealed = {NodeId.parse(peer): data for peer, data in frame.sum_shares.sealed.items()}
                self._collector.shares(node, SealedShares(sealed=sealed, wraps=frame.sum_shares.wraps))
                self._shared.add(node)
            case "sum_input":
                self._input(node, frame.sum_input)
            case "sum_reveal":
                self._reveal(node, frame.sum_reveal)
            case "sum_withdraw":
                self._left[node] = _code(frame.sum_withdraw.refusal)
                self._leave(node)
        self._bell.ring()

    def _input(self, node: NodeId, sent: pb.SumInput) -> None:
        state = self._steps.setdefault(sent.step, _Step())
        if state.closed:
            return  # late: a dropout of this step
        if len(sent.masked) % 8 or not 0 < len(sent.masked) <= MAX_VECTOR_BYTES:
            raise ValueError("not a vector of uint64")
        vector = np.frombuffer(sent.masked, dtype="<u8")
        if self._collector.input(node, vector, step=sent.step, context=sent.context):
            state.sent.add(node)

    def _reveal(self, node: NodeId, sent: pb.SumReveal) -> None:
        state = self._steps.get(sent.step)
        if state is None or not state.closed:
            raise ValueError("nothing to reveal yet")
        shares = {NodeId.parse(peer): share for peer, share in sent.shares.items()}
        self._collector.reveal(node, shares, step=sent.step)
        state.revealed.add(node)

    def _leave(self, node: NodeId) -> None:
        self.alive.discard(node)
        self._collector.drop(node)
        self._bell.ring()

    # ---- the rest ----

    def _could_reveal(self, state: _Step) -> int:
        """Return how many have opened their shares of a step or still could."""
        return len(state.revealed | (set(state.survivors) & self.alive))

    async def _opened_total(self, step: int, state: _Step) -> NDArray[np.uint64]:
        """Wait until enough survivors have opened their shares, and for more if those do not fit."""
        enough, refusal = self.parameters.threshold, RefusalCode.TOO_MANY_DROPOUTS
        while True:
            fewest = enough
            came = await self._bell.until(
                lambda fewest=fewest: (  # type: ignore[misc]  # mypy does not infer defaults of lambdas
                    self.closed or len(state.revealed) >= fewest or self._could_reveal(state) < fewest
                ),
                timeout_s=REVEAL_DEADLINE_S,
            )
            self._must_be_open()
            if not came or len(state.revealed) < fewest:
                raise Refused(refusal)
            try:
                return await asyncio.to_thread(self._collector.total, step)
            except UnopenedMask:
                log.warning("session %s step %d: shares do not fit, waiting for more", self.id, step)
                enough, refusal = len(state.revealed) + 1, RefusalCode.PROTOCOL_VIOLATION

    def _result(self, step: int, total: NDArray[np.uint64], survivors: tuple[NodeId, ...]) -> pb.SumResult:
        data = total.astype("<u8").tobytes()
        return pb.SumResult(session_id=self.id.raw, step=step, total=data, contributors=len(survivors))

    def _must_be_open(self) -> None:
        if self.closed:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)


class SumService:
    """Opens sessions and passes the nodes' sum frames to them. A Listener of the broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sessions: dict[SessionId, SumSession] = {}

    async def open(
        self,
        participants: Iterable[NodeId],
        *,
        steps: int,
        purpose: str,
        tolerance: int,
        round: int = 0,
        deadline_s: float = OPEN_DEADLINE_S,
    ) -> SumSession:
        """Return a session in which every participant holds its keys and everybody's shares.

        Raises: Withdrawn if a node refuses; Refused(DEADLINE | TOO_MANY_DROPOUTS) if one is slow or lost.
        """
        nodes = tuple(sorted(set(participants)))
        parameters = SessionParameters(
            session_id=SessionId.new(),
            participants=nodes,
            threshold=threshold_for(len(nodes), colluders=tolerance),
            steps=steps,
            purpose=purpose,
            round=round,
        )
        session = SumSession(parameters, tolerance=tolerance, broker=self._broker, forget=self._forget)
        self._sessions[session.id] = session
        try:
            if not set(nodes) <= self._broker.connected():
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            await session._open(deadline_s=deadline_s)
        except BaseException as error:
            session.close(error.code if isinstance(error, Refused) else RefusalCode.INTERNAL)
            raise
        return session

    def _forget(self, session: SessionId) -> None:
        self._sessions.pop(session, None)

    # ---- Listener ----

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Nothing: a node that comes back takes part in the sessions opened from now on."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Pass a sum frame to its session; one that breaks the protocol costs the node its place in it."""
        name = frame.WhichOneof("body") or ""
        if not name.startswith("sum_"):
            return
        try:
            session = self._sessions.get(SessionId(getattr(frame, name).session_id))
        except MalformedId as error:
            raise Refused(RefusalCode.MALFORMED) from error
        if session is None:
            return  # closed meanwhile
        if node not in session.participants:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        if node not in session.alive:
            return
        try:
            session._heard(node, frame)
        except ValueError:
            log.warning("%s breaks the protocol of session %s with %s", node, session.id, name)
            session._left[node] = RefusalCode.PROTOCOL_VIOLATION
            session._leave(node)

    def lost(self, node: NodeId) -> None:
        """Drop a node whose stream ended from every session."""
        for session in list(self._sessions.values()):
            if node in session.alive:
                session._leave(node)


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL  # a code this version does not know
