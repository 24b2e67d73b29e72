"""The coordinator as one process: enrolment, broker, SuperLink with its gateway; until SIGTERM.

What survives it lies in its home; streams and sums do not. After a crash nodes come back by themselves, and a
question that was open is taken up again when its researcher asks it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from coordinator import enrolment
from coordinator.broker import OPTIONS, Broker
from coordinator.callers import Roll
from coordinator.epochs import Epochs
from coordinator.flower.deployment import FlowerDeployment
from coordinator.home import CoordinatorHome
from coordinator.key_holder import KeyHolderDesk
from coordinator.question_book import QuestionBook
from coordinator.questions import QuestionDesk
from coordinator.research import Research
from coordinator.roster_book import RosterBook
from coordinator.standing import StandingSessions
from coordinator.state import State
from coordinator.studies import StudyDesk
from coordinator.sums import SumService
from privacy.long_vectors import ready_for_long_vectors
from protocols.clock import Clock
from protocols.ids import NodeId
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

GRACE_S = 2.0  # for calls that end by themselves when the coordinator stops
QUESTIONS_FILE = "questions.sqlite"


@dataclass(frozen=True, slots=True)
class Serving:
    """A coordinator that serves. The parts are for tests and for whoever embeds it."""

    broker: Broker
    sums: SumService
    standing: StandingSessions
    desk: QuestionDesk
    key_holder: KeyHolderDesk
    broker_port: int
    enrolment_port: int
    fleet_port: int | None


@asynccontextmanager
async def serving(home: CoordinatorHome, *, clock: Clock, flower: bool = True) -> AsyncIterator[Serving]:
    """Serve inside the block. With `flower` off nothing can be trained: for tests of everything else."""
    async with AsyncExitStack() as stack:
        config = home.config()
        state = home.open_state()
        stack.callback(state.close)
        roster = home.roster_book(state, clock=clock)
        roster.keep_to_settings()
        authority = home.authority(clock=clock)

        def renew(node: NodeId, csr_envelope: bytes) -> bytes:
            return enrolment.renew(state, authority, node, csr_envelope)

        broker = Broker(roll=_RollReader(roster), renew=renew, clock=clock)
        key_holder = KeyHolderDesk(
            broker, renew=lambda name, csr: enrolment.renew_key_holder(state, authority, name, csr)
        )
        sums = SumService(broker, key_holder=key_holder, folder=home.path)
        standing = StandingSessions(
            broker, sums, minimum_sites=config.minimum_sites, tolerance=config.tolerance
        )
        key_holder.on_change(standing.look_again)
        book = QuestionBook(home.path / QUESTIONS_FILE)
        stack.callback(book.close)
        epochs = Epochs()
        desk = QuestionDesk(broker, standing, book, epochs, minimum_sites=config.minimum_sites, clock=clock)
        studies = StudyDesk(broker, sums, state, book, clock=clock)
        broker.listen(epochs, sums, standing, desk, studies, _LastSeen(state, clock=clock))

        research = Research(broker, desk, studies, state, book, clock=clock)
        server, broker_port = await _broker_server(home, broker, research, key_holder, clock=clock)
        stack.push_async_callback(server.stop, GRACE_S)
        joining, enrolment_port = await enrolment.serve_enrolment(home, state=state, clock=clock)
        stack.push_async_callback(joining.stop, GRACE_S)
        fleet_port = None
        if flower:
            fleet_port = await _start_flower(home, broker, studies, stack, clock=clock)
        for background in (broker.watch_roll(), standing.keep_ready()):
            task = asyncio.create_task(background)
            stack.callback(task.cancel)
        stack.push_async_callback(desk.stop)
        yield Serving(broker, sums, standing, desk, key_holder, broker_port, enrolment_port, fleet_port)


def serve(home: CoordinatorHome, *, clock: Clock, flower: bool = True) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line of JSON on stdout when hospitals can connect.

    Raises: what a wrong home or a taken port raises.
    """
    ready_for_long_vectors()
    _start_logging(home.logs)
    asyncio.run(_serve(home, clock=clock, flower=flower))


async def _serve(home: CoordinatorHome, *, clock: Clock, flower: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with serving(home, clock=clock, flower=flower) as found:
        ready = {
            "serving": True,
            "broker_port": found.broker_port,
            "enrolment_port": found.enrolment_port,
            "fleet_port": found.fleet_port,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        log.info("serving")
        await stopped.wait()
        log.info("stopping")


class _RollReader:
    """Reads the roster when its version has changed, in whatever process that was."""

    def __init__(self, book: RosterBook) -> None:
        self._book = book
        self._roll: Roll | None = None

    def __call__(self) -> Roll:
        if self._roll is None or self._book.version() != self._roll.roster.version:
            self._roll = Roll(self._book.current(), self._book.envelope())
        return self._roll


class _LastSeen:
    """Writes down when a node came and went. A Listener of the broker."""

    def __init__(self, state: State, *, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._writing: set[asyncio.Future[None]] = set()

    def connected(self, node: NodeId, hello: object) -> None:
        """Note that a node came."""
        self._note(node)

    def heard(self, node: NodeId, frame: object) -> None:
        """Nothing."""

    def lost(self, node: NodeId) -> None:
        """Note that a node went."""
        self._note(node)

    def _note(self, node: NodeId) -> None:
        """Write in a thread: other processes may hold the database for a moment."""
        moment = self._clock.now()
        writing = asyncio.ensure_future(asyncio.to_thread(self._state.saw_node, node, at=moment))
        self._writing.add(writing)
        writing.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing.discard(done)
        if not done.cancelled() and done.exception() is not None:
            log.warning("when a node was last seen could not be written: %s", type(done.exception()).__name__)


async def _broker_server(
    home: CoordinatorHome, broker: Broker, research: Research, key_holder: KeyHolderDesk, *, clock: Clock
) -> tuple[grpc.aio.Server, int]:
    config, tls = home.config(), home.server_tls(clock=clock)
    server = grpc.aio.server(options=OPTIONS)
    fedtwin_pb2_grpc.add_NodesServicer_to_server(broker, server)  # type: ignore[no-untyped-call]  # generated
    fedtwin_pb2_grpc.add_ResearchServicer_to_server(research, server)  # type: ignore[no-untyped-call]
    fedtwin_pb2_grpc.add_KeyHoldingServicer_to_server(key_holder, server)  # type: ignore[no-untyped-call]
    credentials = grpc.ssl_server_credentials(
        [(tls.key, tls.chain)], root_certificates=tls.authority, require_client_auth=True
    )
    port = server.add_secure_port(config.listen_address(config.broker_port), credentials)
    await server.start()
    return server, port


async def _start_flower(
    home: CoordinatorHome, broker: Broker, studies: StudyDesk, stack: AsyncExitStack, *, clock: Clock
) -> int:
    config = home.config()
    deployment = FlowerDeployment(
        home.path,
        roster=lambda: {node: entry.flower_key for node, entry in broker.roll.roster.active_nodes.items()},
        certificate=home.server_certificate,
        key=home.keys / "server.key",
        clock=clock,
        host=config.bind,
        port=config.fleet_port,
    )
    await deployment.start()
    stack.push_async_callback(deployment.stop)
    broker.on_roster_change(deployment.roster_changed)
    studies.on_round(deployment.round_opened)
    return deployment.fleet_port


def _start_logging(folder: Path) -> None:
    """Send this process's log lines to `logs/coordinator.log`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    handler = logging.FileHandler(folder / "coordinator.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO each fleet call is a line
    logging.captureWarnings(True)
