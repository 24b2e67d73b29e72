"""What stands around every request: a bound on how many, one on how long, headers, one line in the log.

Guarantee: whatever goes wrong inside becomes a problem without the exception's text. The log line holds
method, the path's fixed part, status, milliseconds and the caller's pseudonym; never a header, a query or a
body.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from coordinator.gateway import problems
from coordinator.gateway.problems import Problem

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_AT_ONCE = 256  # requests; most of them wait for an answer
REQUEST_MARGIN_S = 60.0  # above what a request may wait for its answer: the body's timeout and the work
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
TRANSPORT = (b"strict-transport-security", b"max-age=31536000")  # a year; RFC 6797


class Shield:
    """An ASGI application around another."""

    def __init__(self, app: App, *, wait_s: float, tls: bool) -> None:
        self._app = app
        self._limit_s = wait_s + REQUEST_MARGIN_S
        self._headers = [*HEADERS, TRANSPORT] if tls else HEADERS
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = time.monotonic()
        answer = _Answer(send, self._headers)
        scope.setdefault("state", {})
        self._under_way += 1
        try:
            problem = await self._outcome(scope, receive, answer)
            if problem is not None and not answer.status:
                await problem.response()(scope, receive, answer)
        finally:
            self._under_way -= 1
            route = getattr(scope.get("route"), "path", "-")
            account = scope["state"].get("account", "-")
            took_ms = 1000 * (time.monotonic() - began)
            log.info("%s %s %d %.0f ms %s", scope["method"], route, answer.status, took_ms, account)

    async def _outcome(self, scope: Scope, receive: Receive, answer: _Answer) -> Problem | None:
        """Let the application answer; return what to say if it could not."""
        if self._under_way > MAX_AT_ONCE:
            return Problem(problems.BUSY, headers={"retry-after": "1"})
        try:
            async with asyncio.timeout(self._limit_s):
                await self._app(scope, receive, answer)
        except TimeoutError:
            return Problem(problems.SLOW)
        except Exception as error:
            # without the exception's own words: they may quote the request
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("a request failed: %s\n%s", type(error).__name__, place)
            return Problem(problems.INTERNAL)
        return None


class _Answer:
    """Sends what the application sends, with our headers, and remembers the status."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *self._headers]
        await self._send(message)
