"""The key-holder's folder: what lies where, and what keyholder.toml says.

keyholder.toml  keys/{identity,tls}.key (0600)  tls.crt ca.crt  roster.json  steps.sqlite  status.json  logs/
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy import private_files
from protocols.ids import ConsortiumId
from protocols.invitation import check_address
from protocols.key_forms import identity_key
from protocols.peer import PERSON_NAME
from protocols.roster import fingerprint


class MalformedConfig(ValueError):
    """keyholder.toml is missing or wrong."""


@dataclass(frozen=True, slots=True)
class KeyHolderConfig:
    """What keyholder.toml says; the enrolment writes it. Unknown and missing keys are errors.

    name, consortium: as the roster lists this key-holder. roster_key: the Ed25519 key that rosters are
    verified with (64 hex digits). broker_address: `host:port` to connect out to.
    """

    name: str
    consortium: ConsortiumId
    roster_key: bytes
    broker_address: str

    def __post_init__(self) -> None:
        if not PERSON_NAME.fullmatch(self.name):
            raise ValueError("name is 1 to 64 of a-z, 0-9, '.', '_' and '-'")
        check_address(self.broker_address)
        Ed25519PublicKey.from_public_bytes(self.roster_key)

    def to_toml(self) -> str:
        """Return the file's text."""
        values = {
            "name": self.name,
            "consortium": str(self.consortium),
            "roster_key": self.roster_key.hex(),
            "broker_address": self.broker_address,
        }
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    @classmethod
    def parse(cls, text: str) -> KeyHolderConfig:
        """Return the config in `text`. Raises: MalformedConfig."""
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MalformedConfig("keyholder.toml: not TOML") from error
        known = {field.name for field in fields(cls)}
        if set(found) != known or not all(isinstance(value, str) for value in found.values()):
            raise MalformedConfig(f"keyholder.toml: needs exactly {', '.join(sorted(known))}, each a text")
        try:
            return cls(
                name=found["name"],
                consortium=ConsortiumId.parse(found["consortium"]),
                roster_key=bytes.fromhex(found["roster_key"]),
                broker_address=found["broker_address"],
            )
        except ValueError as error:
            raise MalformedConfig(f"keyholder.toml: {error}") from error


@dataclass(frozen=True, slots=True)
class KeyHolderHome:
    """Paths of one key-holder."""

    path: Path

    @property
    def config_file(self) -> Path:
        """keyholder.toml: its presence says that it has joined."""
        return self.path / "keyholder.toml"

    @property
    def keys(self) -> Path:
        """identity.key and tls.key. The keys of sums are never written."""
        return self.path / "keys"

    @property
    def certificate(self) -> Path:
        """tls.crt."""
        return self.path / "tls.crt"

    @property
    def authority(self) -> Path:
        """ca.crt: the consortium's authority."""
        return self.path / "ca.crt"

    @property
    def roster(self) -> Path:
        """roster.json: the newest signed roster."""
        return self.path / "roster.json"

    @property
    def steps(self) -> Path:
        """steps.sqlite: which step had a key, and whether its sum was opened."""
        return self.path / "steps.sqlite"

    @property
    def status(self) -> Path:
        """status.json: how the process is."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """Logs of the process."""
        return self.path / "logs"

    def config(self) -> KeyHolderConfig:
        """Read keyholder.toml. Raises: MalformedConfig."""
        if not self.config_file.is_file():
            raise MalformedConfig(
                f"{self.path}: no key-holder here; `fedtwin keyholder init TOKEN` makes one"
            )
        return KeyHolderConfig.parse(self.config_file.read_text(encoding="utf-8"))

    def identity(self) -> Ed25519PrivateKey:
        """Read the key that signs. Raises: OpenToOthers if anybody else may read it."""
        return identity_key(private_files.read_secret(self.keys / "identity.key"))

    def fingerprint(self) -> str:
        """What hospitals write down to trust this key-holder: 64 hex digits."""
        return fingerprint(self.identity().public_key().public_bytes_raw())
