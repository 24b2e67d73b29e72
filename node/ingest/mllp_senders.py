"""Who may send messages to a listener, how they show who they are, and how much they may send."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from node.ingest.readers.hl7v2_files import MAX_MESSAGE

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener takes. allowed: the networks that may send; none named means loopback only."""

    message_bytes: int = MAX_MESSAGE
    waiting_messages: int = 512  # of one connection
    waiting_bytes: int = 64 << 20  # of all
    connections: int = 64
    idle_s: float = 300.0
    allowed: tuple[Network, ...] = ()

    def admits(self, address: str) -> bool:
        """Return whether this peer may send."""
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        peer = mapped or peer
        return any(peer in network for network in self.allowed) if self.allowed else peer.is_loopback


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Return networks of "10.1.2.3" and "10.0.0.0/8". Raises: ValueError."""
    return tuple(ipaddress.ip_network(name, strict=False) for name in names)


def tls_context(certificate: str, key: str, *, clients: str | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ server's context. With `clients`, senders show a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
