"""A small OpenID Connect issuer on this machine: for tests and the demo, NOT for production.

It is a real one as far as a gateway or a command-line client can tell: discovery, a JWK set whose keys
rotate, client credentials (RFC 6749, section 4.4) and the device flow (RFC 8628), access tokens as RFC 9068
has them. What it lacks is everything that protects people: their passwords lie in its memory, nothing limits
guesses, and everything is forgotten when it stops.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import html
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from coordinator.gateway.listener import listening
from protocols.clock import Clock

WARNING = "For tests and the demo. Never in production: it protects nobody's password."
TOKEN_LIFE_S = 600
DEVICE_LIFE_S = 600
DEVICE_POLL_S = 1
MAX_FORM_BYTES = 16_384
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES = ("fedtwin.ask", "fedtwin.read")
PAGE = """<!doctype html><title>Sign in</title><p><b>{warning}</b></p><p>{said}</p>
<form method="post"><p>Code <input name="user_code" value="{code}"></p>
<p>Name <input name="username"></p><p>Password <input name="password" type="password"></p>
<button>Sign in</button></form>"""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can sign in. Prints without the password."""

    name: str
    password: str = field(repr=False)
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = SCOPES


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs tokens, under an id."""

    kid: str
    algorithm: str
    private: PrivateKey = field(repr=False)

    @classmethod
    def new(cls, algorithm: str = "ES256") -> SigningKey:
        """Return a fresh key. Raises: KeyError for an algorithm it does not know."""
        made: dict[str, Any] = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
            "EdDSA": Ed25519PrivateKey.generate,
        }
        return cls(secrets.token_hex(8), algorithm, made[algorithm]())

    def public_jwk(self) -> dict[str, Any]:
        """Return the public half as it is published."""
        own = jwt.get_algorithm_by_name(self.algorithm)
        jwk: dict[str, Any] = own.to_jwk(self.private.public_key(), as_dict=True)
        return {key: value for key, value in jwk.items() if key != "key_ops"} | {
            "kid": self.kid,
            "use": "sig",
            "alg": self.algorithm,
        }


@dataclass(eq=False)
class _Device:
    """A command-line client that waits for somebody to sign in."""

    client: str
    scopes: tuple[str, ...]
    expires_at_s: float
    user: User | None = None


class IdentityProvider:
    """Users, clients and keys of one issuer.

    Args:
        issuer: its address as tokens spell it.
        audience: the `aud` of every token.
        clients: secrets of confidential clients by name; each is a subject of its own (client credentials).
        public_clients: names that the device flow may be started with.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        users: tuple[User, ...] = (),
        clients: Mapping[str, str] | None = None,
        client_groups: tuple[str, ...] = (),
        public_clients: tuple[str, ...] = ("fedtwin-cli",),
        clock: Clock,
        algorithm: str = "ES256",
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self._users = {user.name: user for user in users}
        self._clients = dict(clients or {})
        self._client_groups = client_groups
        self._public_clients = public_clients
        self._clock = clock
        self._keys = [SigningKey.new(algorithm)]
        self._devices: dict[str, _Device] = {}  # by device code
        self._codes: dict[str, str] = {}  # device code by user code

    @property
    def key(self) -> SigningKey:
        """The key that signs now."""
        return self._keys[-1]

    def rotate(self, algorithm: str = "ES256", *, keep_old: bool = True) -> SigningKey:
        """Sign with a new key from now on. The old ones stay published unless told otherwise."""
        self._keys = [*(self._keys if keep_old else []), SigningKey.new(algorithm)]
        return self.key

    def token(self, subject: str, *, groups: tuple[str, ...] = (), scopes: tuple[str, ...] = SCOPES) -> str:
        """Return an access token."""
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_LIFE_S,
            "jti": secrets.token_hex(16),
            "scope": " ".join(scopes),
            "groups": list(groups),
        }
        headers = {"kid": self.key.kid, "typ": "at+jwt"}
        return jwt.encode(claims, self.key.private, algorithm=self.key.algorithm, headers=headers)

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document."""
        base = self.issuer.rstrip("/")
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{base}/jwks",
            "token_endpoint": f"{base}/token",
            "device_authorization_endpoint": f"{base}/device_authorization",
            "grant_types_supported": ["client_credentials", DEVICE_GRANT],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "EdDSA"],
            "scopes_supported": list(SCOPES),
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        }

    def jwks(self) -> dict[str, Any]:
        """Return every published key."""
        return {"keys": [key.public_jwk() for key in self._keys]}

    # ---- what the addresses do ----

    def grant(self, form: Mapping[str, str], *, authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint: (status, body)."""
        kind = form.get("grant_type")
        if kind == "client_credentials":
            name = self._client(authorization)
            if name is None:
                return 401, {"error": "invalid_client"}
            scopes = _scopes(form.get("scope"), SCOPES)
            return 200, self._granted(self.token(name, groups=self._client_groups, scopes=scopes), scopes)
        if kind == DEVICE_GRANT:
            return self._device_grant(form)
        return 400, {"error": "unsupported_grant_type"}

    def begin_device(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Start the device flow: a code for the client and one for the person."""
        client = form.get("client_id", "")
        if client not in self._public_clients:
            return 401, {"error": "invalid_client"}
        code, user_code = secrets.token_urlsafe(32), _user_code()
        expires = self._clock.now().timestamp() + DEVICE_LIFE_S
        self._devices[code] = _Device(client, _scopes(form.get("scope"), SCOPES), expires)
        self._codes[user_code] = code
        where = f"{self.issuer.rstrip('/')}/device"
        return 200, {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": where,
            "verification_uri_complete": f"{where}?user_code={user_code}",
            "expires_in": DEVICE_LIFE_S,
            "interval": DEVICE_POLL_S,
        }

    def sign_in(self, form: Mapping[str, str]) -> bool:
        """Let a person vouch for the client whose code they were shown."""
        user = self._users.get(form.get("username", ""))
        code = self._codes.get(form.get("user_code", "").strip().upper(), "")
        device = self._devices.get(code)
        given = form.get("password", "").encode()
        if user is None or device is None or not hmac.compare_digest(user.password.encode(), given):
            return False
        device.user = user
        return True

    def _device_grant(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        device = self._devices.get(form.get("device_code", ""))
        if device is None or form.get("client_id") != device.client:
            return 400, {"error": "invalid_grant"}
        if self._clock.now().timestamp() > device.expires_at_s:
            return 400, {"error": "expired_token"}
        if device.user is None:
            return 400, {"error": "authorization_pending"}
        del self._devices[form["device_code"]]  # one token for each sign-in
        scopes = tuple(scope for scope in device.scopes if scope in device.user.scopes)
        token = self.token(device.user.name, groups=device.user.groups, scopes=scopes)
        return 200, self._granted(token, scopes)

    def _granted(self, token: str, scopes: tuple[str, ...]) -> dict[str, Any]:
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE_S,
            "scope": " ".join(scopes),
        }

    def _client(self, authorization: str) -> str | None:
        """Return the confidential client that an Authorization header names rightly."""
        scheme, _, value = authorization.partition(" ")
        try:
            name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return None
        known = self._clients.get(name)
        if scheme.lower() != "basic" or known is None:
            return None
        return name if hmac.compare_digest(known.encode(), secret.encode()) else None


def create_app(provider: IdentityProvider) -> FastAPI:
    """Return the issuer's addresses as an ASGI application."""
    app = FastAPI(title="fedtwin demo issuer", description=WARNING, docs_url=None, redoc_url=None)

    @app.get("/.well-known/openid-configuration")
    async def discovery() -> Response:
        return JSONResponse(provider.discovery())

    @app.get("/jwks")
    async def jwks() -> Response:
        return JSONResponse(provider.jwks())

    @app.post("/token")
    async def token(request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        status, body = provider.grant(await _form(request), authorization=authorization)
        return JSONResponse(body, status, headers={"cache-control": "no-store"})

    @app.post("/device_authorization")
    async def device_authorization(request: Request) -> Response:
        status, body = provider.begin_device(await _form(request))
        return JSONResponse(body, status, headers={"cache-control": "no-store"})

    @app.get("/device")
    async def device(user_code: str = "") -> Response:
        return _page("Sign in to let the command line ask in your name.", code=user_code)

    @app.post("/device")
    async def signed_in(request: Request) -> Response:
        form = await _form(request)
        if provider.sign_in(form):
            return _page("You are signed in. The command line goes on by itself.")
        return _page("That did not match.", code=form.get("user_code", ""), status=403)

    return app


async def run(provider: IdentityProvider, *, port: int) -> None:
    """Serve on loopback without TLS until cancelled."""
    async with listening(create_app(provider), host="127.0.0.1", port=port, context=None):
        await asyncio.Event().wait()


async def _form(request: Request) -> dict[str, str]:
    body = await request.body()
    return dict(parse_qsl(body[:MAX_FORM_BYTES].decode(errors="replace")))


def _page(said: str, *, code: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(warning=WARNING, said=said, code=html.escape(code)), status)


def _scopes(asked: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if asked is None:
        return known
    return tuple(scope for scope in asked.split() if scope in known)


def _user_code() -> str:
    letters = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628, section 6.1: no vowels, so no words
    text = "".join(secrets.choice(letters) for _ in range(8))
    return f"{text[:4]}-{text[4:]}"
