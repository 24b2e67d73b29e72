"""Flower's processes die, sites are revoked: what comes back by itself, and what stays out."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from coordinator.flower.child_process import Child, ChildProcess, environment
from node.flower.supernode_process import BROKEN
from tests.network.flower_sites import Network, flower_network


async def until(holds: Callable[[], bool], *, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.1)


async def online(network: Network, count: int, *, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            found = await network.deployment.superlink.control.supernodes()
            if sum(node.online for node in found) == count:
                return
            await asyncio.sleep(0.2)


def test_superlink_and_supernode_come_back_after_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2) as network:
            await online(network, 2)
            superlink, site = network.deployment.superlink, network.sites[0].supernode
            killed = superlink.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            assert site.pid is not None
            os.kill(site.pid, signal.SIGKILL)
            await until(lambda: superlink.pid not in (None, killed), within_s=10)
            await superlink.wait_healthy(timeout_s=30)
            started = await network.run(name="after", within_s=120)  # both are back, and train
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.sites) == ("finished", 2)
            assert site.restarts >= 1

    asyncio.run(scenario())


def test_a_revoked_node_is_refused_from_its_next_call_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=3) as network:
            await online(network, 3)
            gone = network.sites[2]
            del network.roster[gone.node]
            network.deployment.roster_changed()
            control = network.deployment.superlink.control
            async with asyncio.timeout(10):
                while len(await control.supernodes()) != 2:
                    await asyncio.sleep(0.1)
            first = gone.supernode.pid
            # Refused with 401, the SuperNode ends itself; started again, it is refused again.
            await until(lambda: gone.supernode.restarts >= 1 and gone.supernode.pid != first, within_s=60)
            assert len(await control.supernodes()) == 2

    asyncio.run(scenario())


def test_a_child_left_by_a_crashed_parent_is_ended_at_the_next_start(tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    child = Child(
        ("/bin/sh", "-c", 'sleep 60 && echo "$0"', marker),
        environment(tmp_path, also={}),
        tmp_path / "logs" / "child.log",
        tmp_path / "child.pid",
        marker,
    )

    async def scenario() -> None:
        crashed, fresh = ChildProcess(lambda: child), ChildProcess(lambda: child)
        await crashed.start()
        left = crashed.pid
        assert left is not None
        words = Path(f"/proc/{left}/cmdline")
        await until(lambda: marker.encode() in words.read_bytes(), within_s=10)  # it has become /bin/sh
        assert crashed._watch is not None
        crashed._watch.cancel()  # its parent is gone: nobody starts it again
        await fresh.start()
        try:
            assert fresh.pid not in (None, left)
            assert crashed._process is not None
            assert await asyncio.wait_for(crashed._process.wait(), 5) == -signal.SIGKILL
        finally:
            await fresh.stop(grace_s=0.5)
        assert not child.pid_file.exists()

    asyncio.run(scenario())


PARENT = """
import asyncio, sys
from pathlib import Path
from coordinator.flower.child_process import Child, ChildProcess, environment
from node.flower.supernode_process import BROKEN

folder = Path(sys.argv[1])
child = Child(("/bin/sleep", "60"), environment(folder, also={}), folder / "log", folder / "pid", "60")

async def main():
    await ChildProcess(lambda: child).start()
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    async def scenario() -> None:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path))
        pid_file = tmp_path / "pid"
        await until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), within_s=30)
        words = Path(f"/proc/{int(pid_file.read_text())}/cmdline")
        await until(lambda: words.read_bytes().startswith(b"/bin/sleep"), within_s=10)
        parent.kill()
        await parent.wait()
        await until(lambda: not words.exists() or not words.read_bytes(), within_s=10)

    asyncio.run(scenario())


def test_a_child_sees_nothing_of_our_environment(tmp_path: Path) -> None:
    os.environ["FEDTWIN_TEST_SECRET"] = "4711"
    try:
        found = environment(tmp_path, also={"X": "1"})
    finally:
        del os.environ["FEDTWIN_TEST_SECRET"]
    assert "4711" not in found.values()
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_HOME"] == str(tmp_path)


def test_a_supernode_ends_when_one_of_its_threads_does_and_says_no_more_than_where() -> None:
    script = """
import threading, time
import flwr.supernode.cli as cli
from node.flower import supernode_process

def heartbeat():
    raise RuntimeError("Jane Roe, 12 Elm Street")

def deaf():
    threading.Thread(target=heartbeat).start()
    time.sleep(60)

cli.flower_supernode = deaf
supernode_process.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == BROKEN
    assert "RuntimeError" in done.stderr
    assert "Roe" not in done.stderr
