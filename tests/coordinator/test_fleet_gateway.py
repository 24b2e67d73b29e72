"""The gateway passes fleet calls and nothing else, whatever the request line looks like."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message

from coordinator.flower import fleet_gateway
from coordinator.flower.fleet_gateway import FleetGateway, Rate
from tests.network.flower_sites import Consortium

EMPTY_PULL = PullMessagesResponse().SerializeToString()
FULL_PULL = PullMessagesResponse(messages_list=[Message()]).SerializeToString()


class Upstream:
    """Answers 200 to everything and remembers what reached it: the SuperLink at its most careless."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.headers: dict[str, str] = {}
        self.answers: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        size, more = 0, True
        while more:
            event = await receive()
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        self.seen.append((scope["method"], scope["raw_path"].decode(), size))
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = self.answers.pop(0) if self.answers else b"reached"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Door:
    """A gateway before an upstream, and a raw socket's way to it."""

    def __init__(self, gateway: FleetGateway, upstream: Upstream, ca: Path) -> None:
        self.gateway, self.upstream, self._ca = gateway, upstream, ca

    async def raw(self, request: bytes, *, end: bool = False) -> bytes:
        """Send bytes as they are; return the first line and what follows it."""
        context = ssl.create_default_context(cafile=str(self._ca))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port, ssl=context)
        try:
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await asyncio.wait_for(reader.read(65536), 10)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def ask(self, line: str, *headers: str, body: bytes = b"") -> int:
        """Send one request; return its status."""
        head = [line, "Host: gateway", f"Content-Length: {len(body)}", *headers, "", ""]
        answer = await self.raw("\r\n".join(head).encode() + body)
        return int(answer.split(b" ", 2)[1])


@contextlib.asynccontextmanager
async def door(folder: Path, *, rate: Rate | None = None) -> AsyncIterator[Door]:
    consortium, upstream = Consortium(folder), Upstream()
    config = uvicorn.Config(
        upstream,
        host="127.0.0.1",
        port=0,
        ssl_certfile=str(consortium.certificate),
        ssl_keyfile=str(consortium.key),
        log_config=None,
        lifespan="off",
        ws="none",
    )
    server = fleet_gateway._Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    gateway = FleetGateway(
        upstream=f"127.0.0.1:{port}",
        upstream_ca=consortium.ca,
        certificate=consortium.certificate,
        key=consortium.key,
        rate=rate,
    )
    await gateway.start()
    try:
        yield Door(gateway, upstream, consortium.ca)
    finally:
        await gateway.stop()
        server.should_exit = True
        await serving


REFUSED = [
    "GET / HTTP/1.1",
    "GET /docs HTTP/1.1",
    "GET /openapi.json HTTP/1.1",
    "POST /v1/control/start-run HTTP/1.1",
    "POST /v1/control/register-node HTTP/1.1",
    "POST /v1/runtime/acquire-task HTTP/1.1",
    "POST /v1/fleet/register-node HTTP/1.1",
    "POST /v1/fleet/../control/start-run HTTP/1.1",
    "POST /v1/fleet/%2e%2e/control/start-run HTTP/1.1",
    "POST /v1/fleet/..%2fcontrol/start-run HTTP/1.1",
    "POST /v1/fleet/..%5ccontrol/start-run HTTP/1.1",
    "POST /v1/fleet/pull-messages/../../control/start-run HTTP/1.1",
    "POST /v1/fleet/pull-messages/ HTTP/1.1",
    "POST /v1/fleet/pull-messages;x=/v1/control/start-run HTTP/1.1",
    "POST /v1/fleet/pull-messages?x=1 HTTP/1.1",
    "POST /v1/fleet/pull-messages%00 HTTP/1.1",
    "POST //v1/fleet/pull-messages HTTP/1.1",
    "POST //v1//control/start-run HTTP/1.1",
    "POST /V1/CONTROL/START-RUN HTTP/1.1",
    "POST /%76%31/control/start-run HTTP/1.1",
    "POST https://127.0.0.1/v1/control/start-run HTTP/1.1",
    "POST https://127.0.0.1/v1/fleet/pull-messages HTTP/1.1",
    "POST https://127.0.0.1/v1/fleet/get-run HTTP/1.1",
    "POST *  HTTP/1.1",
    "GET /v1/fleet/pull-messages HTTP/1.1",
    "PUT /v1/fleet/pull-messages HTTP/1.1",
    "POST /health HTTP/1.1",
    "TRACE /health HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT 127.0.0.1:22 HTTP/1.1",
    "CONNECT /v1/fleet/pull-messages HTTP/1.1",
]


def test_nothing_but_fleet_calls_reaches_the_superlink(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as found:
            for line in REFUSED:
                assert await found.ask(line) in (400, 404), line
            assert found.upstream.seen == []

    asyncio.run(scenario())


def test_upgrades_and_smuggled_requests_reach_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as found:
            upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
            assert await found.ask("GET /v1/control/stream-logs HTTP/1.1", *upgrade) in (400, 404)
            clear = ("Connection: Upgrade", "Upgrade: h2c")
            assert await found.ask("GET /v1/control/stream-logs HTTP/1.1", *clear) == 404
            inner = b"POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            both = (
                b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner
            )
            await found.raw(both)
            twice = (
                b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                b"Content-Length: 70\r\n\r\n" + inner
            )
            await found.raw(twice)
            # In one connection, after an honest request: judged by itself.
            honest = b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            await found.raw(honest + inner)
            assert {path for _, path, _ in found.upstream.seen} <= {"/v1/fleet/get-run"}

    asyncio.run(scenario())


def test_every_fleet_call_passes_with_its_body_and_signature(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as found:
            assert await found.ask("GET /health HTTP/1.1") == 200
            for call in fleet_gateway.CALLS:
                line = f"POST /v1/fleet/{call} HTTP/1.1"
                signed = ("flwr-signature: c2ln", "cookie: secret", "x-forwarded-for: 10.0.0.1")
                assert await found.ask(line, *signed, body=b"twelve bytes") == 200
                assert found.upstream.seen[-1] == ("POST", f"/v1/fleet/{call}", 12)
                assert found.upstream.headers["flwr-signature"] == "c2ln"
                assert not {"cookie", "x-forwarded-for"} & set(found.upstream.headers)

    asyncio.run(scenario())


def test_a_body_above_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_gateway, "MAX_BODY_BYTES", 1000)
    monkeypatch.setattr(fleet_gateway, "MAX_HELD_BYTES", 100)

    async def scenario() -> None:
        async with door(tmp_path) as found:
            assert await found.ask("POST /v1/fleet/push-object HTTP/1.1", body=b"x" * 1001) == 413
            assert await found.ask("POST /v1/fleet/pull-messages HTTP/1.1", body=b"x" * 101) == 413
            chunked = (
                b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
            )
            assert b" 413 " in (await found.raw(chunked))[:20]
            assert await found.ask("POST /v1/fleet/push-object HTTP/1.1", body=b"x" * 1000) == 200

    asyncio.run(scenario())


def test_a_caller_that_asks_too_often_is_told_to_come_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path, rate=Rate(per_s=0.001, burst=2.0)) as found:
            answers = [await found.ask("POST /v1/fleet/get-run HTTP/1.1") for _ in range(3)]
            assert answers == [200, 200, 503]

    asyncio.run(scenario())


def test_a_rate_refills_with_time_and_forgets_old_callers() -> None:
    now = [0.0]
    rate = Rate(per_s=1.0, burst=1.0, clock=lambda: now[0], callers=2)
    assert rate.allows("a")
    assert not rate.allows("a")
    now[0] = 1.0
    assert rate.allows("a")
    assert rate.allows("b")
    assert rate.allows("c")  # the third caller: the one seen longest ago is forgotten
    assert len(rate._buckets) == 2


def test_an_empty_pull_is_held_while_a_run_is_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as found:
            line, upstream = "POST /v1/fleet/pull-messages HTTP/1.1", found.upstream
            upstream.answers = [EMPTY_PULL]
            assert await found.ask(line) == 200  # no run yet: passed on at once
            assert len(upstream.seen) == 1
            upstream.answers = [FULL_PULL]
            await found.ask(line)
            upstream.answers = [EMPTY_PULL, EMPTY_PULL, FULL_PULL]
            await found.ask(line)
            assert len(upstream.seen) == 5  # asked three times, answered once, with the message
            assert upstream.answers == []

    asyncio.run(scenario())
