"""Renewal over real mutual TLS, with the key that the node already has."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from cryptography import x509

from coordinator import enrolment
from node.home import NodeHome
from node.keys import NodeKeys
from node.renewal import renew_if_due
from protocols.clock import SystemClock
from protocols.ids import NodeId
from protocols.peer import peer_of
from protocols.refusal import Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.consortium import Consortium, LoopThread, files_of, founded

T = TypeVar("T")


class Renewals(fedtwin_pb2_grpc.NodesServicer):
    """The renewal of the broker, on its own: who calls is known by certificate."""

    def __init__(self, consortium: Consortium, *, substitute: bytes | None = None) -> None:
        self._consortium = consortium
        self._substitute = substitute

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:
        caller = peer_of(context.auth_context()["x509_pem_cert"][0])
        authority = self._consortium.home.authority(clock=self._consortium.clock)
        try:
            pem = await asyncio.to_thread(
                enrolment.renew,
                self._consortium.state,
                authority,
                NodeId.parse(caller.name),
                request.csr_envelope,
            )
        except Refused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.code.value)
        return pb.RenewReply(certificate_pem=self._substitute or pem)


async def renewal(consortium: Consortium, home: NodeHome, *, substitute: bytes | None = None) -> bool:
    """Serve renewals on loopback and let the node ask once."""
    tls = consortium.home.server_tls(clock=consortium.clock)
    server = grpc.aio.server()
    service = Renewals(consortium, substitute=substitute)
    fedtwin_pb2_grpc.add_NodesServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(tls.key, tls.chain)], tls.authority, True)
    )
    await server.start()
    credentials = grpc.ssl_channel_credentials(
        home.authority.read_bytes(), NodeKeys.load(home.keys).tls_pem, home.certificate.read_bytes()
    )
    try:
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = fedtwin_pb2_grpc.NodesStub(channel)  # type: ignore[no-untyped-call]  # generated
            return await renew_if_due(home, stub, clock=consortium.clock)
    finally:
        await server.stop(0)


def run(consortium: Consortium, what: Coroutine[Any, Any, T]) -> T:
    return consortium.loop.run(what)


def end(home: NodeHome) -> Any:
    return x509.load_pem_x509_certificate(home.certificate.read_bytes()).not_valid_after_utc


def test_a_certificate_is_renewed_in_its_last_third_and_not_before(consortium: Consortium) -> None:
    home = consortium.joined()
    before, old_end = files_of(home.path), end(home)
    consortium.clock.advance(timedelta(days=59))
    assert not run(consortium, renewal(consortium, home))
    assert files_of(home.path) == before
    consortium.clock.advance(timedelta(days=2))
    assert run(consortium, renewal(consortium, home))
    assert end(home) == old_end + timedelta(days=61)
    assert {name for name, data in files_of(home.path).items() if before[name] != data} == {"tls.crt"}
    assert peer_of(home.certificate.read_bytes()) == peer_of(before["tls.crt"])
    assert not run(consortium, renewal(consortium, home))


def test_the_new_certificate_opens_the_next_connection_after_the_old_one_has_ended(
    tmp_path: Path, loop_thread: LoopThread
) -> None:
    """Founded 70 days ago, renewed on day 65, and again on day 135, when the first has long ended."""
    with founded(tmp_path, loop=loop_thread, ago=timedelta(days=70)) as consortium:
        consortium.serve()
        home = consortium.joined()
        consortium.clock.advance(timedelta(days=65))
        assert run(consortium, renewal(consortium, home))
        assert end(home) > SystemClock().now() + timedelta(days=80)
        consortium.clock.advance(timedelta(days=70))
        assert run(consortium, renewal(consortium, home))


def test_an_expired_certificate_opens_no_connection(tmp_path: Path, loop_thread: LoopThread) -> None:
    with founded(tmp_path, loop=loop_thread, ago=timedelta(days=100)) as consortium:
        consortium.serve()
        home = consortium.joined()
        before = files_of(home.path)
        consortium.clock.advance(timedelta(days=100))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            run(consortium, renewal(consortium, home))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert files_of(home.path) == before


def test_a_revoked_node_gets_no_new_certificate(consortium: Consortium) -> None:
    home = consortium.joined()
    before = files_of(home.path)
    consortium.clock.advance(timedelta(days=61))
    consortium.book.revoke_node(home.config().node_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        run(consortium, renewal(consortium, home))
    assert caught.value.details() == "revoked"
    assert files_of(home.path) == before


def test_a_certificate_that_is_not_ours_is_not_kept(consortium: Consortium) -> None:
    home, other = consortium.joined("one"), consortium.joined("other")
    before = files_of(home.path)
    consortium.clock.advance(timedelta(days=61))
    lead = (consortium.home.lead_profile / "tls.crt").read_bytes()
    for substitute in (other.certificate.read_bytes(), lead, b"none", before["tls.crt"]):
        with pytest.raises(Refused, match="roster-mismatch"):
            run(consortium, renewal(consortium, home, substitute=substitute))
        assert files_of(home.path) == before
