"""A gateway on loopback with everything around it: issuer and hospitals, all of it over TLS."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from coordinator.gateway.access import Access, Grant
from coordinator.gateway.config import GatewayConfig
from coordinator.gateway.founding import found_gateway
from coordinator.gateway.listener import listening, server_context
from coordinator.gateway.serving import ServingGateway, serving
from coordinator.home import CoordinatorHome
from protocols.clock import SystemClock
from sim.identity_provider import IdentityProvider, User, create_app
from tests.consortium import LoopThread
from tests.coordinator.gateway.hospitals import Hospitals
from tests.ports import free_ports

CLOCK = SystemClock()
AUDIENCE = "fedtwin-gateway"
GROUP = "stroke-team"
COHORT = {"index": {"kind": "condition", "concepts": [201826]}}
BODY = {"project": "stroke", "cohort": COHORT, "epsilon": 0.5}
SLACK = {"questions_per_minute": 10_000, "reads_per_minute": 10_000, "wait_s": 20}
_keys = itertools.count()


@dataclass
class Site:
    """What a test needs. `up` and `down` start and stop the gateway alone."""

    folder: Path
    home: CoordinatorHome
    loop: LoopThread
    issuer: IdentityProvider
    hospitals: Hospitals
    config: GatewayConfig
    gateway: ServingGateway | None = None
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def up(self) -> None:
        """Start the gateway."""

        async def start() -> None:
            self._stack = contextlib.AsyncExitStack()
            self.gateway = await self._stack.enter_async_context(serving(self.config, clock=CLOCK))

        self.loop.run(start())

    def down(self) -> None:
        """Stop the gateway."""
        self.loop.run(self._stack.aclose())
        self.gateway = None

    def hold(self) -> None:
        """Let no hospital answer until `release`."""
        self.loop.loop.call_soon_threadsafe(self.hospitals.held.clear)

    def release(self) -> None:
        """Let the hospitals answer, and wait until nothing is open."""
        self.loop.loop.call_soon_threadsafe(self.hospitals.held.set)
        until(lambda: self.gateway is None or not self.gateway.asker._open)

    @property
    def url(self) -> str:
        assert self.gateway is not None
        return f"https://localhost:{self.gateway.port}"

    def token(self, subject: str = "ada", *, groups: tuple[str, ...] = (GROUP,), **more: Any) -> str:
        return self.issuer.token(subject, groups=groups, **more)

    @contextlib.contextmanager
    def client(self, token: str | None = None, **headers: str) -> Iterator[httpx.Client]:
        """A client that trusts the consortium's authority and shows a token."""
        bearer = {"authorization": f"Bearer {token or self.token()}"}
        trusted = ssl.create_default_context(cafile=str(self.home.authority_certificate))
        with httpx.Client(
            base_url=self.url, verify=trusted, headers=bearer | headers, timeout=30, trust_env=False
        ) as client:
            yield client

    def get(self, path: str, *, token: str | None = None, **headers: str) -> httpx.Response:
        with self.client(token, **headers) as client:
            return client.get(path)

    def ask(
        self, body: Any = None, *, token: str | None = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """POST a question; bytes go as they are."""
        with self.client(token, **headers) as client:
            return post(client, "/v1/questions", BODY if body is None else body, key=key)


def post(client: httpx.Client, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
    """POST a body with an idempotency key, a new one unless given."""
    headers = {"idempotency-key": f'"{key or f"key-{next(_keys)}"}"', "content-type": "application/json"}
    if isinstance(body, bytes):
        return client.post(path, content=body, headers=headers)
    return client.post(path, json=body, headers=headers)


def problem(response: httpx.Response) -> str:
    """Return the code of a problem, after checking its form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:fedtwin:problem:{body['code']}"
    return str(body["code"])


@contextlib.contextmanager
def founded(folder: Path, *, loop: LoopThread, **changes: Any) -> Iterator[Site]:
    """Found a consortium with a gateway, start issuer and hospitals, then the gateway.

    Args: changes: lines of gateway.toml by key.
    """
    enrolment, broker, fleet, issuing = free_ports(4)
    home = CoordinatorHome.init(
        folder / "coordinator",
        name="Example",
        host="localhost",
        enrolment_port=enrolment,
        broker_port=broker,
        fleet_port=fleet,
        clock=CLOCK,
    )
    issuer = IdentityProvider(
        f"https://localhost:{issuing}",
        audience=AUDIENCE,
        users=(User("ada", "analytical", (GROUP,)), User("eve", "apple")),
        clients={"notebook": "a secret of the notebook"},
        client_groups=(GROUP,),
        clock=CLOCK,
    )
    with contextlib.closing(home.open_state()) as state:
        path = found_gateway(
            home,
            state,
            folder / "gateway",
            name="gateway",
            host="localhost",
            issuer=issuer.issuer,
            audience=AUDIENCE,
            access=Access((Grant("stroke", frozenset({"grace"}), frozenset({GROUP})),)),
            port=0,
            issuer_ca=str(home.authority_certificate),
            clock=CLOCK,
        )
    edit(path, SLACK | changes)
    site = Site(folder, home, loop, issuer, Hospitals(home, clock=CLOCK), GatewayConfig.load(path))
    stack = contextlib.AsyncExitStack()

    async def start() -> None:
        await stack.enter_async_context(_issuing(site, issuing))
        await site.hospitals.start()
        stack.push_async_callback(site.hospitals.stop)

    loop.run(start())
    try:
        site.up()
        yield site
    finally:
        if site.gateway is not None:
            site.down()
        loop.run(stack.aclose())


@contextlib.asynccontextmanager
async def _issuing(site: Site, port: int) -> AsyncIterator[None]:
    certificate, key = site.home.server_certificate, site.home.keys / "server.key"
    context = server_context(str(certificate), str(key))
    async with listening(create_app(site.issuer), host="127.0.0.1", port=port, context=context):
        yield


def edit(path: Path, changes: dict[str, Any]) -> None:
    """Change lines of a gateway.toml."""
    lines = path.read_text().splitlines()
    for name, value in changes.items():
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"{name} =")]
        lines[at] = f"{name} = {value!r}".replace("'", '"').replace("True", "true")
    path.write_text("\n".join(lines) + "\n")


def until(holds: Any, *, timeout_s: float = 10.0) -> None:
    """Wait until `holds()`."""

    async def wait() -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.02)

    asyncio.run(wait())
