"""A child process that is kept alive, logs to a file, and does not outlive its parent.

`coordinator/flower` and `node/flower` each hold this text (they never import each other); a test keeps both
the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 15.0
STEADY_AFTER_S = 60.0  # a child that lived this long starts again without delay
MAX_LOG_BYTES = 20 * 2**20  # at a start, a longer log becomes `.1`
KEPT = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")  # of our own environment; everything else stays with us

# Flower and Ray call home, check for updates and install packages unless told not to.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_LOG_LEVEL": "WARNING",  # at INFO every poll is a line
    "PYTHONUNBUFFERED": "1",
}

# Asks for SIGTERM at the parent's death, looks whether the parent died meanwhile, becomes the command.
BIND = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def environment(flower_home: Path, *, also: Mapping[str, str]) -> dict[str, str]:
    """Return what a Flower process gets to see: a few harmless variables, its own home, nothing of ours."""
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Flower finds its own commands on the path: ours come first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return found | QUIET | {"PATH": path, "FLWR_HOME": str(flower_home)} | dict(also)


def command(name: str) -> str:
    """Return the path of an installed command: the one beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True, slots=True)
class Child:
    """How to start it. `marker` stands in its command line: by it a stale child is recognised."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    pid_file: Path
    marker: str


class ChildProcess:
    """Starts the child, starts it again when it dies (with backoff), stops it by its process id."""

    def __init__(self, describe: Callable[[], Child]) -> None:
        """`describe` is asked before each start, so a port may change between two."""
        self._describe = describe
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the child and keep it alive until `stop`. A child left by a crashed parent is ended first."""
        self._stopping = False
        child = self._describe()
        _end_stale(child)
        await self._spawn(child)
        self._watch = asyncio.create_task(self._keep_alive())

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """End the child: SIGTERM, then SIGKILL for its group after `grace_s`. Safe to call twice."""
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # the group is the child's own: see start_new_session
        await process.wait()
        self._describe().pid_file.unlink(missing_ok=True)

    async def _keep_alive(self) -> None:
        backoff = FIRST_BACKOFF_S
        while not self._stopping:
            process = self._process
            if process is None:
                return
            began = asyncio.get_running_loop().time()
            await process.wait()
            if self._stopping:
                return
            steady = asyncio.get_running_loop().time() - began > STEADY_AFTER_S
            backoff = FIRST_BACKOFF_S if steady else backoff
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF_S)
            self.restarts += 1
            await self._spawn(self._describe())

    async def _spawn(self, child: Child) -> None:
        child.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if child.log.exists() and child.log.stat().st_size > MAX_LOG_BYTES:
            child.log.replace(child.log.with_name(child.log.name + ".1"))
        with child.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_bound_to_us(child.argv),
                env=dict(child.environment),
                cwd=child.log.parent,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child.pid_file.write_text(f"{self._process.pid}\n")


def _bound_to_us(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command such that the kernel ends it when we die, where the kernel can (Linux)."""
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", "-c", BIND, str(os.getpid()), *argv)


def _end_stale(child: Child) -> None:
    """End the child that a crashed parent left, if the pid file still names a process of this very kind."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(child.pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if child.marker.encode() in words:
            os.kill(pid, signal.SIGKILL)
