"""A node's own keys. They are made in the hospital and never leave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import private_files
from privacy.rng import SecureBits
from protocols.key_forms import (
    WrongKey,
    flower_private,
    flower_public,
    identity_key,
    new_flower_key,
    new_tls_key,
    private_pem,
    tls_key,
)

PSEUDONYM_BYTES = 32  # HMAC-SHA256 key, deid/vault.py


@dataclass(frozen=True, slots=True, repr=False)
class NodeKeys:
    """What one node holds. Prints as hidden.

    identity: signs secure-sum adverts and renewals (Ed25519). tls: mutual TLS (ECDSA P-256).
    flower: the SuperNode's, OpenSSH form (EC P-384). pseudonym: what patients' pseudonyms are keyed with.
    """

    identity: Ed25519PrivateKey
    tls: EllipticCurvePrivateKey
    flower: bytes
    pseudonym: bytes

    def __repr__(self) -> str:
        return "NodeKeys(<hidden>)"

    @classmethod
    def generate(cls, *, bits: SecureBits) -> NodeKeys:
        """Return fresh keys."""
        return cls(
            identity=Ed25519PrivateKey.generate(),
            tls=new_tls_key(),
            flower=flower_private(new_flower_key()),
            pseudonym=bits.bytes(PSEUDONYM_BYTES),
        )

    @property
    def identity_public(self) -> bytes:
        """The identity key that the roster lists (32 bytes)."""
        return self.identity.public_key().public_bytes_raw()

    @property
    def tls_pem(self) -> bytes:
        """The TLS key as gRPC wants it."""
        return private_pem(self.tls)

    @property
    def flower_public(self) -> str:
        """The SuperNode's public key, one OpenSSH line."""
        return flower_public(self.flower)

    def write(self, folder: Path) -> None:
        """Write each key into its file, mode 0600, in a folder of mode 0700."""
        private_files.make_folder(folder)
        private_files.write(folder / "identity.key", private_pem(self.identity))
        private_files.write(folder / "tls.key", self.tls_pem)
        private_files.write(folder / "flower.key", self.flower)
        private_files.write(folder / "pseudonym.key", self.pseudonym)

    @classmethod
    def load(cls, folder: Path) -> NodeKeys:
        """Read the keys. Raises: OpenToOthers if anybody else may read one; WrongKey; FileNotFoundError."""
        pseudonym = private_files.read_secret(folder / "pseudonym.key")
        if len(pseudonym) != PSEUDONYM_BYTES:
            raise WrongKey(f"the pseudonym key has {PSEUDONYM_BYTES} bytes")
        flower = private_files.read_secret(folder / "flower.key")
        flower_public(flower)
        return cls(
            identity=identity_key(private_files.read_secret(folder / "identity.key")),
            tls=tls_key(private_files.read_secret(folder / "tls.key")),
            flower=flower,
            pseudonym=pseudonym,
        )
