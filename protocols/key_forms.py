"""How private keys and certificate requests are written down: one algorithm per use, no other is read."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

MAX_SSH_KEY = 1_024  # an OpenSSH line of an EC P-384 key has about 190 characters


class WrongKey(ValueError):
    """The bytes are no key of the kind that is used here. Never says what they are."""


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_flower_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh EC P-384 key, the kind that a Flower SuperNode authenticates with."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS#8 PEM: for a file of mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def identity_key(pem: bytes) -> Ed25519PrivateKey:
    """Return the Ed25519 key in `pem`. Raises: WrongKey."""
    key = _pem_key(pem)
    if not isinstance(key, Ed25519PrivateKey):
        raise WrongKey("not an Ed25519 key")
    return key


def tls_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the ECDSA P-256 key in `pem`. Raises: WrongKey."""
    key = _pem_key(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise WrongKey("not an ECDSA P-256 key")
    return key


def flower_private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a SuperNode's key in OpenSSH form."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def flower_public(private: bytes) -> str:
    """Return the public line of a SuperNode's key in OpenSSH form. Raises: WrongKey."""
    try:
        key = load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WrongKey("not a key in OpenSSH form") from error
    return flower_line(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def flower_line(text: str) -> str:
    """Return a SuperNode's public line in its one spelling, without a comment. Raises: WrongKey."""
    try:
        if len(text) > MAX_SSH_KEY:
            raise WrongKey(f"at most {MAX_SSH_KEY} characters")
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WrongKey("not a public key in OpenSSH form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise WrongKey("not an EC P-384 key")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a PKCS#10 request (DER) for `key`. Its name is a placeholder: the authority decides."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedtwin")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def _pem_key(pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WrongKey("not a private key in PEM") from error
