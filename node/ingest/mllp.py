"""The live HL7 v2 listener: MLLP over TCP or TLS, one answer per message, after the disk has it.

Guarantee: AA is sent only after `Inbox.append` returned. Messages that arrive while the disk is busy are
written together (group commit), so that thousands a second cost a few dozen waits for the disk.

Limits, each with a reason: the size of a message (memory), messages of one connection that wait for the disk
(a sender that does not read answers), bytes of all that wait, connections, seconds without a whole message
(dead peers, dribblers), seconds of a TLS handshake, and the addresses that may send. So memory is bounded by
`waiting_bytes` and one message a connection. A log line names counts and codes, never a peer's message.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from node.boundary import described
from node.ingest.inbox import FRAME_END, Inbox
from node.ingest.mllp_reply import ACCEPT, ERROR, Verdict, code_of, failed, judge, reply
from node.ingest.mllp_senders import Limits
from node.ingest.readers.hl7v2_files import START
from protocols.clock import Clock

LOG = logging.getLogger(__name__)
BETWEEN = b"\r\n\t \x1c"  # bytes between frames that are no fault
TOO_LONG = Verdict(ERROR, 102, "MSH-1")

HANDSHAKE_S = 10.0  # of TLS: who takes longer holds a socket for nothing


class Listener:
    """Takes messages of all connections, stores them in groups and answers. Use `listening`."""

    def __init__(self, inbox: Inbox, *, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.counts: Counter[str] = Counter()  # AA, AE, AR, refused peers
        self.connections: set[_Connection] = set()
        self.port = 0
        self.waiting = 0  # bytes of messages of all connections that are not answered
        self._inbox = inbox
        self._clock = clock
        self._queue: list[_Slot] = []
        self._wake = asyncio.Event()
        self._number = 0

    def answer(self, verdict: Verdict) -> bytes:
        """Return the frame of an answer, empty where the sender wants none."""
        self._number += 1
        self.counts[verdict.code] += 1
        if code_of(verdict) is None:
            return b""
        return START + reply(verdict, number=self._number, now=self._clock.now()) + FRAME_END

    def store(self, slot: _Slot) -> None:
        """Have a message written with the next group."""
        self._queue.append(slot)
        self._wake.set()

    async def run(self) -> None:
        """Write what waits, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._queue = self._queue, []
            try:
                await loop.run_in_executor(None, self._inbox.append, [slot.data for slot in group])
            except OSError:
                LOG.error("the inbox cannot be written: messages are refused")
                for slot in group:
                    slot.verdict = failed(slot.verdict)
            for slot in group:
                slot.settle(self.answer(slot.verdict))
            for connection in {slot.connection for slot in group}:
                connection.send()
            for connection in self.connections:  # others may have waited for the same memory
                connection.flow()


class _Slot:
    """One message between its arrival and its answer."""

    __slots__ = ("answer", "connection", "data", "size", "verdict")

    def __init__(self, connection: _Connection, data: bytes, verdict: Verdict) -> None:
        self.connection = connection
        self.data = data
        self.size = len(data)
        self.verdict = verdict
        self.answer: bytes | None = None

    def settle(self, answer: bytes) -> None:
        self.answer = answer
        self.data = b""


class _Connection(asyncio.Protocol):
    """One sender. Answers keep the order of the messages."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0
        self._slots: deque[_Slot] = deque()
        self._reading = True
        self._writable = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        listener = self._listener
        if len(listener.connections) >= self._limits.connections or not (
            peer and self._limits.admits(peer[0])
        ):
            listener.counts["refused"] += 1
            transport.abort()
            return
        self._transport = transport
        listener.connections.add(self)
        self._live()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        self._listener.waiting -= sum(slot.size for slot in self._slots)
        self._slots.clear()
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._buffer += data
        while (message := self._next()) is not None:
            self._take(message)
        if self._transport is not None and len(self._buffer) > self._limits.message_bytes + 2:
            self._refuse_and_close()
        self.flow()

    def pause_writing(self) -> None:
        self._writable = False
        self.flow()

    def resume_writing(self) -> None:
        self._writable = True
        self.flow()

    def send(self) -> None:
        """Send the answers that are ready and whose predecessors were sent."""
        ready = []
        while self._slots and (answer := self._slots[0].answer) is not None:
            ready.append(answer)
            self._listener.waiting -= self._slots.popleft().size
        if ready and self._transport is not None:
            self._transport.write(b"".join(ready))
        self.flow()

    def close(self) -> None:
        """Drop the connection; what was not answered the sender sends again."""
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> bytes | None:
        """Return the next whole message, without its frame."""
        buffer = self._buffer
        if buffer[:1] != START:
            begin = buffer.find(START)
            lost = buffer if begin < 0 else buffer[:begin]
            if lost.strip(BETWEEN):
                self._listener.counts["outside a frame"] += 1
            del buffer[: len(lost)]
            self._searched = 0
            if begin < 0:
                return None
        end = buffer.find(FRAME_END, max(self._searched - 1, 1))
        if end < 0:
            self._searched = len(buffer)
            return None
        message = bytes(buffer[1:end])
        del buffer[: end + len(FRAME_END)]
        self._searched = 0
        return message

    def _take(self, message: bytes) -> None:
        self._live()
        too_long = len(message) > self._limits.message_bytes
        verdict = TOO_LONG if too_long else judge(message)
        slot = _Slot(self, message, verdict)
        self._slots.append(slot)
        self._listener.waiting += slot.size
        if verdict.code == ACCEPT:
            self._listener.store(slot)
        else:
            slot.settle(self._listener.answer(verdict))
            self.send()

    def _refuse_and_close(self) -> None:
        self._buffer.clear()
        if self._transport is not None:
            self._transport.write(self._listener.answer(TOO_LONG))
            self._transport.close()

    def flow(self) -> None:
        """Read only while answers go out and not too much waits for the disk."""
        if self._transport is None or self._transport.is_closing():
            return
        limits = self._limits
        wanted = (
            self._writable
            and len(self._slots) < limits.waiting_messages
            and self._listener.waiting < limits.waiting_bytes
        )
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not wanted:
            self._transport.pause_reading()
        self._reading = wanted

    def _live(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self._idle)

    def _idle(self) -> None:
        """Drop a sender without a whole message, also one who does not take the answers that are left."""
        self._listener.counts["idle"] += 1
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def listening(
    inbox: Inbox,
    *,
    host: str,
    port: int,
    clock: Clock,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Listener]:
    """Listen inside the block. Port 0 takes a free one; `port` of the listener says which.

    Raises: OSError if the address cannot be bound.
    """
    listener = Listener(inbox, limits=limits or Limits(), clock=clock)
    loop = asyncio.get_running_loop()
    patience_s = HANDSHAKE_S if tls else None
    server = await loop.create_server(
        lambda: _Connection(listener),
        host,
        port,
        ssl=tls,
        ssl_handshake_timeout=patience_s,
        ssl_shutdown_timeout=patience_s,
    )
    writer = asyncio.create_task(listener.run())
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for connection in list(listener.connections):
            connection.close()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await server.wait_closed()


Load = Callable[[Sequence[Path]], Iterable[Path]]


async def load_in_turn(inbox: Inbox, load: Load, *, every_s: float) -> None:
    """Load what the inbox holds every `every_s` seconds, forever; what fails waits for the next turn."""
    while True:
        await asyncio.sleep(every_s)
        await load_once(inbox, load)


async def load_once(inbox: Inbox, load: Load) -> int:
    """Load what the inbox holds now, oldest first; return how many of its files are done.

    `load` returns those that were loaded; they are deleted. If it raises, all are kept.
    """
    inbox.rotate()
    files = inbox.ready()
    if not files:
        return 0
    try:
        done = list(await asyncio.to_thread(load, files))
    except (
        Exception
    ) as error:  # an outage of the store must not end the listening; its text may quote a record
        LOG.warning("the inbox was not loaded, it is kept: %s", described(error))
        return 0
    for path in done:
        inbox.done(path)
    return len(done)
