"""What the coordinator must not forget, in one SQLite file: invitations, nodes, people, rosters, studies.

Guarantee: a transaction is durable when it returns, and is there as a whole or not at all. Threads of one
process share a State; several processes (`serve`, `invite`, `revoke`) may open the same file at once.
No secret lies here: of an invitation only a hash.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from coordinator.records import (
    InvitationRecord,
    KeyHolderRecord,
    NodeRecord,
    PersonRecord,
    StudyRecord,
    column,
    invitation_of,
    key_holder_of,
    node_of,
    person_of,
    study_of,
)
from privacy.private_files import FILE_MODE
from protocols.ids import NodeId

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 10.0  # a transaction takes milliseconds; another process may hold the lock for one

_SCHEMA = """
CREATE TABLE invitations (
  handle TEXT PRIMARY KEY, secret_hash BLOB NOT NULL, name TEXT NOT NULL, node_id TEXT,
  created_at TEXT NOT NULL, expires_at TEXT NOT NULL, used_by TEXT, used_at TEXT) STRICT;
CREATE TABLE nodes (
  node_id TEXT PRIMARY KEY, name TEXT NOT NULL, identity_key BLOB NOT NULL UNIQUE,
  flower_key TEXT NOT NULL UNIQUE, tls_fingerprint TEXT NOT NULL, certificate_expires TEXT NOT NULL,
  joined_at TEXT NOT NULL, revoked_at TEXT, last_seen TEXT) STRICT;
CREATE TABLE people (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, identity_key BLOB NOT NULL UNIQUE, projects TEXT NOT NULL,
  added_at TEXT NOT NULL, revoked_at TEXT) STRICT;
CREATE TABLE rosters (version INTEGER PRIMARY KEY, envelope BLOB NOT NULL, issued_at TEXT NOT NULL) STRICT;
CREATE TABLE studies (
  plan_hash BLOB PRIMARY KEY, envelope BLOB NOT NULL, proposed_at TEXT NOT NULL) STRICT;
"""
_CHANGES = {  # what a file of each version gets, in this order; a new file gets all of them
    1: """
CREATE TABLE key_holders (
  holder_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity_key BLOB NOT NULL UNIQUE,
  tls_fingerprint TEXT NOT NULL, certificate_expires TEXT NOT NULL, joined_at TEXT NOT NULL,
  revoked_at TEXT) STRICT;
ALTER TABLE invitations ADD COLUMN role TEXT NOT NULL DEFAULT 'node';
""",
}


class StateFault(Exception):
    """The file is of another version of this software, or no state file."""


class State:
    """The store. Every method is its own transaction unless called inside `transaction()`."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=FILE_MODE)
        self._lock = threading.RLock()
        self._depth = 0
        self._database = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version <= SCHEMA_VERSION:
                scripts = [_SCHEMA] * (version == 0) + [_CHANGES[old] for old in _CHANGES if old >= version]
                for statement in ";".join(scripts).split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            self._database.close()
            raise StateFault(f"{path}: state of version {version}, this software knows {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside happen as one, or not at all if it raises. May be nested."""
        with self._lock:
            if self._depth:
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            else:
                self._database.execute("COMMIT")
            finally:
                self._depth -= 1

    # ---- invitations ----

    def add_invitation(self, record: InvitationRecord) -> None:
        """Add an invitation. Raises: ValueError if its handle is taken."""
        self._insert("invitations", record)

    def invitation(self, handle: str) -> InvitationRecord | None:
        """Return the invitation with this handle."""
        rows = self._rows("SELECT * FROM invitations WHERE handle = ?", handle)
        return invitation_of(rows[0]) if rows else None

    def invitations(self) -> tuple[InvitationRecord, ...]:
        """Return all invitations, oldest first."""
        return tuple(map(invitation_of, self._rows("SELECT * FROM invitations ORDER BY created_at, handle")))

    def use_invitation(self, handle: str, *, node_id: NodeId, at: datetime) -> bool:
        """Mark an invitation as used. Returns False, and changes nothing, if it was used already."""
        statement = "UPDATE invitations SET used_by = ?, used_at = ? WHERE handle = ? AND used_by IS NULL"
        return self._change(statement, str(node_id), at.isoformat(), handle) == 1

    # ---- nodes ----

    def add_node(self, record: NodeRecord) -> None:
        """Add a hospital. Raises: ValueError if its id or one of its keys is taken."""
        self._insert("nodes", record)

    def node(self, node_id: NodeId) -> NodeRecord | None:
        """Return the hospital with this id, revoked or not."""
        rows = self._rows("SELECT * FROM nodes WHERE node_id = ?", str(node_id))
        return node_of(rows[0]) if rows else None

    def nodes(self) -> tuple[NodeRecord, ...]:
        """Return all hospitals by id, revoked ones too."""
        return tuple(map(node_of, self._rows("SELECT * FROM nodes ORDER BY node_id")))

    def set_certificate(self, node_id: NodeId, *, fingerprint: str, expires: datetime) -> None:
        """Remember a hospital's newest certificate."""
        statement = "UPDATE nodes SET tls_fingerprint = ?, certificate_expires = ? WHERE node_id = ?"
        self._change(statement, fingerprint, expires.isoformat(), str(node_id))

    def saw_node(self, node_id: NodeId, *, at: datetime) -> None:
        """Remember when a hospital was last connected."""
        self._change("UPDATE nodes SET last_seen = ? WHERE node_id = ?", at.isoformat(), str(node_id))

    def revoke_node(self, node_id: NodeId, *, at: datetime) -> bool:
        """Revoke a hospital for good. Returns False if there is none or it was revoked before."""
        statement = "UPDATE nodes SET revoked_at = ? WHERE node_id = ? AND revoked_at IS NULL"
        return self._change(statement, at.isoformat(), str(node_id)) == 1

    # ---- key-holders ----

    def add_key_holder(self, record: KeyHolderRecord) -> None:
        """Add a key-holder. Raises: ValueError if its name or key is taken."""
        self._insert("key_holders", record)

    def key_holders(self) -> tuple[KeyHolderRecord, ...]:
        """Return all key-holders by name, revoked ones too."""
        return tuple(map(key_holder_of, self._rows("SELECT * FROM key_holders ORDER BY name")))

    def set_key_holder_certificate(self, name: str, *, fingerprint: str, expires: datetime) -> None:
        """Remember a key-holder's newest certificate."""
        statement = "UPDATE key_holders SET tls_fingerprint = ?, certificate_expires = ? WHERE name = ?"
        self._change(statement, fingerprint, expires.isoformat(), name)

    def revoke_key_holder(self, name: str, *, at: datetime) -> bool:
        """Revoke a key-holder for good. Returns False if there is none or it was revoked before."""
        statement = "UPDATE key_holders SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
        return self._change(statement, at.isoformat(), name) == 1

    # ---- people ----

    def add_person(self, record: PersonRecord) -> None:
        """Add a researcher or lead. Raises: ValueError if the name or key is taken."""
        self._insert("people", record)

    def people(self) -> tuple[PersonRecord, ...]:
        """Return all researchers and leads by name, revoked ones too."""
        return tuple(map(person_of, self._rows("SELECT * FROM people ORDER BY name")))

    def revoke_person(self, name: str, *, at: datetime) -> bool:
        """Revoke a person for good. Returns False if there is none or they were revoked before."""
        statement = "UPDATE people SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
        return self._change(statement, at.isoformat(), name) == 1

    # ---- rosters ----

    def add_roster(self, version: int, envelope: bytes, *, at: datetime) -> None:
        """Add a signed roster. Raises: ValueError if there is one of this version."""
        self._execute("INSERT INTO rosters VALUES (?, ?, ?)", version, envelope, at.isoformat())

    def roster(self) -> tuple[int, bytes]:
        """Return the newest roster's version and envelope; (0, b"") if there is none."""
        rows = self._rows("SELECT version, envelope FROM rosters ORDER BY version DESC LIMIT 1")
        return (rows[0]["version"], rows[0]["envelope"]) if rows else (0, b"")

    def roster_version(self) -> int:
        """Return the newest roster's version without reading it; 0 if there is none."""
        return int(self._rows("SELECT coalesce(max(version), 0) AS version FROM rosters")[0]["version"])

    # ---- studies ----

    def add_study(self, plan_hash: bytes, envelope: bytes, *, at: datetime) -> bool:
        """Add a proposed study. Returns False if it is known already."""
        statement = "INSERT INTO studies VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return self._change(statement, plan_hash, envelope, at.isoformat()) == 1

    def study(self, plan_hash: bytes) -> StudyRecord | None:
        """Return the study with this plan hash."""
        rows = self._rows("SELECT * FROM studies WHERE plan_hash = ?", plan_hash)
        return study_of(rows[0]) if rows else None

    def studies(self) -> tuple[StudyRecord, ...]:
        """Return all studies, oldest first."""
        return tuple(map(study_of, self._rows("SELECT * FROM studies ORDER BY proposed_at, plan_hash")))

    # ---- SQL ----

    def _insert(self, table: str, record: Any) -> None:
        fields = {name: column(getattr(record, name)) for name in type(record).__slots__}
        names, places = ", ".join(fields), ", ".join("?" * len(fields))
        self._execute(f"INSERT INTO {table} ({names}) VALUES ({places})", *fields.values())  # noqa: S608 - names are this module's own

    def _change(self, statement: str, *values: Any) -> int:
        return self._execute(statement, *values).rowcount

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        with self.transaction():
            try:
                return self._database.execute(statement, values)
            except sqlite3.IntegrityError as error:
                raise ValueError("an entry with this name, id or key exists already") from error

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()
