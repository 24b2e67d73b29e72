"""A consortium of real processes that may be killed at any moment. What is started is ended by its pid.

Each is forked from a process that has imported what a coordinator and a node are made of and done nothing
else: to import it costs more than a test's whole question.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedtwin.profile import Profile
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network import launch
from tests.network.consortium import Consortium

READY_S = 60.0
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([launch.__name__])


class Processes:
    """The running processes of a consortium, by name: `coordinator`, `node-0`, ..."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self._running: dict[str, ForkServerProcess] = {}

    async def start(self, name: str, **pausing: object) -> None:
        """Start one and wait until it says that it serves. A node may be told when to pause (`launch`)."""
        folder = self.consortium.folder
        role = "coordinator" if name == "coordinator" else "node"
        out, err = folder / f"{name}.stdout", folder / f"{name}.stderr"
        out.unlink(missing_ok=True)
        process = FORKS.Process(
            target=launch.serve,
            args=(role, folder / name),
            kwargs={"out": out, "err": err, **pausing},
            daemon=True,
        )
        await asyncio.to_thread(process.start)
        self._running[name] = process
        async with asyncio.timeout(READY_S):
            while not (out.exists() and out.read_text().endswith("\n")):
                assert process.is_alive(), err.read_text()
                await asyncio.sleep(0.01)
        assert json.loads(out.read_text())["serving"], err.read_text()

    async def start_nodes(self, *sites: int) -> None:
        await asyncio.gather(*(self.start(f"node-{site}") for site in sites))

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self._running.pop(name)
        process.kill()
        await asyncio.to_thread(process.join)

    async def stop(self, name: str) -> int | None:
        """SIGTERM. Returns the exit status."""
        process = self._running.pop(name)
        process.terminate()
        await asyncio.to_thread(process.join, 20)
        return process.exitcode

    async def connected(self, count: int, *, timeout_s: float = 30.0) -> None:
        """Wait until so many nodes are connected, as the lead sees it."""
        profile = Profile.load(self.consortium.home.lead_profile)
        async with asyncio.timeout(timeout_s), self.consortium.channel(profile) as channel:
            stub = fedtwin_pb2_grpc.ResearchStub(channel)
            while True:
                reply = await stub.ListNodes(pb.ListNodesRequest(), wait_for_ready=True)
                if sum(node.connected for node in reply.nodes) == count:
                    return
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        for name in list(self._running):
            await self.kill(name)


@contextlib.asynccontextmanager
async def processes(folder: Path, *, sites: int = 4) -> AsyncIterator[Processes]:
    """Found a consortium, enrol the sites, start the coordinator. Nodes are started by the test."""
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator():
        await consortium.enrol_all()
    found = Processes(consortium)
    try:
        await found.start("coordinator")
        yield found
    finally:
        await found.end()


async def marked(marker: Path, *, timeout_s: float = 30.0) -> None:
    """Wait until a pausing node has made its marker."""
    async with asyncio.timeout(timeout_s):
        while not marker.exists():
            await asyncio.sleep(0.02)
