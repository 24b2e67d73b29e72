"""The SuperNode: Flower's client as a child process that talks to the fleet gateway and sees no data.

It fetches messages and hands them to our runner over loopback, with a secret; it starts no app by itself
(`--isolation process`). Its only connection goes out to the coordinator.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from pathlib import Path

from flwr.clientapp import ClientApp

from node.flower.child_process import Child, ChildProcess, environment
from node.flower.runner import Runner
from privacy import private_files

SECRET_BYTES = 32
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")  # a hospital's way out
STOP_GRACE_S = 3.0
RUNNER_STOP_S = 10.0


class SuperNode:
    """The supervised `flower-supernode` and the runner beside it: a hospital's side of a training run."""

    def __init__(
        self,
        app: ClientApp,
        *,
        folder: Path,
        fleet_address: str,
        ca: Path,
        key: Path,
        log: Path,
    ) -> None:
        """Prepare both. `folder` becomes Flower's home; `ca` is the consortium's; `key` the node's EC key."""
        private_files.make_folder(folder)
        self._folder, self._fleet_address, self._ca, self._key, self._log = (
            folder,
            fleet_address,
            ca,
            key,
            log,
        )
        self._secret_file = folder / "runtime.secret"
        secret = _fresh_secret(self._secret_file)
        self._port = _free_port()
        self._child = ChildProcess(self._describe)
        self._runner = Runner(app, address=self.runtime_address, secret=secret)

    @property
    def runtime_address(self) -> str:
        """Where the runner claims its tasks, on loopback."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of `flower-supernode` while it runs."""
        return self._child.pid

    @property
    def restarts(self) -> int:
        """How often it died and was started again."""
        return self._child.restarts

    @property
    def tasks_done(self) -> int:
        """How many messages the runner has answered."""
        return self._runner.tasks_done

    async def start(self) -> None:
        """Start both. The SuperNode connects by itself and goes on trying when the coordinator is away."""
        await self._child.start()
        self._runner.start()

    async def stop(self) -> None:
        """Stop both: the runner after the task at work, at most 10 s later."""
        await asyncio.to_thread(self._runner.stop, timeout_s=RUNNER_STOP_S)
        await self._child.stop(grace_s=STOP_GRACE_S)

    def _describe(self) -> Child:
        argv = (
            *(sys.executable, "-P", "-m", "node.flower.supernode_process"),
            *("--superlink", self._fleet_address),
            *("--root-certificates", str(self._ca)),
            *("--auth-supernode-private-key", str(self._key)),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self._secret_file)),
        )
        proxies = {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}
        variables = environment(self._folder / "home", also=proxies)
        return Child(
            argv, variables, self._log, self._folder / "supernode.pid", marker=str(self._secret_file)
        )


def _fresh_secret(path: Path) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    private_files.write(path, secret)
    return secret


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
