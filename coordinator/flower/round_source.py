"""Where a round's secure-sum session and its noisy totals come from: the broker, over the lead's channel.

The ServerApp is a process of its own that Flower starts. It knows the coordinator's home by a path and speaks
to the broker as the lead does, over mutual TLS; the totals it sees are what every participant sees.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from privacy.errors import BadParameters
from privacy.lanes import WORD_BYTES, LaneVector, words_for
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire.fedtwin_pb2_grpc import ResearchStub

OPEN_TIMEOUT_S = 60.0  # key agreement of all sites
END_TIMEOUT_S = 5.0  # for the broker to hear that a round is to end
MAX_MESSAGE_BYTES = 16 * 2**20  # long totals come in pieces (protocols.pieces)
PROFILE = Path("profiles") / "lead"


@dataclass(frozen=True, slots=True, eq=False)
class RoundSum:
    """The opened total of one step, modulo 2^64, noise included."""

    step: int
    total: NDArray[np.uint64]
    contributors: int


class OpenedRound(Protocol):
    """A round in progress. Use it as a context: leaving it closes the session."""

    session_id: SessionId
    participants: tuple[NodeId, ...]

    @property
    def left(self) -> Mapping[NodeId, RefusalCode]:
        """Who fell out so far, and why."""
        ...

    def poll(self) -> RoundSum | None:
        """Return the next total if it is there. Raises: Refused if the round ended early."""
        ...

    def end(self) -> None:
        """Let the round end with the sum at hand: `poll` gives all that were opened, and then raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RoundSource(Protocol):
    """Opens rounds. `BrokerRounds` in a deployment, a sum service in the simulation engine."""

    def open(
        self, *, plan_hash: bytes, round: int, steps: int, without: Collection[NodeId] = ()
    ) -> OpenedRound:
        """Open a session of `steps` sums among the connected sites, `without` some. Raises: Refused."""
        ...


class BrokerRounds:
    """Rounds opened by the broker's Research service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ResearchStub(channel)  # type: ignore[no-untyped-call]  # generated

    def open(
        self, *, plan_hash: bytes, round: int, steps: int, without: Collection[NodeId] = ()
    ) -> OpenedRound:
        """Open a session of `steps` sums among the connected sites that approved, `without` some.

        Raises: Refused.
        """
        asked = pb.OpenRoundRequest(
            plan_hash=plan_hash, round=round, steps=steps, without=[node.raw for node in without]
        )
        return _BrokerRound(self._stub.OpenRound(asked), self._stub)


class _BrokerRound:
    """One OpenRound stream, read by a thread into a queue."""

    def __init__(self, call: grpc.Call, stub: ResearchStub) -> None:
        self._call = call
        self._stub = stub
        self._events: queue.SimpleQueue[pb.RoundEvent | RefusalCode] = queue.SimpleQueue()
        self._arriving = ArrivingTotal()
        self._left: dict[NodeId, RefusalCode] = {}
        self._thread = threading.Thread(target=self._read, name="round-events", daemon=True)
        self._thread.start()
        try:
            opened = self._next(timeout_s=OPEN_TIMEOUT_S)
            if opened is None:
                raise Refused(RefusalCode.DEADLINE)
            if opened.WhichOneof("body") != "opened":
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            self.session_id = SessionId(opened.opened.session_id)
            self.participants = tuple(NodeId(raw) for raw in opened.opened.participants)
        except BaseException:
            call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
            raise

    def poll(self) -> RoundSum | None:
        """Return the next total if it is there. Raises: Refused if the round ended early."""
        while (event := self._next(timeout_s=0.0)) is not None:
            if event.WhichOneof("body") == "left":
                self._left[NodeId(event.left.node_id)] = _code(event.left.refusal)
                continue
            found = event.sum
            if event.WhichOneof("body") != "sum" or found.session_id != self.session_id.raw:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            if (whole := self._arriving.take(found)) is not None:
                return whole
        return None

    def end(self) -> None:
        """Ask the broker to end the round with the sum at hand; if it cannot be asked, it ends here."""
        try:
            self._stub.EndRound(pb.EndRoundRequest(session_id=self.session_id.raw), timeout=END_TIMEOUT_S)
        except grpc.RpcError:  # it is over already, or the broker is gone
            self._call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it untyped

    @property
    def left(self) -> Mapping[NodeId, RefusalCode]:
        """Who fell out so far, and why."""
        return self._left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        self._thread.join(timeout=5.0)

    def _next(self, *, timeout_s: float) -> pb.RoundEvent | None:
        try:
            event = self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait()
        except queue.Empty:
            return None
        if isinstance(event, RefusalCode):
            raise Refused(event)
        if event.WhichOneof("body") == "refusal":
            raise Refused(_code(event.refusal))
        return event

    def _read(self) -> None:
        try:
            for event in self._call:  # type: ignore[attr-defined]  # a unary-stream call is an iterator
                self._events.put(event)
            self._events.put(RefusalCode.NOT_READY)  # heard only where the round was asked to end
        except grpc.RpcError as error:
            gone = error.code() is grpc.StatusCode.UNAVAILABLE
            details = (error.details() or "").split(":")[0].strip()
            self._events.put(RefusalCode.NOT_READY if gone else _code(details))


class ArrivingTotal:
    """Puts the pieces of one total after another together."""

    def __init__(self) -> None:
        self._pieces: list[pb.SumResult] = []
        self._words = 0

    def take(self, piece: pb.SumResult) -> RoundSum | None:
        """Return the total that this piece completes, if it does. Raises: Refused(PROTOCOL_VIOLATION)."""
        first = self._pieces[0] if self._pieces else piece
        words, rest = divmod(len(piece.total), WORD_BYTES)
        named = [(p.step, p.contributors, p.length, p.lanes) for p in (first, piece)]
        if rest or not words or named[0] != named[1] or piece.offset != self._words:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        self._pieces.append(piece)
        self._words += words
        try:
            missing = words_for(piece.length, lanes=piece.lanes) - self._words
        except BadParameters as error:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION) from error
        if missing > 0:
            return None
        if missing < 0:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        data = b"".join(part.total for part in self._pieces)
        self._pieces, self._words = [], 0
        total = LaneVector(np.frombuffer(data, dtype="<u8").astype(np.uint64), piece.length, piece.lanes)
        return RoundSum(piece.step, total.signed(), piece.contributors)


def _code(text: str) -> RefusalCode:
    with contextlib.suppress(ValueError):
        return RefusalCode(text)
    return RefusalCode.INTERNAL


def open_lead_channel(home: Path) -> grpc.Channel:
    """Return a channel to the broker with this coordinator's lead profile. Raises: OSError, KeyError."""
    profile = home / PROFILE
    address = tomllib.loads((profile / "profile.toml").read_text(encoding="utf-8"))["broker_address"]
    ca, key, certificate = ((profile / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(ca, key, certificate),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)],
    )
