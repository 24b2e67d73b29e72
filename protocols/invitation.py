"""The invitation that lets one hospital join: one line of text that a lead hands over.

`ft1.` and base64url of: expiry (8 bytes, Unix seconds), SHA-256 of the authority's certificate (32), SHA-256
of the roster key (32), one-time secret (40), enrolment address (UTF-8), and 4 bytes that show a typing error.
The line is as secret as a password until it is used or expires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

PREFIX = "ft1."
HANDLE_BYTES = 8  # the part of the secret by which the coordinator finds the invitation
SECRET_BYTES = HANDLE_BYTES + 32  # and 256 bits that nobody guesses
DIGEST_BYTES = 32
EXPIRY_BYTES = 8
CHECK_BYTES = 4  # one typing error in 2^32 goes unnoticed here, and is refused by the coordinator
MAX_ADDRESS = 253 + 6  # a DNS name, a colon and a port
JOIN_DOMAIN = b"fedtwin-join-v1"


class BadToken(ValueError):
    """The text is no invitation. Says how to go on; never repeats the text."""


def check_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    >>> check_address("fedtwin.example.org:8440")
    ('fedtwin.example.org', 8440)

    Raises: ValueError for anything else. An IPv6 address stands in brackets.
    """
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and bare and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError("an address is host:port")
    if len(address) > MAX_ADDRESS or not address.isascii() or any(c in address for c in "/@ \t\r\n"):
        raise ValueError("an address is host:port")
    if ":" in bare and bare == host:
        raise ValueError("an IPv6 address stands in brackets")
    return bare, int(port)


@dataclass(frozen=True, slots=True)
class Invitation:
    """Whom to speak to, how to know them, and the secret that is good for one hospital."""

    address: str
    ca_fingerprint: bytes
    roster_key_fingerprint: bytes
    secret: bytes = field(repr=False)
    expires_at: datetime

    def __post_init__(self) -> None:
        check_address(self.address)
        for name, expected in (
            ("ca_fingerprint", DIGEST_BYTES),
            ("roster_key_fingerprint", DIGEST_BYTES),
            ("secret", SECRET_BYTES),
        ):
            if len(getattr(self, name)) != expected:
                raise ValueError(f"{name} has {expected} bytes")
        if self.expires_at.utcoffset() != timedelta(0) or self.expires_at.microsecond:
            raise ValueError("expires_at is in UTC, whole seconds")

    @property
    def handle(self) -> str:
        """What names this invitation in lists; not secret."""
        return handle_of(self.secret)

    def to_token(self) -> str:
        """Return the line to hand over."""
        body = b"".join(
            (
                int(self.expires_at.timestamp()).to_bytes(EXPIRY_BYTES, "big"),
                self.ca_fingerprint,
                self.roster_key_fingerprint,
                self.secret,
                self.address.encode(),
            )
        )
        return PREFIX + base64.urlsafe_b64encode(body + _check(body)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, token: str) -> Invitation:
        """Return the invitation written as `token`; blanks and line breaks around and inside are ignored.

        Raises: BadToken, with what to do.
        """
        text = "".join(token.split())
        if not text.startswith(PREFIX):
            raise BadToken(f"an invitation starts with '{PREFIX}': copy the whole line")
        body = _decoded(text.removeprefix(PREFIX))
        places = (EXPIRY_BYTES, DIGEST_BYTES, DIGEST_BYTES, SECRET_BYTES)
        parts, start = [], 0
        for size in places:
            parts.append(body[start : start + size])
            start += size
        try:
            return cls(
                address=body[start:].decode(),
                ca_fingerprint=parts[1],
                roster_key_fingerprint=parts[2],
                secret=parts[3],
                expires_at=datetime.fromtimestamp(int.from_bytes(parts[0], "big"), UTC),
            )
        except (ValueError, OverflowError, OSError) as error:
            raise BadToken("this is no whole invitation: ask the lead for a new one") from error


def handle_of(secret: bytes) -> str:
    """Return the public handle in a secret. Raises: ValueError for a secret of another length."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    return secret[:HANDLE_BYTES].hex()


def join_statement(*, secret: bytes, csr_der: bytes, flower_public_key: str) -> bytes:
    """Return what a joining node signs with its identity key: this request and no other."""
    parts = (JOIN_DOMAIN, hashlib.sha256(secret).digest(), csr_der, flower_public_key.encode())
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _decoded(text: str) -> bytes:
    typo = "the invitation has a typing error or is not whole: copy the line again"
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadToken(typo) from error
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if check != _check(body):
        raise BadToken(typo)
    return body


def _check(body: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + body).digest()[:CHECK_BYTES]
