"""The gateway as one process: reads its config once, serves over TLS until SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx

from coordinator.channel import open_async_channel
from coordinator.gateway.app import create_app
from coordinator.gateway.asking import Asker
from coordinator.gateway.book import Book
from coordinator.gateway.config import GatewayConfig
from coordinator.gateway.desk import Parts
from coordinator.gateway.issuer import IssuerKeys
from coordinator.gateway.listener import listening, server_context
from coordinator.gateway.pace import Pace
from coordinator.gateway.shield import Shield
from coordinator.gateway.tokens import TokenReader
from coordinator.profile import Profile
from privacy import private_files
from protocols.clock import Clock
from protocols.peer import Role

log = logging.getLogger(__name__)

FORGET_EVERY_S = 3_600.0


class WrongProfile(ValueError):
    """The gateway's credentials are not those of a researcher."""


@dataclass(frozen=True, slots=True)
class ServingGateway:
    """A gateway that serves."""

    port: int
    asker: Asker
    book: Book
    keys: IssuerKeys


@asynccontextmanager
async def serving(config: GatewayConfig, *, clock: Clock) -> AsyncIterator[ServingGateway]:
    """Serve inside the block.

    Raises: MalformedProfile, WrongProfile, OpenToOthers for a key that others may read, BookInUse.
    """
    profile = own_profile(config)
    context = None if config.plain_http else _tls(config)
    async with AsyncExitStack() as stack:
        book = Book(config.book)
        stack.callback(book.close)
        channel = open_async_channel(profile)
        stack.push_async_callback(channel.close, None)
        client = await stack.enter_async_context(issuer_client(config))
        keys = IssuerKeys(config.issuer, client=client, plain_http=config.plain_http)
        asker = Asker(profile, book, channel, clock=clock)
        asker.start()
        stack.push_async_callback(asker.stop)
        parts = Parts(
            tokens=TokenReader(keys, audience=config.audience, groups_claim=config.groups_claim, clock=clock),
            access=config.access,
            pace=Pace(
                questions_per_minute=config.questions_per_minute,
                reads_per_minute=config.reads_per_minute,
                clock=clock,
            ),
            asker=asker,
            book=book,
            clock=clock,
            issuer=config.issuer,
            wait_s=float(config.wait_s),
        )
        app = Shield(create_app(parts), wait_s=config.wait_s, tls=not config.plain_http)
        port = await stack.enter_async_context(
            listening(app, host=config.listen, port=config.port, context=context)
        )
        forgetting = asyncio.create_task(_forget(book, keep=timedelta(days=config.keep_days), clock=clock))
        stack.callback(forgetting.cancel)
        yield ServingGateway(port, asker, book, keys)


def serve(config: GatewayConfig, *, clock: Clock) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line of JSON on stdout when people can connect."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("httpx", "httpcore"):  # each fetch of the keys is a line
        logging.getLogger(chatty).setLevel(logging.WARNING)
    asyncio.run(_serve(config, clock=clock))


async def _serve(config: GatewayConfig, *, clock: Clock) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with serving(config, clock=clock) as found:
        scheme = "http" if config.plain_http else "https"
        host = f"[{config.listen}]" if ":" in config.listen else config.listen
        ready = {"serving": True, "port": found.port, "url": f"{scheme}://{host}:{found.port}/v1"}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def own_profile(config: GatewayConfig) -> Profile:
    """Return the gateway's credentials. Raises: MalformedProfile, WrongProfile."""
    profile = Profile.load(config.profile)
    if profile.role is not Role.RESEARCHER:
        raise WrongProfile("a gateway is a researcher of the roster; a lead may do more than it needs")
    return profile


def _tls(config: GatewayConfig) -> ssl.SSLContext:
    assert config.certificate is not None
    assert config.key is not None
    private_files.read_secret(config.key)  # refuses a key that others may read
    return server_context(str(config.certificate), str(config.key))


def issuer_client(config: GatewayConfig) -> httpx.AsyncClient:
    """Return who fetches the issuer's keys: no redirects, no proxy or authority from the environment."""
    verify = ssl.create_default_context(cafile=str(config.issuer_ca) if config.issuer_ca else None)
    return httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False)


async def _forget(book: Book, *, keep: timedelta, clock: Clock) -> None:
    while True:
        book.forget(now=clock.now(), older_than=keep)
        await asyncio.sleep(FORGET_EVERY_S)
