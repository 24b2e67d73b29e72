"""The SuperLink: Flower's server as a child process on loopback, started, watched and stopped from here.

It serves control, runtime and fleet calls on one port, the first two without authentication. So it listens on
127.0.0.1 only, and hospitals reach its fleet calls through `fleet_gateway`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from coordinator.flower.child_process import Child, ChildProcess, command, environment
from coordinator.flower.control_api import ControlApi
from coordinator.flower.loopback_tls import make_loopback_tls
from privacy import private_files
from protocols.clock import Clock

START_TIMEOUT_S = 60.0  # 2 s on an idle machine; busy ones take longer
HEALTH_POLL_S = 0.1
STOP_GRACE_S = 2.0  # it holds nothing that is needed; its own SuperExec polls it to the last
SUPEREXEC_POLL_S = "0.1"  # Flower's default of 1 s delays the start of a ServerApp
HOME_VARIABLE = "FEDTWIN_COORDINATOR_HOME"


class SuperLinkDown(Exception):
    """The SuperLink did not come up; its log says why."""

    def __init__(self, log: Path) -> None:
        super().__init__(f"SuperLink did not start; see {log}")
        self.log = log


class SuperLink:
    """One SuperLink with its certificate and log under `folder`. What it knows, it holds in memory.

    A database on the disk more than doubles its work for a round, and nothing in it is needed: the roster
    says who may connect, and a run continues from its own checkpoint. One that died comes back empty; whoever
    keeps SuperNodes in step with the roster (`deployment`) registers them again, and they connect anew.
    """

    def __init__(self, folder: Path, *, home: Path, log: Path, clock: Clock) -> None:
        """`home` is the coordinator's home: the ServerApp learns this path and no secret."""
        private_files.make_folder(folder)
        self._folder = folder
        self._log = log
        self._variables = {HOME_VARIABLE: str(home), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": SUPEREXEC_POLL_S}
        self._tls = make_loopback_tls(folder / "tls", clock=clock)
        self._port = free_port()
        self._child = ChildProcess(self._describe)
        self._control: ControlApi | None = None

    @property
    def address(self) -> str:
        """Host and port, on loopback; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def ca(self) -> Path:
        """The certificate that vouches for it, to its own host."""
        return self._tls.ca

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid

    @property
    def control(self) -> ControlApi:
        """Its control API. Raises: RuntimeError before `start`."""
        if self._control is None:
            raise RuntimeError("the SuperLink is not started")
        return self._control

    async def start(self) -> None:
        """Start it and wait until it answers. Raises: SuperLinkDown."""
        for left in self._folder.glob("superlink.sqlite*"):  # of an earlier version
            left.unlink()
        self._control = ControlApi(self.address, self.ca)
        await self._child.start()
        try:
            await self.wait_healthy(timeout_s=START_TIMEOUT_S)
        except SuperLinkDown:
            await self.stop()
            raise

    async def wait_healthy(self, *, timeout_s: float) -> None:
        """Wait until it answers (again). Raises: SuperLinkDown."""
        ends = time.monotonic() + timeout_s
        while not (self.pid is not None and await self.control.healthy()):
            if time.monotonic() > ends:
                raise SuperLinkDown(self._log)
            await asyncio.sleep(HEALTH_POLL_S)

    async def stop(self) -> None:
        """Stop it and everything it started."""
        if self._control is not None:
            await self._control.aclose()  # first: the SuperLink waits for open connections
            self._control = None
        await self._child.stop(grace_s=STOP_GRACE_S)

    def _describe(self) -> Child:
        argv = (
            command("flower-superlink"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--ssl-ca-certfile", str(self._tls.ca)),
            *("--ssl-certfile", str(self._tls.certificate)),
            *("--ssl-keyfile", str(self._tls.key)),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )
        variables: Mapping[str, str] = environment(self._folder / "home", also=self._variables)
        return Child(
            argv, variables, self._log, self._folder / "superlink.pid", marker=str(self._tls.certificate)
        )


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
