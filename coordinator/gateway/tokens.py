"""Who is asking: the holder of a bearer token that the consortium's issuer signed for this gateway.

Guarantee: a caller is returned only for a token signed with a published key of the issuer, by the algorithm
of that key and no other, for this audience, within its life. `none` and keyed hashes are refused before any
key is looked up. What is wrong with a token is one word of a closed list; nothing of it is logged or kept.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt

from coordinator.gateway.issuer import ALGORITHMS, IssuerKeys
from protocols import canonical
from protocols.clock import Clock

LEEWAY_S = 30.0  # how far the issuer's clock may stand from ours
MAX_LIFETIME_S = 24 * 3_600.0  # a token cannot be revoked here: what lives longer is refused
MAX_TOKEN_CHARACTERS = 16_384  # with some hundred groups a token has about 8,000
MAX_SUBJECT = 255  # OpenID Connect Core, section 2
MAX_GROUPS = 1_000
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})  # RFC 7519, RFC 9068; an absent one is a JWT

ASK = "fedtwin.ask"  # ask questions, which spends budget
READ = "fedtwin.read"  # previews, own answers, budgets


class Fault(StrEnum):
    """What is wrong with a token."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    CLAIMS = "claims"
    EXPIRED = "expired"
    NOT_YET = "not-yet-valid"
    LIFETIME = "lifetime"


class BadToken(ValueError):
    """The token names nobody. Carries one word and nothing of the token."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Caller:
    """A person whom the issuer vouches for. Prints as the pseudonym only."""

    account: str
    subject: str
    groups: frozenset[str]
    scopes: frozenset[str]

    def __repr__(self) -> str:
        return f"Caller({self.account})"


def account_of(issuer: str, subject: str) -> str:
    """Return the pseudonym under which hospitals charge this person: 52 characters of a-z and 2-7.

    The same person has the same one for ever, at every gateway of the issuer. Whoever knows issuer and
    subject can compute it, and so find out who is meant; nobody else can read it.
    """
    digest = hashlib.sha256(b"fedtwin-gateway-account-v1" + canonical.encode([issuer, subject])).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


class TokenReader:
    """Reads bearer tokens of one issuer for one audience."""

    def __init__(self, keys: IssuerKeys, *, audience: str, groups_claim: str, clock: Clock) -> None:
        self._keys = keys
        self._audience = audience
        self._groups_claim = groups_claim
        self._clock = clock

    async def caller(self, token: str) -> Caller:
        """Return who holds `token`. Raises: BadToken; IssuerUnreachable."""
        algorithm, kid = _header(token)
        key = await self._keys.key(kid)
        if key is None:
            raise BadToken(Fault.UNKNOWN_KEY)
        if key.algorithm != algorithm:
            raise BadToken(Fault.ALGORITHM)
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._keys.issuer,
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    "verify_exp": False,  # times are compared below, with our clock
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidIssuerError:
            raise BadToken(Fault.ISSUER) from None
        except jwt.InvalidAudienceError:
            raise BadToken(Fault.AUDIENCE) from None
        except jwt.InvalidSignatureError:
            raise BadToken(Fault.SIGNATURE) from None
        except jwt.MissingRequiredClaimError:
            raise BadToken(Fault.CLAIMS) from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise BadToken(Fault.MALFORMED) from None
        self._check_times(claims)
        return self._named(claims)

    def _check_times(self, claims: dict[str, Any]) -> None:
        now = self._clock.now().timestamp()
        issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
        if now >= expires + LEEWAY_S:
            raise BadToken(Fault.EXPIRED)
        if issued > now + LEEWAY_S or ("nbf" in claims and _seconds(claims, "nbf") > now + LEEWAY_S):
            raise BadToken(Fault.NOT_YET)
        if expires - issued > MAX_LIFETIME_S:
            raise BadToken(Fault.LIFETIME)

    def _named(self, claims: dict[str, Any]) -> Caller:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT:
            raise BadToken(Fault.CLAIMS)
        groups = claims.get(self._groups_claim, [])
        if not isinstance(groups, list) or len(groups) > MAX_GROUPS:
            raise BadToken(Fault.CLAIMS)
        try:
            account = account_of(self._keys.issuer, subject)
        except UnicodeEncodeError:  # half a surrogate pair
            raise BadToken(Fault.CLAIMS) from None
        return Caller(
            account=account,
            subject=subject,
            groups=frozenset(group for group in groups if isinstance(group, str)),
            scopes=_scopes(claims),
        )


def _header(token: str) -> tuple[str, str]:
    """Return algorithm and key id of a token that has not been checked yet. Raises: BadToken."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise BadToken(Fault.MALFORMED)
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise BadToken(Fault.MALFORMED) from None
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in ALGORITHMS:
        raise BadToken(Fault.ALGORITHM)
    if not isinstance(kind, str) or kind.lower() not in TYPES or "crit" in header or "b64" in header:
        raise BadToken(Fault.MALFORMED)
    if not isinstance(kid, str) or not kid:
        raise BadToken(Fault.UNKNOWN_KEY)
    return str(algorithm), kid


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadToken(Fault.CLAIMS)
    return float(value)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Read `scope` (RFC 8693: one text), or `scp` (Entra, Okta: a text or a list)."""
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            return frozenset(value.split())
        if isinstance(value, list):
            return frozenset(scope for scope in value if isinstance(scope, str))
    return frozenset()
