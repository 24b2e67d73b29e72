"""The demo issuer speaks OpenID Connect as far as a command line and a gateway need it, and no further."""

import base64
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from protocols.clock import FixedClock, SystemClock
from sim.identity_provider import DEVICE_GRANT, DEVICE_LIFE_S, IdentityProvider, User, create_app

ISSUER = "http://127.0.0.1:8444"


class Asking:
    """Requests to an issuer, without sockets."""

    def __init__(self) -> None:
        self.clock = FixedClock(SystemClock().now())
        self.provider = IdentityProvider(
            ISSUER,
            audience="gateway",
            users=(User("ada", "analytical", ("team",)), User("eve", "apple", scopes=("fedtwin.read",))),
            clients={"notebook": "s3cret"},
            client_groups=("robots",),
            clock=self.clock,
        )

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(create_app(self.provider))
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            return await client.request(method, path, **more)

    def post(self, path: str, *, basic: str | None = None, **form: str) -> httpx.Response:
        import asyncio

        headers = {}
        if basic is not None:
            headers["authorization"] = "Basic " + base64.b64encode(basic.encode()).decode()
        return asyncio.run(self("POST", path, data=form, headers=headers))

    def get(self, path: str) -> httpx.Response:
        import asyncio

        return asyncio.run(self("GET", path))

    def claims(self, token: str) -> dict[str, Any]:
        """Return a token's claims, checked with the published keys as any client would."""
        kid = jwt.get_unverified_header(token)["kid"]
        (key,) = [entry for entry in self.get("/jwks").json()["keys"] if entry["kid"] == kid]
        found: dict[str, Any] = jwt.decode(
            token, jwt.PyJWK(key).key, algorithms=[key["alg"]], audience="gateway", issuer=ISSUER
        )
        return found


@pytest.fixture
def ask() -> Asking:
    return Asking()


def test_the_discovery_document_leads_to_keys_and_tokens(ask: Asking) -> None:
    document = ask.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == ISSUER
    for name in ("jwks_uri", "token_endpoint", "device_authorization_endpoint"):
        assert document[name].startswith(ISSUER)
    assert set(ask.get("/jwks").json()["keys"][0]) == {"kid", "kty", "crv", "alg", "use", "x", "y"}  # no "d"


def test_a_client_with_its_secret_gets_a_token_and_without_it_none(ask: Asking) -> None:
    reply = ask.post(
        "/token", basic="notebook:s3cret", grant_type="client_credentials", scope="fedtwin.ask x"
    )
    claims = ask.claims(reply.json()["access_token"])
    assert (claims["sub"], claims["scope"], claims["groups"]) == ("notebook", "fedtwin.ask", ["robots"])
    assert reply.headers["cache-control"] == "no-store"
    for basic in ("notebook:wrong", "nobody:s3cret", "notebook", ":", None):
        assert ask.post("/token", basic=basic, grant_type="client_credentials").status_code == 401
    assert ask.post("/token", basic="notebook:s3cret", grant_type="password").status_code == 400


def device(ask: Asking, scope: str = "fedtwin.ask fedtwin.read") -> dict[str, Any]:
    begun: dict[str, Any] = ask.post("/device_authorization", client_id="fedtwin-cli", scope=scope).json()
    return begun


def poll(ask: Asking, begun: dict[str, Any], client: str = "fedtwin-cli") -> dict[str, Any]:
    reply: dict[str, Any] = ask.post(
        "/token", grant_type=DEVICE_GRANT, device_code=begun["device_code"], client_id=client
    ).json()
    return reply


def test_a_person_signs_a_command_line_in_once(ask: Asking) -> None:
    begun = device(ask)
    assert poll(ask, begun) == {"error": "authorization_pending"}
    assert begun["user_code"] in ask.get(begun["verification_uri_complete"].removeprefix(ISSUER)).text
    wrong = ask.post("/device", user_code=begun["user_code"], username="ada", password="apple")
    assert wrong.status_code == 403
    assert poll(ask, begun) == {"error": "authorization_pending"}
    right = ask.post("/device", user_code=begun["user_code"].lower(), username="ada", password="analytical")
    assert right.status_code == 200
    claims = ask.claims(poll(ask, begun)["access_token"])
    assert (claims["sub"], claims["groups"]) == ("ada", ["team"])
    assert poll(ask, begun) == {"error": "invalid_grant"}
    again = ask.post("/device", user_code=begun["user_code"], username="ada", password="analytical")
    assert again.status_code == 403


def test_nobody_gets_more_than_they_may(ask: Asking) -> None:
    begun = device(ask)
    ask.post("/device", user_code=begun["user_code"], username="eve", password="apple")
    assert ask.claims(poll(ask, begun)["access_token"])["scope"] == "fedtwin.read"
    assert ask.post("/device_authorization", client_id="stranger").status_code == 401
    begun = device(ask)
    ask.post("/device", user_code=begun["user_code"], username="ada", password="analytical")
    assert poll(ask, begun, client="stranger") == {"error": "invalid_grant"}
    ask.clock.advance(timedelta(seconds=DEVICE_LIFE_S + 1))
    assert poll(ask, begun) == {"error": "expired_token"}


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_keys_rotate_and_old_tokens_hold_while_the_old_key_is_published(ask: Asking, algorithm: str) -> None:
    old = ask.provider.token("ada")
    new = ask.provider.rotate(algorithm)
    assert new.algorithm == jwt.get_unverified_header(ask.provider.token("ada"))["alg"] == algorithm
    assert ask.claims(ask.provider.token("ada"))["sub"] == ask.claims(old)["sub"]
    ask.provider.rotate(algorithm, keep_old=False)
    assert [key["kid"] for key in ask.get("/jwks").json()["keys"]] == [ask.provider.key.kid]


def test_it_says_what_it_is_for_and_shows_no_secret(ask: Asking) -> None:
    assert "Never in production" in ask.get("/device?user_code=%3Cscript%3E").text
    assert "<script>" not in ask.get("/device?user_code=%3Cscript%3E").text
    assert "analytical" not in repr(User("ada", "analytical"))
    assert "private" not in repr(ask.provider.key)
