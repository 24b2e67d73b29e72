"""Secure sums over the nodes' streams: sessions of many steps, and the totals that come out of them.

Guarantee: what this module holds of one hospital is a vector under masks or encrypted; only `SumSession.step`
returns numbers, and they are totals. A step ends by its deadline. A hospital whose stream ends is dropped
from every step it has not yet sent its input to, at once, and from all later ones. Nothing here decides who
may take part: each node checks that itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from coordinator.broker import Broker
from coordinator.encrypted_exchange import EncryptedExchange
from coordinator.exchange import Exchange, Members, StepTotal
from coordinator.key_holder import KeyHolderDesk
from coordinator.layered_exchange import LayeredExchange
from coordinator.masked_exchange import MaskedExchange
from privacy.encryption import SCHEMES
from privacy.layered_sum import Layers
from privacy.secure_sum import SessionParameters, threshold_for
from protocols.ids import MalformedId, NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.roster import MASKED
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

MAX_VALUES = 2**18  # of a vector in a session of questions: one piece; rounds say how long theirs are
OPEN_DEADLINE_S = 20.0  # key agreement and shares of 64 steps take a node well under a second


class SumSession:
    """One open session. Steps may run at the same time; each step runs once."""

    def __init__(self, members: Members, exchange: Exchange, *, forget: Callable[[SessionId], None]) -> None:
        self.parameters = members.parameters
        self.tolerance = members.tolerance
        self.exchange = exchange
        self._members = members
        self._forget = forget
        self._excused: dict[int, set[NodeId]] = {}  # by step: who said that they will not send
        self._next_step = 0
        self._retired = False
        self._unfinished = 0  # steps that were taken and have not ended

    @property
    def alive(self) -> set[NodeId]:
        """Who takes part and is still there."""
        return self._members.alive

    @property
    def left(self) -> dict[NodeId, RefusalCode]:
        """Who fell out, and why: NOT_READY where it just went away."""
        gone = set(self.participants) - self._members.alive
        return {node: self._members.left.get(node, RefusalCode.NOT_READY) for node in sorted(gone)}

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._members.closed

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
        self.exchange.taken(self._next_step - 1)
        return self._next_step - 1

    def excuse(self, node: NodeId, *, step: int) -> None:
        """Stop waiting for a node that said it will not send an input for this step."""
        self._excused.setdefault(step, set()).add(node)
        self._members.bell.ring()

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
            broadcast: send the total to every participant too (training; the total is noisy), and cut off
                who is late or sent a vector of another form: a round of many steps does not wait for it
                again.
        Raises: Refused(TOO_MANY_DROPOUTS) if fewer than participants minus tolerance remain, or too few
            open the masks; Refused(PROTOCOL_VIOLATION) if what came does not add up.
        """
        try:
            return await self._step(step, deadline_s=deadline_s, broadcast=broadcast)
        finally:
            self._unfinished -= 1
            self._close_if_retired()

    async def _step(self, step: int, *, deadline_s: float, broadcast: bool) -> StepTotal:
        members, excused = self._members, self._excused.setdefault(step, set())
        await members.bell.until(
            lambda: members.closed or members.alive - excused <= self.exchange.sent(step),
            timeout_s=deadline_s,
        )
        members.must_be_open()
        if broadcast:
            for late in members.alive - excused - self.exchange.sent(step):
                self.cut(late, RefusalCode.DEADLINE)
        found = await self.exchange.total(step)
        if broadcast:
            for other in (self.exchange.sent(step) - set(found.contributors)) & members.alive:
                self.cut(other, RefusalCode.PROTOCOL_VIOLATION)  # its vector had another form than most
            found = await asyncio.to_thread(found.narrowed)
            for result in found.results(self.id, step):
                await members.broker.room(members.alive)
                members.send(sorted(members.alive), pb.CoordinatorFrame(sum_result=result))
        return found

    def close(self, refusal: RefusalCode | None = None) -> None:
        """End the session at every participant. Steps that are still running end with TOO_MANY_DROPOUTS."""
        members = self._members
        if not members.closed:
            members.closed = True
            closing = pb.SumClose(session_id=members.id, refusal=refusal.value if refusal else "")
            members.send(sorted(members.alive), pb.CoordinatorFrame(sum_close=closing))
            self.exchange.close()
            self._forget(self.id)
            members.bell.ring()

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take one frame of a participant; one that breaks the protocol costs it its place."""
        if frame.WhichOneof("body") == "sum_withdraw":
            self.leave(node, _code(frame.sum_withdraw.refusal))
            return
        try:
            self.exchange.heard(node, frame)
        except ValueError:
            log.warning("%s breaks the protocol of session %s", node, self.id)
            self.cut(node, RefusalCode.PROTOCOL_VIOLATION)
        self._members.bell.ring()

    def cut(self, node: NodeId, code: RefusalCode) -> None:
        """Go on without a participant, and tell it so."""
        closing = pb.SumClose(session_id=self._members.id, refusal=code.value)
        self._members.send((node,), pb.CoordinatorFrame(sum_close=closing))
        self.leave(node, code)

    def leave(self, node: NodeId, code: RefusalCode | None = None) -> None:
        """Go on without a participant. Args: code: why, if it said so or broke the protocol."""
        if code is not None:
            self._members.left[node] = code
        self._members.alive.discard(node)
        self.exchange.drop(node)
        self._members.bell.ring()

    def _close_if_retired(self) -> None:
        if self._retired and self._unfinished == 0:
            self.close()


class SumService:
    """Opens sessions and passes the nodes' sum frames to them. A Listener of the broker.

    How hospitals add up is what the roster in force says when a session is opened.
    Args: folder: takes long vectors while they arrive, in files without a name.
    """

    def __init__(
        self, broker: Broker, *, key_holder: KeyHolderDesk | None = None, folder: Path | None = None
    ) -> None:
        self._broker = broker
        self._folder = folder
        self._key_holder = key_holder
        self._sessions: dict[SessionId, SumSession] = {}
        if key_holder is not None:
            key_holder.on_change(self._key_holder_changed)

    async def open(
        self,
        participants: Iterable[NodeId],
        *,
        steps: int,
        purpose: str,
        tolerance: int,
        round: int = 0,
        deadline_s: float = OPEN_DEADLINE_S,
        most_values: int = MAX_VALUES,
        layers: Layers | None = None,
    ) -> SumSession:
        """Return a session in which every participant holds its keys and everybody's shares.

        Args: most_values: the length of its longest vector; layers: what of it is encrypted, in a consortium
            that masks.
        Raises: Withdrawn if a node refuses; Refused(DEADLINE | TOO_MANY_DROPOUTS) if one is slow or lost;
            Refused(KEY_HOLDER_AWAY) if hospitals add up under encryption and nobody holds keys.
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
        members = Members(parameters, tolerance, self._broker, set(nodes))
        exchange = self._exchange(members, most_values=most_values, layers=layers)
        session = SumSession(members, exchange, forget=self._forget)
        self._sessions[session.id] = session
        try:
            if not set(nodes) <= self._broker.connected():
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            await session.exchange.open(deadline_s=deadline_s)
        except BaseException as error:
            session.close(error.code if isinstance(error, Refused) else RefusalCode.INTERNAL)
            raise
        return session

    def _exchange(self, members: Members, *, most_values: int, layers: Layers | None) -> Exchange:
        scheme = self._broker.roll.roster.settings.secure_sum
        masked = MaskedExchange(members, most_values=most_values, folder=self._folder)
        if scheme == MASKED and layers is None:
            return masked
        if self._key_holder is None:
            raise Refused(RefusalCode.KEY_HOLDER_AWAY)
        if layers is not None:
            if scheme != MASKED:
                raise Refused(RefusalCode.NOT_ALLOWED)  # everything is encrypted there
            form = SCHEMES[layers.scheme].form
            chosen = EncryptedExchange(members, self._key_holder, form, scheme=layers.scheme)
            return LayeredExchange(members, masked, chosen, layers)
        return EncryptedExchange(members, self._key_holder, SCHEMES[scheme].form)

    def _key_holder_changed(self) -> None:
        """End the sessions whose keys are gone."""
        for session in list(self._sessions.values()):
            if isinstance(session.exchange, EncryptedExchange | LayeredExchange):
                session.close(RefusalCode.KEY_HOLDER_AWAY)

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
        if node in session.alive:
            session.heard(node, frame)

    def lost(self, node: NodeId) -> None:
        """Drop a node whose stream ended from every session."""
        for session in list(self._sessions.values()):
            if node in session.alive:
                session.leave(node)


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL  # a code this version does not know
