"""A profile: the folder of credentials with which a researcher or a lead speaks to the coordinator.

profile.toml             name, role, consortium, broker_address
identity.key             Ed25519, signs questions and studies (0600)
tls.key tls.crt ca.crt   mutual TLS with the broker (the key 0600)
roster.pub               the key that the consortium's roster is verified with (64 hex digits)
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.authority import PERSON_LIFETIME, Authority
from coordinator.roster_book import RosterBook
from privacy import private_files
from protocols.invitation import check_address
from protocols.key_forms import certificate_request, identity_key, new_tls_key, private_pem
from protocols.peer import Peer, Role

KEYS = frozenset({"name", "role", "consortium", "broker_address"})


class MalformedProfile(ValueError):
    """The folder is no profile, or a file in it is wrong."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who asks, whom they ask, and with which keys. Prints without its keys."""

    directory: Path
    name: str
    role: Role
    consortium: str
    broker_address: str

    @classmethod
    def load(cls, directory: Path) -> Profile:
        """Read the profile in `directory`. Raises: MalformedProfile."""
        path = directory / "profile.toml"
        if not path.is_file():
            raise MalformedProfile(f"{directory}: no profile.toml here")
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MalformedProfile(f"{path}: not TOML") from error
        if set(fields) != KEYS or not all(isinstance(value, str) for value in fields.values()):
            raise MalformedProfile(f"{path}: needs exactly {', '.join(sorted(KEYS))}, each a text")
        try:
            check_address(fields["broker_address"])
            return cls(directory=directory, **{**fields, "role": Role(fields["role"])})
        except ValueError as error:
            raise MalformedProfile(f"{path}: {error}") from error

    def identity_key(self) -> Ed25519PrivateKey:
        """Read the key that signs. Raises: OpenToOthers if others may read it; WrongKey."""
        return identity_key(private_files.read_secret(self.directory / "identity.key"))

    def tls(self) -> tuple[bytes, bytes, bytes]:
        """Return (authority, private key, certificate) in PEM. Raises: OpenToOthers."""
        key = private_files.read_secret(self.directory / "tls.key")
        return (self.directory / "ca.crt").read_bytes(), key, (self.directory / "tls.crt").read_bytes()


def issue_profile(
    authority: Authority,
    book: RosterBook,
    out: Path,
    *,
    name: str,
    role: Role,
    projects: tuple[str, ...],
    broker_address: str,
) -> Profile:
    """Make keys and a certificate for a researcher or lead, enter them into the roster, write `out`.

    Guarantee: the folder and the new roster are both there afterwards, or neither is.
    Raises: FileExistsError if `out` is there and not empty; ValueError for a name that is taken or malformed.
    """
    identity, key = Ed25519PrivateKey.generate(), new_tls_key()
    peer = Peer(authority.consortium, role, name)
    certificate = authority.issue(certificate_request(key), peer, lifetime=PERSON_LIFETIME)
    fields = {
        "name": name,
        "role": role.value,
        "consortium": str(authority.consortium),
        "broker_address": broker_address,
    }
    text = "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
    with new_folder(out) as draft:
        private_files.write(draft / "identity.key", private_pem(identity))
        private_files.write(draft / "tls.key", private_pem(key))
        private_files.write(draft / "tls.crt", certificate)
        private_files.write(draft / "ca.crt", authority.certificate_pem)
        private_files.write(draft / "roster.pub", book.roster_key.hex().encode() + b"\n")
        private_files.write(draft / "profile.toml", text.encode())
        public = identity.public_key().public_bytes_raw()
        book.add_person(name, role=role, identity_key=public, projects=projects)
    return Profile.load(out)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a draft of `path` (0700), put in its place when the block ends well and removed when it does not.

    Raises: FileExistsError if `path` is there and not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(17, "exists already and is not overwritten", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield draft
        draft.replace(path)
        private_files.sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
