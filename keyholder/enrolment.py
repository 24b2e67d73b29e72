"""Joining a consortium as its key-holder, with an invitation, as hospitals join.

Guarantee: the secret is sent only to the coordinator that the invitation names; keys are made here and only
their public halves are sent; what comes back is checked against the invitation and these keys; the home is
complete afterwards, or not there.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyholder import rosters
from keyholder.home import KeyHolderConfig, KeyHolderHome
from node.enrolment import call_enrolment, check_certificate
from node.pinning import authority_of
from privacy import private_files
from protocols.clock import Clock
from protocols.invitation import Invitation, join_statement
from protocols.key_forms import certificate_request, new_tls_key, private_pem
from protocols.peer import NotAPeer, Peer, Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.roster import fingerprint
from protocols.wire import fedtwin_pb2 as pb


def enrol(home: KeyHolderHome, token: str, *, clock: Clock) -> KeyHolderConfig:
    """Join with the invitation `token` and fill `home`. Blocking.

    Raises: BadToken; FileExistsError; Unreachable; Refused. Nothing is there then.
    """
    invitation = Invitation.parse(token)
    if home.path.exists() and any(home.path.iterdir()):
        raise FileExistsError(17, "exists already and is not overwritten", str(home.path))
    if clock.now() >= invitation.expires_at:
        raise Refused(RefusalCode.INVITATION_EXPIRED)
    identity, tls = Ed25519PrivateKey.generate(), new_tls_key()
    authority = authority_of(invitation.address, fingerprint=invitation.ca_fingerprint)
    csr = certificate_request(tls)
    statement = join_statement(secret=invitation.secret, csr_der=csr, flower_public_key="")
    request = pb.JoinRequest(
        invitation_secret=invitation.secret,
        csr_der=csr,
        identity_key=identity.public_key().public_bytes_raw(),
        identity_proof=identity.sign(statement),
    )
    reply = call_enrolment(invitation.address, authority, request)
    config = _checked(reply, invitation, identity, tls, authority)
    for folder in (home.path, home.keys, home.logs):
        private_files.make_folder(folder)
    private_files.write(home.keys / "identity.key", private_pem(identity))
    private_files.write(home.keys / "tls.key", private_pem(tls))
    private_files.write(home.certificate, reply.certificate_pem)
    private_files.write(home.authority, authority)
    private_files.write(home.roster, reply.roster_envelope)
    private_files.write(home.config_file, config.to_toml().encode())  # last: it says that all is there
    return config


def _checked(
    reply: pb.JoinReply,
    invitation: Invitation,
    identity: Ed25519PrivateKey,
    tls: EllipticCurvePrivateKey,
    authority: bytes,
) -> KeyHolderConfig:
    if fingerprint(reply.roster_key) != invitation.roster_key_fingerprint.hex():
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    try:
        peer = peer_of(reply.certificate_pem)
        roster = rosters.verified(
            reply.roster_envelope, consortium=peer.consortium, roster_key=reply.roster_key
        )
        config = KeyHolderConfig(peer.name, peer.consortium, reply.roster_key, reply.broker_address)
    except (NotAPeer, ValueError) as error:
        raise Refused(RefusalCode.ROSTER_MISMATCH) from error
    mine = roster.key_holder
    if mine is None or (mine.name, mine.identity_key) != (
        peer.name,
        identity.public_key().public_bytes_raw(),
    ):
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    me = Peer(peer.consortium, Role.KEY_HOLDER, peer.name)
    check_certificate(reply.certificate_pem, authority_pem=authority, key=tls.public_key(), me=me)
    return config
