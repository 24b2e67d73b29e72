"""A whole network on this machine: a coordinator and n hospitals, each its own processes, keys, directory.

Everything goes through the real command (`python -m fedtwin …`), as people type it on separate machines;
nothing here reaches into a process. Every wait has an end, and whatever was started is stopped by its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COMMAND_TIMEOUT_S = 120.0  # one command; ingest of a demo hospital takes seconds
READY_TIMEOUT_S = 90.0  # a coordinator with its SuperLink, or a node with its SuperNode, on two busy cores
STOP_TIMEOUT_S = 15.0  # after SIGTERM; then SIGKILL
POLL_S = 0.25
PROJECT = "demo"


class NetworkFault(Exception):
    """A process or command of the network failed. `log` is the file that says more."""

    def __init__(self, what: str, *, log: Path | None = None, output: str = "") -> None:
        where = f"\n  its log: {log}" if log else ""
        super().__init__(what + (f"\n  it said: {output.strip()[-800:]}" if output.strip() else "") + where)
        self.log = log


@dataclass(frozen=True, slots=True)
class Site:
    """One hospital of the network: a short name for paths, and what it will take in."""

    slug: str
    title: str
    files: Path
    mapping: Path | None = None  # None: `node ingest` finds it in `files`


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    log: Path
    command: list[str] = field(default_factory=list)


class LocalNetwork:
    """Start with the verbs below in order, or all of them with `up()`; leave the block to stop everything."""

    def __init__(self, folder: Path, sites: Sequence[Site], *, policy: str = "demo") -> None:
        self.folder = folder.resolve()
        self.sites = {site.slug: site for site in sites}
        self.policy = policy
        self.logs = self.folder / "logs"
        self._running: dict[str, _Running] = {}
        self.logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- where things lie ----

    @property
    def coordinator_home(self) -> Path:
        """The coordinator's directory."""
        return self.folder / "coordinator"

    def node_home(self, slug: str) -> Path:
        """One hospital's directory: keys, policy, store, ledger, audit trail."""
        return self.folder / "nodes" / slug

    @property
    def lead_profile(self) -> Path:
        """The consortium lead's credentials, made by `coordinator init`."""
        return self.coordinator_home / "profiles" / "lead"

    @property
    def researcher_profile(self) -> Path:
        """The researcher's credentials, made by `add_researcher`."""
        return self.folder / "researcher"

    # ---- the steps ----

    def up(self) -> None:
        """Run every step: coordinator, researcher, enrolment, ingest, nodes."""
        self.start_coordinator()
        self.add_researcher()
        for slug in self.sites:
            self.enrol(slug)
            self.ingest(slug)
            self.start_node(slug)
        self.wait_for_nodes()

    def start_coordinator(self) -> None:
        """Make the consortium's keys if there are none, and serve on free ports of loopback."""
        if not self.coordinator_home.exists():
            enrolment, broker, fleet = free_ports(3)
            ports = {"--enrolment-port": enrolment, "--broker-port": broker, "--fleet-port": fleet}
            options = [text for option, port in ports.items() for text in (option, str(port))]
            name = ["--name", "Local consortium", "--host", "127.0.0.1"]
            self.fedtwin(["coordinator", "init", *name, *options, *self._coordinator()])
        self._spawn("coordinator", ["coordinator", "serve", *self._coordinator()])
        self._wait("the coordinator", "coordinator", self._coordinator_serves)

    def add_researcher(
        self, name: str = "researcher", *, project: str = PROJECT, profile: Path | None = None
    ) -> None:
        """Enter a researcher into the roster, with credentials in `profile` (`researcher_profile`)."""
        out = ["--out", str(profile or self.researcher_profile)]
        self.fedtwin(
            ["coordinator", "researcher", "add", name, "--project", project, *out, *self._coordinator()]
        )

    def enrol(self, slug: str) -> None:
        """Invite one hospital and let it join: keys are made in its own directory."""
        site = self.sites[slug]
        invited = self.fedtwin_json(["coordinator", "invite", site.title, *self._coordinator()])
        self.fedtwin(["node", "join", invited["token"], "--policy", self.policy, *self._node(slug)])

    def ingest(self, slug: str) -> Any:
        """Let one hospital take in its files. Returns what `node ingest --json` says."""
        site = self.sites[slug]
        mapping = ["--mapping", str(site.mapping)] if site.mapping else []
        return self.fedtwin_json(["node", "ingest", str(site.files), *mapping, *self._node(slug)])

    def start_node(self, slug: str) -> None:
        """Start one hospital's node; `wait_for_nodes` says when it is connected."""
        self._spawn(slug, ["node", "serve", *self._node(slug)])

    def wait_for_nodes(self, *, count: int | None = None, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until `count` nodes (all by default) are connected to the coordinator."""
        wanted = len(self.sites) if count is None else count

        def connected() -> bool:
            found = self.fedtwin_json(["coordinator", "nodes", *self._coordinator()])
            return sum(bool(node["connected"]) for node in found["nodes"]) >= wanted

        self._wait(f"{wanted} connected hospitals", None, connected, timeout_s=timeout_s)

    # ---- faults ----

    def pid(self, name: str) -> int:
        """Return the process id of `coordinator` or of a hospital's node."""
        return self._running[name].process.pid

    def kill(self, name: str) -> None:
        """Send SIGKILL to one process and wait until it is gone. What it had started is left behind."""
        running = self._running.pop(name)
        running.process.kill()
        running.process.wait(STOP_TIMEOUT_S)

    def restart(self, name: str) -> None:
        """Start the coordinator or a node again after `kill`."""
        if name == "coordinator":
            self.start_coordinator()
        else:
            self.start_node(name)

    def stop(self) -> None:
        """Stop everything that was started here: SIGTERM, and SIGKILL to what does not leave."""
        for running in reversed(self._running.values()):
            _signal_group(running.process, signal.SIGTERM, leader_only=True)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.1, deadline - time.monotonic()))
            _signal_group(running.process, signal.SIGKILL)
            running.process.wait()
        self._running.clear()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """End Flower processes whose parent was killed: by pid file, if they work in our folder."""
        files = (*self.folder.glob("coordinator/flower/*.pid"), *self.folder.glob("nodes/*/flwr/*.pid"))
        for file in files:
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.killpg(pid, signal.SIGKILL)  # its group is its own
                file.unlink()

    # ---- the command ----

    def fedtwin(self, arguments: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run `fedtwin ARGUMENTS` and return its stdout. Raises: NetworkFault if it fails."""
        command = [sys.executable, "-m", "fedtwin", *arguments]
        shown = "fedtwin " + " ".join(arguments[:2])
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise NetworkFault(f"`{shown}` took longer than {timeout_s:g} s") from error
        if done.returncode != 0:
            raise NetworkFault(f"`{shown}` left with code {done.returncode}", output=done.stderr)
        return done.stdout

    def fedtwin_json(self, arguments: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """Run `fedtwin ARGUMENTS --json` and return what it says."""
        return json.loads(self.fedtwin([*arguments, "--json"], timeout_s=timeout_s))

    def _coordinator(self) -> list[str]:
        return ["--home", str(self.coordinator_home)]

    def _node(self, slug: str) -> list[str]:
        return ["--home", str(self.node_home(slug))]

    def _coordinator_serves(self) -> bool:
        return bool(self.fedtwin_json(["coordinator", "status", *self._coordinator()])["serving"])

    def _spawn(self, name: str, arguments: list[str]) -> None:
        if name in self._running and self._running[name].process.poll() is None:
            raise NetworkFault(f"{name} is running already", log=self._running[name].log)
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedtwin", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
                env=_environment(),
            )
        self._running[name] = _Running(process, log, arguments)

    def _wait(
        self, what: str, name: str | None, ready: Callable[[], bool], *, timeout_s: float = READY_TIMEOUT_S
    ) -> None:
        deadline = time.monotonic() + timeout_s
        last = ""
        while time.monotonic() < deadline:
            for watched, running in self._running.items():
                if running.process.poll() is not None and (name is None or watched == name):
                    tail = running.log.read_text(errors="replace")[-800:]
                    code = running.process.returncode
                    raise NetworkFault(f"{watched} left with code {code}", log=running.log, output=tail)
            try:
                if ready():
                    return
            except NetworkFault as error:  # not listening yet
                last = str(error)
            time.sleep(POLL_S)
        raise NetworkFault(f"{what} did not come up within {timeout_s:g} s", output=last, log=self.logs)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


def _environment() -> Mapping[str, str]:
    """Return our environment without anything that would send a command to another home."""
    return {key: value for key, value in os.environ.items() if not key.startswith("FEDTWIN_")}


def _signal_group(
    process: subprocess.Popen[bytes], number: signal.Signals, *, leader_only: bool = False
) -> None:
    """Signal a process that we started, or its whole group, which we made with it."""
    with contextlib.suppress(ProcessLookupError):
        if leader_only:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
