"""An ASGI application on one address, inside somebody else's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

GRACE_S = 3  # for requests that are being answered when it stops
MAX_CONNECTIONS = 512
MAX_HEADER_BYTES = 32_768  # a token has at most 16 kB


@asynccontextmanager
async def listening(app: Any, *, host: str, port: int, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve `app` inside the block; yields the port, a free one for 0. Without `context` there is no TLS."""
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # its lines hold queries
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=128)
    settings = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        http="h11",  # the strict parser
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ssl_context_factory=None if context is None else lambda _config, _make: context,
    )
    server = _Server(settings)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if running.done():
                await running
                raise RuntimeError("the listener did not start")
            await asyncio.sleep(0.01)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await running
        listener.close()


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return TLS 1.2 or newer with these PEM files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


class _Server(uvicorn.Server):
    """Leaves the process's signal handlers alone: whoever runs the loop has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
