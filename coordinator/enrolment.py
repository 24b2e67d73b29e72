"""Enrolment: a hospital with an invitation becomes a node, or nothing changes.

Guarantee: the secret is checked before anything else is read; the request must be signed by the TLS key and
by the identity key, over this very invitation; certificate, roster entry and the used invitation are one
transaction. If the reply is lost, the same keys with the same invitation get it again; other keys do not.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator import invitations
from coordinator.authority import Authority, BadRequest, certificate_facts
from coordinator.home import CoordinatorConfig, CoordinatorHome
from coordinator.records import InvitationRecord, KeyHolderRecord, NodeRecord
from coordinator.roster_book import RosterBook
from coordinator.state import State
from protocols import envelope
from protocols.clock import Clock
from protocols.envelope import BadEnvelope, Purpose, SignedEnvelope
from protocols.ids import NodeId
from protocols.invitation import join_statement
from protocols.key_forms import WrongKey, flower_line
from protocols.peer import Peer, Role
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024  # a request has about 1 kB; anybody may send here
MAX_CONCURRENT = 32  # joins are rare; the rest waits outside
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second coordinator on this port must fail, not share it
)


class Enrolment(fedtwin_pb2_grpc.EnrolmentServicer):
    """The one method that a caller without a certificate may use."""

    def __init__(
        self, *, state: State, authority: Authority, book: RosterBook, config: CoordinatorConfig, clock: Clock
    ) -> None:
        self._state = state
        self._authority = authority
        self._book = book
        self._config = config
        self._clock = clock

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        """Let a hospital in."""
        try:
            return await asyncio.to_thread(self.join, request)
        except Refused as refused:
            log.info("a join was refused: %s", refused.code.value)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
        except Exception:
            log.exception("a join failed")
            await context.abort(grpc.StatusCode.INTERNAL, RefusalCode.INTERNAL.value)
        raise AssertionError("abort raises")

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """Check the invitation and the proofs, then enter the node. Blocking. Raises: Refused."""
        now = self._clock.now().replace(microsecond=0)
        invited = invitations.find(self._state, request.invitation_secret, now=now)
        if invited.role == Role.KEY_HOLDER:
            return self._join_key_holder(request, now=now)
        flower_key = _checked(request)
        with self._state.transaction():
            invitation = invitations.find(self._state, request.invitation_secret, now=now)  # may be used now
            known = self._known(invitation, request.identity_key, flower_key)
            node_id = known.node_id if known else NodeId.new()
            certificate = self._certify(Role.NODE, str(node_id), request.csr_der)
            fingerprint, expires = certificate_facts(certificate)
            if known:
                self._state.set_certificate(node_id, fingerprint=fingerprint, expires=expires)
            else:
                record = NodeRecord(
                    node_id=node_id,
                    name=invitation.name,
                    identity_key=request.identity_key,
                    flower_key=flower_key,
                    tls_fingerprint=fingerprint,
                    certificate_expires=expires,
                    joined_at=now,
                )
                self._add(record)
            if invitation.used_by is None:
                invitations.use(self._state, invitation, node_id=node_id, now=now)
            roster = self._book.envelope()
        log.info("%s joined", node_id)
        return self._reply(node_id, certificate, roster)

    def _join_key_holder(self, request: pb.JoinRequest, *, now: datetime) -> pb.JoinReply:
        """Enter the key-holder, as a hospital is entered; it has no Flower key. Raises: Refused."""
        _check_proof(request)
        with self._state.transaction():
            invitation = invitations.find(self._state, request.invitation_secret, now=now)
            known = None
            if invitation.used_by is not None:  # the reply was lost: the same keys get it again
                known = next(r for r in self._state.key_holders() if r.holder_id == invitation.used_by)
                if known.identity_key != request.identity_key:
                    raise Refused(RefusalCode.INVITATION_USED)
                if known.revoked_at is not None:
                    raise Refused(RefusalCode.REVOKED)
            holder_id = known.holder_id if known else NodeId.new()
            certificate = self._certify(Role.KEY_HOLDER, invitation.name, request.csr_der)
            fingerprint, expires = certificate_facts(certificate)
            if known:
                self._state.set_key_holder_certificate(known.name, fingerprint=fingerprint, expires=expires)
            else:
                record = KeyHolderRecord(
                    holder_id=holder_id,
                    name=invitation.name,
                    identity_key=request.identity_key,
                    tls_fingerprint=fingerprint,
                    certificate_expires=expires,
                    joined_at=now,
                )
                try:
                    self._book.add_key_holder(record)
                except ValueError as error:  # its name or key is taken, or there is a key-holder already
                    raise Refused(RefusalCode.NOT_ALLOWED) from error
                invitations.use(self._state, invitation, node_id=holder_id, now=now)
            roster = self._book.envelope()
        log.info("the key-holder %s joined", invitation.name)
        return self._reply(None, certificate, roster)

    def _reply(self, node_id: NodeId | None, certificate: bytes, roster: bytes) -> pb.JoinReply:
        return pb.JoinReply(
            node_id=node_id.raw if node_id else b"",
            certificate_pem=certificate,
            ca_pem=self._authority.certificate_pem,
            roster_envelope=roster,
            roster_key=self._book.roster_key,
            broker_address=self._config.broker_address,
            fleet_address=self._config.fleet_address,
        )

    def _known(self, invitation: InvitationRecord, identity_key: bytes, flower_key: str) -> NodeRecord | None:
        """Return the node that joins again (its reply was lost, or it was invited back), if it is one."""
        expected = invitation.used_by or invitation.node_id
        if expected is None:
            return None
        node = self._state.node(expected)
        if node is None or (node.identity_key, node.flower_key) != (identity_key, flower_key):
            code = RefusalCode.INVITATION_USED if invitation.used_by else RefusalCode.NOT_ALLOWED
            raise Refused(code)
        if node.revoked_at is not None:
            raise Refused(RefusalCode.REVOKED)
        return node

    def _certify(self, role: Role, name: str, csr_der: bytes) -> bytes:
        try:
            return self._authority.issue(csr_der, Peer(self._authority.consortium, role, name))
        except BadRequest as error:
            raise Refused(RefusalCode.MALFORMED) from error

    def _add(self, record: NodeRecord) -> None:
        try:
            self._book.add_node(record)
        except ValueError as error:  # a key that another hospital has, or had before it was revoked
            raise Refused(RefusalCode.NOT_ALLOWED) from error


def renew(state: State, authority: Authority, node_id: NodeId, csr_envelope: bytes) -> bytes:
    """Return a new certificate (PEM) for a node that asks with its identity key. Blocking.

    Args: node_id: from the certificate of the connection; csr_envelope: as RenewRequest says.
    Raises: Refused(REVOKED, BAD_SIGNATURE or MALFORMED).
    """
    node = state.node(node_id)
    if node is None or node.revoked_at is not None:
        raise Refused(RefusalCode.REVOKED)
    peer = Peer(authority.consortium, Role.NODE, str(node_id))
    certificate = _renewed(authority, peer, node.identity_key, csr_envelope)
    fingerprint, expires = certificate_facts(certificate)
    state.set_certificate(node_id, fingerprint=fingerprint, expires=expires)
    return certificate


def renew_key_holder(state: State, authority: Authority, name: str, csr_envelope: bytes) -> bytes:
    """Return a new certificate (PEM) for the key-holder, as `renew` does for a node. Raises: Refused."""
    holder = next((record for record in state.key_holders() if record.name == name), None)
    if holder is None or holder.revoked_at is not None:
        raise Refused(RefusalCode.REVOKED)
    peer = Peer(authority.consortium, Role.KEY_HOLDER, name)
    certificate = _renewed(authority, peer, holder.identity_key, csr_envelope)
    fingerprint, expires = certificate_facts(certificate)
    state.set_key_holder_certificate(name, fingerprint=fingerprint, expires=expires)
    return certificate


def _renewed(authority: Authority, peer: Peer, identity_key: bytes, csr_envelope: bytes) -> bytes:
    key = Ed25519PublicKey.from_public_bytes(identity_key)
    try:
        signed = SignedEnvelope.from_bytes(csr_envelope)
        csr_der = envelope.verify(signed, purpose=Purpose.RENEWAL, signer=peer.name, key=key)
    except BadEnvelope as error:
        raise Refused(RefusalCode.BAD_SIGNATURE) from error
    try:
        return authority.issue(csr_der, peer)
    except BadRequest as error:
        raise Refused(RefusalCode.MALFORMED) from error


async def serve_enrolment(
    home: CoordinatorHome, *, state: State, clock: Clock, address: str | None = None
) -> tuple[grpc.aio.Server, int]:
    """Start the enrolment listener. Returns the server, to be stopped by the caller, and its port.

    Args: address: `host:port` to listen on, port 0 for a free one; from the config if absent.
    Raises: RuntimeError if the port is taken.
    """
    config, tls = home.config(), home.server_tls(clock=clock)
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT)
    service = Enrolment(
        state=state,
        authority=home.authority(clock=clock),
        book=home.roster_book(state, clock=clock),
        config=config,
        clock=clock,
    )
    fedtwin_pb2_grpc.add_EnrolmentServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    credentials = grpc.ssl_server_credentials([(tls.key, tls.chain)])
    listen = address or config.listen_address(config.enrolment_port)
    port = server.add_secure_port(listen, credentials)
    await server.start()
    return server, port


def _checked(request: pb.JoinRequest) -> str:
    """Return the Flower key's line if the identity key signed this request. Raises: Refused."""
    try:
        flower_key = flower_line(request.flower_public_key)
    except (WrongKey, ValueError) as error:
        raise Refused(RefusalCode.MALFORMED) from error
    _check_proof(request)
    return flower_key


def _check_proof(request: pb.JoinRequest) -> None:
    """Check that the identity key signed this request. Raises: Refused."""
    try:
        key = Ed25519PublicKey.from_public_bytes(request.identity_key)
    except ValueError as error:
        raise Refused(RefusalCode.MALFORMED) from error
    statement = join_statement(
        secret=request.invitation_secret,
        csr_der=request.csr_der,
        flower_public_key=request.flower_public_key,
    )
    try:
        key.verify(request.identity_proof, statement)
    except InvalidSignature as error:
        raise Refused(RefusalCode.BAD_SIGNATURE) from error
