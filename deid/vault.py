"""Who is who: the one place in a hospital that leads from a patient to a pseudonym.

A pseudonym may not be derived from the patient's own information (45 CFR 164.514(c)). So each patient gets
a random secret when first seen; it is kept here, found again by a keyed hash of the source id, and the person
id and the date shift are keyed hashes of that secret. Without vault *and* key neither can be computed, not
even by someone who knows every medical record number.

What leaves for a project gets pseudonyms, shifts and surrogates of that project's own: they are hashes under
a key drawn for the project, so that two projects' exports cannot be joined, by ids or by dates, without this
vault. Rotating a project's key makes its next export one that cannot be joined with the last.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from deid.dates import shift_of
from deid.errors import WrongKey
from deid.spans import Category, Known
from privacy.rng import SecureBits

KEY_BYTES = 32  # the strength of the HMAC-SHA256 it keys
SECRET_BYTES = 16  # two patients never draw the same one
_BATCH = 20_000  # ids per statement: bounds the memory of one look-up
MOST_KNOWN = 64  # identifiers kept of a patient: names, numbers, addresses of some moves
_REMEMBERED = 100_000  # pseudonyms in memory: some 25 MB
_NONCE_BYTES = 12  # of AES-GCM
_ID_MASK = 2**63 - 1  # OMOP ids are signed 64-bit; ours are positive


class PseudonymKey:
    """The hospital's key for pseudonyms: 32 secret bytes that never leave it. Prints as hidden."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a pseudonym key has {KEY_BYTES} bytes, got {len(raw)}")
        self._raw = raw

    def __repr__(self) -> str:
        return "PseudonymKey(<hidden>)"

    def keyed(self, label: bytes, *parts: bytes) -> bytes:
        """Return HMAC-SHA256 under this key of the label and the parts, each with its length."""
        message = b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))
        return hmac.digest(self._raw, message, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """For each source id asked for: its person id and its shift in whole days."""

    ids: NDArray[np.int64]
    shift_days: NDArray[np.int64]


class Vault:
    """The SQLite file of patients' secrets (0600), in the node's home.

    Guarantee: the same source id in the same namespace always leads to the same pseudonym; a secret is
    durable before the pseudonym made from it is returned; the file holds no source id, and what identifies a
    patient only sealed under the key (`remember`). Thread-safe.
    """

    def __init__(self, connection: sqlite3.Connection, *, key: PseudonymKey, bits: SecureBits) -> None:
        """Use `open`."""
        self._connection = connection
        self._key = key
        self._bits = bits
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, str], tuple[int, int]] = {}

    @classmethod
    def open(cls, path: Path | str, *, key: PseudonymKey, bits: SecureBits) -> Self:
        """Open the vault at `path`, making it if it is not there.

        Raises: WrongKey if it was made with another key.
        """
        path = Path(path)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # never a moment with wider rights
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is written over
        connection.execute("CREATE TABLE IF NOT EXISTS key_check (tag BLOB NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS patient (lookup BLOB PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS project"
            " (lookup BLOB PRIMARY KEY, secret BLOB NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS identity"
            " (lookup BLOB PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID"
        )
        tag = key.keyed(b"fedtwin vault key check")
        row = connection.execute("SELECT tag FROM key_check").fetchone()
        if row is None:
            connection.execute("INSERT INTO key_check VALUES (?)", [tag])
        elif not hmac.compare_digest(row[0], tag):
            connection.close()
            raise WrongKey(f"{path}: made with another pseudonym key")
        return cls(connection, key=key, bits=bits)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM patient").fetchone()[0])

    def pseudonyms(self, source_ids: Sequence[str], *, namespace: str, project: str = "") -> Pseudonyms:
        """Return the pseudonyms of `source_ids`, drawing secrets for those that are new.

        Args:
            source_ids: as the hospital's system writes them; repeats are fine.
            namespace: what kind of id this is ("mrn", "encounter"): the same text elsewhere is somebody else.
            project: whose export they are for; empty for the hospital's own store.
        """
        if project:
            key = self._key_of(project)
            found = [_derive(key, secret) for secret in self._secrets(source_ids, namespace)]
        else:
            found = self._own(source_ids, namespace)
        pairs = np.array(found, dtype=np.int64).reshape(len(found), 2)
        return Pseudonyms(pairs[:, 0].copy(), pairs[:, 1].copy())

    def _own(self, source_ids: Sequence[str], namespace: str) -> list[tuple[int, int]]:
        """Person ids and shifts for the hospital's own store. The last are remembered: they never change."""
        known = self._recent
        if len(known) > _REMEMBERED:  # anew and not emptied: another thread may be at it
            known = self._recent = {}
        fresh = [one for one in dict.fromkeys(source_ids) if (namespace, one) not in known]
        if fresh:
            for source_id, secret in zip(fresh, self._secrets(fresh, namespace), strict=True):
                known[namespace, source_id] = _derive(self._key, secret)
        return [known[namespace, source_id] for source_id in source_ids]

    def surrogate_keys(
        self, source_ids: Sequence[str], *, namespace: str, project: str = ""
    ) -> list[PseudonymKey]:
        """Return for each patient the key that their surrogates (`deid.surrogates`) hang on."""
        key = self._key_of(project)
        return [
            PseudonymKey(key.keyed(b"surrogates", secret)) for secret in self._secrets(source_ids, namespace)
        ]

    def rotate(self, project: str) -> int:
        """Draw a new key for a project's exports and forget the old one; return how often that was done.

        Guarantee: afterwards nobody, this hospital included, can join an earlier export with a later one by
        pseudonym, shift or surrogate.
        Raises: ValueError for the empty name, which is the hospital's own store.
        """
        if not project:
            raise ValueError("a project has a name; the store's own pseudonyms stay")
        lookup = self._key.keyed(b"project", project.encode())
        secret = self._bits.bytes(KEY_BYTES)
        with self._lock:
            row = self._connection.execute(
                "INSERT INTO project VALUES (?, ?, 1) ON CONFLICT (lookup)"
                " DO UPDATE SET secret = excluded.secret, version = version + 1 RETURNING version",
                [lookup, secret],
            ).fetchone()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log holds the old one too
        return int(row[0]) - 1

    def _key_of(self, project: str) -> PseudonymKey:
        """The key that derives a project's pseudonyms, drawn when the project is first seen."""
        if not project:
            return self._key
        lookup = self._key.keyed(b"project", project.encode())
        with self._lock:
            self._connection.execute(
                "INSERT INTO project VALUES (?, ?, 1) ON CONFLICT (lookup) DO NOTHING",
                [lookup, self._bits.bytes(KEY_BYTES)],
            )
            (secret,) = self._connection.execute(
                "SELECT secret FROM project WHERE lookup = ?", [lookup]
            ).fetchone()
        return PseudonymKey(self._key.keyed(b"project key", secret))

    def _secrets(self, source_ids: Sequence[str], namespace: str) -> list[bytes]:
        """The patients' secrets; those of new ones are drawn, and durable before they are returned."""
        label = namespace.encode()
        lookups = [self._key.keyed(b"lookup", label, source_id.encode()) for source_id in source_ids]
        secrets: dict[bytes, bytes] = {}
        with self._lock:
            for start in range(0, len(lookups), _BATCH):
                self._find(lookups[start : start + _BATCH], secrets)
            fresh = [lookup for lookup in dict.fromkeys(lookups) if lookup not in secrets]
            if fresh:
                drawn = self._bits.bytes(SECRET_BYTES * len(fresh))
                for place, lookup in enumerate(fresh):
                    secrets[lookup] = drawn[place * SECRET_BYTES : (place + 1) * SECRET_BYTES]
                self._keep([(lookup, secrets[lookup]) for lookup in fresh])
        return [secrets[lookup] for lookup in lookups]

    def remember(self, known: Mapping[str, Iterable[Known]], *, namespace: str) -> None:
        """Keep what identifies patients, by source id, to find it in their texts; adds to what is kept.

        Guarantee: sealed by AES-256-GCM under a key made from the hospital's own and bound to the patient; at
        most `MOST_KNOWN` items each of a patient, the latest of them.
        """
        cipher = AESGCM(self._key.keyed(b"identity"))
        before = self.known_of(list(known), namespace=namespace)
        rows = []
        for old, (source_id, new) in zip(before, known.items(), strict=True):
            items = list(dict.fromkeys([*old, *new]))[-MOST_KNOWN:]
            if tuple(items) == old:
                continue
            lookup, nonce = self._identity_of(source_id, namespace), self._bits.bytes(_NONCE_BYTES)
            plain = json.dumps([[item.category.value, item.value] for item in items]).encode()
            rows.append((lookup, nonce + cipher.encrypt(nonce, plain, lookup)))
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO identity VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def known_of(self, source_ids: Sequence[str], *, namespace: str) -> list[tuple[Known, ...]]:
        """Return what was remembered of each patient; nothing of one who is unknown.

        Raises: WrongKey if an entry was not sealed for this patient under this key.
        """
        cipher = AESGCM(self._key.keyed(b"identity"))
        found: list[tuple[Known, ...]] = []
        for source_id in source_ids:
            lookup = self._identity_of(source_id, namespace)
            with self._lock:
                row = self._connection.execute(
                    "SELECT sealed FROM identity WHERE lookup = ?", [lookup]
                ).fetchone()
            if row is None:
                found.append(())
                continue
            try:
                plain = cipher.decrypt(row[0][:_NONCE_BYTES], row[0][_NONCE_BYTES:], lookup)
            except InvalidTag:
                raise WrongKey("an entry of the vault was not sealed for this patient") from None
            found.append(tuple(Known(Category(kind), value) for kind, value in json.loads(plain)))
        return found

    def forget(self, source_ids: Sequence[str], *, namespace: str) -> None:
        """Forget what was remembered of patients. Their pseudonyms stay, so that they stay away."""
        with self._lock:
            self._connection.executemany(
                "DELETE FROM identity WHERE lookup = ?",
                [(self._identity_of(source_id, namespace),) for source_id in source_ids],
            )
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log holds it too

    def _identity_of(self, source_id: str, namespace: str) -> bytes:
        return self._key.keyed(b"identity lookup", namespace.encode(), source_id.encode())

    def record_ids(self, names: Sequence[bytes], *, label: str) -> NDArray[np.int64]:
        """Return for each name a number below 2^63, never 0: the same name always gets the same.

        Guarantee: a keyed hash (BLAKE2b), so that without the key no name can be found from its number. The
        name of something of a patient begins with their pseudonym, not with the hospital's own id.
        """
        keyed = hashlib.blake2b(digest_size=8, key=self._key.keyed(b"record ids", label.encode()))
        begin = keyed.copy  # half as long as keying each anew
        digests = []
        for name in names:
            digest = begin()
            digest.update(name)
            digests.append(digest.digest())
        numbers = (np.frombuffer(b"".join(digests), dtype=">u8") & np.uint64(_ID_MASK)).astype(np.int64)
        return np.maximum(numbers, 1)

    def dicom_uid(self, uid: str, *, project: str = "") -> str:
        """Return the UID that stands for a hospital's, in headers, in files and in the CDM alike: a UUID of
        version 8 (RFC 9562) as DICOM writes one (PS3.5 B.2).

        Guarantee: a keyed hash (HMAC-SHA256), 122 bits of it: not to be computed or undone without the key.
        """
        raw = bytearray(self._key_of(project).keyed(b"dicom uid", uid.encode())[:16])
        raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80  # version and variant
        return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"

    def _find(self, lookups: list[bytes], secrets: dict[bytes, bytes]) -> None:
        marks = ",".join("?" * len(lookups))
        rows = self._connection.execute(
            f"SELECT lookup, secret FROM patient WHERE lookup IN ({marks})",  # noqa: S608 (only question marks)
            lookups,
        )
        secrets.update(rows)

    def _keep(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT INTO patient VALUES (?, ?)", sorted(pairs))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _derive(key: PseudonymKey, secret: bytes) -> tuple[int, int]:
    """The person id and the date shift of the patient with this secret."""
    person = int.from_bytes(key.keyed(b"person", secret)[:8], "big") & _ID_MASK
    return person or 1, shift_of(key.keyed(b"date shift", secret))
