"""A new certificate before the old one ends, over the connection that the old one opened."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from cryptography import x509

from node.enrolment import check_certificate
from node.home import NodeHome
from node.keys import NodeKeys
from privacy import private_files
from protocols import envelope
from protocols.clock import Clock
from protocols.envelope import Purpose
from protocols.key_forms import certificate_request
from protocols.peer import Peer, Role, due_for_renewal
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

TIMEOUT_S = 20.0


async def renew_if_due(home: NodeHome, stub: Any, *, clock: Clock) -> bool:
    """Renew the node's certificate if less than a third of its life is left. Returns whether it did.

    Guarantee: the key stays; tls.crt is the old certificate or the new one, never a part. The running
    connection is not touched: the next one uses what lies in tls.crt.
    Args: stub: a NodesStub on the node's own mutual-TLS channel (grpc.aio).
    Raises: Refused(ROSTER_MISMATCH) for a certificate that is not ours; grpc.aio.AioRpcError.
    """
    old = await asyncio.to_thread(home.certificate.read_bytes)
    if not due_for_renewal(x509.load_pem_x509_certificate(old), now=clock.now()):
        return False
    config, keys = home.config(), NodeKeys.load(home.keys)
    signed = envelope.sign(
        certificate_request(keys.tls), purpose=Purpose.RENEWAL, signer=str(config.node_id), key=keys.identity
    )
    reply = await stub.Renew(pb.RenewRequest(csr_envelope=signed.to_bytes()), timeout=TIMEOUT_S)
    check_certificate(
        reply.certificate_pem,
        authority_pem=home.authority.read_bytes(),
        key=keys.tls.public_key(),
        me=Peer(config.consortium, Role.NODE, str(config.node_id)),
    )
    if _end(reply.certificate_pem) <= _end(old):
        raise Refused(RefusalCode.ROSTER_MISMATCH)
    await asyncio.to_thread(private_files.write, home.certificate, reply.certificate_pem)
    return True


def _end(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
