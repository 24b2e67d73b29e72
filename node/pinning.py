"""Meet a server that nobody vouches for yet, except a fingerprint from an invitation.

Guarantee: nothing but a TLS handshake is sent until the server has shown a certificate chain that holds the
authority with this fingerprint, and a second handshake, verified against that authority alone and against the
host's name, has succeeded.
"""

from __future__ import annotations

import hmac
import socket
import ssl
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from protocols.invitation import check_address
from protocols.refusal import RefusalCode, Refused

TIMEOUT_S = 10.0
MAX_CHAIN = 10  # certificates; we look at no more


class Unreachable(Exception):
    """Nobody answers at this address."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"nobody answers at {address}: does the coordinator run, and may this machine connect out to it?"
        )
        self.address = address


def authority_of(address: str, *, fingerprint: bytes) -> bytes:
    """Return the certificate (PEM) of the authority with this SHA-256, as the server at `address` shows it.

    Raises: Unreachable; Refused(WRONG_COORDINATOR).
    """
    pem = next(
        (
            certificate.public_bytes(Encoding.PEM)
            for certificate in _shown_chain(address)[:MAX_CHAIN]
            if hmac.compare_digest(certificate.fingerprint(hashes.SHA256()), fingerprint)
        ),
        None,
    )
    if pem is None:
        raise Refused(RefusalCode.WRONG_COORDINATOR)
    _handshake(address, _verifying(pem))
    return pem


def _shown_chain(address: str) -> list[x509.Certificate]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # this handshake only fetches the chain; the next one verifies
    context.verify_mode = ssl.CERT_NONE
    try:
        return [x509.load_der_x509_certificate(der) for der in _handshake(address, context)]
    except ValueError as error:
        raise Refused(RefusalCode.WRONG_COORDINATOR) from error


def _verifying(authority_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    context.load_verify_locations(cadata=authority_pem.decode())
    return context


def _handshake(address: str, context: ssl.SSLContext) -> list[bytes]:
    """Shake hands and hang up. Returns the chain that the server showed, in DER."""
    host, port = check_address(address)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return _chain(secured)
    except ssl.SSLError as error:
        raise Refused(RefusalCode.WRONG_COORDINATOR) from error
    except OSError as error:
        raise Unreachable(address) from error


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    public: Any = getattr(secured, "get_unverified_chain", None)  # Python 3.13
    if public is not None:
        return list(public())
    raw: Any = secured._sslobj  # type: ignore[attr-defined]  # 3.11 and 3.12 have it here only
    return [certificate.public_bytes(ssl._ssl.ENCODING_DER) for certificate in raw.get_unverified_chain()]  # type: ignore[attr-defined]
