"""The roster as the key-holder believes it: signed by the key of its invitation, never older than before."""

from __future__ import annotations

import threading
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy import private_files
from protocols.envelope import BadEnvelope
from protocols.ids import ConsortiumId, NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.roster import MalformedRoster, Roster, opened


def verified(envelope: bytes, *, consortium: ConsortiumId, roster_key: bytes) -> Roster:
    """Return the roster in an envelope. Raises: Refused(BAD_SIGNATURE or ROSTER_MISMATCH)."""
    try:
        return opened(envelope, consortium=consortium, key=Ed25519PublicKey.from_public_bytes(roster_key))
    except BadEnvelope as error:
        raise Refused(RefusalCode.BAD_SIGNATURE) from error
    except MalformedRoster as error:
        raise Refused(RefusalCode.ROSTER_MISMATCH) from error


class Rosters:
    """The roster in force; it survives a restart. Thread-safe."""

    def __init__(self, path: Path, *, consortium: ConsortiumId, roster_key: bytes) -> None:
        self._path = path
        self._consortium = consortium
        self._roster_key = roster_key
        self._lock = threading.Lock()
        self._roster = self._opened(path.read_bytes())

    @property
    def current(self) -> Roster:
        """The roster in force."""
        return self._roster

    def accept(self, envelope: bytes) -> None:
        """Put a newer roster in force; the one in force already is fine too. Blocking.

        Raises: Refused(BAD_SIGNATURE); Refused(ROSTER_MISMATCH) for an older version, another roster of the
            same one, or one in which a hospital has another key than before.
        """
        roster = self._opened(envelope)
        with self._lock:
            if roster == self._roster:
                return
            before: dict[NodeId, bytes] = {node.node_id: node.identity_key for node in self._roster.nodes}
            kept = all(
                before.get(node.node_id, node.identity_key) == node.identity_key for node in roster.nodes
            )
            if roster.version <= self._roster.version or not kept:
                raise Refused(RefusalCode.ROSTER_MISMATCH)
            private_files.write(self._path, envelope)
            self._roster = roster

    def _opened(self, envelope: bytes) -> Roster:
        return verified(envelope, consortium=self._consortium, roster_key=self._roster_key)
