"""The coordinator's folder: what lies where, how it is founded, and what is opened from it.

coordinator.toml  keys/{ca,roster,server}.key (0600)  ca.crt server.crt  state.sqlite  profiles/lead/
flower/  logs/
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator import invitations
from coordinator.authority import Authority, found_authority
from coordinator.profile import Profile, issue_profile, new_folder
from coordinator.roster_book import RosterBook
from coordinator.state import State
from privacy import private_files
from protocols.clock import Clock
from protocols.ids import ConsortiumId, NodeId
from protocols.invitation import Invitation, check_address
from protocols.key_forms import identity_key, new_tls_key, private_pem, tls_key
from protocols.peer import Role, due_for_renewal
from protocols.roster import EVERY_PROJECT, MASKED, Settings

ENROLMENT_PORT, BROKER_PORT, FLEET_PORT = 8440, 8441, 8442  # docs/network.md
MINIMUM_SITES = 3  # with two, each site computes the other's value from the total
TOLERANCE = 1  # one hospital may vanish or collude
LOOPBACK = ("localhost", "127.0.0.1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - hospitals connect from elsewhere
LEAD = "lead"
OPTIONAL = frozenset({"secure_sum"})  # keys that files from before them do not have


class MalformedConfig(ValueError):
    """coordinator.toml is missing or wrong."""


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What coordinator.toml says. Unknown and missing keys are errors.

    consortium: its identifier. name: what people call it. host: the name hospitals connect to.
    other_hosts: further names and addresses in the server's certificate. bind: the address listened on.
    minimum_sites, tolerance: the consortium's; a hospital's policy may ask for more. secure_sum: how
    hospitals add up, "masked" (if it is missing), "bfv" or "ckks". These take effect at the next start.
    """

    consortium: ConsortiumId
    name: str
    host: str
    other_hosts: tuple[str, ...]
    bind: str
    enrolment_port: int
    broker_port: int
    fleet_port: int
    minimum_sites: int
    tolerance: int
    secure_sum: str = MASKED

    def __post_init__(self) -> None:
        for port in (self.enrolment_port, self.broker_port, self.fleet_port):
            check_address(_joined(self.host, port))
        if len({self.enrolment_port, self.broker_port, self.fleet_port}) != 3:
            raise ValueError("three listeners need three ports")
        _ = self.settings

    @property
    def settings(self) -> Settings:
        """What the roster says about the consortium."""
        return Settings(self.name, self.minimum_sites, self.tolerance, self.secure_sum)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name and address that the server's certificate is good for."""
        return tuple(dict.fromkeys((self.host, *self.other_hosts, *LOOPBACK)))

    @property
    def enrolment_address(self) -> str:
        """Where hospitals join."""
        return _joined(self.host, self.enrolment_port)

    @property
    def broker_address(self) -> str:
        """Where nodes, researchers and leads connect."""
        return _joined(self.host, self.broker_port)

    @property
    def fleet_address(self) -> str:
        """Where SuperNodes connect."""
        return _joined(self.host, self.fleet_port)

    @property
    def own_broker_address(self) -> str:
        """The broker as seen from this machine: its public name may not resolve here."""
        return _joined("127.0.0.1" if self.bind in EVERYWHERE else self.bind, self.broker_port)

    def listen_address(self, port: int) -> str:
        """Return `bind:port` for a listener."""
        return _joined(self.bind, port)

    def to_toml(self) -> str:
        """Return the file's text."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["consortium"] = str(self.consortium)
        if self.secure_sum == MASKED:
            del values["secure_sum"]
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())

    @classmethod
    def parse(cls, text: str) -> CoordinatorConfig:
        """Return the config in `text`. Raises: MalformedConfig."""
        try:
            found: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MalformedConfig("coordinator.toml: not TOML") from error
        known = {field.name for field in fields(cls)}
        odd = (set(found) ^ known) - OPTIONAL.difference(found)
        if odd:
            odd_ones = ", ".join(sorted(odd))
            raise MalformedConfig(f"coordinator.toml: unknown or missing: {odd_ones}")
        kinds = {"other_hosts": list} | {
            name: int for name in known if name.endswith("_port") or name in ("minimum_sites", "tolerance")
        }
        for name, value in found.items():
            if not isinstance(value, kinds.get(name, str)) or isinstance(value, bool):
                raise MalformedConfig(f"coordinator.toml: {name} has the wrong type")
        try:
            consortium = ConsortiumId.parse(found["consortium"])
            others = tuple(str(host) for host in found["other_hosts"])
            return cls(**{**found, "consortium": consortium, "other_hosts": others})
        except ValueError as error:
            raise MalformedConfig(f"coordinator.toml: {error}") from error


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM of the listeners' key and certificate chain, and of the authority. Prints without the key."""

    key: bytes
    chain: bytes
    authority: bytes

    def __repr__(self) -> str:
        return "ServerTls(<hidden>)"


@dataclass(frozen=True, slots=True)
class CoordinatorHome:
    """Paths, and what is opened from them."""

    path: Path

    @property
    def config_file(self) -> Path:
        """coordinator.toml: its presence says that the home was founded."""
        return self.path / "coordinator.toml"

    @property
    def keys(self) -> Path:
        """ca.key, roster.key and server.key."""
        return self.path / "keys"

    @property
    def authority_certificate(self) -> Path:
        """ca.crt."""
        return self.path / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """server.crt: the server's certificate and the authority's."""
        return self.path / "server.crt"

    @property
    def state_file(self) -> Path:
        """state.sqlite."""
        return self.path / "state.sqlite"

    @property
    def lead_profile(self) -> Path:
        """The coordinator's own lead, with whom the ServerApp opens rounds."""
        return self.path / "profiles" / LEAD

    @property
    def flower(self) -> Path:
        """What Flower keeps."""
        return self.path / "flower"

    @property
    def logs(self) -> Path:
        """Logs of every process of the coordinator."""
        return self.path / "logs"

    @classmethod
    def init(
        cls,
        path: Path,
        *,
        name: str,
        host: str,
        other_hosts: tuple[str, ...] = (),
        enrolment_port: int = ENROLMENT_PORT,
        broker_port: int = BROKER_PORT,
        fleet_port: int = FLEET_PORT,
        minimum_sites: int = MINIMUM_SITES,
        tolerance: int = TOLERANCE,
        secure_sum: str = MASKED,
        bind: str | None = None,
        clock: Clock,
    ) -> CoordinatorHome:
        """Found a consortium in `path`: authority, roster key, server certificate, config, state, lead.

        Guarantee: all of it or nothing; nothing is overwritten; every key 0600, every folder 0700.
        Args: bind: loopback if `host` is, else every address of the machine.
        Raises: FileExistsError if `path` is there and not empty; ValueError for a wrong name, host or port.
        """
        config = CoordinatorConfig(
            consortium=ConsortiumId.new(),
            name=name,
            host=host,
            other_hosts=other_hosts,
            bind=bind or ("127.0.0.1" if host in LOOPBACK else EVERYWHERE[0]),
            enrolment_port=enrolment_port,
            broker_port=broker_port,
            fleet_port=fleet_port,
            minimum_sites=minimum_sites,
            tolerance=tolerance,
            secure_sum=secure_sum,
        )
        with new_folder(path) as draft_path:
            draft = cls(draft_path)
            draft._found(config, clock=clock)
        return cls(path)

    def config(self) -> CoordinatorConfig:
        """Read coordinator.toml. Raises: MalformedConfig."""
        if not self.config_file.is_file():
            raise MalformedConfig(f"{self.path}: no coordinator here; `fedtwin coordinator init` makes one")
        return CoordinatorConfig.parse(self.config_file.read_text(encoding="utf-8"))

    def open_state(self) -> State:
        """Open the state; close it when done."""
        _ = self.config()
        return State(self.state_file)

    def authority(self, *, clock: Clock) -> Authority:
        """Load the certificate authority. Raises: OpenToOthers if others may read its key."""
        return Authority(
            self.config().consortium,
            certificate=x509.load_pem_x509_certificate(self.authority_certificate.read_bytes()),
            key=tls_key(private_files.read_secret(self.keys / "ca.key")),
            clock=clock,
        )

    def roster_book(self, state: State, *, clock: Clock) -> RosterBook:
        """Load the roster's key. Raises: OpenToOthers if others may read it."""
        config = self.config()
        key = identity_key(private_files.read_secret(self.keys / "roster.key"))
        return RosterBook(state, key=key, consortium=config.consortium, settings=config.settings, clock=clock)

    def invite(
        self,
        state: State,
        name: str,
        *,
        clock: Clock,
        lifetime: timedelta = invitations.LIFETIME,
        node_id: NodeId | None = None,
        role: Role = Role.NODE,
    ) -> Invitation:
        """Return an invitation for one hospital; `.to_token()` is the line to hand over.

        Args:
            node_id: a hospital of the roster whose certificate has expired; it keeps its id and keys.
            role: KEY_HOLDER invites the key-holder instead.
        """
        return invitations.invite(
            state,
            name,
            address=self.config().enrolment_address,
            ca_fingerprint=self.authority(clock=clock).fingerprint,
            roster_key_fingerprint=self.roster_book(state, clock=clock).roster_key_fingerprint,
            clock=clock,
            lifetime=lifetime,
            node_id=node_id,
            role=role,
        )

    def issue_profile(
        self, state: State, out: Path, *, name: str, role: Role, projects: tuple[str, ...], clock: Clock
    ) -> Profile:
        """Make credentials for a researcher or lead in `out` and enter them into the roster."""
        return issue_profile(
            self.authority(clock=clock),
            self.roster_book(state, clock=clock),
            out,
            name=name,
            role=role,
            projects=projects,
            broker_address=self.config().broker_address,
        )

    def server_tls(self, *, clock: Clock) -> ServerTls:
        """Return what the listeners show, with a new certificate if the old one is due."""
        chain = self.server_certificate.read_bytes()
        if due_for_renewal(x509.load_pem_x509_certificate(chain), now=clock.now()):
            self._certify_server(self.authority(clock=clock), self.config())
            chain = self.server_certificate.read_bytes()
        key = private_files.read_secret(self.keys / "server.key")
        return ServerTls(key, chain, self.authority_certificate.read_bytes())

    def _found(self, config: CoordinatorConfig, *, clock: Clock) -> None:
        for folder in (self.keys, self.flower, self.logs, self.lead_profile.parent):
            private_files.make_folder(folder)
        ca_key = new_tls_key()
        certificate = found_authority(config.consortium, key=ca_key, clock=clock)
        authority = Authority(config.consortium, certificate=certificate, key=ca_key, clock=clock)
        private_files.write(self.keys / "ca.key", private_pem(ca_key))
        private_files.write(self.keys / "roster.key", private_pem(Ed25519PrivateKey.generate()))
        private_files.write(self.keys / "server.key", private_pem(new_tls_key()))
        private_files.write(self.authority_certificate, authority.certificate_pem)
        self._certify_server(authority, config)
        private_files.write(self.config_file, config.to_toml().encode())
        state = self.open_state()
        try:
            book = self.roster_book(state, clock=clock)
            issue_profile(
                authority,
                book,
                self.lead_profile,
                name=LEAD,
                role=Role.LEAD,
                projects=(EVERY_PROJECT,),
                broker_address=config.own_broker_address,
            )
        finally:
            state.close()

    def _certify_server(self, authority: Authority, config: CoordinatorConfig) -> None:
        key = tls_key(private_files.read_secret(self.keys / "server.key"))
        private_files.write(
            self.server_certificate, authority.issue_server(key.public_key(), hosts=config.hosts)
        )


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
