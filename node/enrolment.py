"""Joining a consortium with an invitation, and joining again after the certificate ran out.

Guarantee: the secret is sent only to the coordinator that the invitation names; keys are made here and only
their public halves are sent; everything that comes back is checked against the invitation and these keys; the
home is complete afterwards, or as it was.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.home import NodeConfig, NodeHome
from node.keys import NodeKeys
from node.pinning import Unreachable, authority_of
from node.roster import RosterKeeper, Trust, pins_of
from privacy import private_files
from privacy.rng import SecureBits
from protocols import canonical
from protocols.clock import Clock
from protocols.ids import MalformedId, NodeId
from protocols.invitation import Invitation, join_statement
from protocols.key_forms import certificate_request
from protocols.peer import NotAPeer, Peer, Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster, fingerprint
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

TIMEOUT_S = 20.0  # one try of the call
TRIES = 3  # the same keys again, in case only the reply was lost
PAUSE_S = 1.0
TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class AlreadyJoined(ValueError):
    """This home belongs to a node already."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"{home} has joined a consortium already; a second node needs another --home")
        self.home = home


@dataclass(frozen=True, slots=True)
class _Joined:
    config: NodeConfig
    certificate: bytes
    authority: bytes
    envelope: bytes
    roster: Roster


def join(home: NodeHome, token: str, *, clock: Clock, bits: SecureBits | None = None) -> NodeConfig:
    """Join with the invitation `token` and fill `home`. Blocking. Returns what node.toml says.

    Raises: BadToken; AlreadyJoined; Unreachable; Refused(WRONG_COORDINATOR, INVITATION_UNKNOWN,
        INVITATION_USED, INVITATION_EXPIRED, ROSTER_MISMATCH, ...). Nothing has changed then.
    """
    invitation = Invitation.parse(token)
    if home.joined or home.keys.exists():
        raise AlreadyJoined(home.path)
    keys = NodeKeys.generate(bits=bits or SecureBits())
    joined = _ask(invitation, keys, clock=clock)
    home.path.parent.mkdir(parents=True, exist_ok=True)
    draft = NodeHome(Path(tempfile.mkdtemp(prefix=f".{home.path.name}.", dir=home.path.parent)))
    try:
        keys.write(draft.keys)
        private_files.write(draft.certificate, joined.certificate)
        private_files.write(draft.authority, joined.authority)
        private_files.write(draft.roster, joined.envelope)
        private_files.write(draft.peers, canonical.encode(pins_of(joined.roster, known={})))
        private_files.write(draft.config_file, joined.config.to_toml().encode())
        _settle(draft, home)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)
    trail = AuditLog(home.audit, clock=clock)
    trail.record(AuditEvent.ENROLLED, node_id=joined.config.node_id, roster_version=joined.roster.version)
    trail.close()
    return joined.config


def rejoin(home: NodeHome, token: str, *, clock: Clock) -> NodeConfig:
    """Get a new certificate for a node whose own ran out, with an invitation made for this very node.

    Guarantee: id, keys, pins, ledger and store stay; only the certificate, and the roster if newer, change.
    Raises: as join; Refused(NOT_ALLOWED) for an invitation that was made for somebody else.
    """
    invitation = Invitation.parse(token)
    before, keys = home.config(), NodeKeys.load(home.keys)
    if fingerprint(before.roster_key) != invitation.roster_key_fingerprint.hex():
        raise Refused(RefusalCode.WRONG_COORDINATOR)
    joined = _ask(invitation, keys, clock=clock)
    if joined.config.node_id != before.node_id or joined.authority != home.authority.read_bytes():
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    RosterKeeper.open(home).accept(joined.envelope)
    private_files.write(home.certificate, joined.certificate)
    config = replace(
        before,
        name=joined.config.name,
        broker_address=joined.config.broker_address,
        fleet_address=joined.config.fleet_address,
    )
    private_files.write(home.config_file, config.to_toml().encode())
    return config


def check_certificate(pem: bytes, *, authority_pem: bytes, key: ec.EllipticCurvePublicKey, me: Peer) -> None:
    """Check that the authority issued `pem` to `key` as `me`. Raises: Refused(ROSTER_MISMATCH)."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem))
        matches = certificate.public_key() == key and peer_of(pem) == me
    except (ValueError, TypeError, InvalidSignature, NotAPeer) as error:
        raise Refused(RefusalCode.ROSTER_MISMATCH) from error
    if not matches:
        raise Refused(RefusalCode.ROSTER_MISMATCH)


def _ask(invitation: Invitation, keys: NodeKeys, *, clock: Clock) -> _Joined:
    if clock.now() >= invitation.expires_at:
        raise Refused(RefusalCode.INVITATION_EXPIRED)
    authority = authority_of(invitation.address, fingerprint=invitation.ca_fingerprint)
    csr = certificate_request(keys.tls)
    statement = join_statement(secret=invitation.secret, csr_der=csr, flower_public_key=keys.flower_public)
    request = pb.JoinRequest(
        invitation_secret=invitation.secret,
        csr_der=csr,
        identity_key=keys.identity_public,
        identity_proof=keys.identity.sign(statement),
        flower_public_key=keys.flower_public,
    )
    return _checked(call_enrolment(invitation.address, authority, request), invitation, keys, authority)


def call_enrolment(address: str, authority: bytes, request: pb.JoinRequest) -> pb.JoinReply:
    """Send a request to join, again if only the reply may be lost. Raises: Refused, Unreachable."""
    credentials = grpc.ssl_channel_credentials(authority)
    options = (("grpc.enable_http_proxy", 0),)  # the handshake that was verified went there directly
    with grpc.secure_channel(address, credentials, options=options) as channel:
        stub = fedtwin_pb2_grpc.EnrolmentStub(channel)  # type: ignore[no-untyped-call]  # generated
        for left in reversed(range(TRIES)):
            try:
                return stub.Join(request, timeout=TIMEOUT_S)  # type: ignore[no-any-return]
            except grpc.RpcError as error:
                if error.code() not in TRANSIENT:
                    raise Refused(_code_of(error)) from None
                if not left:
                    raise Unreachable(address) from None
                time.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _code_of(error: grpc.RpcError) -> RefusalCode:
    try:
        return RefusalCode(error.details() or "")
    except ValueError:
        return RefusalCode.INTERNAL


def _checked(reply: pb.JoinReply, invitation: Invitation, keys: NodeKeys, authority: bytes) -> _Joined:
    """Return the reply if it is for these keys and from whom the invitation names. Raises: Refused."""
    if fingerprint(reply.roster_key) != invitation.roster_key_fingerprint.hex():
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    try:
        node_id, consortium = NodeId(reply.node_id), peer_of(reply.certificate_pem).consortium
        trust = Trust(consortium, reply.roster_key, node_id, keys.identity_public)
        roster = trust.open(reply.roster_envelope)
        mine = roster.active_nodes[node_id]
        config = NodeConfig(
            node_id=node_id,
            name=mine.name,
            consortium=consortium,
            roster_key=reply.roster_key,
            broker_address=reply.broker_address,
            fleet_address=reply.fleet_address,
        )
    except (MalformedId, NotAPeer, KeyError, ValueError) as error:
        raise Refused(RefusalCode.ROSTER_MISMATCH) from error
    if mine.flower_key != keys.flower_public:
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    me = Peer(consortium, Role.NODE, str(node_id))
    check_certificate(reply.certificate_pem, authority_pem=authority, key=keys.tls.public_key(), me=me)
    return _Joined(config, reply.certificate_pem, authority, reply.roster_envelope, roster)


def _settle(draft: NodeHome, home: NodeHome) -> None:
    """Move the draft into its place: at once, or beside what lies there already, node.toml last."""
    if not home.path.exists():
        draft.path.replace(home.path)
        private_files.sync_folder(home.path.parent)
        return
    private_files.make_folder(home.path)
    for path in sorted(draft.path.iterdir(), key=lambda path: (path == draft.config_file, path.is_dir())):
        path.replace(home.path / path.name)
    private_files.sync_folder(home.path)
