"""Whether a gateway would work: its config, credentials, issuer and coordinator, looked at once."""

from __future__ import annotations

from typing import Any

import httpx

from coordinator.authority import certificate_facts
from coordinator.channel import CoordinatorUnreachable, explained, open_async_channel
from coordinator.gateway.asking import DESCRIBE_TIMEOUT_S
from coordinator.gateway.config import GatewayConfig
from coordinator.gateway.issuer import BadIssuer, IssuerKeys
from coordinator.gateway.serving import issuer_client, own_profile
from protocols.refusal import Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc


async def look(config: GatewayConfig) -> dict[str, Any]:
    """Return what is found. Writes nothing. Raises: MalformedProfile, WrongProfile, OpenToOthers."""
    profile = own_profile(config)
    found: dict[str, Any] = {
        "gateway": profile.name,
        "projects": sorted(grant.project for grant in config.access.grants),
        "credentials_until": certificate_facts(profile.tls()[2])[1].isoformat(),
    }
    if config.certificate is not None:
        found["certificate_until"] = certificate_facts(config.certificate.read_bytes())[1].isoformat()
    async with issuer_client(config) as client:
        try:
            keys = await IssuerKeys(config.issuer, client=client, plain_http=config.plain_http).fetch()
            found["issuer_keys"] = sorted({key.algorithm for key in keys.values()})
        except (httpx.HTTPError, TimeoutError):
            found["issuer_keys"] = "the issuer does not answer"
        except BadIssuer as error:
            found["issuer_keys"] = str(error)
    async with open_async_channel(profile) as channel:
        stub = fedtwin_pb2_grpc.ResearchStub(channel)  # type: ignore[no-untyped-call]  # generated code
        try:
            with explained(profile):
                reply = await stub.Describe(pb.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_S)
            found["coordinator"] = f"{reply.connected} of {reply.hospitals} hospitals connected"
            found["roster_projects"] = list(reply.projects)
        except CoordinatorUnreachable:
            found["coordinator"] = "does not answer"
        except Refused as refused:
            found["coordinator"] = refused.code.value
    return found
