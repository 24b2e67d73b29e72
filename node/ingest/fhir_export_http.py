"""Requests to a FHIR server: to safe addresses only, with a token of SMART Backend Services, patiently.

Source: HL7 FHIR Bulk Data Access 2.0, SMART App Launch 2.1 (Backend Services, asymmetric authentication).
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from node.ingest.fhir_export_errors import BadKey, ExportFailed, ExportRefused, UnsafeAddress
from privacy import private_files
from protocols.clock import Clock

TIMEOUT_S = 60.0  # between two bytes
ASSERTION_LIFE = timedelta(minutes=4)  # SMART allows five; clocks differ
REFRESH_EARLY = timedelta(seconds=60)
SHORTEST_TOKEN = timedelta(seconds=5)
RSA_BITS = 2048  # at least, for RS384
MAX_ANSWER = 64 << 20  # of a manifest, a token or an error
TRIES = 6  # of one request against a server that is busy or away
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 300.0
AGAIN = {429, 500, 502, 503, 504}
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SCOPE = re.compile(r"[A-Za-z0-9_./*?=&%-]{1,200}( [A-Za-z0-9_./*?=&%-]{1,200}){0,40}")


def checked(address: str, *, step: str) -> str:
    """Return an address if what goes there is encrypted, or stays on this machine.

    Raises: UnsafeAddress.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UnsafeAddress(step, "not an address") from None
    if not host or parts.username is not None or parts.fragment or any(c.isspace() for c in address):
        raise UnsafeAddress(step, "not an address of the form https://host/path")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return address
    raise UnsafeAddress(step, "only https, or http to this machine itself")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin(address: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port: where a token may go."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


@dataclass(frozen=True, slots=True)
class BackendClient:
    """Who this hospital's node is to the FHIR server. key_file: PEM, RSA or P-384, for its owner only."""

    client_id: str
    key_file: Path
    key_id: str | None = None
    token_address: str | None = None
    """Where tokens are given; None asks the server's .well-known/smart-configuration."""
    scope: str = "system/*.read"

    def __post_init__(self) -> None:
        if not self.client_id or not SCOPE.fullmatch(self.scope):
            raise ValueError("needs a client id, and scopes like system/*.read")
        if self.token_address is not None:
            checked(self.token_address, step="token")

    def assertion(self, audience: str, *, now: datetime, nonce: str) -> str:
        """Return the signed claim to be this client. Raises: BadKey, private_files.OpenToOthers."""
        try:
            key = load_pem_private_key(private_files.read_secret(self.key_file), None)
        except (TypeError, ValueError) as error:
            if isinstance(error, private_files.OpenToOthers):
                raise
            raise BadKey("token", "the key file is not an unencrypted PEM private key") from None
        if isinstance(key, RSAPrivateKey) and key.key_size >= RSA_BITS:
            algorithm = "RS384"
        elif isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
            algorithm = "ES384"
        else:
            raise BadKey("token", f"the key must be RSA of {RSA_BITS} bits or more, or on P-384")
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_LIFE,
            "jti": nonce,
        }
        return jwt.encode(claims, key, algorithm, headers={"kid": self.key_id} if self.key_id else None)


def client(*, authority: Path | None = None) -> httpx.Client:
    """Return an HTTP client that follows no redirect and trusts the system's authorities, or this one."""
    trust = ssl.create_default_context(cafile=None if authority is None else str(authority))
    return httpx.Client(verify=trust, timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)


class Requests:
    """Requests of one pull. `sleep` waits; `nonce` gives an id that no other request has."""

    def __init__(
        self,
        base: str,
        http: httpx.Client,
        who: BackendClient | None,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        nonce: Callable[[], str],
    ) -> None:
        self.base = checked(base, step="address").rstrip("/")
        self._http = http
        self._who = who
        self._clock = clock
        self._nonce = nonce
        self.sleep = sleep
        self._token: str | None = None
        self._ends = datetime.min.replace(tzinfo=UTC)

    def get(self, address: str, step: str, *, headers: dict[str, str], method: str = "GET") -> httpx.Response:
        """Return the server's answer, whatever its status, after trying again while it is busy or away.

        Raises: ExportFailed, UnsafeAddress, ExportRefused for the token.
        """
        checked(address, step=step)
        renewed = False
        for attempt in range(TRIES):
            try:
                with self._http.stream(
                    method, address, headers=headers | self._authorization(address)
                ) as answer:
                    _read(answer, step)
            except (httpx.TransportError, httpx.DecodingError):
                self._wait(attempt, None, step)
                continue
            if answer.status_code == 401 and self._who is not None and not renewed:
                self._token, renewed = None, True
            elif answer.status_code in AGAIN and attempt < TRIES - 1:
                self._wait(attempt, answer, step)
            else:
                return answer
        raise ExportFailed(step, "the server did not answer")

    @contextmanager
    def stream(
        self, address: str, step: str, *, headers: dict[str, str], with_token: bool
    ) -> Iterator[httpx.Response]:
        """Open one answer to be read piece by piece. Raises: UnsafeAddress, and httpx's errors."""
        checked(address, step=step)
        extra = self._authorization(address) if with_token else {}
        with self._http.stream("GET", address, headers=headers | extra) as answer:
            yield answer

    def forget_token(self) -> None:
        """Ask for a new token before the next request."""
        self._token = None

    def wait(self, attempt: int, answer: httpx.Response | None) -> None:
        """Wait as long as the server says, else longer each time."""
        self.sleep(retry_after(answer, now=self._clock.now()) or min(FIRST_WAIT_S * 2**attempt, MAX_WAIT_S))

    def _wait(self, attempt: int, answer: httpx.Response | None, step: str) -> None:
        if attempt >= TRIES - 1:
            raise ExportFailed(step, "the server did not answer")
        self.wait(attempt, answer)

    def _authorization(self, address: str) -> dict[str, str]:
        """Return the token's header, for the server's own origin only."""
        if self._who is None or origin(address) != origin(self.base):
            return {}
        now = self._clock.now()
        if self._token is None or now >= self._ends:
            self._token, life = self._new_token(self._who, now)
            self._ends = now + max(life - REFRESH_EARLY, SHORTEST_TOKEN)
        return {"Authorization": f"Bearer {self._token}"}

    def _new_token(self, who: BackendClient, now: datetime) -> tuple[str, timedelta]:
        address = who.token_address or self._token_address()
        form = {
            "grant_type": "client_credentials",
            "scope": who.scope,
            "client_assertion_type": CLIENT_ASSERTION,
            "client_assertion": who.assertion(address, now=now, nonce=self._nonce()),
        }
        try:
            with self._http.stream(
                "POST", address, data=form, headers={"Accept": "application/json"}
            ) as answer:
                _read(answer, "token")
            if answer.status_code != 200:
                raise ExportRefused("token", answer.status_code)
            found = answer.json()
            token, life = found["access_token"], found.get("expires_in", 300)
            if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,16384}", token):
                raise ValueError("token")
            return token, timedelta(seconds=float(life))
        except (httpx.TransportError, httpx.DecodingError):
            raise ExportFailed("token", "the token server did not answer") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ExportFailed("token", "the token server's answer has no token") from None

    def _token_address(self) -> str:
        step = "discovery"
        try:
            with self._http.stream(
                "GET", f"{self.base}/.well-known/smart-configuration", headers={"Accept": "application/json"}
            ) as answer:
                _read(answer, step)
            if answer.status_code != 200:
                raise ExportRefused(step, answer.status_code)
            return checked(str(answer.json()["token_endpoint"]), step="token")
        except (httpx.TransportError, httpx.DecodingError):
            raise ExportFailed(step, "the server did not answer") from None
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UnsafeAddress):
                raise
            raise ExportFailed(step, "the server does not say where tokens are given") from None


def _read(answer: httpx.Response, step: str) -> None:
    """Read an answer, up to a limit, so that its content can be used after the connection."""
    parts, size = [], 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise ExportFailed(step, "the answer is too large")
        parts.append(part)
    answer._content = b"".join(parts)  # what Response.read() does, but within a limit


def retry_after(answer: httpx.Response | None, *, now: datetime) -> float | None:
    """Return for how many seconds a server asks to wait, at most five minutes; None if it does not say."""
    said = None if answer is None else answer.headers.get("Retry-After")
    if not said:
        return None
    try:
        wait = float(said) if said.isdigit() else (parsedate_to_datetime(said) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait, 0.05), MAX_WAIT_S)
