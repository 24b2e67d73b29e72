"""A consortium on loopback for tests: real keys, real TLS, real gRPC, a clock that the test moves."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from coordinator.enrolment import serve_enrolment
from coordinator.home import CoordinatorHome
from coordinator.roster_book import RosterBook
from coordinator.state import State
from node.enrolment import join
from node.home import NodeHome
from protocols.clock import FixedClock
from tests.ports import free_ports

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for servers that run while a test blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, what: Coroutine[Any, Any, T], *, timeout_s: float = 60.0) -> T:
        """Run a coroutine there and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(what, self.loop)
        return future.result(timeout_s)

    def close(self) -> None:
        """Stop the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Consortium:
    """A founded coordinator in `folder/coordinator`; nodes go to `folder/<name>`."""

    folder: Path
    home: CoordinatorHome
    state: State
    clock: FixedClock
    loop: LoopThread
    servers: list[grpc.aio.Server] = field(default_factory=list)

    @property
    def book(self) -> RosterBook:
        return self.home.roster_book(self.state, clock=self.clock)

    def token(self, name: str = "Cleveland", **options: Any) -> str:
        return self.home.invite(self.state, name, clock=self.clock, **options).to_token()

    def node(self, slug: str = "cleveland") -> NodeHome:
        return NodeHome(self.folder / slug)

    def joined(self, slug: str = "cleveland") -> NodeHome:
        """Invite a hospital and let it join."""
        home = self.node(slug)
        join(home, self.token(slug), clock=self.clock)
        return home

    def contents(self) -> dict[str, Any]:
        """Everything the coordinator remembers, to compare before and after."""
        return {
            "invitations": self.state.invitations(),
            "nodes": self.state.nodes(),
            "people": self.state.people(),
            "roster": self.state.roster(),
        }

    def serve(self) -> None:
        """Start the enrolment listener."""
        server, _ = self.loop.run(serve_enrolment(self.home, state=self.state, clock=self.clock))
        self.servers.append(server)

    def close(self) -> None:
        for server in self.servers:
            self.loop.run(server.stop(0))
        self.state.close()


@contextlib.contextmanager
def founded(
    folder: Path, *, loop: LoopThread, host: str = "localhost", ago: timedelta = timedelta(0)
) -> Iterator[Consortium]:
    """Found a consortium `ago` before the real time, which is what TLS goes by. Nothing listens yet."""
    clock = FixedClock(datetime.now(UTC) - ago)
    home = CoordinatorHome.init(
        folder / "coordinator", name="Example", host=host, enrolment_port=free_ports(1)[0], clock=clock
    )
    consortium = Consortium(folder, home, home.open_state(), clock, loop)
    try:
        yield consortium
    finally:
        consortium.close()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` and what it holds, to compare before and after."""
    if not folder.exists():
        return {}
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture
def consortium(tmp_path: Path, loop_thread: LoopThread) -> Iterator[Consortium]:
    """A founded consortium whose enrolment listener runs."""
    with founded(tmp_path, loop=loop_thread) as found:
        found.serve()
        yield found
