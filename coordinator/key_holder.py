"""The key-holder's stream: it connects out to the coordinator, as hospitals do, and is asked over it.

Guarantee: only the key-holder that the roster in force lists has a stream, the newest counts, and a revoked
one is cut within about a second. What it sends is passed on or opened by nobody here: keys and fixed inputs
carry its signature for the nodes to verify, and the numbers it returns are sums.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeAlias, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from coordinator.broker import HEARTBEAT_S, HELLO_TIMEOUT_S, Broker, Link
from privacy.encrypted_collector import Opening
from protocols.ids import NodeId, SessionId
from protocols.peer import Peer, Role
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

REPLY_DEADLINE_S = 30.0  # a key takes milliseconds, a sum of a million values seconds
_REPLIES = ("made_key", "fixed_inputs", "opened_sum")

_Asked: TypeAlias = tuple[str, bytes, int]


class KeyHolderDesk(fedtwin_pb2_grpc.KeyHoldingServicer):
    """What the coordinator asks of the key-holder, while it is connected.

    Args: renew: gives the key-holder of this name a new certificate for a signed request; raises Refused.
    """

    def __init__(self, broker: Broker, *, renew: Callable[[str, bytes], bytes]) -> None:
        self._broker = broker
        self._renew = renew
        self._link: Link | None = None
        self._name = ""
        self._asked: dict[_Asked, asyncio.Future[Any]] = {}
        self._on_change: list[Callable[[], None]] = []
        broker.on_roster_change(self._roster_changed)

    @property
    def connected(self) -> bool:
        """Whether a key-holder is there."""
        return self._link is not None

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call `tell` in the event loop whenever the key-holder came or went."""
        self._on_change.append(tell)

    def must_be_there(self) -> None:
        """Raise Refused(KEY_HOLDER_AWAY) if it is not."""
        if self._link is None:
            raise Refused(RefusalCode.KEY_HOLDER_AWAY)

    # ---- what is asked ----

    async def key(self, terms: pb.SumOpen, step: int, *, scheme: str = "") -> pb.MadeKey:
        """Return a step's public key and the statement about it. Raises: Refused.

        Args: scheme: of a study's encrypted layers; empty: the roster's.
        """
        asked = pb.CoordinatorFrame(make_key=pb.MakeKey(terms=terms, step=step, scheme=scheme))
        return cast("pb.MadeKey", await self._ask("made_key", terms.session_id, step, asked))

    async def fix(self, session: SessionId, step: int, commitments: Mapping[str, bytes]) -> bytes:
        """Return the statement that fixes a step's inputs. Raises: Refused."""
        fixing = pb.FixInputs(session_id=session.raw, step=step, commitments=commitments)
        reply = await self._ask("fixed_inputs", session.raw, step, pb.CoordinatorFrame(fix_inputs=fixing))
        return bytes(reply.statement)

    async def open(self, session: SessionId, step: int, opening: Opening) -> NDArray[np.uint64]:
        """Return the integers of an endorsed sum. Raises: Refused."""
        asked = pb.OpenSum(
            session_id=session.raw,
            step=step,
            survivors=[node.raw for node in opening.survivors],
            total=opening.total,
            endorsements={str(node): data for node, data in opening.endorsements.items()},
        )
        reply = await self._ask("opened_sum", session.raw, step, pb.CoordinatorFrame(open_sum=asked))
        if len(reply.total) != 8 * opening.form.length:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        return np.frombuffer(reply.total, dtype="<u8").astype(np.uint64, copy=False)

    def forget(self, session: SessionId) -> None:
        """Let it forget the keys of a session that is over."""
        if self._link is not None:
            forget = pb.ForgetKeys(session_id=session.raw)
            self._link.send(pb.CoordinatorFrame(forget_keys=forget))

    async def _ask(self, kind: str, session: bytes, step: int, frame: pb.CoordinatorFrame) -> Any:
        self.must_be_there()
        assert self._link is not None
        asked = (kind, session, step)
        if asked in self._asked:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        waiting = self._asked[asked] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(frame)
            async with asyncio.timeout(REPLY_DEADLINE_S):
                reply = await waiting
        except TimeoutError as error:
            raise Refused(RefusalCode.DEADLINE) from error
        finally:
            del self._asked[asked]
        if reply.refusal:
            log.warning("the key-holder refuses a %s: %s", kind, reply.refusal)
            raise Refused(_code(reply.refusal))
        return reply

    # ---- gRPC ----

    async def Connect(self, requests, context):  # type: ignore[no-untyped-def]  # the generated base is untyped
        """The key-holder's stream, from Hello to the end."""
        peer = await self._caller(context)
        await self._hello(requests, context)
        link = Link(NodeId(bytes(16)), writer=cast("asyncio.Task[Any]", asyncio.current_task()))
        if self._link is not None:
            self._drop(self._link)
        self._link, self._name = link, peer.name
        welcome = pb.Welcome(roster_envelope=self._broker.roll.envelope, heartbeat_s=HEARTBEAT_S)
        link.send(pb.CoordinatorFrame(welcome=welcome))
        reader = asyncio.create_task(self._read(link, requests))
        try:
            log.info("the key-holder %s is connected", peer.name)
            self._changed()
            async for frame in link.frames():
                await context.write(frame)
        finally:
            reader.cancel()
            self._drop(link)
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        if not self._broker.roll.admits(peer):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, RefusalCode.REVOKED.value)

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:
        """Give the calling key-holder a new certificate."""
        peer = await self._caller(context)
        try:
            pem = await asyncio.to_thread(self._renew, peer.name, request.csr_envelope)
        except Refused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
        return pb.RenewReply(certificate_pem=pem)

    async def _caller(self, context: Any) -> Peer:
        try:
            return await self._broker.caller(context, Role.KEY_HOLDER)
        except Refused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
            raise  # abort has raised already

    async def _hello(self, requests: AsyncIterator[pb.NodeFrame], context: Any) -> None:
        first = pb.NodeFrame()
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(aiter(requests))
        if first.WhichOneof("body") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, RefusalCode.MALFORMED.value)

    async def _read(self, link: Link, requests: AsyncIterator[pb.NodeFrame]) -> None:
        try:
            async for frame in requests:
                kind = frame.WhichOneof("body") or ""
                if kind not in _REPLIES:
                    log.warning("the key-holder sends what it should not: cut")
                    return
                reply = getattr(frame, kind)
                waiting = self._asked.get((kind, reply.session_id, reply.step))
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        finally:
            self._drop(link)

    def _roster_changed(self) -> None:
        """Tell it, or cut it if it is listed no longer."""
        if self._link is None:
            return
        holder = self._broker.roll.roster.key_holder
        if holder is None or holder.name != self._name:
            self._link.send(pb.CoordinatorFrame(revoked=pb.Revoked()))
            self._drop(self._link)
            return
        update = pb.RosterUpdate(roster_envelope=self._broker.roll.envelope)
        self._link.send(pb.CoordinatorFrame(roster=update))

    def _drop(self, link: Link) -> None:
        link.end()
        if self._link is not link:
            return
        self._link = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(Refused(RefusalCode.KEY_HOLDER_AWAY))
        self._changed()

    def _changed(self) -> None:
        for tell in self._on_change:
            tell()


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL  # a code this version does not know
