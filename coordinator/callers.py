"""Who is calling: role and name from the mutual-TLS certificate, and whether the roster still lists them.

Guarantee: nothing in a message says who sent it. A certificate of another consortium, or of somebody whom the
roster does not list (any more), is nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.ids import NodeId
from protocols.peer import NotAPeer, Peer, Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster


@dataclass(frozen=True, slots=True)
class Roll:
    """The roster in force, as signed."""

    roster: Roster
    envelope: bytes

    def admits(self, peer: Peer) -> bool:
        """Return whether the roster lists this party in this role, and has not revoked it."""
        if peer.consortium != self.roster.consortium:
            return False
        if peer.role == Role.NODE:
            return NodeId.parse(peer.name) in self.roster.active_nodes
        if peer.role == Role.KEY_HOLDER:
            holder = self.roster.key_holder
            return holder is not None and holder.name == peer.name
        person = self.roster.active_people.get(peer.name)
        return person is not None and person.role == peer.role


def caller_of(context: Any, *, roll: Roll) -> Peer:
    """Return who opened this gRPC call.

    Raises: Refused(UNKNOWN_SIGNER) without exactly one certificate of a party; Refused(REVOKED) for one whom
    the roster does not admit.
    """
    pems = list(context.auth_context().get("x509_pem_cert") or [])
    if len(pems) != 1:
        raise Refused(RefusalCode.UNKNOWN_SIGNER)
    try:
        peer = peer_of(pems[0])
    except NotAPeer as error:
        raise Refused(RefusalCode.UNKNOWN_SIGNER) from error
    if not roll.admits(peer):
        raise Refused(RefusalCode.REVOKED)
    return peer
