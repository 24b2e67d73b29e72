"""Flower with made-up hospitals in one process: a real SuperLink, gateway, SuperNodes and runners.

What is left out is the secure sum: `OpenSums` adds plain vectors, over the same gRPC service that the broker
offers to the ServerApp.
"""

import asyncio
import contextlib
import ipaddress
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from coordinator.exchange import StepTotal
from coordinator.flower.deployment import FlowerDeployment
from coordinator.flower.training_desk import StartedRun, TrainingDesk
from node.flower.client_app import Trainer, make_client_app
from node.flower.supernode import SuperNode
from privacy import walks
from privacy.descent import digest
from privacy.lanes import LaneVector
from privacy.rng import SecureBits
from privacy.study_noise import noise_plan
from protocols.clock import SystemClock
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc as rpc
from tests.protocols.study_forms import study_form

WAIT_S = 90.0  # as long as a SuperNode may take to come back


class Consortium:
    """A certificate authority and a certificate for 127.0.0.1, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.certificate, self.key = (
            folder / name for name in ("ca.crt", "server.crt", "server.key")
        )
        now = SystemClock().now()
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

        def built(name: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
            issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
            local = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            return (
                x509.CertificateBuilder()
                .issuer_name(issuer)
                .subject_name(issuer if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(hours=1))
                .not_valid_after(now + timedelta(hours=1))
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .add_extension(x509.SubjectAlternativeName(local), critical=False)
                .sign(ca_key, hashes.SHA256())
            )

        self.ca.write_bytes(built("ca", ca_key.public_key(), ca=True).public_bytes(ser.Encoding.PEM))
        self.certificate.write_bytes(
            built("server", key.public_key(), ca=False).public_bytes(ser.Encoding.PEM)
        )
        pem = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
        self.key.write_bytes(pem)


def supernode_key(path: Path) -> str:
    """Write a SuperNode's key to `path`; return its public half, both in OpenSSH form."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.OpenSSH, ser.NoEncryption()))
    path.chmod(0o600)
    return key.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH).decode()


@dataclass
class _Session:
    participants: tuple[NodeId, ...]
    inputs: dict[int, dict[NodeId, NDArray[np.uint64]]] = field(default_factory=dict)


class OpenSums(rpc.ResearchServicer):
    """Adds the vectors of all participants in the open, and tells totals to sites and to the ServerApp."""

    def __init__(self, participants: Callable[[], tuple[NodeId, ...]]) -> None:
        self._participants = participants
        self._sessions: dict[SessionId, _Session] = {}
        self._changed = threading.Condition()
        self.opened = 0
        self.tell: Callable[[], None] = lambda: None  # of each round, as the broker tells the gateway

    def OpenRound(self, request, context):  # type: ignore[no-untyped-def]
        self.tell()
        session_id, session = SessionId.new(), _Session(tuple(sorted(self._participants())))
        with self._changed:
            self._sessions[session_id] = session
            self.opened += 1
        nodes = [node.raw for node in session.participants]
        yield pb.RoundEvent(opened=pb.RoundOpened(session_id=session_id.raw, participants=nodes))
        for step in range(request.steps):
            try:
                total = self.total(session_id, step)
            except Refused as refused:
                yield pb.RoundEvent(refusal=refused.code.value)
                return
            whole = StepTotal(LaneVector(total, total.size), session.participants)
            yield from (pb.RoundEvent(sum=found) for found in whole.results(session_id, step))

    def contribute(self, session_id: SessionId, step: int, node: NodeId, vector: NDArray[np.uint64]) -> None:
        with self._changed:
            self._sessions[session_id].inputs.setdefault(step, {})[node] = vector
            self._changed.notify_all()

    def total(self, session_id: SessionId, step: int) -> NDArray[np.uint64]:
        session = self._sessions[session_id]
        with self._changed:
            if not self._changed.wait_for(
                lambda: len(session.inputs.get(step, {})) == len(session.participants), timeout=WAIT_S
            ):
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            return np.sum(list(session.inputs[step].values()), axis=0, dtype=np.uint64)


class SmallTrainer:
    """Trains on one made-up gradient: the steps of a real one without patients."""

    def __init__(self, study: Study, sums: OpenSums, node: NodeId) -> None:
        self._study, self._sums, self._node = study, sums, node
        self.rounds: list[int] = []

    def train(self, request: RoundRequest) -> RoundReply:
        if request.plan_hash != self._study.plan_hash():
            raise Refused(RefusalCode.NOT_APPROVED)
        self.rounds.append(request.round)
        sites = len(self._sums._sessions[request.session_id].participants)
        plan = noise_plan(self._study, participants=sites, tolerance=self._study.sites.tolerance)
        walk = walks.begin(self._study, request.parameters)
        for step in range(self._study.training.steps_per_round):
            gradient = np.full(self._study.parameters, 0.25)
            vector = plan.contribution(gradient, bits=SecureBits())
            self._sums.contribute(request.session_id, step, self._node, vector)
            walk.apply(plan.decode(self._sums.total(request.session_id, step)))
        return RoundReply(digest(walk.carried), walk.steps_done)


@dataclass
class Site:
    """One hospital's side."""

    node: NodeId
    supernode: SuperNode
    folder: Path


@dataclass
class Network:
    """What a test works with."""

    home: Path
    study: Study
    sums: OpenSums
    deployment: FlowerDeployment
    sites: list[Site]
    roster: dict[NodeId, str]

    async def run(
        self, study: Study | None = None, *, name: str = "run-1", within_s: float = 90.0
    ) -> StartedRun:
        """Start a run and wait until Flower says that it is finished."""
        async with TrainingDesk.open(self.home) as desk:
            started = await desk.start(study or self.study, run=name)
            async with asyncio.timeout(within_s):
                while True:
                    state, _ = await desk.state(started)
                    if state is not None and state.status == "finished":
                        return started
                    await asyncio.sleep(0.1)


Trainers = Callable[[Study, OpenSums, NodeId], Trainer]


@contextlib.asynccontextmanager
async def flower_network(
    folder: Path,
    *,
    sites: int,
    study: Study | None = None,
    trainers: Trainers = SmallTrainer,
    apps: Callable[[Trainer], ClientApp] = make_client_app,
) -> AsyncIterator[Network]:
    """Start a coordinator's Flower side and `sites` hospitals; stop all of it at the end."""
    study = study or Study.from_json(
        study_form(sites__minimum=max(2, min(3, sites)), sites__tolerance=min(1, max(0, sites - 2)))
    )
    home, consortium = folder / "coordinator", Consortium(folder / "ca")
    home.mkdir(parents=True)
    roster: dict[NodeId, str] = {}
    made: list[Site] = []
    nodes = [NodeId.new() for _ in range(sites)]
    sums = OpenSums(lambda: tuple(roster))
    for node in nodes:
        (folder / str(node)).mkdir()
        roster[node] = supernode_key(folder / str(node) / "flower.key")
    deployment = FlowerDeployment(
        home,
        roster=lambda: dict(roster),
        certificate=consortium.certificate,
        key=consortium.key,
        clock=SystemClock(),
    )
    loop = asyncio.get_running_loop()
    sums.tell = lambda: loop.call_soon_threadsafe(deployment.round_opened) and None
    with research_server(sums, home, consortium):
        await deployment.start()
        try:
            for node in nodes:
                place = folder / str(node)
                supernode = SuperNode(
                    apps(trainers(study, sums, node)),
                    folder=place / "flwr",
                    fleet_address=f"127.0.0.1:{deployment.fleet_port}",
                    ca=consortium.ca,
                    key=place / "flower.key",
                    log=place / "logs" / "supernode.log",
                )
                made.append(Site(node, supernode, place))
                await supernode.start()
            yield Network(home, study, sums, deployment, made, roster)
        finally:
            await asyncio.gather(*(site.supernode.stop() for site in made))
            await deployment.stop()


@contextlib.contextmanager
def research_server(sums: OpenSums, home: Path, consortium: Consortium) -> Iterator[None]:
    """Offer `sums` over mutual TLS and write the lead's profile that reaches it."""
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    rpc.add_ResearchServicer_to_server(sums, server)  # type: ignore[no-untyped-call]
    ca, key, certificate = (p.read_bytes() for p in (consortium.ca, consortium.key, consortium.certificate))
    credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    profile = home / "profiles" / "lead"
    profile.mkdir(parents=True)
    (profile / "profile.toml").write_text(f'broker_address = "127.0.0.1:{port}"\n')
    for name, data in (("ca.crt", ca), ("tls.key", key), ("tls.crt", certificate)):
        (profile / name).write_bytes(data)
    server.start()
    try:
        yield
    finally:
        server.stop(grace=1.0).wait(5.0)
