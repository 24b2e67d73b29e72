"""Invitations: made by the lead, good for one hospital, kept as a hash.

Guarantee: of two requests with one secret exactly one is let in, also when they arrive at the same moment at
two processes. A wrong, used or expired secret changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta

from coordinator.records import InvitationRecord
from coordinator.state import State
from privacy.rng import SecureBits
from protocols.clock import Clock
from protocols.ids import NodeId
from protocols.invitation import SECRET_BYTES, Invitation, handle_of
from protocols.peer import PERSON_NAME, Role
from protocols.refusal import RefusalCode, Refused
from protocols.roster import display_name

LIFETIME = timedelta(days=2)  # long enough for a phone call and a maintenance window


def invite(
    state: State,
    name: str,
    *,
    address: str,
    ca_fingerprint: bytes,
    roster_key_fingerprint: bytes,
    clock: Clock,
    lifetime: timedelta = LIFETIME,
    node_id: NodeId | None = None,
    bits: SecureBits | None = None,
    role: Role = Role.NODE,
) -> Invitation:
    """Return a new invitation for the hospital called `name`; only a hash of its secret is kept.

    Args:
        node_id: an existing hospital that lost its certificate and keeps its id and keys.
        role: KEY_HOLDER invites the key-holder; its name is one that a person may have.
    Raises: MalformedRoster for a name that cannot stand in a roster; ValueError.
    """
    if lifetime < timedelta(seconds=1):
        raise ValueError("an invitation lives for a second at least")
    if role == Role.KEY_HOLDER and not PERSON_NAME.fullmatch(name):
        raise ValueError("a key-holder's name is 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    now = clock.now().replace(microsecond=0)
    secret = (bits or SecureBits()).bytes(SECRET_BYTES)
    invitation = Invitation(
        address=address,
        ca_fingerprint=ca_fingerprint,
        roster_key_fingerprint=roster_key_fingerprint,
        secret=secret,
        expires_at=(now + lifetime).replace(microsecond=0),
    )
    state.add_invitation(
        InvitationRecord(
            handle=invitation.handle,
            secret_hash=_hash(secret),
            name=display_name(name),
            created_at=now,
            expires_at=invitation.expires_at,
            node_id=node_id,
            role=role,
        )
    )
    return invitation


def find(state: State, secret: bytes, *, now: datetime) -> InvitationRecord:
    """Return the invitation that `secret` belongs to, used or not.

    Raises: Refused(INVITATION_UNKNOWN), Refused(INVITATION_EXPIRED).
    """
    try:
        record = state.invitation(handle_of(secret))
    except ValueError:
        record = None
    known = record.secret_hash if record else bytes(hashlib.sha256().digest_size)
    if not hmac.compare_digest(known, _hash(secret)) or record is None:
        raise Refused(RefusalCode.INVITATION_UNKNOWN)
    if now >= record.expires_at:
        code = RefusalCode.INVITATION_USED if record.used_by else RefusalCode.INVITATION_EXPIRED
        raise Refused(code)
    return record


def use(state: State, record: InvitationRecord, *, node_id: NodeId, now: datetime) -> None:
    """Use the invitation up, in the caller's transaction. Raises: Refused(INVITATION_USED)."""
    if not state.use_invitation(record.handle, node_id=node_id, at=now):
        raise Refused(RefusalCode.INVITATION_USED)


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(b"fedtwin-invitation-v1" + secret).digest()  # 256 random bits need no slow hash
