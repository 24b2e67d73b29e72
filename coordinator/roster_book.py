"""The roster as it grows: each change is a new signed version, in the same transaction as the change.

Nobody comes back: a revoked node or name stays listed as revoked, so its id, name and keys are never reused.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.records import KeyHolderRecord, NodeRecord, PersonRecord
from coordinator.state import State
from protocols.clock import Clock
from protocols.ids import ConsortiumId, NodeId
from protocols.peer import Role
from protocols.roster import KeyHolderEntry, NodeEntry, PersonEntry, Roster, Settings, fingerprint, opened


class Unknown(ValueError):
    """There is no such node or person, or they are revoked already."""


class RosterBook:
    """Signs rosters from what the state holds. Prints without its key."""

    def __init__(
        self,
        state: State,
        *,
        key: Ed25519PrivateKey,
        consortium: ConsortiumId,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.state = state
        self.consortium = consortium
        self.settings = settings
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"RosterBook({self.consortium}, key=<hidden>)"

    @property
    def roster_key(self) -> bytes:
        """The public key that rosters are verified with (32 bytes)."""
        return self._key.public_key().public_bytes_raw()

    @property
    def roster_key_fingerprint(self) -> bytes:
        """SHA-256 of the public key: what an invitation carries."""
        return bytes.fromhex(fingerprint(self.roster_key))

    def version(self) -> int:
        """Return the newest version; cheap enough to ask each second, and sees other processes' changes."""
        return self.state.roster_version()

    def envelope(self) -> bytes:
        """Return the newest signed roster."""
        return self.state.roster()[1]

    def current(self) -> Roster:
        """Return the newest roster, its signature verified."""
        return opened(self.envelope(), consortium=self.consortium, key=self._key.public_key())

    def publish(self) -> Roster:
        """Sign what the state holds as the next version. Call in the transaction of the change."""
        now = self._now()
        with self.state.transaction():
            roster = Roster(
                consortium=self.consortium,
                version=self.state.roster_version() + 1,
                issued_at=now,
                settings=self.settings,
                nodes=tuple(map(_node_entry, self.state.nodes())),
                people=tuple(map(_person_entry, self.state.people())),
                key_holders=tuple(map(_key_holder_entry, self.state.key_holders())),
            )
            self.state.add_roster(roster.version, roster.signed(self._key), at=now)
        return roster

    def add_node(self, record: NodeRecord) -> Roster:
        """Enter a hospital. Raises: ValueError if its id or a key is taken."""
        with self.state.transaction():
            self.state.add_node(record)
            return self.publish()

    def keep_to_settings(self) -> None:
        """Publish what the coordinator's config says now, if the roster in force says something else."""
        with self.state.transaction():
            if self.state.roster_version() and self.current().settings != self.settings:
                self.publish()

    def add_key_holder(self, record: KeyHolderRecord) -> Roster:
        """Enter a key-holder. Raises: ValueError if its name or key is taken, or there is one already."""
        with self.state.transaction():
            self.state.add_key_holder(record)
            return self.publish()

    def add_person(self, name: str, *, role: Role, identity_key: bytes, projects: tuple[str, ...]) -> Roster:
        """Enter a researcher or lead. Raises: ValueError if the name or the key is taken, or malformed."""
        entry = PersonEntry(name, role, identity_key, tuple(sorted(set(projects))))
        with self.state.transaction():
            if any(person.name == name for person in self.state.people()):
                raise ValueError(f"the name {name} is taken; nodes pin names to keys, so take another")
            self.state.add_person(
                PersonRecord(name, role, identity_key, entry.projects, added_at=self._now())
            )
            return self.publish()

    def revoke_node(self, node_id: NodeId) -> Roster:
        """Revoke a hospital for good. The serving broker cuts it within about a second. Raises: Unknown."""
        with self.state.transaction():
            if not self.state.revoke_node(node_id, at=self._now()):
                raise Unknown(f"no node {node_id}, or revoked already")
            return self.publish()

    def revoke_person(self, name: str) -> Roster:
        """Revoke a researcher or lead for good. Raises: Unknown."""
        with self.state.transaction():
            if not self.state.revoke_person(name, at=self._now()):
                raise Unknown(f"no researcher or lead {name}, or revoked already")
            return self.publish()

    def revoke_key_holder(self, name: str) -> Roster:
        """Revoke a key-holder for good. Raises: Unknown."""
        with self.state.transaction():
            if not self.state.revoke_key_holder(name, at=self._now()):
                raise Unknown(f"no key-holder {name}, or revoked already")
            return self.publish()

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)


def _node_entry(node: NodeRecord) -> NodeEntry:
    return NodeEntry(node.node_id, node.name, node.identity_key, node.flower_key, node.revoked_at is not None)


def _person_entry(person: PersonRecord) -> PersonEntry:
    return PersonEntry(
        person.name, person.role, person.identity_key, person.projects, person.revoked_at is not None
    )


def _key_holder_entry(holder: KeyHolderRecord) -> KeyHolderEntry:
    return KeyHolderEntry(holder.name, holder.identity_key, holder.revoked_at is not None)
