"""A hospital joins over real TLS: its keys stay home, its secret goes to the right coordinator only."""

import dataclasses
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_private_key
from cryptography.x509.oid import NameOID

from coordinator.enrolment import Enrolment
from coordinator.home import CoordinatorHome
from node.enrolment import AlreadyJoined, join, rejoin
from node.home import MalformedConfig, NodeConfig, NodeHome
from node.keys import NodeKeys
from node.pinning import Unreachable
from node.roster import RosterKeeper
from privacy import private_files
from privacy.private_files import OpenToOthers
from privacy.rng import SecureBits
from protocols.clock import FixedClock
from protocols.invitation import BadToken, Invitation
from protocols.key_forms import new_tls_key, private_pem
from protocols.peer import Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from tests.consortium import Consortium, LoopThread, files_of, founded
from tests.ports import free_ports


def refused(consortium: Consortium, home: NodeHome, token: str) -> RefusalCode:
    """Join, expect a refusal and that nothing has changed on either side; return its code."""
    before, files, beside = consortium.contents(), files_of(home.path), sorted(home.path.parent.iterdir())
    with pytest.raises(Refused) as caught:
        join(home, token, clock=consortium.clock)
    assert consortium.contents() == before
    assert files_of(home.path) == files
    assert sorted(home.path.parent.iterdir()) == beside
    return caught.value.code


def test_a_joined_home_holds_what_a_node_needs(consortium: Consortium) -> None:
    home = consortium.node()
    config = join(home, consortium.token("St. Élise"), clock=consortium.clock)
    assert config == home.config()
    assert config.name == "St. Élise"
    assert config.consortium == consortium.home.config().consortium
    assert config.broker_address == consortium.home.config().broker_address
    keys, roster = NodeKeys.load(home.keys), RosterKeeper.open(home)
    assert roster.peers()[config.node_id].public_bytes_raw() == keys.identity_public
    peer = peer_of(home.certificate.read_bytes())
    assert (peer.role, peer.name) == (Role.NODE, str(config.node_id))
    certificate = x509.load_pem_x509_certificate(home.certificate.read_bytes())
    assert certificate.public_key() == keys.tls.public_key()
    assert load_ssh_private_key(home.flower_key.read_bytes(), password=None).curve.name == "secp384r1"  # type: ignore[union-attr]  # an EC key
    assert len(keys.pseudonym) == 32


def test_every_key_is_readable_by_its_owner_only(consortium: Consortium) -> None:
    home = consortium.joined()
    assert {path.name for path in home.keys.iterdir()} == {
        "identity.key",
        "tls.key",
        "flower.key",
        "pseudonym.key",
    }
    for path in (home.path, *home.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    for path in home.keys.iterdir():
        path.chmod(0o640)
        with pytest.raises(OpenToOthers):
            NodeKeys.load(home.keys)
        path.chmod(0o600)


def test_two_hospitals_share_no_key_and_keys_do_not_show(consortium: Consortium) -> None:
    one, other = (NodeKeys.load(consortium.joined(slug).keys) for slug in ("one", "other"))
    for field in ("identity_public", "tls_pem", "flower", "pseudonym"):
        assert getattr(one, field) != getattr(other, field)
    assert repr(one) == "NodeKeys(<hidden>)"


def test_no_private_key_reaches_the_coordinator(consortium: Consortium) -> None:
    home = consortium.joined()
    held = b"".join(files_of(consortium.home.path).values())
    keys = NodeKeys.load(home.keys)
    secrets = (keys.identity.private_bytes_raw(), keys.pseudonym, keys.flower, keys.tls_pem)
    assert keys.identity_public in held
    assert not [secret for secret in secrets if secret in held]


def test_a_second_join_is_refused_and_leaves_the_first(consortium: Consortium) -> None:
    home = consortium.joined()
    before, token = files_of(home.path), consortium.token("Again")
    with pytest.raises(AlreadyJoined):
        join(home, token, clock=consortium.clock)
    assert files_of(home.path) == before
    join(consortium.node("second"), token, clock=consortium.clock)


def test_a_policy_written_before_the_join_is_kept(consortium: Consortium) -> None:
    home = consortium.node()
    home.path.mkdir()
    home.policy.write_text("mine")
    join(home, consortium.token(), clock=consortium.clock)
    assert home.policy.read_text() == "mine"
    assert home.joined
    assert not [path for path in home.path.parent.iterdir() if path.name.startswith(".")]


# ---- tokens that are no good ----


def test_a_token_with_a_typing_error_says_so(consortium: Consortium) -> None:
    token = consortium.token()
    wrong = token[:60] + ("A" if token[60] != "A" else "B") + token[61:]
    with pytest.raises(BadToken, match="typing error"):
        join(consortium.node(), wrong, clock=consortium.clock)
    assert not consortium.node().path.exists()


def test_a_token_may_be_wrapped_over_lines(consortium: Consortium) -> None:
    token = consortium.token()
    join(consortium.node(), f"  {token[:80]}\n  {token[80:]}\n", clock=consortium.clock)


def test_a_wrong_used_or_expired_token_changes_nothing_on_either_side(consortium: Consortium) -> None:
    right = Invitation.parse(consortium.token())
    wrong = Invitation(
        right.address, right.ca_fingerprint, right.roster_key_fingerprint, bytes(40), right.expires_at
    )
    home = consortium.node()
    assert refused(consortium, home, wrong.to_token()) == RefusalCode.INVITATION_UNKNOWN
    join(consortium.node("other"), right.to_token(), clock=consortium.clock)
    assert refused(consortium, home, right.to_token()) == RefusalCode.INVITATION_USED
    late = consortium.token("Late", lifetime=timedelta(minutes=5))
    consortium.clock.advance(timedelta(minutes=6))
    assert refused(consortium, home, late) == RefusalCode.INVITATION_EXPIRED


def test_an_expired_token_is_refused_also_by_a_coordinator_whose_clock_is_right(
    consortium: Consortium,
) -> None:
    """The hospital's clock lags, so it asks; the coordinator's does not."""
    lagging = FixedClock(consortium.clock.now())
    token = consortium.token(lifetime=timedelta(minutes=5))
    consortium.clock.advance(timedelta(minutes=6))
    with pytest.raises(Refused, match="invitation-expired"):
        join(consortium.node(), token, clock=lagging)
    assert not consortium.node().path.exists()


def test_where_nobody_answers_the_address_is_named(consortium: Consortium) -> None:
    right = Invitation.parse(consortium.token())
    nobody = f"localhost:{free_ports(1)[0]}"
    token = Invitation(
        nobody, right.ca_fingerprint, right.roster_key_fingerprint, right.secret, right.expires_at
    ).to_token()
    with pytest.raises(Unreachable, match=nobody):
        join(consortium.node(), token, clock=consortium.clock)
    assert not consortium.node().path.exists()


# ---- the man in the middle ----


class Middle:
    """A TLS server that keeps every byte it decrypts. Its certificate is its own."""

    def __init__(self, chain: Path, key: Path) -> None:
        self.heard: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain, key)
        self._context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("", 0))  # 127.0.0.2 as well
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(2)
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    while data := secured.recv(65_536):
                        self.heard.append(data)
            except OSError:
                plain.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@contextmanager
def middle(chain: Path, key: Path) -> Iterator[Middle]:
    found = Middle(chain, key)
    try:
        yield found
    finally:
        found.close()


def toward(port: int, token: str, *, host: str = "localhost") -> str:
    """The same invitation, its traffic redirected: what an attacker on the network does."""
    right = Invitation.parse(token)
    return Invitation(
        f"{host}:{port}",
        right.ca_fingerprint,
        right.roster_key_fingerprint,
        right.secret,
        right.expires_at,
    ).to_token()


def another(folder: Path, consortium: Consortium) -> CoordinatorHome:
    return CoordinatorHome.init(folder / "attacker", name="Example", host="localhost", clock=consortium.clock)


def test_a_man_in_the_middle_gets_no_secret(consortium: Consortium, tmp_path: Path) -> None:
    attacker = another(tmp_path, consortium)
    with middle(attacker.server_certificate, attacker.keys / "server.key") as found:
        token = toward(found.port, consortium.token())
        assert refused(consortium, consortium.node(), token) == RefusalCode.WRONG_COORDINATOR
    assert found.heard == []


def test_a_self_signed_certificate_for_the_right_host_gets_no_secret(
    consortium: Consortium, tmp_path: Path
) -> None:
    """It would verify against itself: the fingerprint alone tells it from the authority."""
    key, now = new_tls_key(), consortium.clock.now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    own = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "own.crt").write_bytes(own.public_bytes(Encoding.PEM))
    private_files.write(tmp_path / "own.key", private_pem(key))
    with middle(tmp_path / "own.crt", tmp_path / "own.key") as found:
        token = toward(found.port, consortium.token())
        assert refused(consortium, consortium.node(), token) == RefusalCode.WRONG_COORDINATOR
    assert found.heard == []


def test_showing_the_right_authority_beside_another_certificate_gets_no_secret(
    consortium: Consortium, tmp_path: Path
) -> None:
    """The authority's certificate is public: anybody can append it to a chain of their own."""
    attacker = another(tmp_path, consortium)
    chain = tmp_path / "chain.crt"
    own = attacker.server_certificate.read_bytes()
    chain.write_bytes(own + consortium.home.authority_certificate.read_bytes())
    with middle(chain, attacker.keys / "server.key") as found:
        token = toward(found.port, consortium.token())
        assert refused(consortium, consortium.node(), token) == RefusalCode.WRONG_COORDINATOR
    assert found.heard == []


def test_a_node_cannot_pose_as_the_coordinator(consortium: Consortium, tmp_path: Path) -> None:
    """Its certificate is from the right authority, but for no host."""
    thief = consortium.joined("thief")
    chain = tmp_path / "chain.crt"
    chain.write_bytes(thief.certificate.read_bytes() + thief.authority.read_bytes())
    with middle(chain, thief.keys / "tls.key") as found:
        token = toward(found.port, consortium.token())
        assert refused(consortium, consortium.node(), token) == RefusalCode.WRONG_COORDINATOR
    assert found.heard == []


def test_a_certificate_for_another_host_gets_no_secret(consortium: Consortium) -> None:
    """Not even the coordinator's own: it is good for localhost and 127.0.0.1, not for 127.0.0.2."""
    with middle(consortium.home.server_certificate, consortium.home.keys / "server.key") as found:
        token = toward(found.port, consortium.token(), host="127.0.0.2")
        assert refused(consortium, consortium.node(), token) == RefusalCode.WRONG_COORDINATOR
    assert found.heard == []


def refused_or_unreachable(consortium: Consortium, token: str) -> bool:
    with pytest.raises((Refused, Unreachable)):
        join(consortium.node(), token, clock=consortium.clock)
    return not consortium.node().path.exists()


def test_something_that_is_no_tls_server_is_refused(consortium: Consortium) -> None:
    def greet(listener: socket.socket) -> None:
        with listener.accept()[0] as mail:
            mail.sendall(b"220 mail.example.org\r\n" * 9)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = threading.Thread(target=greet, args=(listener,))
        answer.start()
        token = toward(listener.getsockname()[1], consortium.token())
        assert refused_or_unreachable(consortium, token)
        answer.join(5)


# ---- a coordinator that lies ----

Lie = Callable[[pb.JoinReply, Consortium, CoordinatorHome], None]


def other_roster_key(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    state = attacker.open_state()
    book = attacker.roster_book(state, clock=consortium.clock)
    reply.roster_key = book.roster_key
    reply.roster_envelope = consortium.book.current().signed(book._key)
    state.close()


def other_signer(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    key = reply.roster_key
    other_roster_key(reply, consortium, attacker)
    reply.roster_key = key


def roster_without_me(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    empty = dataclasses.replace(consortium.book.current(), nodes=())
    reply.roster_envelope = empty.signed(consortium.book._key)


def swapped_key(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    roster = consortium.book.current()
    nodes = tuple(dataclasses.replace(node, identity_key=bytes(32)) for node in roster.nodes)
    reply.roster_envelope = dataclasses.replace(roster, nodes=nodes).signed(consortium.book._key)


def swapped_flower_key(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    roster = consortium.book.current()
    other = NodeKeys.generate(bits=SecureBits()).flower_public
    nodes = tuple(dataclasses.replace(node, flower_key=other) for node in roster.nodes)
    reply.roster_envelope = dataclasses.replace(roster, nodes=nodes).signed(consortium.book._key)


def another_certificate(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    reply.certificate_pem = (consortium.home.lead_profile / "tls.crt").read_bytes()


def another_id(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    reply.node_id = bytes(16)


def no_address(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    reply.broker_address = "nowhere"


def nothing(reply: pb.JoinReply, consortium: Consortium, attacker: CoordinatorHome) -> None:
    reply.Clear()


@pytest.mark.parametrize(
    "lie",
    [
        other_roster_key,
        other_signer,
        roster_without_me,
        swapped_key,
        swapped_flower_key,
        another_certificate,
        another_id,
        no_address,
        nothing,
    ],
)
def test_a_reply_that_does_not_fit_leaves_no_home(
    tmp_path: Path, loop_thread: LoopThread, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    with founded(tmp_path, loop=loop_thread) as consortium:
        attacker = another(tmp_path, consortium)
        honest = Enrolment.join

        def lying(self: Enrolment, request: pb.JoinRequest) -> pb.JoinReply:
            reply = honest(self, request)
            lie(reply, consortium, attacker)
            return reply

        monkeypatch.setattr(Enrolment, "join", lying)
        consortium.serve()
        with pytest.raises(Refused, match=r"roster-mismatch|bad-signature"):
            join(consortium.node(), consortium.token(), clock=consortium.clock)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["attacker", "coordinator"]


def test_a_reply_that_is_lost_once_is_asked_for_again(
    tmp_path: Path, loop_thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = Enrolment.Join, []

    async def losing(self, request, context):  # type: ignore[no-untyped-def]  # as the generated base
        reply = await honest(self, request, context)
        calls.append(request.invitation_secret)
        if len(calls) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return reply

    monkeypatch.setattr(Enrolment, "Join", losing)
    with founded(tmp_path, loop=loop_thread) as consortium:
        consortium.serve()
        home = consortium.joined()
        assert len(calls) == 2
        assert [node.node_id for node in consortium.state.nodes()] == [home.config().node_id]


def test_a_coordinator_that_fails_inside_says_no_more_than_a_code(
    tmp_path: Path, loop_thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Enrolment, request: pb.JoinRequest) -> pb.JoinReply:
        raise RuntimeError("at /srv/secret/path")

    monkeypatch.setattr(Enrolment, "join", failing)
    with founded(tmp_path, loop=loop_thread) as consortium:
        consortium.serve()
        assert refused(consortium, consortium.node(), consortium.token()) == RefusalCode.INTERNAL


# ---- coming back, and the config ----


def test_a_hospital_whose_certificate_ran_out_comes_back_as_itself(
    tmp_path: Path, loop_thread: LoopThread
) -> None:
    with founded(tmp_path, loop=loop_thread, ago=timedelta(days=100)) as consortium:
        consortium.serve()
        home = consortium.joined()
        answers_from = dataclasses.replace(home.config(), store="postgresql://host/db", data_version=2)
        private_files.write(home.config_file, answers_from.to_toml().encode())
        before = files_of(home.path)
        consortium.clock.advance(timedelta(days=100))
        node_id = home.config().node_id
        config = rejoin(home, consortium.token(node_id=node_id), clock=consortium.clock)
        assert config.node_id == node_id
        changed = {name for name, data in files_of(home.path).items() if before[name] != data}
        assert changed == {"tls.crt"}
        certificate = x509.load_pem_x509_certificate(home.certificate.read_bytes())
        assert certificate.not_valid_after_utc > consortium.clock.now() + timedelta(days=89)


def test_an_invitation_for_somebody_new_does_not_bring_a_hospital_back(consortium: Consortium) -> None:
    home = consortium.joined()
    token = consortium.token("New")
    before, contents = files_of(home.path), consortium.contents()
    with pytest.raises(Refused, match="not-allowed"):
        rejoin(home, token, clock=consortium.clock)
    assert files_of(home.path) == before
    assert consortium.contents() == contents


def test_the_config_reads_back_as_written_and_refuses_the_unknown(consortium: Consortium) -> None:
    config = consortium.joined().config()
    assert NodeConfig.parse(config.to_toml()) == config
    lines = config.to_toml().splitlines()
    for wrong in (
        [*lines, "more = 1"],
        lines[1:],
        [line.replace("n-", "c-") for line in lines],
        [line.replace(":8441", "") for line in lines],
        ["="],
    ):
        with pytest.raises(MalformedConfig):
            NodeConfig.parse("\n".join(wrong))


def test_a_folder_that_is_no_node_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MalformedConfig, match="fedtwin node join"):
        NodeHome(tmp_path).config()


def test_the_service_offers_one_method_to_strangers() -> None:
    methods = pb.DESCRIPTOR.services_by_name["Enrolment"].methods
    assert [method.name for method in methods] == ["Join"]
