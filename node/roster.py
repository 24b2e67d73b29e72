"""The roster as this hospital believes it: signed, never older than before, and never with a swapped key.

Guarantee: a roster counts only if the key from the invitation signed it, its version is not below the one in
force (and the same version is the same roster), this node stands in it with its own key, and every node and
person seen before has the key it had when it was first seen. Whatever is refused changes nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.home import NodeHome
from node.keys import NodeKeys
from privacy import private_files
from protocols import canonical
from protocols.envelope import MAX_ENVELOPE_BYTES, BadEnvelope
from protocols.ids import ConsortiumId, NodeId
from protocols.peer import Role
from protocols.refusal import RefusalCode, Refused
from protocols.roster import MalformedRoster, PersonEntry, Roster, opened

FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom this node takes at their word, and for what: fixed when it joined."""

    consortium: ConsortiumId
    roster_key: bytes
    me: NodeId
    my_identity_key: bytes

    def open(self, envelope: bytes) -> Roster:
        """Return the roster in `envelope`. Raises: Refused(BAD_SIGNATURE or ROSTER_MISMATCH)."""
        try:
            key = Ed25519PublicKey.from_public_bytes(self.roster_key)
            roster = opened(envelope, consortium=self.consortium, key=key)
        except BadEnvelope as error:
            raise Refused(RefusalCode.BAD_SIGNATURE) from error
        except MalformedRoster as error:
            raise Refused(RefusalCode.ROSTER_MISMATCH) from error
        mine = roster.node(self.me)
        if mine is not None and mine.identity_key != self.my_identity_key:
            raise Refused(RefusalCode.ROSTER_MISMATCH)
        return roster


class RosterKeeper:
    """The roster in force and the pinned keys; both survive a restart. Thread-safe.

    Args: accepted_peers: fingerprints (64 hex digits) from the hospital's policy. Empty: whoever the roster
        certifies. Otherwise the roster alone makes nobody a peer.
    """

    def __init__(
        self, roster_file: Path, peers_file: Path, *, trust: Trust, accepted_peers: Collection[str] = ()
    ) -> None:
        if not all(FINGERPRINT.fullmatch(text) for text in accepted_peers):
            raise ValueError("a peer's fingerprint is 64 lower-case hex digits")
        self._roster_file = roster_file
        self._peers_file = peers_file
        self._trust = trust
        self._accepted = frozenset(accepted_peers)
        self._lock = threading.Lock()
        self._pins = _read_pins(peers_file)
        self._envelope = roster_file.read_bytes()
        self._roster = trust.open(self._envelope)
        pins_of(self._roster, known=self._pins)

    @classmethod
    def open(cls, home: NodeHome, *, accepted_peers: Collection[str] = ()) -> RosterKeeper:
        """Open the roster of a joined home. Raises: Refused if what lies there does not verify."""
        config, keys = home.config(), NodeKeys.load(home.keys)
        trust = Trust(config.consortium, config.roster_key, config.node_id, keys.identity_public)
        return cls(home.roster, home.peers, trust=trust, accepted_peers=accepted_peers)

    @property
    def current(self) -> Roster:
        """The roster in force."""
        return self._roster

    @property
    def revoked(self) -> bool:
        """Whether the roster in force does not list this node any more."""
        return self._trust.me not in self._roster.active_nodes

    def accept(self, envelope: bytes) -> Roster:
        """Put a newer roster in force; the one in force already is fine too. Blocking (writes files).

        Raises: Refused(BAD_SIGNATURE) for another signer; Refused(ROSTER_MISMATCH) for an older version,
            another roster of the same version, or a swapped key.
        """
        roster = self._trust.open(envelope)
        with self._lock:
            if roster == self._roster:
                return roster
            if roster.version <= self._roster.version:
                raise Refused(RefusalCode.ROSTER_MISMATCH)
            pins = pins_of(roster, known=self._pins)
            if pins != self._pins:
                private_files.write(self._peers_file, canonical.encode(pins))  # first: a pin is never lost
                self._pins = pins
            private_files.write(self._roster_file, envelope)
            self._roster, self._envelope = roster, envelope
            return roster

    def peers(self) -> Mapping[NodeId, Ed25519PublicKey]:
        """Return whom this node computes with, itself included: listed, not revoked, and accepted."""
        return {
            node_id: entry.public_key
            for node_id, entry in self._roster.active_nodes.items()
            if node_id == self._trust.me or not self._accepted or entry.fingerprint in self._accepted
        }

    def signers(self, *roles: Role) -> Mapping[str, Ed25519PublicKey]:
        """Return who may sign questions and studies: people of these roles (both if none is named)."""
        return self._roster.signer_keys(*roles)

    def person(self, name: str) -> PersonEntry | None:
        """Return the researcher or lead of this name, if not revoked; `.may_use(project)` says the rest."""
        return self._roster.active_people.get(name)


def pins_of(roster: Roster, *, known: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return `known` with everybody of `roster`. Raises: Refused(ROSTER_MISMATCH) if a key was swapped."""
    seen = {
        "nodes": {str(node.node_id): node.identity_key.hex() for node in roster.nodes},
        "people": {person.name: person.identity_key.hex() for person in roster.people},
    }
    found: dict[str, dict[str, str]] = {}
    for kind, keys in seen.items():
        before = known.get(kind, {})
        if any(before.get(name, key) != key for name, key in keys.items()):
            raise Refused(RefusalCode.ROSTER_MISMATCH)
        found[kind] = {**before, **keys}
    return found


def _read_pins(path: Path) -> dict[str, dict[str, str]]:
    try:
        value: Any = canonical.decode(path.read_bytes(), max_bytes=MAX_ENVELOPE_BYTES)
    except canonical.MalformedJson as error:
        raise Refused(RefusalCode.ROSTER_MISMATCH) from error
    shaped = isinstance(value, dict) and set(value) == {"nodes", "people"}
    if not shaped or not all(isinstance(keys, dict) for keys in value.values()):
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    return {kind: {str(name): str(key) for name, key in keys.items()} for kind, keys in value.items()}
