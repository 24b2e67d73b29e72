"""The mutual-TLS channel from a profile to the broker, and what its failures mean to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from coordinator.profile import Profile
from protocols.refusal import RefusalCode, Refused

KEEPALIVE = (  # a channel that lives for months notices when the coordinator's machine is gone
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class CoordinatorUnreachable(Exception):
    """Nobody answers at the broker's address, or not with the consortium's certificate."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"no coordinator of this consortium answers at {address}: does `fedtwin coordinator serve` run,"
            " and may this machine connect out to it?"
        )
        self.address = address


def open_channel(profile: Profile) -> grpc.Channel:
    """Return a channel that connects at the first call and again whenever it has to. Threads may share it."""
    ca, key, certificate = profile.tls()
    return grpc.secure_channel(profile.broker_address, grpc.ssl_channel_credentials(ca, key, certificate))


def open_async_channel(profile: Profile) -> grpc.aio.Channel:
    """Return the same for the event loop that runs."""
    ca, key, certificate = profile.tls()
    return grpc.aio.secure_channel(
        profile.broker_address, grpc.ssl_channel_credentials(ca, key, certificate), options=KEEPALIVE
    )


@contextmanager
def explained(profile: Profile) -> Iterator[None]:
    """Turn gRPC's failures into refusals, or into words about the connection."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # away, or it is stopping
            raise CoordinatorUnreachable(profile.broker_address) from None
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Refused(RefusalCode.DEADLINE) from None
        raise Refused(_code_in(error)) from None


def _code_in(error: grpc.RpcError) -> RefusalCode:
    """Read the refusal that the coordinator put into the status; a closed list, whatever it says."""
    try:
        return RefusalCode((error.details() or "").split(":")[0].strip())
    except ValueError:
        denied = error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        return RefusalCode.UNKNOWN_SIGNER if denied else RefusalCode.INTERNAL
