"""Signing in from the command line: the OAuth 2.0 device flow (RFC 8628) with any OpenID Connect issuer."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from coordinator.gateway.issuer import WELL_KNOWN, check_url

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
TIMEOUT_S = 15.0
POLL_S = 5.0  # unless the issuer says otherwise (RFC 8628, section 3.2)
SLOWER_S = 5.0  # added when the issuer says slow_down (section 3.5)


class SignInFailed(Exception):
    """The issuer said no, or is none. Carries its short error code only."""


def sign_in(
    issuer: str,
    *,
    client_id: str,
    scopes: tuple[str, ...],
    show: Callable[[str, str], None],
    ca: Path | None = None,
    plain_http: bool = False,
) -> str:
    """Return an access token once somebody has signed in.

    Args:
        show: called with the address to open and the code to type there.
        ca: authorities for the issuer's certificate; the machine's if None.
    Raises: BadIssuer, SignInFailed; httpx.HTTPError if the issuer cannot be reached.
    """
    check_url(issuer, plain_http=plain_http)
    verify = ssl.create_default_context(cafile=str(ca) if ca else None)
    with httpx.Client(verify=verify, timeout=TIMEOUT_S) as client:
        found = _json(client.get(issuer.rstrip("/") + WELL_KNOWN))
        if found.get("issuer") != issuer:
            raise SignInFailed("another-issuer")
        device, token = (_address(found, name, plain_http=plain_http) for name in _ENDPOINTS)
        begun = _json(client.post(device, data={"client_id": client_id, "scope": " ".join(scopes)}))
        show(
            str(begun.get("verification_uri_complete") or begun["verification_uri"]), str(begun["user_code"])
        )
        ends = time.monotonic() + float(begun["expires_in"])
        pause_s = float(begun.get("interval", POLL_S))
        asked = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"], "client_id": client_id}
        while time.monotonic() < ends:
            time.sleep(pause_s)
            reply = client.post(token, data=asked)
            body = reply.json()
            if reply.status_code == 200:
                return str(body["access_token"])
            if body.get("error") == "slow_down":
                pause_s += SLOWER_S
            elif body.get("error") != "authorization_pending":
                raise SignInFailed(str(body.get("error"))[:40])
    raise SignInFailed("expired_token")


_ENDPOINTS = ("device_authorization_endpoint", "token_endpoint")


def _address(document: dict[str, Any], name: str, *, plain_http: bool) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise SignInFailed("no-device-flow")
    check_url(value, plain_http=plain_http)
    return value


def _json(reply: httpx.Response) -> dict[str, Any]:
    body = reply.json()
    if reply.status_code != 200 or not isinstance(body, dict):
        raise SignInFailed(str(body.get("error"))[:40] if isinstance(body, dict) else "not-json")
    return body
