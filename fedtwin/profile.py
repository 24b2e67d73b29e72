"""A profile: the directory of credentials with which a researcher or a lead speaks to the coordinator.

profile.toml   name, role, consortium, broker_address
identity.key   Ed25519, signs questions and studies (0600)
tls.key tls.crt ca.crt   mutual TLS with the broker (the key 0600)
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ENVIRONMENT = "FEDTWIN_PROFILE"
DEFAULT = Path("~/.fedtwin/profile")
KEYS = frozenset({"name", "role", "consortium", "broker_address"})


class MalformedProfile(ValueError):
    """The directory is no profile, or a file in it is wrong."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who asks, whom they ask, and with which keys. Prints without its keys."""

    directory: Path
    name: str
    role: str
    consortium: str
    broker_address: str

    @classmethod
    def load(cls, directory: Path) -> Profile:
        """Read the profile in `directory`. Raises: MalformedProfile."""
        path = directory / "profile.toml"
        if not path.is_file():
            raise MalformedProfile(f"{directory}: no profile.toml here")
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise MalformedProfile(f"{path}: not TOML") from error
        unknown, missing = set(fields) - KEYS, KEYS - set(fields)
        if unknown or missing or not all(isinstance(value, str) for value in fields.values()):
            raise MalformedProfile(f"{path}: needs exactly {', '.join(sorted(KEYS))}, each a text")
        return cls(directory=directory, **fields)

    def identity_key(self) -> Ed25519PrivateKey:
        """Read the key that signs questions. Raises: MalformedProfile if others may read it."""
        path = self.directory / "identity.key"
        if path.stat().st_mode & 0o077:
            raise MalformedProfile(f"{path}: others may read it; chmod 600 it, or ask for a new profile")
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise MalformedProfile(f"{path}: not an Ed25519 key")
        return key

    def tls(self) -> tuple[bytes, bytes, bytes]:
        """Return (CA, private key, certificate) in PEM."""
        ca, key, certificate = (
            (self.directory / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")
        )
        return ca, key, certificate


def find(given: Path | None) -> Path:
    """Return the profile directory: `given`, else $FEDTWIN_PROFILE, else ~/.fedtwin/profile."""
    return given or Path(os.environ.get(ENVIRONMENT) or DEFAULT).expanduser()
