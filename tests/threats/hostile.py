"""A coordinator that says whatever a test lets it say, to real nodes over real TLS with the real certificate.

It holds everything a coordinator holds: the server's key, the CA's key and the roster's key.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from coordinator.broker import OPTIONS
from privacy.secure_sum import SealedShares, SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from protocols.ids import NodeId, QuestionId, SessionId
from protocols.peer import peer_of
from protocols.question import Question
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import CLOCK, Consortium, until

WAIT_S = 10.0
QUIET_S = 0.5  # how long a node gets to do what it should not do


class HostileCoordinator:
    """Speaks to every node that connects, by hand."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.said: dict[NodeId, list[pb.NodeFrame]] = defaultdict(list)  # everything that came
        self.hellos: list[tuple[NodeId, pb.Hello]] = []
        self._inbox: dict[NodeId, asyncio.Queue[pb.NodeFrame]] = defaultdict(asyncio.Queue)
        self._outbox: dict[NodeId, asyncio.Queue[pb.CoordinatorFrame | bytes | None]] = {}

    @property
    def connections(self) -> int:
        """How often a node has connected."""
        return len(self.hellos)

    def cut(self, node: NodeId) -> None:
        """End a node's stream, as a broken wire would."""
        self._outbox[node].put_nowait(None)

    @property
    def nodes(self) -> list[NodeId]:
        return sorted(self._outbox)

    def send(self, node: NodeId, frame: pb.CoordinatorFrame | bytes) -> None:
        """Send a frame, or bytes that are none."""
        self._outbox[node].put_nowait(frame)

    async def hear(self, node: NodeId, kind: str) -> pb.NodeFrame:
        """Return the node's next frame, which must be of this kind."""
        async with asyncio.timeout(WAIT_S):
            frame = await self._inbox[node].get()
        assert frame.WhichOneof("body") == kind, frame
        return frame

    async def silence(self, node: NodeId) -> None:
        """Fail if the node says anything for a while."""
        await asyncio.sleep(QUIET_S)
        assert self._inbox[node].empty(), self._inbox[node].get_nowait()

    # ---- honest moves, to be mixed with others ----

    async def offer(self, node: NodeId, question: QuestionId, envelope: bytes, *, attempt: int = 1) -> str:
        """Offer a question. Returns the refusal; empty if the node accepts."""
        offer = pb.Offer(question_id=question.raw, question_envelope=envelope, attempt=attempt)
        self.send(node, pb.CoordinatorFrame(offer=offer))
        return (await self.hear(node, "offer_reply")).offer_reply.refusal

    async def session(self, *, tolerance: int = 1, purpose: str = "questions") -> SumCollector:
        """Open a session among all nodes."""
        collector = SumCollector(parameters(self.nodes, tolerance=tolerance, purpose=purpose))
        opening = opening_of(collector.parameters, tolerance=tolerance)
        session = opening.session_id
        for node in self.nodes:
            self.send(node, pb.CoordinatorFrame(sum_open=opening))
        for node in self.nodes:
            collector.advert(node, (await self.hear(node, "sum_advert")).sum_advert.envelope)
        envelopes = {str(node): advert for node, advert in collector.adverts().items()}
        for node in self.nodes:
            adverts = pb.SumAdverts(session_id=session, envelopes=envelopes)
            self.send(node, pb.CoordinatorFrame(sum_adverts=adverts))
        for node in self.nodes:
            shares = (await self.hear(node, "sum_shares")).sum_shares
            sealed = {NodeId.parse(peer): data for peer, data in shares.sealed.items()}
            collector.shares(node, SealedShares(sealed=sealed, wraps=shares.wraps))
        for node in self.nodes:
            sealed_for = {str(sender): data for sender, data in collector.outgoing(node).items()}
            delivery = pb.SumDeliver(session_id=session, sealed=sealed_for)
            self.send(node, pb.CoordinatorFrame(sum_deliver=delivery))
        return collector

    async def inputs(
        self, question: Question, collector: SumCollector, *, step: int = 0, attempt: int = 1
    ) -> dict[NodeId, pb.SumInput]:
        """Let every node run an accepted question, and return what they sent."""
        found = {}
        session = collector.parameters.session_id
        for node in self.nodes:
            run = pb.Run(
                question_id=question.question_id.raw, attempt=attempt, session_id=session.raw, step=step
            )
            self.send(node, pb.CoordinatorFrame(run=run))
        for node in self.nodes:
            found[node] = (await self.hear(node, "sum_input")).sum_input
        return found

    def survivors(self, node: NodeId, session: SessionId, survivors: list[NodeId], *, step: int = 0) -> None:
        """Tell one node who survived."""
        told = pb.SumSurvivors(session_id=session.raw, step=step, survivors=[n.raw for n in survivors])
        self.send(node, pb.CoordinatorFrame(sum_survivors=told))

    # ---- gRPC ----

    async def _connect(self, requests, context):  # type: ignore[no-untyped-def]
        node = NodeId.parse(peer_of(context.auth_context()["x509_pem_cert"][0]).name)
        reader = aiter(requests)
        hello = await anext(reader)
        assert hello.WhichOneof("body") == "hello"
        with contextlib.closing(self.consortium.home.open_state()) as state:
            roster = self.consortium.home.roster_book(state, clock=CLOCK).envelope()
        outbox = self._outbox[node] = asyncio.Queue()
        self._inbox[node] = asyncio.Queue()
        self.hellos.append((node, hello.hello))
        outbox.put_nowait(pb.CoordinatorFrame(welcome=pb.Welcome(roster_envelope=roster)))
        reading = asyncio.create_task(self._read(node, reader))
        try:
            while (frame := await outbox.get()) is not None:
                await context.write(frame)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, node: NodeId, requests: AsyncIterator[pb.NodeFrame]) -> None:
        async for frame in requests:
            self.said[node].append(frame)
            await self._inbox[node].put(frame)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        home = self.consortium.home
        tls, config = home.server_tls(clock=CLOCK), home.config()
        server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=pb.NodeFrame.FromString,
            response_serializer=lambda frame: (
                frame if isinstance(frame, bytes) else frame.SerializeToString()
            ),
        )
        service = grpc.method_handlers_generic_handler("fedtwin.v1.Nodes", {"Connect": handler})
        server.add_generic_rpc_handlers((service,))
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.chain)], root_certificates=tls.authority, require_client_auth=True
        )
        server.add_secure_port(config.listen_address(config.broker_port), credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)


def parameters(nodes: list[NodeId], *, tolerance: int = 1, purpose: str = "questions") -> SessionParameters:
    """Return the terms of a session of four steps."""
    return SessionParameters(
        session_id=SessionId.new(),
        participants=tuple(nodes),
        threshold=threshold_for(len(nodes), colluders=tolerance),
        steps=4,
        purpose=purpose,
        round=0,
    )


def opening_of(terms: SessionParameters, *, tolerance: int = 1) -> pb.SumOpen:
    """Return the frame that opens a session."""
    return pb.SumOpen(
        session_id=terms.session_id.raw,
        participants=[node.raw for node in terms.participants],
        threshold=terms.threshold,
        steps=terms.steps,
        purpose=terms.purpose,
        round=terms.round,
        tolerance=tolerance,
    )


@contextlib.asynccontextmanager
async def hostile(folder: Path, *, sites: int = 4) -> AsyncIterator[HostileCoordinator]:
    """Enrol nodes with an honest coordinator, then let them connect to a hostile one."""
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator():
        await consortium.enrol_all()
    coordinator = HostileCoordinator(consortium)
    async with coordinator.serving(), consortium.nodes():
        await until(lambda: len(coordinator.nodes) == sites)
        yield coordinator
