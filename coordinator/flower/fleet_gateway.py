"""The one door to Flower for hospitals: a TLS listener that passes the fleet calls and nothing else.

The SuperLink serves control and runtime calls on the same port without authentication. Whatever is not, byte
for byte, one of the paths below is answered 404 here and never reaches the SuperLink.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supercore.error import ApiErrorCode, FlowerError
from google.protobuf.message import DecodeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Revive = Callable[[bytes], Awaitable[int | None]]  # from a public key (PEM) to Flower's id, if admitted

# Every call that a registered SuperNode makes. Registration is not among them: the roster decides it.
CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
ACTIVATE = b"/v1/fleet/activate-node"
DEACTIVATE = b"/v1/fleet/deactivate-node"
PULL_MESSAGES = b"/v1/fleet/pull-messages"
PULL_OBJECT = b"/v1/fleet/pull-object"
HELD = frozenset({PULL_MESSAGES, PULL_OBJECT})
ALLOWED = frozenset({("GET", b"/health"), *(("POST", f"/v1/fleet/{call}".encode()) for call in CALLS)})
FORWARDED = frozenset(
    {
        b"accept",
        b"content-type",
        b"flwr-public-key",
        b"flwr-timestamp",
        b"flwr-signature",
        b"flwr-package-name",
        b"flwr-package-version",
        b"flwr-component-name",
    }
)
RETURNED = frozenset({"content-type", "content-length", "flwr-version-incompatibility-message"})

MAX_BODY_BYTES = 64 * 2**20  # Flower sends arrays in 5 MB objects
MAX_HELD_BYTES = 64 * 2**10  # a pull names a node and an object, nothing else
MAX_AT_ONCE = 256  # connections; more wait or are told to come again
CALLS_PER_S = 400.0  # from one address; a SuperNode at work makes about 20
BURST_CALLS = 800.0
BODY_TIMEOUT_S = 60.0  # for a whole body of MAX_BODY_BYTES: a slow sender does not hold a place for ever
UPSTREAM_TIMEOUT_S = 60.0

# A SuperNode sleeps 3 s after it pulled no message, and 1 s after an object that is still under way. Such an
# answer is held here and asked for again (messages: while a run is on): a round takes a second and not five.
# The SuperNode waits 30 s for an answer; its signature is good for 300 s.
HOLD_S = 15.0
HOLD_AFTER_MESSAGE_S = 60.0  # a run counts as on for this long after the last message
HOLD_POLL_S = 0.05  # for parts of a message, and for the message of a round that was just opened
QUIET_POLL_S = 0.5  # else: each look costs the SuperLink 10 ms, which it needs for what others send
EXPECTED_FOR_S = 5.0  # after a round was opened, its messages are about to come
HOLD_POLL_PER_CALL_S = 0.02  # held calls together ask the SuperLink at most 50 times a second


class TooLarge(Exception):
    """A body is longer than allowed."""


class SlowSender(Exception):
    """A body did not arrive in time."""


class _Caller(Exception):
    """The caller went away."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """A token bucket per caller's address. `clock` counts seconds, monotonic."""

    def __init__(
        self, *, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic, callers: int = 4096
    ) -> None:
        self._per_s, self._burst, self._clock, self._callers = per_s, burst, clock, callers
        self._buckets: dict[str, _Bucket] = {}

    def allows(self, caller: str) -> bool:
        """Take one token of the caller's, if there is one."""
        now = self._clock()
        bucket = self._buckets.pop(caller, None) or _Bucket(self._burst, now)
        self._buckets[caller] = bucket  # most recently seen last
        while len(self._buckets) > self._callers:
            del self._buckets[next(iter(self._buckets))]
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True


class FleetGateway:
    """Listens on `host:port` with the coordinator's certificate; passes fleet calls to the SuperLink."""

    def __init__(
        self,
        *,
        upstream: str,
        upstream_ca: Path,
        certificate: Path,
        key: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        rate: Rate | None = None,
        revive: Revive | None = None,
    ) -> None:
        """`upstream` is the SuperLink's host:port; `port` 0 takes a free one.

        `revive` says which SuperNode a key belongs to, if its hospital is in the roster.
        """
        self._revive = revive
        self._client = httpx.AsyncClient(
            base_url=f"https://{upstream}",
            verify=ssl.create_default_context(cafile=str(upstream_ca)),
            trust_env=False,  # a proxy from the environment must not see loopback traffic
            headers={"accept-encoding": "identity"},  # bytes pass as they are
            timeout=UPSTREAM_TIMEOUT_S,
            limits=httpx.Limits(max_connections=MAX_AT_ONCE, max_keepalive_connections=32),
        )
        self._rate = rate or Rate(per_s=CALLS_PER_S, burst=BURST_CALLS)
        self._held = 0
        self._expected_until = float("-inf")
        self._served: set[bytes] = set()  # calls that have had their message of the round at hand
        self._news = asyncio.Event()
        self._last_message_at = float("-inf")
        self._stopping = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=128)
        self._server = _Server(
            uvicorn.Config(
                self,
                ssl_certfile=str(certificate),
                ssl_keyfile=str(key),
                ws="none",
                lifespan="off",
                http="h11",  # one strict parser in front, another behind: no smuggling between two of a kind
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_AT_ONCE,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
            )
        )
        self._server.config.load()
        assert self._server.config.ssl is not None
        self._server.config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    def expect_messages(self) -> None:
        """Say that a round was opened: each SuperNode is about to get a message. It is looked for at once."""
        self._expected_until = time.monotonic() + EXPECTED_FOR_S
        self._served.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def start(self) -> None:
        """Listen."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the fleet gateway did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop listening and close all connections. Safe to call twice."""
        self._stopping.set()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
            self._serving = None
        self._socket.close()
        await self._client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        # The path as it stood in the request line: nothing is unquoted, normalised or joined.
        path: bytes = scope.get("raw_path") or b""
        if (scope["method"], path) not in ALLOWED or scope["query_string"]:
            await _answer(send, 404)
        elif not self._rate.allows(_address(scope)):
            await _answer(send, 503)  # a SuperNode comes again after 503, and gives up after 429
        else:
            try:
                await self._pass(scope, path, receive, send)
            except TooLarge:
                await _answer(send, 413)
            except SlowSender:
                await _answer(send, 408)
            except _Caller:
                return

    async def _pass(self, scope: Scope, path: bytes, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name in FORWARDED]
        if path == ACTIVATE:
            body = b"".join([part async for part in _body(scope, receive, most=MAX_HELD_BYTES)])
            await self._activate(headers, body, send)
            return
        if path in HELD:
            body = b"".join([part async for part in _body(scope, receive, most=MAX_HELD_BYTES)])
            await self._hold(path, headers, body, send)
            return
        length = _content_length(scope)
        content: AsyncIterator[bytes] | None = None
        if scope["method"] == "POST":
            content = _body(scope, receive, most=MAX_BODY_BYTES)
            if length is not None:
                headers.append((b"content-length", str(length).encode()))
        request = self._client.build_request(scope["method"], path.decode(), headers=headers, content=content)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError:
            await _answer(send, 503)
            return
        try:
            await send(_start(response))
            with contextlib.suppress(httpx.HTTPError):
                async for part in response.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()

    async def _hold(self, path: bytes, headers: Headers, body: bytes, send: Send) -> None:
        """Pass a call for something that may not be there yet: ask again here before saying so."""
        began = time.monotonic()
        self._held += 1
        try:
            while True:
                try:
                    response = await self._client.post(path.decode(), headers=headers, content=body)
                except httpx.HTTPError:
                    await _answer(send, 503)
                    return
                if not response.is_success or self._is_there(path, response.content):
                    if path == PULL_MESSAGES and time.monotonic() < self._expected_until:
                        self._served.add(body)
                    break
                if self._stopping.is_set() or time.monotonic() - began > self._patience(path):
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self._pause_s(path, body))
        finally:
            self._held -= 1
        await send(_start(response))
        await send({"type": "http.response.body", "body": response.content})

    async def _activate(self, headers: Headers, body: bytes, send: Send) -> None:
        """Pass an activation. A SuperNode that was killed counts as online for a minute: let it in now.

        Flower refuses to activate it meanwhile. The caller has just signed as this SuperNode, so its old
        connection is ended in its name (the signature covers the time, not the call), and it is let in.
        """
        try:
            response = await self._client.post(ACTIVATE.decode(), headers=headers, content=body)
            # The SuperLink has checked the signature before it says that a node cannot be activated.
            if self._revive is not None and _not_activated(response):
                key = ActivateNodeRequest.FromString(body).public_key
                stale = await self._revive(key)
                if stale is not None:
                    ending = DeactivateNodeRequest(node_id=stale).SerializeToString()
                    await self._client.post(DEACTIVATE.decode(), headers=headers, content=ending)
                    response = await self._client.post(ACTIVATE.decode(), headers=headers, content=body)
        except (httpx.HTTPError, DecodeError):
            await _answer(send, 503)
            return
        await send(_start(response))
        await send({"type": "http.response.body", "body": response.content})

    def _is_there(self, path: bytes, body: bytes) -> bool:
        """Whether an answer holds what was asked for. What cannot be read is passed on."""
        try:
            if path == PULL_OBJECT:
                found = PullObjectResponse.FromString(body)
                return found.object_available or not found.object_found
            if not PullMessagesResponse.FromString(body).messages_list:
                return False
        except DecodeError:
            return True
        self._last_message_at = time.monotonic()
        return True

    def _pause_s(self, path: bytes, body: bytes) -> float:
        """Return how long after one look the next one is taken."""
        expected = time.monotonic() < self._expected_until and body not in self._served
        pause_s = HOLD_POLL_S if path == PULL_OBJECT or expected else QUIET_POLL_S
        return max(pause_s, HOLD_POLL_PER_CALL_S * self._held)

    def _patience(self, path: bytes) -> float:
        """Return how long a call is held: for a message only while a run is on."""
        on = time.monotonic() - self._last_message_at < HOLD_AFTER_MESSAGE_S
        return HOLD_S if on or path == PULL_OBJECT else 0.0


def _not_activated(response: httpx.Response) -> bool:
    found = FlowerError.from_json(response.text) if response.is_error else None
    return found is not None and found.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED


class _Server(uvicorn.Server):
    """Leaves the process's signal handlers alone: the coordinator has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _body(scope: Scope, receive: Receive, *, most: int) -> AsyncIterator[bytes]:
    length = _content_length(scope)
    if length is not None and length > most:
        raise TooLarge
    ends = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
    seen, more = 0, True
    while more:
        try:
            async with asyncio.timeout_at(ends):
                event = await receive()
        except TimeoutError as error:
            raise SlowSender from error
        if event["type"] == "http.disconnect":
            raise _Caller
        part: bytes = event.get("body", b"")
        seen += len(part)
        if seen > most:
            raise TooLarge
        more = event.get("more_body", False)
        if part:
            yield part


def _content_length(scope: Scope) -> int | None:
    found = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(found[0]) if found else None  # the parser has checked it


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _start(response: httpx.Response) -> dict[str, Any]:
    headers = [
        (name.encode(), value.encode())
        for name, value in response.headers.items()
        if name.lower() in RETURNED
    ]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
