"""`fedtwin gateway` as people type it: a folder, a process, a sign-in, a question; and a kill in between."""

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.home import CoordinatorHome
from fedtwin.cli import run
from fedtwin.screen import Exit
from protocols.clock import SystemClock
from tests.consortium import LoopThread, loop_thread
from tests.coordinator.gateway.hospitals import Hospitals, charges
from tests.coordinator.gateway.site import AUDIENCE, BODY, GROUP, problem
from tests.ports import free_ports

__all__ = ["loop_thread"]

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


class Machine:
    """A coordinator's folder, hospitals that answer, a gateway's folder, and processes by name."""

    def __init__(self, folder: Path, loop: LoopThread) -> None:
        self.folder = folder
        self.loop = loop
        enrolment, broker, fleet, self.issuing, self.port = free_ports(5)
        ports = {"--enrolment-port": enrolment, "--broker-port": broker, "--fleet-port": fleet}
        given = [str(word) for pair in ports.items() for word in pair]
        assert self.run("coordinator", "init", "--home", str(folder / "coordinator"), *given) == Exit.OK
        self.home = CoordinatorHome(folder / "coordinator")
        self.hospitals = Hospitals(self.home, clock=SystemClock())
        self.issuer = f"http://127.0.0.1:{self.issuing}"
        self.config = folder / "gateway" / "gateway.toml"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *words: str) -> int:
        return run(list(words))

    def start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "fedtwin", *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def gateway(self) -> None:
        """Start the gateway and wait until it says that it serves."""
        self.start("gateway", "gateway", "serve", "--config", str(self.config))
        self.said("gateway", '"serving": true', count=1 + self.log("gateway").count('"serving": true'))

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def said(self, name: str, words: str, *, count: int = 1) -> str:
        deadline = time.monotonic() + LIMIT_S
        while self.log(name).count(words) < count:
            assert self._running[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.05)
        return self.log(name)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        process = self._running.pop(name)
        process.send_signal(number)
        return process.wait(20)

    def client(self, token: str) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.folder / "gateway" / "ca.crt"))
        return httpx.Client(
            base_url=f"https://localhost:{self.port}",
            verify=context,
            headers={"authorization": f"Bearer {token}"},
            timeout=40,
            trust_env=False,
        )

    def end(self) -> None:
        for name in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                self.stop(name, signal.SIGKILL)
        self.loop.run(self.hospitals.stop())


@pytest.fixture
def machine(tmp_path: Path, loop_thread: LoopThread) -> Iterator[Machine]:
    made = Machine(tmp_path, loop_thread)
    loop_thread.run(made.hospitals.start())
    yield made
    made.end()


def init(machine: Machine, *more: str) -> int:
    return machine.run(
        "gateway", "init", "--home", str(machine.home.path), "--out", str(machine.config.parent),
        "--grant", f"stroke={GROUP}", "--audience", AUDIENCE, "--port", str(machine.port), *more,
    )  # fmt: skip


def sign_in(machine: Machine) -> str:
    """Sign in with `fedtwin gateway login`, typing into the issuer's page as a person does."""
    words = [sys.executable, "-m", "fedtwin", "gateway", "login", "--issuer", machine.issuer, "--plain-http"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = None
    while found is None:
        line = process.stderr.readline()
        assert line, "the command ended"
        found = re.search(r"user_code=([A-Z]{4}-[A-Z]{4})", line)
    form = {"user_code": found.group(1), "username": "ada", "password": "analytical"}
    assert httpx.post(f"{machine.issuer}/device", data=form, trust_env=False).status_code == 200
    out, _ = process.communicate(timeout=30)
    assert process.returncode == Exit.OK
    return out.strip()


def issuer(machine: Machine) -> None:
    machine.start(
        "issuer",
        "gateway",
        "demo-issuer",
        "--port",
        str(machine.issuing),
        "--user",
        f"ada:analytical:{GROUP}",
    )
    machine.said("issuer", "Issuer:")
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{machine.issuer}/jwks", trust_env=False)
            return
        time.sleep(0.1)
    raise AssertionError("the issuer does not serve")


def test_from_nothing_to_an_answer_with_a_browser_sign_in(machine: Machine, capfd: Any) -> None:
    assert init(machine, "--issuer", machine.issuer, "--plain-http") == Exit.OK
    issuer(machine)
    assert "Never in production" in machine.log("issuer")
    machine.gateway()
    capfd.readouterr()
    token = sign_in(machine)
    with httpx.Client(base_url=f"http://127.0.0.1:{machine.port}", timeout=40, trust_env=False) as client:
        headers = {"authorization": f"Bearer {token}", "idempotency-key": '"one"'}
        answer = client.post("/v1/questions", json=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    assert charges(machine.hospitals) == 1
    assert machine.run("gateway", "check", "--config", str(machine.config), "--json") == Exit.OK
    found = json.loads(capfd.readouterr().out)
    assert found["issuer_keys"] == ["ES256"]
    assert found["coordinator"] == "4 of 4 hospitals connected"
    assert machine.stop("gateway") == 0
    log = machine.log("gateway")
    assert "POST /v1/questions 200" in log
    assert not [part for part in token.split(".") if part in log]
    for name in ("identity.key", "tls.key"):
        key = (machine.config.parent / "profile" / name).read_text()
        assert key.splitlines()[1] not in log


def test_a_gateway_killed_in_a_question_answers_it_after_its_return_and_it_is_charged_once(
    machine: Machine,
) -> None:
    assert init(machine, "--issuer", machine.issuer, "--plain-http") == Exit.OK
    issuer(machine)
    machine.gateway()
    token = sign_in(machine)
    headers = {"authorization": f"Bearer {token}", "idempotency-key": '"killed"'}
    url = f"http://127.0.0.1:{machine.port}/v1/questions"
    machine.loop.loop.call_soon_threadsafe(machine.hospitals.held.clear)

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(url, json=BODY, headers=headers, timeout=40, trust_env=False)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + LIMIT_S
    while not machine.hospitals.envelopes and time.monotonic() < deadline:
        time.sleep(0.02)
    machine.stop("gateway", signal.SIGKILL)
    asking.join(30)
    machine.loop.loop.call_soon_threadsafe(machine.hospitals.held.set)
    machine.gateway()
    first, again = (
        httpx.post(url, json=BODY, headers=headers, timeout=40, trust_env=False) for _ in range(2)
    )
    assert first.status_code == 200, first.text
    assert again.content == first.content
    assert charges(machine.hospitals) == 1
    assert len(set(machine.hospitals.envelopes)) == 1  # signed once, asked again with the same bytes
    other = httpx.post(url, json=BODY | {"epsilon": 2}, headers=headers, timeout=40, trust_env=False)
    assert problem(other) == "idempotency-key-reused"


def test_over_tls_the_consortiums_authority_vouches_for_the_gateway(machine: Machine) -> None:
    assert init(machine, "--issuer", "https://127.0.0.1:1") == Exit.OK
    machine.gateway()
    with machine.client("a.b.c") as client:
        assert client.get("/v1/healthz").json() == {"serving": True}
        assert problem(client.get("/v1/consortium")) == "unauthenticated"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://localhost:{machine.port}/v1/healthz", trust_env=False)


def test_what_is_wrong_is_said_in_words(machine: Machine, capfd: Any) -> None:
    assert machine.run("gateway", "serve", "--config", str(machine.config)) == Exit.USAGE
    assert "fedtwin gateway init" in capfd.readouterr().err
    assert init(machine, "--issuer", "http://issuer.example.org") == Exit.USAGE
    assert "https" in capfd.readouterr().err
    plain = ("--issuer", machine.issuer, "--plain-http", "--host", "gateway.example.org")
    assert init(machine, *plain) == Exit.USAGE
    assert "loopback" in capfd.readouterr().err
    assert not machine.config.parent.exists()
    assert init(machine, "--issuer", "https://127.0.0.1:1", "--grant", "stroke") == Exit.USAGE
    assert init(machine, "--issuer", "https://127.0.0.1:1") == Exit.OK
    assert init(machine, "--issuer", "https://127.0.0.1:1") == Exit.USAGE  # nothing is overwritten
    capfd.readouterr()
    assert machine.run("gateway", "check", "--config", str(machine.config), "--json") == Exit.OK
    found = json.loads(capfd.readouterr().out)
    assert found["issuer_keys"] == "the issuer does not answer"
    for until in (found["credentials_until"], found["certificate_until"]):
        assert 360 < (datetime.fromisoformat(until) - SystemClock().now()).days <= 365
    (machine.config.parent / "tls.key").chmod(0o644)
    assert machine.run("gateway", "serve", "--config", str(machine.config)) == Exit.USAGE
    assert "chmod 600" in capfd.readouterr().err
    assert machine.run("gateway", "demo-issuer", "--user", "ada") == Exit.USAGE
