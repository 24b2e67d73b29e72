"""What the coordinator's state is made of, and how each record is written in a row of SQLite."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from protocols.ids import NodeId
from protocols.peer import Role


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """An invitation without its secret.

    `node_id` names whom it lets in again, if anybody; `role` is NODE or KEY_HOLDER. Of a key-holder `used_by`
    is the id of its record.
    """

    handle: str
    secret_hash: bytes
    name: str
    created_at: datetime
    expires_at: datetime
    node_id: NodeId | None = None
    used_by: NodeId | None = None
    used_at: datetime | None = None
    role: Role = Role.NODE


@dataclass(frozen=True, slots=True)
class KeyHolderRecord:
    """A key-holder that joined. Its id is the coordinator's own; people and rosters know its name."""

    holder_id: NodeId
    name: str
    identity_key: bytes
    tls_fingerprint: str
    certificate_expires: datetime
    joined_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A hospital that joined. Times are aware, in UTC."""

    node_id: NodeId
    name: str
    identity_key: bytes
    flower_key: str
    tls_fingerprint: str
    certificate_expires: datetime
    joined_at: datetime
    revoked_at: datetime | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A researcher or lead."""

    name: str
    role: Role
    identity_key: bytes
    projects: tuple[str, ...]
    added_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study that a lead proposed, as they signed it."""

    plan_hash: bytes
    envelope: bytes
    proposed_at: datetime


def column(value: Any) -> Any:
    """Return a field as SQLite keeps it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, NodeId | Role):
        return str(value)
    if isinstance(value, tuple):
        return json.dumps(value)
    return value


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def invitation_of(row: sqlite3.Row) -> InvitationRecord:
    """Return the record in a row."""
    return InvitationRecord(
        handle=row["handle"],
        secret_hash=row["secret_hash"],
        name=row["name"],
        created_at=_moment(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        node_id=NodeId.parse(row["node_id"]) if row["node_id"] else None,
        used_by=NodeId.parse(row["used_by"]) if row["used_by"] else None,
        used_at=_moment(row["used_at"]) if row["used_at"] else None,
        role=Role(row["role"]),
    )


def key_holder_of(row: sqlite3.Row) -> KeyHolderRecord:
    """Return the record in a row."""
    return KeyHolderRecord(
        holder_id=NodeId.parse(row["holder_id"]),
        name=row["name"],
        identity_key=row["identity_key"],
        tls_fingerprint=row["tls_fingerprint"],
        certificate_expires=_moment(row["certificate_expires"]),
        joined_at=_moment(row["joined_at"]),
        revoked_at=_moment(row["revoked_at"]) if row["revoked_at"] else None,
    )


def node_of(row: sqlite3.Row) -> NodeRecord:
    """Return the record in a row."""
    return NodeRecord(
        node_id=NodeId.parse(row["node_id"]),
        name=row["name"],
        identity_key=row["identity_key"],
        flower_key=row["flower_key"],
        tls_fingerprint=row["tls_fingerprint"],
        certificate_expires=_moment(row["certificate_expires"]),
        joined_at=_moment(row["joined_at"]),
        revoked_at=_moment(row["revoked_at"]) if row["revoked_at"] else None,
        last_seen=_moment(row["last_seen"]) if row["last_seen"] else None,
    )


def person_of(row: sqlite3.Row) -> PersonRecord:
    """Return the record in a row."""
    return PersonRecord(
        name=row["name"],
        role=Role(row["role"]),
        identity_key=row["identity_key"],
        projects=tuple(json.loads(row["projects"])),
        added_at=_moment(row["added_at"]),
        revoked_at=_moment(row["revoked_at"]) if row["revoked_at"] else None,
    )


def study_of(row: sqlite3.Row) -> StudyRecord:
    """Return the record in a row."""
    return StudyRecord(
        plan_hash=row["plan_hash"],
        envelope=row["envelope"],
        proposed_at=_moment(row["proposed_at"]),
    )
