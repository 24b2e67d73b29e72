"""The nodes' side of the coordinator: one live stream per hospital, opened by the hospital.

Guarantee: a node has at most one live stream, the newest. A node that is revoked, or that the roll no longer
lists, loses its stream within about a second. Frames to one node keep their order. A node that sends what
cannot be understood loses its stream and nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol, cast

import grpc

from coordinator.callers import Roll, caller_of
from protocols.clock import Clock
from protocols.ids import NodeId
from protocols.peer import Peer, Role
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0  # HTTP/2 pings both ways: a cut wire is noticed within this plus the timeout
HEARTBEAT_TIMEOUT_S = 5.0
HELLO_TIMEOUT_S = 10.0  # a connection that says nothing is closed
POLL_S = 1.0  # how often the roll is read again: the longest a revocation waits
MAX_MESSAGE_BYTES = 256 * 2**20  # a masked vector of 30 million values
MAX_QUEUED_BYTES = 512 * 2**20  # for one node that does not read; then its stream is cut
AHEAD_BYTES = 8 * 2**20  # of a long total that a node has not read: then the rest waits
ROOM_TIMEOUT_S = 60.0  # for it to read on; then its stream is cut
FAREWELL_S = 5.0  # for the last frames of a stream that is being cut
OPTIONS = (
    ("grpc.keepalive_time_ms", int(HEARTBEAT_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(HEARTBEAT_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", int(HEARTBEAT_S * 500)),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two coordinators on one port would each see half of the nodes
)


class Listener(Protocol):
    """What a service behind the broker hears. Called in the event loop; must not block."""

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """A node opened a stream; frames may be sent to it."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """A node sent a frame. Raises: Refused, and the node's stream is cut."""

    def lost(self, node: NodeId) -> None:
        """A node's stream ended; whatever it had not sent will not come."""


class Link:
    """The coordinator's end of one node's stream: frames wait here in order until they are written."""

    def __init__(self, node: NodeId, *, writer: asyncio.Task[Any]) -> None:
        self.node = node
        self._writer = writer
        self._frames: deque[tuple[pb.CoordinatorFrame, int]] = deque()
        self._queued_bytes = 0
        self.ended = False
        self._woken = asyncio.Event()
        self._taken = asyncio.Event()

    def send(self, frame: pb.CoordinatorFrame, *, size: int | None = None) -> None:
        """Queue a frame. A node that does not read is cut rather than waited for.

        Args: size: of the frame, where it is known: to measure one is to serialize it.
        """
        if self.ended:
            return
        size = frame.ByteSize() if size is None else size
        self._queued_bytes += size
        if self._queued_bytes > MAX_QUEUED_BYTES:
            log.warning("%s does not read its stream: cut", self.node)
            self.end()
            return
        self._frames.append((frame, size))
        self._woken.set()

    def end(self) -> None:
        """Close after what is already queued has been written, or without it if the node does not read."""
        if not self.ended:
            self.ended = True
            self._woken.set()
            self._taken.set()
            asyncio.get_running_loop().call_later(FAREWELL_S, self._writer.cancel)

    async def room(self) -> None:
        """Wait until most of what was queued is written; a node that does not read is cut."""
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                while self._queued_bytes > AHEAD_BYTES and not self.ended:
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            log.warning("%s does not read its stream: cut", self.node)
            self.end()

    async def frames(self) -> AsyncIterator[pb.CoordinatorFrame]:
        """Yield what was sent until the end."""
        while True:
            while self._frames:
                frame, size = self._frames.popleft()
                self._queued_bytes -= size
                self._taken.set()
                yield frame
            if self.ended:
                return
            self._woken.clear()
            await self._woken.wait()


class Broker(fedtwin_pb2_grpc.NodesServicer):
    """Keeps the live streams and passes frames between nodes and services.

    Args:
        roll: reads the roster in force; asked each second, in a thread.
        renew: gives a node a new certificate for a signed request; raises Refused. In a thread.
    """

    def __init__(
        self,
        *,
        roll: Callable[[], Roll],
        renew: Callable[[NodeId, bytes], bytes],
        clock: Clock,
    ) -> None:
        self._read_roll = roll
        self._renew = renew
        self._clock = clock
        self._links: dict[NodeId, Link] = {}
        self._listeners: list[Listener] = []
        self._last_seen_unix_s: dict[NodeId, float] = {}
        self._on_roster_change: list[Callable[[], None]] = []
        self.roll = roll()

    def listen(self, *listeners: Listener) -> None:
        """Let services hear of connections, frames and losses, in this order."""
        self._listeners += listeners

    def on_roster_change(self, tell: Callable[[], None]) -> None:
        """Call `tell` in the event loop whenever a new roster is in force."""
        self._on_roster_change.append(tell)

    def connected(self) -> frozenset[NodeId]:
        """Return the nodes with a live stream."""
        return frozenset(self._links)

    def last_seen_unix_s(self, node: NodeId) -> float:
        """Return when the node was last connected (now, if it is); 0 if it was not since the start."""
        if node in self._links:
            return self._clock.now().timestamp()
        return self._last_seen_unix_s.get(node, 0.0)

    def send(self, node: NodeId, frame: pb.CoordinatorFrame) -> bool:
        """Queue a frame for a node. Returns False if it is not connected."""
        link = self._links.get(node)
        if link is None:
            return False
        link.send(frame)
        return True

    async def room(self, nodes: Iterable[NodeId]) -> None:
        """Wait until these nodes have read most of what they were sent, or are cut for not reading."""
        for link in [self._links[node] for node in nodes if node in self._links]:
            await link.room()

    def send_all(self, nodes: Iterable[NodeId], frame: pb.CoordinatorFrame) -> None:
        """Queue one frame for several nodes."""
        size = frame.ByteSize()
        for node in nodes:
            if node in self._links:
                self._links[node].send(frame, size=size)

    async def caller(self, context: grpc.aio.ServicerContext[Any, Any], *roles: Role) -> Peer:
        """Return who is calling, if the roster lists them in one of `roles`. Raises: Refused."""
        try:
            peer = caller_of(context, roll=self.roll)
        except Refused:
            await self.refresh_roll()  # who joined a moment ago is not kept waiting
            peer = caller_of(context, roll=self.roll)
        if peer.role not in roles:
            raise Refused(RefusalCode.NOT_ALLOWED)
        return peer

    # ---- the roll ----

    async def watch_roll(self) -> None:
        """Follow revocations and roster changes until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh_roll()
            except Exception:
                log.exception("the roll could not be read; the one in force stays")

    async def refresh_roll(self) -> None:
        """Read the roll now: cut whom it no longer lists, send a new roster to the others."""
        before, self.roll = self.roll, await asyncio.to_thread(self._read_roll)
        active = self.roll.roster.active_nodes
        for node in [node for node in self._links if node not in active]:
            link = self._links[node]
            link.send(pb.CoordinatorFrame(revoked=pb.Revoked()))
            self._drop(link)
        if self.roll.envelope != before.envelope:
            update = pb.RosterUpdate(roster_envelope=self.roll.envelope)
            self.send_all(self._links, pb.CoordinatorFrame(roster=update))
            for tell in self._on_roster_change:
                tell()

    # ---- gRPC ----

    async def Connect(self, requests, context):  # type: ignore[no-untyped-def]  # the generated base is untyped
        """One node's stream, from Hello to the end."""
        node = await self._node(context)
        hello = await self._hello(requests, context)
        link = Link(node, writer=cast("asyncio.Task[Any]", asyncio.current_task()))  # a handler is a task
        replaced = self._links.get(node)
        if replaced is not None:
            self._drop(replaced)
        self._links[node] = link
        welcome = pb.Welcome(roster_envelope=self.roll.envelope, heartbeat_s=HEARTBEAT_S)
        link.send(pb.CoordinatorFrame(welcome=welcome))
        reader = asyncio.create_task(self._read(link, requests))
        try:
            self._tell(lambda listener: listener.connected(node, hello))
            async for frame in link.frames():
                await context.write(frame)
        except asyncio.CancelledError:
            if link.ended:  # cut while it did not read: tell it, as far as that goes
                await context.abort(grpc.StatusCode.UNAVAILABLE, RefusalCode.NOT_READY.value)
            raise
        finally:
            reader.cancel()
            self._drop(link)
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        if node not in self.roll.roster.active_nodes:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, RefusalCode.REVOKED.value)

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:
        """Give the calling node a new certificate."""
        node = await self._node(context)
        try:
            pem = await asyncio.to_thread(self._renew, node, request.csr_envelope)
        except Refused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
        return pb.RenewReply(certificate_pem=pem)

    async def _node(self, context: Any) -> NodeId:
        try:
            return NodeId.parse((await self.caller(context, Role.NODE)).name)
        except Refused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
            raise  # abort has raised already

    async def _hello(self, requests: AsyncIterator[pb.NodeFrame], context: Any) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(aiter(requests))
        except (TimeoutError, StopAsyncIteration):
            first = pb.NodeFrame()
        if first.WhichOneof("body") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, RefusalCode.MALFORMED.value)
        return first.hello

    async def _read(self, link: Link, requests: AsyncIterator[pb.NodeFrame]) -> None:
        try:
            async for frame in requests:
                if self._links.get(link.node) is not link:
                    return
                if frame.WhichOneof("body") in (None, "hello"):
                    raise Refused(RefusalCode.MALFORMED)
                self._tell(lambda listener, frame=frame: listener.heard(link.node, frame))  # type: ignore[misc]
        except Refused as refused:
            log.warning("%s breaks the protocol (%s): cut", link.node, refused.code.value)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s: reading its stream failed: cut", link.node)
        finally:
            self._drop(link)

    def _drop(self, link: Link) -> None:
        link.end()
        if self._links.get(link.node) is link:
            del self._links[link.node]
            self._last_seen_unix_s[link.node] = self._clock.now().timestamp()
            self._tell(lambda listener: listener.lost(link.node))

    def _tell(self, what: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            what(listener)
