"""When the issuer's keys are fetched, and what of the issuer is believed."""

import asyncio
from typing import Any

import httpx
import pytest

from coordinator.gateway.issuer import (
    FRESH_S,
    MAX_DOCUMENT_BYTES,
    MIN_REFRESH_S,
    STALE_S,
    BadIssuer,
    IssuerKeys,
    IssuerUnreachable,
    check_url,
)
from protocols.clock import SystemClock
from sim.identity_provider import IdentityProvider, SigningKey, create_app

ISSUER = "https://issuer.example.org"


class Seconds:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Issuer(httpx.AsyncBaseTransport):
    """The demo issuer, reached without sockets; may be down, and counts what it is asked."""

    def __init__(self) -> None:
        self.provider = IdentityProvider(ISSUER, audience="gateway", clock=SystemClock())
        self.inner = httpx.ASGITransport(create_app(self.provider))
        self.down = False
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.down:
            raise httpx.ConnectError("down")
        return await self.inner.handle_async_request(request)


def keys_of(issuer: httpx.AsyncBaseTransport, seconds: Seconds | None = None) -> IssuerKeys:
    client = httpx.AsyncClient(transport=issuer)
    return IssuerKeys(ISSUER, client=client, seconds=seconds or Seconds())


def test_keys_are_fetched_once_and_kept() -> None:
    async def story() -> None:
        issuer = Issuer()
        keys = keys_of(issuer)
        for _ in range(5):
            assert await keys.key(issuer.provider.key.kid) is not None
        assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]

    asyncio.run(story())


def test_many_callers_at_once_make_one_fetch() -> None:
    async def story() -> None:
        issuer = Issuer()
        keys = keys_of(issuer)
        found = await asyncio.gather(*(keys.key(issuer.provider.key.kid) for _ in range(50)))
        assert all(found)
        assert len(issuer.asked) == 2

    asyncio.run(story())


def test_a_new_key_is_found_after_the_shortest_pause_and_not_before() -> None:
    async def story() -> None:
        issuer, seconds = Issuer(), Seconds()
        keys = keys_of(issuer, seconds)
        await keys.key(issuer.provider.key.kid)
        new = issuer.provider.rotate()
        seconds.now += MIN_REFRESH_S - 1
        assert await keys.key(new.kid) is None
        seconds.now += 2
        assert await keys.key(new.kid) is not None

    asyncio.run(story())


def test_a_withdrawn_key_lives_on_for_the_fresh_time_only() -> None:
    async def story() -> None:
        issuer, seconds = Issuer(), Seconds()
        keys = keys_of(issuer, seconds)
        old = issuer.provider.key.kid
        await keys.key(old)
        issuer.provider.rotate(keep_old=False)
        seconds.now += FRESH_S - 1
        assert await keys.key(old) is not None
        seconds.now += 2
        assert await keys.key(old) is None

    asyncio.run(story())


def test_an_issuer_that_is_down_lets_its_people_in_for_an_hour_and_no_longer() -> None:
    async def story() -> None:
        issuer, seconds = Issuer(), Seconds()
        keys = keys_of(issuer, seconds)
        kid = issuer.provider.key.kid
        await keys.key(kid)
        issuer.down = True
        seconds.now += STALE_S - 1
        assert await keys.key(kid) is not None
        seconds.now += 2
        with pytest.raises(IssuerUnreachable):
            await keys.key(kid)
        issuer.down = False
        seconds.now += MIN_REFRESH_S
        assert await keys.key(kid) is not None

    asyncio.run(story())


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": ISSUER + "/", "jwks_uri": ISSUER + "/jwks"},
        {"jwks_uri": ISSUER + "/jwks"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://issuer.example.org/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": "https://ada:pw@issuer.example.org/jwks"},
        {"issuer": ISSUER, "jwks_uri": ISSUER + "/jwks", "padding": "x" * MAX_DOCUMENT_BYTES},
        [],
        "text",
    ],
)
def test_a_discovery_document_that_is_wrong_gives_no_keys(document: Any) -> None:
    jwks = {"keys": [SigningKey.new("ES256").public_jwk()]}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=jwks if request.url.path == "/jwks" else document)

    async def story() -> None:
        keys = keys_of(httpx.MockTransport(answer))
        with pytest.raises(BadIssuer):
            await keys.fetch()
        with pytest.raises(IssuerUnreachable):
            await keys.key("any")

    asyncio.run(story())


@pytest.mark.parametrize("answer", [httpx.Response(302, headers={"location": "https://evil.example"}), None])
def test_a_redirect_and_nonsense_give_no_keys(answer: httpx.Response | None) -> None:
    async def story() -> None:
        keys = keys_of(httpx.MockTransport(lambda _: answer or httpx.Response(200, content=b"[" * 9_999)))
        with pytest.raises(BadIssuer):
            await keys.fetch()

    asyncio.run(story())


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example.org",
        "ftp://issuer.example.org",
        "https://",
        "issuer.example.org",
        "https://a:b@issuer.example.org",
        "https://issuer.example.org?tenant=1",
        "https://[",
        "http://localhost.example.org",
    ],
)
def test_an_issuer_is_reached_over_https(url: str) -> None:
    with pytest.raises(BadIssuer):
        check_url(url, plain_http=True)


def test_plain_http_is_for_loopback_and_asked_for() -> None:
    check_url("http://127.0.0.1:8444", plain_http=True)
    with pytest.raises(BadIssuer):
        check_url("http://127.0.0.1:8444", plain_http=False)
