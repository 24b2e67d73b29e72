"""The hospital's one stream to the coordinator: opened outwards, kept alive, opened again when it breaks.

Guarantee: the node never listens. Each connection checks the coordinator's certificate against the
consortium's CA and shows its own. What cannot be understood is ignored or ends the connection; it never
ends the node. Frames are handled one after another as far as their receivers need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs leaves it out

from privacy.rng import SecureBits
from protocols.clock import Clock
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 15.0
WELCOME_TIMEOUT_S = 15.0
KEEPALIVE_S = 10.0  # a cut wire is noticed within this plus the timeout
KEEPALIVE_TIMEOUT_S = 5.0
MAX_MESSAGE_BYTES = 256 * 2**20  # the coordinator's limit
FRAMES_AHEAD = 4  # of a vector in pieces: the next are masked while these are written
MAX_QUEUED_FRAMES = 10_000  # a coordinator that does not read: the connection is given up
OPTIONS = (
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # each attempt is a new connection, with our own backoff
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of one side of mutual TLS."""

    ca: bytes
    key: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return "Tls(<hidden>)"


@dataclass(frozen=True, slots=True)
class Connection:
    """What the node knows of its connection, for `fedtwin node status`."""

    connected_since: datetime | None = None
    last_error: str = ""  # a status name of gRPC or a refusal code, never a text from outside
    attempts: int = 0


class NodeStream:
    """Keeps the stream. `run` never returns until it is cancelled.

    Args:
        tls: reads the files anew for each connection, so that a renewed certificate is used.
        hello: what to say first, asked anew for each connection.
        welcome: takes the Welcome frame; raises to refuse the coordinator (a roster that does not verify).
        handle: takes every other frame, as its own task, started in the order the frames came.
        lost: told when a connection ended.
        stub: of the service that has this stream and Renew; the key-holder's is another.
    """

    def __init__(
        self,
        *,
        address: str,
        tls: Callable[[], Tls],
        hello: Callable[[], pb.Hello],
        welcome: Callable[[pb.Welcome], Awaitable[None]],
        handle: Callable[[pb.CoordinatorFrame], Coroutine[Any, Any, None]],
        lost: Callable[[], None],
        clock: Clock,
        bits: SecureBits | None = None,
        stub: Callable[[grpc.aio.Channel], Any] = fedtwin_pb2_grpc.NodesStub,
    ) -> None:
        self._address = address
        self._tls = tls
        self._hello = hello
        self._welcome = welcome
        self._handle = handle
        self._lost = lost
        self._clock = clock
        self._stub_of = stub
        self._bits = bits or SecureBits()
        self._queue: asyncio.Queue[pb.NodeFrame] | None = None
        self._written = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stub: Any = None
        self.connection = Connection()

    def send(self, frame: pb.NodeFrame) -> None:
        """Queue a frame. Without a connection it is dropped: whoever waits for it has dropped this node."""
        if self._queue is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait(frame)

    async def room(self) -> None:
        """Wait until most of what was queued is written, so that long vectors do not pile up here.

        Returns at once without a connection, and when the one there is ends.
        """
        queue = self._queue
        while queue is not None and queue is self._queue and queue.qsize() >= FRAMES_AHEAD:
            self._written.clear()
            await self._written.wait()

    @property
    def stub(self) -> Any:
        """The caller's stub on the connection as it stands, for the renewal of its certificate; or None."""
        return self._stub if self.connection.connected_since else None

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        failures = 0
        try:
            while True:
                welcomed = await self._connect()
                failures = 0 if welcomed else failures + 1
                ceiling_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 10))
                # full jitter: nodes that lost the same coordinator do not come back at the same moment
                await asyncio.sleep(ceiling_s * self._bits.below(1000) / 1000)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _connect(self) -> bool:
        """Hold one connection until it ends. Returns whether the coordinator welcomed this node."""
        welcomed = False
        error = ""
        try:
            tls = await asyncio.to_thread(self._tls)
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            async with grpc.aio.secure_channel(self._address, credentials, options=OPTIONS) as channel:
                self._stub = self._stub_of(channel)
                call = self._stub.Connect()
                await call.write(pb.NodeFrame(hello=self._hello()))
                async with asyncio.timeout(WELCOME_TIMEOUT_S):
                    first = await call.read()
                if first is EOF or first.WhichOneof("body") != "welcome":
                    error = RefusalCode.MALFORMED.value
                    if first is EOF:
                        error = _status_of(await call.code(), await call.details())
                    return False
                await self._welcome(first.welcome)
                welcomed = True
                log.info("connected")
                await self._hold(call)
        except grpc.aio.AioRpcError as failure:
            error = _status_of(failure.code(), failure.details())
        except TimeoutError:
            error = RefusalCode.DEADLINE.value
        except (OSError, ValueError) as failure:  # files of ours; a roster that does not verify
            error = type(failure).__name__
        except Exception as failure:
            log.exception("the connection failed")
            error = type(failure).__name__
        finally:
            self._queue = self._stub = None
            self._written.set()
            attempts = 0 if welcomed else self.connection.attempts + 1
            if error and error != self.connection.last_error:
                log.warning("no connection to the coordinator: %s", error)
            self.connection = Connection(None, error, attempts)
            if welcomed:
                self._lost()
        return welcomed

    async def _hold(self, call: Any) -> None:
        queue: asyncio.Queue[pb.NodeFrame] = asyncio.Queue(MAX_QUEUED_FRAMES)
        self._queue = queue
        self.connection = Connection(self._clock.now())
        writer = asyncio.create_task(self._write(queue, call))
        writer.add_done_callback(lambda _: call.cancel())  # a stream that cannot be written is over
        try:
            while (frame := await call.read()) is not EOF:
                self._start(frame)
        except asyncio.CancelledError:
            if not writer.done():
                raise
        finally:
            writer.cancel()

    async def _write(self, queue: asyncio.Queue[pb.NodeFrame], call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await queue.get())
                self._written.set()

    def _start(self, frame: pb.CoordinatorFrame) -> None:
        if frame.WhichOneof("body") is None:
            log.warning("an unknown frame is ignored")
            return
        task = asyncio.create_task(self._guarded(frame))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, frame: pb.CoordinatorFrame) -> None:
        try:
            await self._handle(frame)
        except Exception:
            log.exception("a %s frame failed", frame.WhichOneof("body"))


def _status_of(code: grpc.StatusCode | None, details: str | None) -> str:
    """Return a code of ours if the coordinator gave one, else gRPC's name of the status."""
    try:
        return RefusalCode((details or "").strip()).value
    except ValueError:
        return code.name.lower() if code is not None else "unknown"
