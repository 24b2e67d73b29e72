"""Who is calling: role and name from the mutual-TLS certificate, and whether they still may.

Guarantee: nothing in a message says who sent it. A certificate of another consortium, of an unknown role, or
of somebody whom the roll does not list (any more) is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography import x509

from protocols.ids import ConsortiumId, MalformedId, NodeId
from protocols.refusal import RefusalCode, Refused

NODE, RESEARCHER, LEAD = "node", "researcher", "lead"
ROLES = frozenset({NODE, RESEARCHER, LEAD})


@dataclass(frozen=True, slots=True)
class Caller:
    """The role and name that a certificate of this consortium states."""

    role: str
    name: str


@dataclass(frozen=True, slots=True)
class Roll:
    """Who may connect at this moment, and the roster that nodes should have. Read again each second."""

    roster_version: int
    roster_envelope: bytes
    nodes: frozenset[NodeId]
    people: Mapping[str, str] = field(default_factory=dict)  # name → role, for researchers and leads

    def admits(self, caller: Caller) -> bool:
        """Return whether the roll lists this caller."""
        if caller.role == NODE:
            return any(str(node) == caller.name for node in self.nodes)
        return self.people.get(caller.name) == caller.role


def of_certificate(pem: bytes, *, consortium: ConsortiumId) -> Caller:
    """Return who the subject URI `fedtwin://<consortium>/<role>/<name>` of a certificate says it is.

    Raises: Refused(UNKNOWN_SIGNER) for any other certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris: list[str] = list(names.get_values_for_type(x509.UniformResourceIdentifier))
        if len(uris) != 1:
            raise Refused(RefusalCode.UNKNOWN_SIGNER)
        parts = urlsplit(uris[0])
        _, role, name = parts.path.split("/")
        ours = parts.scheme == "fedtwin" and ConsortiumId.parse(parts.netloc) == consortium
        if not ours or role not in ROLES or not name:
            raise Refused(RefusalCode.UNKNOWN_SIGNER)
    except (ValueError, x509.ExtensionNotFound, MalformedId) as error:
        raise Refused(RefusalCode.UNKNOWN_SIGNER) from error
    return Caller(role, unquote(name))


def of_context(context: Any, *, consortium: ConsortiumId) -> Caller:
    """Return who opened this gRPC call. Raises: Refused(UNKNOWN_SIGNER)."""
    pems = list(context.auth_context().get("x509_pem_cert") or [])
    if len(pems) != 1:
        raise Refused(RefusalCode.UNKNOWN_SIGNER)
    return of_certificate(pems[0], consortium=consortium)
