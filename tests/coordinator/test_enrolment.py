"""Over real TLS and gRPC: one hospital per invitation, and a refusal changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coordinator.enrolment import renew
from node.keys import NodeKeys
from privacy.rng import SecureBits
from protocols import envelope
from protocols.envelope import Purpose
from protocols.ids import NodeId
from protocols.invitation import Invitation, join_statement
from protocols.key_forms import certificate_request, new_tls_key
from protocols.peer import Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.consortium import Consortium


def fresh() -> NodeKeys:
    return NodeKeys.generate(bits=SecureBits())


def request(secret: bytes, keys: NodeKeys, **changes: Any) -> pb.JoinRequest:
    """A right request, with fields replaced after it was signed."""
    csr = certificate_request(keys.tls)
    statement = join_statement(secret=secret, csr_der=csr, flower_public_key=keys.flower_public)
    fields = {
        "invitation_secret": secret,
        "csr_der": csr,
        "identity_key": keys.identity_public,
        "identity_proof": keys.identity.sign(statement),
        "flower_public_key": keys.flower_public,
    }
    return pb.JoinRequest(**(fields | changes))


def secret_of(consortium: Consortium, **options: Any) -> bytes:
    return Invitation.parse(consortium.token(**options)).secret


def send(consortium: Consortium, message: pb.JoinRequest) -> pb.JoinReply:
    """Send it over the wire. Raises: Refused with the code that came back."""
    credentials = grpc.ssl_channel_credentials(consortium.home.authority_certificate.read_bytes())
    address = consortium.home.config().enrolment_address
    with grpc.secure_channel(address, credentials) as channel:
        stub = fedtwin_pb2_grpc.EnrolmentStub(channel)  # type: ignore[no-untyped-call]  # generated
        try:
            return stub.Join(message, timeout=10)  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            raise Refused(RefusalCode(error.details() or "")) from None


def assert_refused(consortium: Consortium, message: pb.JoinRequest, code: RefusalCode) -> None:
    before = consortium.contents()
    with pytest.raises(Refused) as caught:
        send(consortium, message)
    assert caught.value.code == code
    assert consortium.contents() == before


def test_a_hospital_with_an_invitation_gets_its_certificate_and_stands_in_the_roster(
    consortium: Consortium,
) -> None:
    keys = fresh()
    reply = send(consortium, request(secret_of(consortium, name="St. Élise"), keys))
    node_id = NodeId(reply.node_id)
    peer = peer_of(reply.certificate_pem)
    assert (peer.role, peer.name) == (Role.NODE, str(node_id))
    entry = consortium.book.current().active_nodes[node_id]
    assert (entry.name, entry.identity_key) == ("St. Élise", keys.identity_public)
    assert entry.flower_key == keys.flower_public
    assert reply.roster_envelope == consortium.book.envelope()
    assert consortium.state.invitations()[0].used_by == node_id


def test_a_wrong_secret_is_refused(consortium: Consortium) -> None:
    secret = secret_of(consortium)
    wrong = secret[:-1] + bytes([secret[-1] ^ 1])
    assert_refused(consortium, request(wrong, fresh()), RefusalCode.INVITATION_UNKNOWN)
    assert_refused(consortium, request(bytes(40), fresh()), RefusalCode.INVITATION_UNKNOWN)
    assert_refused(consortium, request(secret[:39], fresh()), RefusalCode.INVITATION_UNKNOWN)
    assert_refused(consortium, request(b"", fresh()), RefusalCode.INVITATION_UNKNOWN)


def test_an_expired_invitation_is_refused(consortium: Consortium) -> None:
    secret = secret_of(consortium, lifetime=timedelta(hours=1))
    consortium.clock.advance(timedelta(minutes=61))
    assert_refused(consortium, request(secret, fresh()), RefusalCode.INVITATION_EXPIRED)


def test_a_used_invitation_is_refused(consortium: Consortium) -> None:
    secret = secret_of(consortium)
    send(consortium, request(secret, fresh()))
    assert_refused(consortium, request(secret, fresh()), RefusalCode.INVITATION_USED)
    consortium.clock.advance(timedelta(days=3))
    assert_refused(consortium, request(secret, fresh()), RefusalCode.INVITATION_USED)


def test_of_many_at_the_same_moment_one_is_let_in(consortium: Consortium) -> None:
    secret = secret_of(consortium)
    messages = [request(secret, fresh()) for _ in range(8)]

    def outcome(message: pb.JoinRequest) -> str:
        try:
            send(consortium, message)
        except Refused as refused:
            return refused.code
        return "in"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(outcome, messages))
    assert outcomes == ["in"] + ["invitation-used"] * 7
    assert len(consortium.state.nodes()) == 1
    assert consortium.book.version() == 2


def test_if_the_reply_was_lost_the_same_keys_get_it_again(consortium: Consortium) -> None:
    message = request(secret_of(consortium), fresh())
    first, second = send(consortium, message), send(consortium, message)
    assert first.node_id == second.node_id
    assert first.roster_envelope == second.roster_envelope
    assert len(consortium.state.nodes()) == 1


def test_the_proofs_must_hold(consortium: Consortium) -> None:
    secret, keys, other = secret_of(consortium), fresh(), fresh()
    p256 = new_tls_key().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    bad, malformed = RefusalCode.BAD_SIGNATURE, RefusalCode.MALFORMED
    for code, changes in (
        (bad, {"identity_key": other.identity_public}),
        (bad, {"identity_proof": bytes(64)}),
        (bad, {"identity_proof": b""}),
        (bad, {"csr_der": certificate_request(other.tls)}),
        (bad, {"flower_public_key": other.flower_public}),
        (bad, {"identity_proof": keys.identity.sign(certificate_request(keys.tls))}),
        (malformed, {"identity_key": b"short"}),
        (malformed, {"flower_public_key": p256}),
        (malformed, {"flower_public_key": "ssh-rsa AAAA"}),
        (malformed, {"flower_public_key": ""}),
    ):
        assert_refused(consortium, request(secret, keys, **changes), code)
    send(consortium, request(secret, keys))


def test_a_proof_for_one_invitation_is_none_for_another(consortium: Consortium) -> None:
    keys = fresh()
    seen = request(secret_of(consortium), keys)
    stolen = request(secret_of(consortium), keys, identity_proof=seen.identity_proof, csr_der=seen.csr_der)
    assert_refused(consortium, stolen, RefusalCode.BAD_SIGNATURE)


def test_a_request_that_is_no_request_is_refused(consortium: Consortium) -> None:
    secret, keys = secret_of(consortium), fresh()
    broken = bytearray(certificate_request(keys.tls))
    broken[-1] ^= 1
    for csr in (bytes(broken), b"", b"x" * 5_000):
        statement = join_statement(secret=secret, csr_der=csr, flower_public_key=keys.flower_public)
        changes = {"csr_der": csr, "identity_proof": keys.identity.sign(statement)}
        assert_refused(consortium, request(secret, keys, **changes), RefusalCode.MALFORMED)


def test_a_key_that_another_hospital_has_or_had_is_refused(consortium: Consortium) -> None:
    keys, other = fresh(), fresh()
    reply = send(consortium, request(secret_of(consortium), keys))
    consortium.book.revoke_node(NodeId(reply.node_id))
    same_identity = NodeKeys(keys.identity, other.tls, other.flower, other.pseudonym)
    same_flower = NodeKeys(other.identity, other.tls, keys.flower, other.pseudonym)
    for reused in (same_identity, same_flower):
        message = request(secret_of(consortium), reused)
        assert_refused(consortium, message, RefusalCode.NOT_ALLOWED)


def test_an_invitation_back_is_for_the_keys_of_that_hospital(consortium: Consortium) -> None:
    keys = fresh()
    node_id = NodeId(send(consortium, request(secret_of(consortium), keys)).node_id)
    back = secret_of(consortium, node_id=node_id)
    assert_refused(consortium, request(back, fresh()), RefusalCode.NOT_ALLOWED)
    version = consortium.book.version()
    assert NodeId(send(consortium, request(back, keys)).node_id) == node_id
    assert consortium.book.version() == version
    assert_refused(consortium, request(back, fresh()), RefusalCode.INVITATION_USED)


def test_a_revoked_hospital_is_not_let_back_in(consortium: Consortium) -> None:
    keys = fresh()
    first = request(secret_of(consortium), keys)
    node_id = NodeId(send(consortium, first).node_id)
    back = request(secret_of(consortium, node_id=node_id), keys)
    consortium.book.revoke_node(node_id)
    assert_refused(consortium, back, RefusalCode.REVOKED)
    assert_refused(consortium, first, RefusalCode.REVOKED)


def test_the_log_names_no_secret(consortium: Consortium, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = secret_of(consortium)
    send(consortium, request(secret, fresh()))
    assert_refused(consortium, request(secret, fresh()), RefusalCode.INVITATION_USED)
    assert "joined" in caplog.text
    assert "invitation-used" in caplog.text
    assert secret.hex() not in caplog.text
    assert repr(secret) not in caplog.text


# ---- renewal, the authority's side ----


def renewed(consortium: Consortium, node_id: NodeId, key: Ed25519PrivateKey, **changes: Any) -> bytes:
    fields = {"purpose": Purpose.RENEWAL, "signer": str(node_id)} | changes
    csr = certificate_request(new_tls_key())
    signed = envelope.sign(csr, key=key, **fields).to_bytes()
    authority = consortium.home.authority(clock=consortium.clock)
    return renew(consortium.state, authority, node_id, signed)


def test_a_node_renews_with_its_identity_key_and_nothing_else(consortium: Consortium) -> None:
    keys, stranger = fresh(), fresh()
    node_id = NodeId(send(consortium, request(secret_of(consortium), keys)).node_id)
    consortium.clock.advance(timedelta(days=61))
    assert peer_of(renewed(consortium, node_id, keys.identity)).name == str(node_id)
    record = consortium.state.node(node_id)
    assert record is not None
    assert record.certificate_expires == consortium.clock.now().replace(microsecond=0) + timedelta(days=90)
    before = consortium.contents()
    for key, changes in (
        (stranger.identity, {}),
        (keys.identity, {"purpose": Purpose.SUM_ADVERT}),
        (keys.identity, {"signer": str(NodeId.new())}),
    ):
        with pytest.raises(Refused, match="bad-signature"):
            renewed(consortium, node_id, key, **changes)
    with pytest.raises(Refused, match="revoked"):
        renewed(consortium, NodeId.new(), keys.identity)
    assert consortium.contents() == before


def test_a_revoked_node_does_not_renew(consortium: Consortium) -> None:
    keys = fresh()
    node_id = NodeId(send(consortium, request(secret_of(consortium), keys)).node_id)
    consortium.book.revoke_node(node_id)
    with pytest.raises(Refused, match="revoked"):
        renewed(consortium, node_id, keys.identity)
