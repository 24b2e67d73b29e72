"""This hospital's side of the secure sums: it joins a session only among peers it has verified itself.

Guarantee: whatever the coordinator sends, this node shows its vector, masked or encrypted, once per session
and step, and helps to open a total only when at least `max(threshold, minimum sites, participants -
tolerance)` of the participants are said to have survived. Participants must stand in the verified roster with
the key this node has pinned. How hospitals add up stands in the roster too; encrypted, only with the
key-holder that this hospital's staff trusts. A frame that breaks the protocol costs the session, never the
node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from node.exchange import INLINE_VALUES, EncryptedExchange, Exchange, MaskedExchange
from node.layered_exchange import LayeredExchange
from privacy.encrypted_party import EncryptedParty
from privacy.encrypted_sum import KeyHolder
from privacy.encryption import MissingExtra, Scheme
from privacy.errors import DoesNotFit, SecureSumError
from privacy.lanes import WORD_BYTES, LaneVector, words_for
from privacy.layered_sum import Layers
from privacy.rng import SecureBits
from privacy.secure_sum import SessionParameters, threshold_for
from privacy.sum_party import SumParty
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

QUESTIONS = "questions"
TRAINING = "training:"  # followed by the plan's hash in hex
MAX_SESSIONS = 16  # open at one time: a few sets of participants, their successors, a training run
MAX_SHARES = 2**16  # participants times steps of one session: about 8 MB held
SESSION_DEADLINE_S = 30.0  # from hearing of a session to holding its shares
REVEAL_DEADLINE_S = 300.0  # from one's own input until the slowest participant's


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is ready: everything a noise share depends on."""

    parameters: SessionParameters
    tolerance: int
    exchange: Exchange | None = None  # None: masks, which hold whatever a plan allows

    @property
    def participants(self) -> int:
        """How many hospitals the noise is shared among."""
        return len(self.parameters.participants)

    def must_hold(self, *, values: int, largest: int) -> None:
        """Check that vectors of a plan can be added here, before anything is paid for.

        Args: largest: the largest absolute value of one site's contribution, noise included.
        Raises: Refused(DOES_NOT_FIT).
        """
        exchange = self.exchange
        if exchange is None or exchange.largest_input is None:
            return
        if largest > exchange.largest_input or not exchange.fits(values):
            raise Refused(RefusalCode.DOES_NOT_FIT)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """How this consortium adds up, if not under masks."""

    scheme: Scheme
    key_holder: KeyHolder


@dataclass
class _Sent:
    """One step that this node has contributed to."""

    values: int
    before_reveal: Callable[[], None] | None
    total: asyncio.Future[LaneVector]
    opened: set[str] = field(default_factory=set)  # what of its vector it has helped to open
    arriving: NDArray[np.uint64] | None = None  # words of a total that comes in pieces
    arrived: int = 0
    lanes: int = 0  # numbers in a word of it


@dataclass
class _Joined:
    """One session from its opening until it is closed."""

    exchange: Exchange
    opened: OpenSession
    ready: asyncio.Future[OpenSession]
    order: asyncio.Lock = field(default_factory=asyncio.Lock)  # frames of a session are handled in order
    sent: dict[int, _Sent] = field(default_factory=dict)


class SumSessions:
    """The sessions this node takes part in. Lives in one event loop; vectors are hidden in threads.

    Args:
        peers: the hospitals this node accepts at this moment, with their pinned identity keys, ours too.
        admit: judges a session by its terms and tolerance for this hospital; returns the fewest survivors
            with which its sums may be opened, or raises Refused.
        send: queues a frame on the stream.
        left: told of each session that this node leaves over a frame: the frame's name and the code.
        encrypted: how this consortium adds up at this moment, None for masks; raises Refused if this
            hospital does not trust who holds the keys.
        layers: what of a session's vectors is encrypted though others are masked, and how; by its purpose.
        room: returns once what was sent is written, or cannot be: waited for between pieces of a vector.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        signing_key: Ed25519PrivateKey,
        peers: Callable[[], Mapping[NodeId, Ed25519PublicKey]],
        admit: Callable[[SessionParameters, int], int],
        send: Callable[[pb.NodeFrame], None],
        left: Callable[[SessionId, str, RefusalCode], None],
        bits: SecureBits | None = None,
        encrypted: Callable[[], Encrypted | None] = lambda: None,
        room: Callable[[], Awaitable[None]] | None = None,
        layers: Callable[[str], tuple[Layers, Encrypted] | None] = lambda purpose: None,
    ) -> None:
        self._me = me
        self._layers = layers
        self._room = room
        self._signing_key = signing_key
        self._peers = peers
        self._admit = admit
        self._send = send
        self._left = left
        self._bits = bits or SecureBits()
        self._encrypted = encrypted
        self._joined: dict[SessionId, _Joined] = {}
        self._waiting: dict[SessionId, asyncio.Future[None]] = {}

    # ---- for questions and training ----

    async def opened(
        self, session: SessionId, *, step: int | None = None, deadline_s: float = SESSION_DEADLINE_S
    ) -> OpenSession:
        """Return the session once its keys and shares are here.

        Args: step: wait too until an input to this step could leave, so that nothing is paid for before.
        Raises: Refused(DEADLINE) if it does not come; Refused with the code it was left with.
        """
        try:
            async with asyncio.timeout(deadline_s):
                joined = self._joined.get(session)
                if joined is None:
                    waiting = self._waiting.setdefault(session, asyncio.get_running_loop().create_future())
                    await asyncio.shield(waiting)
                    joined = self._must_have(session)
                opened = await asyncio.shield(joined.ready)
                if step is not None:
                    await joined.exchange.keyed(step)
                return opened
        except TimeoutError as error:
            raise Refused(RefusalCode.DEADLINE) from error
        finally:
            if session not in self._joined:
                self._waiting.pop(session, None)

    def is_open(self, session: SessionId) -> bool:
        """Return whether a contribution to this session could leave now."""
        joined = self._joined.get(session)
        return joined is not None and joined.ready.done()

    async def prepare(
        self, session: SessionId, step: int, context: bytes, length: int, *, lanes: int = 1
    ) -> None:
        """Do ahead what can be done ahead of a step's vector, while the vector is being computed.

        Nothing leaves, and nothing is promised: a step that was prepared may be left alone.
        Raises: Refused if the session is gone or the step was used.
        """
        joined = self._must_have(session)
        await asyncio.shield(joined.ready)
        try:
            await joined.exchange.prepare(step, context, length, lanes=lanes)
        except SecureSumError as error:
            raise Refused(error.code) from error

    async def contribute(
        self,
        session: SessionId,
        step: int,
        context: bytes,
        vector: NDArray[np.uint64],
        *,
        lanes: int = 1,
        before_reveal: Callable[[], None] | None = None,
    ) -> None:
        """Send `vector`, hidden, in pieces if it is long. What is paid for must be committed before.

        Args:
            context: 32 bytes naming what is summed; parties with another one do not add up.
            lanes: numbers in a word, so that no total wraps (NoisePlan.lanes); all parties must agree.
            before_reveal: runs in a thread before this node helps to open the total, or not if it raises.
        Raises: Refused if the session is gone or the step was used.
        """
        joined = self._must_have(session)
        await asyncio.shield(joined.ready)
        await joined.exchange.keyed(step)
        async with joined.order:
            if self._joined.get(session) is not joined or step in joined.sent:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            total: asyncio.Future[LaneVector] = asyncio.get_running_loop().create_future()
            total.add_done_callback(lambda done: done.cancelled() or done.exception())  # few wait for it
            joined.sent[step] = _Sent(len(vector), before_reveal, total)
            frames = joined.exchange.inputs(step, context, vector, lanes=lanes)
            try:
                first = await anext(frames)
            except DoesNotFit as error:
                raise Refused(error.code) from error
            except ValueError as error:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION) from error
        self._send(first)
        async for frame in frames:
            if self._room is not None:
                await self._room()
            if self._joined.get(session) is not joined:
                raise Refused(RefusalCode.NOT_READY)  # what is left of the vector would be added to nothing
            self._send(frame)

    async def result(
        self, session: SessionId, step: int, *, deadline_s: float = REVEAL_DEADLINE_S
    ) -> NDArray[np.uint64]:
        """Return the total of a step this node contributed to, as the coordinator broadcast it (training).

        Raises: Refused(DEADLINE), or with the code the session ended with.
        """
        sent = self._must_have(session).sent.get(step)
        if sent is None:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        try:
            async with asyncio.timeout(deadline_s):
                found = await asyncio.shield(sent.total)
                few = found.length <= INLINE_VALUES
                return found.signed() if few else await asyncio.to_thread(found.signed)
        except TimeoutError as error:
            raise Refused(RefusalCode.DEADLINE) from error

    async def withdraw(self, session: SessionId, code: RefusalCode) -> None:
        """Leave a session in which this node will send no further input, so that nobody waits for it."""
        if session in self._joined:
            self._withdraw(session, "sum_result", code)

    # ---- frames ----

    def disconnected(self) -> None:
        """Forget every session: the coordinator drops a node from its sessions when the stream ends."""
        for session in list(self._joined):
            self._end(session, RefusalCode.NOT_READY)

    async def handle(self, frame: pb.CoordinatorFrame) -> None:
        """Take one sum frame. Frames of one session must be given in the order they came."""
        name = frame.WhichOneof("body") or ""
        body = getattr(frame, name)
        try:
            session = SessionId(body.session_id)
        except ValueError:
            log.warning("a %s frame without a session id is ignored", name)
            return
        try:
            if name == "sum_open":
                self._join(session, body)
                return
            joined = self._joined.get(session)
            if joined is None:
                return  # left, or closed, before this frame came
            async with joined.order:
                revealing = await self._follow(session, joined, body)
            if revealing:
                await self._reveal(joined, body)
        except Refused as refused:
            self._withdraw(session, name, refused.code)
        except SecureSumError as error:
            log.warning("a %s frame is refused in session %s: %s", name, session, type(error).__name__)
            self._withdraw(session, name, error.code)
        except ValueError:
            log.warning("a %s frame breaks the protocol of session %s: left", name, session)
            self._withdraw(session, name, RefusalCode.PROTOCOL_VIOLATION)
        except Exception:
            log.exception("a %s frame of session %s failed: left", name, session)
            self._withdraw(session, name, RefusalCode.INTERNAL)

    def _join(self, session: SessionId, opening: pb.SumOpen) -> None:
        if session in self._joined:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        if len(self._joined) >= MAX_SESSIONS:
            raise Refused(RefusalCode.NOT_READY)
        parameters, keys = self._checked(session, opening)
        exchange = self._exchange(parameters, keys, fewest=self._admit(parameters, opening.tolerance))
        opened = OpenSession(parameters, opening.tolerance, exchange)
        ready: asyncio.Future[OpenSession] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting
        self._joined[session] = _Joined(exchange, opened, ready)
        if isinstance(exchange, EncryptedExchange):
            ready.set_result(opened)
        waiting = self._waiting.pop(session, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        self._send(exchange.opening())

    def _exchange(
        self, parameters: SessionParameters, keys: Mapping[NodeId, Ed25519PublicKey], *, fewest: int
    ) -> Exchange:
        """Return the session's back-end, as the roster says. Raises: Refused."""
        encrypted, layered = self._encrypted(), self._layers(parameters.purpose)
        if encrypted is not None:
            return self._encrypting(parameters, keys, encrypted, fewest=fewest)
        party = SumParty(
            parameters,
            me=self._me,
            signing_key=self._signing_key,
            peer_keys=keys,
            bits=self._bits,
            minimum_survivors=fewest,
        )
        masked = MaskedExchange(party, self._send)
        if layered is None:
            return masked
        layers, chosen = layered
        return LayeredExchange(masked, self._encrypting(parameters, keys, chosen, fewest=fewest), layers)

    def _encrypting(
        self,
        parameters: SessionParameters,
        keys: Mapping[NodeId, Ed25519PublicKey],
        encrypted: Encrypted,
        *,
        fewest: int,
    ) -> EncryptedExchange:
        try:
            sealing = EncryptedParty(
                parameters,
                me=self._me,
                signing_key=self._signing_key,
                peer_keys=keys,
                key_holder=encrypted.key_holder,
                scheme=encrypted.scheme,
                minimum_survivors=fewest,
            )
        except MissingExtra as error:
            log.error("%s", error)  # names the extra, nothing of a patient
            raise Refused(RefusalCode.NOT_READY) from error
        return EncryptedExchange(sealing, self._send)

    def _checked(
        self, session: SessionId, opening: pb.SumOpen
    ) -> tuple[SessionParameters, Mapping[NodeId, Ed25519PublicKey]]:
        """Return the session's parameters and its participants' pinned keys. Raises: Refused."""
        nodes = tuple(NodeId(raw) for raw in opening.participants)
        if list(nodes) != sorted(set(nodes)) or self._me not in nodes:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        peers = self._peers()
        if not set(nodes) <= set(peers):
            raise Refused(RefusalCode.ROSTER_MISMATCH)
        if not opening.tolerance < len(nodes):
            raise Refused(RefusalCode.TOO_FEW_SITES)
        if opening.threshold != threshold_for(len(nodes), colluders=opening.tolerance):
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        if not 1 <= opening.steps <= MAX_SHARES // len(nodes):
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        parameters = SessionParameters(
            session_id=session,
            participants=nodes,
            threshold=opening.threshold,
            steps=opening.steps,
            purpose=opening.purpose,
            round=opening.round,
        )
        return parameters, {node: peers[node] for node in nodes}

    async def _follow(self, session: SessionId, joined: _Joined, body: object) -> bool:
        """Take a frame; return whether it asks this node to help to open a total."""
        match body:
            case pb.SumSurvivors() | pb.SumInputs():
                sent = joined.sent.get(body.step)
                kind = type(body).__name__
                if sent is None or kind in sent.opened:
                    raise Refused(RefusalCode.PROTOCOL_VIOLATION)
                sent.opened.add(kind)
                return True
            case pb.SumResult():
                self._result(joined, body)
            case pb.SumClose():
                self._end(session, _code(body.refusal))
            case _:
                if await joined.exchange.follow(body):
                    joined.ready.set_result(joined.opened)
        return False

    async def _reveal(self, joined: _Joined, body: object) -> None:
        """Help to open one step's total, after the mark that it was opened is durable."""
        revealing = await joined.exchange.reveal(body)  # refuses before the mark is made
        if revealing is None:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        before_reveal = joined.sent[revealing.step].before_reveal
        if before_reveal is not None:
            await asyncio.to_thread(before_reveal)
        self._send(revealing.frame)

    def _result(self, joined: _Joined, body: pb.SumResult) -> None:
        sent = joined.sent.get(body.step)
        if sent is None or sent.total.done() or body.length != sent.values:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        if sent.arriving is None:
            sent.lanes = body.lanes
            sent.arriving = np.empty(words_for(sent.values, lanes=sent.lanes), dtype=np.uint64)
        data = body.total  # each look at a field of bytes copies it
        words, rest = divmod(len(data), WORD_BYTES)
        last = body.offset + words
        if rest or body.lanes != sent.lanes or body.offset != sent.arrived or last > sent.arriving.size:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        sent.arriving[body.offset : last] = np.frombuffer(data, dtype="<u8")
        sent.arrived = last
        if last == sent.arriving.size:
            sent.total.set_result(LaneVector(sent.arriving, sent.values, sent.lanes))
            sent.arriving = None

    # ---- ends ----

    def _must_have(self, session: SessionId) -> _Joined:
        joined = self._joined.get(session)
        if joined is None:
            raise Refused(RefusalCode.NOT_READY)
        return joined

    def _withdraw(self, session: SessionId, frame: str, code: RefusalCode) -> None:
        self._end(session, code)
        self._left(session, frame, code)
        self._send(pb.NodeFrame(sum_withdraw=pb.SumWithdraw(session_id=session.raw, refusal=code.value)))

    def _end(self, session: SessionId, code: RefusalCode) -> None:
        joined = self._joined.pop(session, None)
        waiting = self._waiting.pop(session, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if joined is None:
            return
        if not joined.ready.done():
            joined.ready.set_exception(Refused(code))
        for sent in joined.sent.values():
            if not sent.total.done():
                sent.total.set_exception(Refused(code))


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text) if text else RefusalCode.NOT_READY
    except ValueError:
        return RefusalCode.INTERNAL  # a code this version does not know
