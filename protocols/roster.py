"""The roster: who belongs to a consortium and with which keys, signed as one document.

Guarantee: what `opened` returns was signed by the holder of the roster key for this consortium, has exactly
one encoding, and no two parties in it share an identifier or a key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols import canonical, envelope
from protocols.envelope import MAX_ENVELOPE_BYTES, Purpose, SignedEnvelope
from protocols.ids import ConsortiumId, NodeId
from protocols.peer import PERSON_NAME, Role

FORMAT = 1
KEY_BYTES = 32  # Ed25519 public keys, RFC 8032
MAX_DISPLAY_NAME = 120
MAX_FLOWER_KEY = 1_024  # an OpenSSH line of an EC P-384 key has about 190 characters
EVERY_PROJECT = "*"
MASKED = "masked"
SECURE_SUMS = (MASKED, "bfv", "ckks")  # how hospitals add up; docs/decisions/0009


class MalformedRoster(ValueError):
    """The roster breaks a rule. `field` names what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def fingerprint(public_key: bytes) -> str:
    """Return the SHA-256 of a raw public key as 64 hex digits: what people compare and policies list."""
    return hashlib.sha256(public_key).hexdigest()


def display_name(text: str) -> str:
    """Return `text` if it can stand on one line of a screen. Raises: MalformedRoster."""
    if not isinstance(text, str) or not text.isprintable() or text != text.strip():
        raise MalformedRoster("name", "one line of printable characters without outer blanks")
    if not 1 <= len(text) <= MAX_DISPLAY_NAME:
        raise MalformedRoster("name", f"1 to {MAX_DISPLAY_NAME} characters")
    return text


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One hospital. A revoked one stays listed, so that its identifier and keys never come back."""

    node_id: NodeId
    name: str
    identity_key: bytes
    flower_key: str
    revoked: bool = False

    def __post_init__(self) -> None:
        display_name(self.name)
        _check_key(self.identity_key)
        if not self.flower_key.isascii() or not 1 <= len(self.flower_key) <= MAX_FLOWER_KEY:
            raise MalformedRoster("flower_key", "an OpenSSH public key")

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that this hospital signs secure-sum adverts with."""
        return Ed25519PublicKey.from_public_bytes(self.identity_key)

    @property
    def fingerprint(self) -> str:
        """What a policy lists to accept this hospital as a peer."""
        return fingerprint(self.identity_key)


@dataclass(frozen=True, slots=True)
class PersonEntry:
    """A researcher or a lead, and the projects they may ask under (`*`: every one)."""

    name: str
    role: Role
    identity_key: bytes
    projects: tuple[str, ...]
    revoked: bool = False

    def __post_init__(self) -> None:
        if not PERSON_NAME.fullmatch(self.name):
            raise MalformedRoster("name", "1 to 64 of a-z, 0-9, '.', '_' and '-'")
        if self.role not in (Role.RESEARCHER, Role.LEAD):
            raise MalformedRoster("role", "researcher or lead")
        _check_key(self.identity_key)
        if not self.projects or list(self.projects) != sorted(set(self.projects)):
            raise MalformedRoster("projects", "at least one, sorted, each once")
        if any(p != EVERY_PROJECT and not PERSON_NAME.fullmatch(p) for p in self.projects):
            raise MalformedRoster("projects", "each 1 to 64 of a-z, 0-9, '.', '_' and '-', or '*'")

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that this person signs questions and studies with."""
        return Ed25519PublicKey.from_public_bytes(self.identity_key)

    def may_use(self, project: str) -> bool:
        """Return whether this person may ask under `project`; nobody may once revoked."""
        return not self.revoked and (EVERY_PROJECT in self.projects or project in self.projects)


@dataclass(frozen=True, slots=True)
class KeyHolderEntry:
    """Who makes the keys of encrypted sums. Neither a hospital nor the coordinator."""

    name: str
    identity_key: bytes
    revoked: bool = False

    def __post_init__(self) -> None:
        if not PERSON_NAME.fullmatch(self.name):
            raise MalformedRoster("name", "1 to 64 of a-z, 0-9, '.', '_' and '-'")
        _check_key(self.identity_key)

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that it signs each step's encryption key with."""
        return Ed25519PublicKey.from_public_bytes(self.identity_key)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the consortium agreed on. A node's own policy may ask for more, never for less.

    secure_sum: how hospitals add up: "masked", or encrypted ("bfv", "ckks"), which needs a key-holder.
    """

    name: str
    minimum_sites: int
    tolerance: int
    secure_sum: str = MASKED

    def __post_init__(self) -> None:
        display_name(self.name)
        if self.minimum_sites < 2:
            raise MalformedRoster("minimum_sites", "at least 2: a sum of one site is that site's value")
        if not 0 <= self.tolerance < self.minimum_sites:
            raise MalformedRoster("tolerance", "0 or more, and below minimum_sites")
        if self.secure_sum not in SECURE_SUMS:
            raise MalformedRoster("secure_sum", f"one of {', '.join(SECURE_SUMS)}")


@dataclass(frozen=True, slots=True)
class Roster:
    """One version of who belongs. Nodes ascend by id, people and key-holders by name."""

    consortium: ConsortiumId
    version: int
    issued_at: datetime
    settings: Settings
    nodes: tuple[NodeEntry, ...] = ()
    people: tuple[PersonEntry, ...] = ()
    key_holders: tuple[KeyHolderEntry, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.version < 2**63:
            raise MalformedRoster("version", "1 to 2^63 - 1")
        if self.issued_at.utcoffset() != timedelta(0) or self.issued_at.microsecond:
            raise MalformedRoster("issued_at", "UTC, whole seconds")
        _ascending("nodes", [node.node_id.raw for node in self.nodes])
        _ascending("people", [person.name.encode() for person in self.people])
        _ascending("key_holders", [holder.name.encode() for holder in self.key_holders])
        if sum(not holder.revoked for holder in self.key_holders) > 1:
            raise MalformedRoster("key_holders", "one at a time; revoke it before another joins")
        keys = [node.identity_key for node in self.nodes] + [person.identity_key for person in self.people]
        _distinct("identity_key", keys + [holder.identity_key for holder in self.key_holders])
        _distinct("flower_key", [node.flower_key for node in self.nodes])

    def node(self, node_id: NodeId) -> NodeEntry | None:
        """Return the hospital with this id, revoked or not."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def person(self, name: str) -> PersonEntry | None:
        """Return the researcher or lead with this name, revoked or not."""
        return next((person for person in self.people if person.name == name), None)

    @property
    def active_nodes(self) -> Mapping[NodeId, NodeEntry]:
        """The hospitals that are not revoked."""
        return {node.node_id: node for node in self.nodes if not node.revoked}

    @property
    def key_holder(self) -> KeyHolderEntry | None:
        """The key-holder that is not revoked."""
        return next((holder for holder in self.key_holders if not holder.revoked), None)

    @property
    def active_people(self) -> Mapping[str, PersonEntry]:
        """The researchers and leads that are not revoked."""
        return {person.name: person for person in self.people if not person.revoked}

    def signer_keys(self, *roles: Role) -> Mapping[str, Ed25519PublicKey]:
        """Return who may sign: the keys of people of these roles (both if none is named), none revoked."""
        wanted = roles or (Role.RESEARCHER, Role.LEAD)
        return {name: p.public_key for name, p in self.active_people.items() if p.role in wanted}

    def to_bytes(self) -> bytes:
        """Return the canonical encoding: what is signed.

        Masked sums and the absence of key-holders are not written, so rosters from before both stay valid.
        """
        settings: dict[str, Any] = {name: getattr(self.settings, name) for name in Settings.__slots__}
        if settings["secure_sum"] == MASKED:
            del settings["secure_sum"]
        fields: dict[str, Any] = {
            "consortium": str(self.consortium),
            "format": FORMAT,
            "issued_at": self.issued_at.isoformat(),
            "nodes": [_node_json(node) for node in self.nodes],
            "people": [_person_json(person) for person in self.people],
            "settings": settings,
            "version": self.version,
        }
        if self.key_holders:
            fields["key_holders"] = [_key_holder_json(holder) for holder in self.key_holders]
        return canonical.encode(fields)

    @classmethod
    def parse(cls, data: bytes) -> Roster:
        """Return the roster encoded in `data`.

        Raises: MalformedRoster, for anything but the canonical encoding of a valid roster.
        """
        try:
            value: Any = canonical.decode(data, max_bytes=MAX_ENVELOPE_BYTES)
            roster = _from_json(value)
            unchanged = roster.to_bytes() == data
        except MalformedRoster:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MalformedRoster("$", "not a roster of this format") from error
        if not unchanged:  # covers unknown keys, types that compare equal, and every other spelling
            raise MalformedRoster("$", "not the canonical encoding")
        return roster

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """Return the envelope that nodes get."""
        signer = str(self.consortium)
        return envelope.sign(self.to_bytes(), purpose=Purpose.ROSTER, signer=signer, key=key).to_bytes()


def opened(data: bytes, *, consortium: ConsortiumId, key: Ed25519PublicKey) -> Roster:
    """Return the roster in a signed envelope.

    Raises: BadEnvelope unless `key` signed it for `consortium`; MalformedRoster.
    """
    signed = SignedEnvelope.from_bytes(data)
    payload = envelope.verify(signed, purpose=Purpose.ROSTER, signer=str(consortium), key=key)
    roster = Roster.parse(payload)
    if roster.consortium != consortium:
        raise MalformedRoster("consortium", "signed for one consortium, written for another")
    return roster


def _node_json(node: NodeEntry) -> dict[str, Any]:
    return {
        "flower_key": node.flower_key,
        "identity_key": base64.b64encode(node.identity_key).decode(),
        "name": node.name,
        "node_id": str(node.node_id),
        "revoked": node.revoked,
    }


def _person_json(person: PersonEntry) -> dict[str, Any]:
    return {
        "identity_key": base64.b64encode(person.identity_key).decode(),
        "name": person.name,
        "projects": list(person.projects),
        "revoked": person.revoked,
        "role": person.role.value,
    }


def _key_holder_json(holder: KeyHolderEntry) -> dict[str, Any]:
    return {
        "identity_key": base64.b64encode(holder.identity_key).decode(),
        "name": holder.name,
        "revoked": holder.revoked,
    }


def _from_json(value: Any) -> Roster:
    if value["format"] != FORMAT:
        raise MalformedRoster("format", f"only {FORMAT}")
    nodes = tuple(
        NodeEntry(
            node_id=NodeId.parse(entry["node_id"]),
            name=entry["name"],
            identity_key=base64.b64decode(entry["identity_key"], validate=True),
            flower_key=entry["flower_key"],
            revoked=_flag(entry["revoked"]),
        )
        for entry in value["nodes"]
    )
    people = tuple(
        PersonEntry(
            name=entry["name"],
            role=Role(entry["role"]),
            identity_key=base64.b64decode(entry["identity_key"], validate=True),
            projects=tuple(entry["projects"]),
            revoked=_flag(entry["revoked"]),
        )
        for entry in value["people"]
    )
    key_holders = tuple(
        KeyHolderEntry(
            name=entry["name"],
            identity_key=base64.b64decode(entry["identity_key"], validate=True),
            revoked=_flag(entry["revoked"]),
        )
        for entry in value.get("key_holders", ())
    )
    return Roster(
        consortium=ConsortiumId.parse(value["consortium"]),
        version=_whole(value["version"]),
        issued_at=datetime.fromisoformat(value["issued_at"]),
        settings=Settings(
            name=value["settings"]["name"],
            minimum_sites=_whole(value["settings"]["minimum_sites"]),
            tolerance=_whole(value["settings"]["tolerance"]),
            secure_sum=value["settings"].get("secure_sum", MASKED),
        ),
        nodes=nodes,
        people=people,
        key_holders=key_holders,
    )


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise MalformedRoster("revoked", "true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedRoster("$", "a whole number is written without a point")
    return value


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise MalformedRoster("identity_key", f"an Ed25519 public key of {KEY_BYTES} bytes")


def _ascending(field: str, keys: list[bytes]) -> None:
    if any(left >= right for left, right in pairwise(keys)):
        raise MalformedRoster(field, "ascending, each once")


def _distinct(field: str, values: list[Any]) -> None:
    if len(set(values)) != len(values):
        raise MalformedRoster(field, "two parties share one")
