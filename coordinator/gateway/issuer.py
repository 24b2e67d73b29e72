"""The issuer's public keys: found by OpenID Connect discovery, kept a while, fetched again when they turn.

Guarantee: only keys that the issuer itself publishes over TLS are used, each for one algorithm that follows
from the kind of the key. Symmetric, weak, private and ambiguous keys are left out. However many unknown key
ids are shown, the issuer is asked at most once in MIN_REFRESH_S. A key that the issuer withdraws is used for
at most FRESH_S more, and STALE_S where the issuer cannot be reached.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

log = logging.getLogger(__name__)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

FRESH_S = 600.0  # keys turn over days; ten minutes is how long a withdrawn one may live on
STALE_S = 3_600.0  # an issuer that is down for an hour lets nobody in
MIN_REFRESH_S = 30.0  # between two fetches: an unknown key id is a rotation, or somebody guessing
FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 512 * 1024  # Google, Entra and Keycloak publish some 10 kB
MAX_KEYS = 64
MIN_RSA_BITS = 2_048  # NIST SP 800-131A
MAX_RSA_BITS = 8_192  # more costs seconds a token
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KINDS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}  # kty, crv
ALGORITHMS = frozenset(_KINDS)
WELL_KNOWN = "/.well-known/openid-configuration"


class IssuerUnreachable(Exception):
    """The issuer's keys cannot be had, so no token can be checked."""


class BadIssuer(ValueError):
    """The issuer's address or document cannot be used. Says which part."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One public key of the issuer and the one algorithm it is used with."""

    public: PublicKey
    algorithm: str


class IssuerKeys:
    """The keys of one issuer. Used from one event loop.

    Args:
        client: makes the requests; its TLS settings say which authorities are believed.
        plain_http: allow an issuer on loopback without TLS, for tests and the demo.
        seconds: a clock that only moves forward.
    """

    def __init__(
        self,
        issuer: str,
        *,
        client: httpx.AsyncClient,
        plain_http: bool = False,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._client = client
        self._plain_http = plain_http
        self._seconds = seconds
        self._keys: dict[str, VerifyingKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        check_url(issuer, plain_http=plain_http)

    async def key(self, kid: str) -> VerifyingKey | None:
        """Return the key with this id, or None if the issuer has no such key. Raises: IssuerUnreachable."""
        if kid not in self._keys or self._age() > FRESH_S:
            await self._refresh(kid)
        if self._age() > STALE_S:
            raise IssuerUnreachable
        return self._keys.get(kid)

    def _age(self) -> float:
        return self._seconds() - self._fetched_at

    async def _refresh(self, kid: str) -> None:
        async with self._lock:
            if kid in self._keys and self._age() <= FRESH_S:
                return  # somebody else fetched it meanwhile
            if self._seconds() - self._tried_at < MIN_REFRESH_S:
                return
            self._tried_at = self._seconds()
            try:
                self._keys = await self.fetch()
                self._fetched_at = self._seconds()
            except (httpx.HTTPError, BadIssuer, TimeoutError) as error:
                log.warning("the issuer's keys could not be fetched: %s", type(error).__name__)

    async def fetch(self) -> dict[str, VerifyingKey]:
        """Ask the issuer now. Raises: BadIssuer; httpx.HTTPError, TimeoutError if it cannot be reached."""
        document = await self._json(self.issuer.rstrip("/") + WELL_KNOWN)
        if document.get("issuer") != self.issuer:
            raise BadIssuer("the discovery document names another issuer")
        where = document.get("jwks_uri")
        if not isinstance(where, str):
            raise BadIssuer("the discovery document has no jwks_uri")
        check_url(where, plain_http=self._plain_http)
        return usable_keys(await self._json(where))

    async def _json(self, url: str) -> dict[str, Any]:
        found = bytearray()
        async with (
            asyncio.timeout(FETCH_TIMEOUT_S),
            self._client.stream("GET", url, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                raise BadIssuer("a document is not there")
            async for part in response.aiter_bytes():
                found += part
                if len(found) > MAX_DOCUMENT_BYTES:
                    raise BadIssuer("a document is too large")
        try:
            value = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise BadIssuer("a document is not JSON") from error
        if not isinstance(value, dict):
            raise BadIssuer("a document is not a JSON object")
        return value


def check_url(url: str, *, plain_http: bool) -> None:
    """Accept an https address, or with `plain_http` one of loopback. Raises: BadIssuer."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise BadIssuer("not an address") from error
    if not host or parts.username or parts.password or parts.query or parts.fragment:
        raise BadIssuer("not a plain address")
    if parts.scheme != "https" and not (plain_http and parts.scheme == "http" and host in LOOPBACK):
        raise BadIssuer("an issuer is reached over https")


def usable_keys(jwks: dict[str, Any]) -> dict[str, VerifyingKey]:
    """Return the keys of a JWK set that may verify tokens, by their id. Raises: BadIssuer."""
    listed = jwks.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise BadIssuer(f"a key set lists at most {MAX_KEYS} keys")
    entries = [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("kid"), str)]
    often = Counter(entry["kid"] for entry in entries)
    found = {}
    for entry in entries:
        key = _usable(entry)
        if key is not None and often[entry["kid"]] == 1:  # two keys of one id: which one is meant?
            found[entry["kid"]] = key
    return found


def _usable(entry: dict[str, Any]) -> VerifyingKey | None:
    uses = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses or "d" in entry:
        return None
    algorithm = next(
        (name for name, kind in _KINDS.items() if kind == (entry.get("kty"), entry.get("crv"))), None
    )
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        public = jwt.PyJWK(entry, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey):
        return VerifyingKey(public, algorithm) if MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS else None
    if isinstance(public, Ed25519PublicKey):
        return VerifyingKey(public, algorithm)
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return VerifyingKey(public, algorithm)
    return None
