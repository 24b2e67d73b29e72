"""A consortium of real processes that may be killed at any moment. What is started is ended by its pid."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fedtwin.profile import Profile
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import Consortium

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "tests" / "network" / "launch.py"
READY_S = 60.0


class Processes:
    """The running processes of a consortium, by name: `coordinator`, `node-0`, ..."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *options: str) -> None:
        """Start one and wait until it says that it serves."""
        folder = self.consortium.folder
        role = "coordinator" if name == "coordinator" else "node"
        log = (folder / f"{name}.stderr").open("ab")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(LAUNCH),
            role,
            str(folder / name),
            *options,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        log.close()
        self._running[name] = process
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            line = await process.stdout.readline()
        assert json.loads(line)["serving"], (folder / f"{name}.stderr").read_text()

    async def start_nodes(self, *sites: int) -> None:
        await asyncio.gather(*(self.start(f"node-{site}") for site in sites))

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    async def stop(self, name: str) -> int:
        """SIGTERM. Returns the exit status."""
        process = self._running.pop(name)
        process.terminate()
        async with asyncio.timeout(20):
            return await process.wait()

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
            with contextlib.suppress(ProcessLookupError):
                self._running[name].kill()
            await self._running.pop(name).wait()


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
