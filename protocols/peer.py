"""Who a certificate stands for: `fedtwin://<consortium>/<role>/<name>` in its subject alternative name.

Role and name come from the certificate alone; subject names and every other field are decoration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from protocols.ids import ConsortiumId, NodeId

RENEW_AT = 3  # a certificate is due when less than one third of its life is left
SCHEME = "fedtwin://"
PERSON_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # no quoting in a URI, a path or a shell


class Role(StrEnum):
    """What a certificate's holder may be."""

    NODE = "node"
    RESEARCHER = "researcher"
    LEAD = "lead"
    COORDINATOR = "coordinator"
    KEY_HOLDER = "key-holder"


class NotAPeer(ValueError):
    """The certificate or the URI names nobody of a consortium."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One party of one consortium. `name` is the text of a NodeId for a node, else a short name."""

    consortium: ConsortiumId
    role: Role
    name: str

    def __post_init__(self) -> None:
        if self.role == Role.NODE:
            NodeId.parse(self.name)
        elif not PERSON_NAME.fullmatch(self.name):
            raise NotAPeer("a name is 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit")

    @property
    def uri(self) -> str:
        """The URI that stands in this party's certificate."""
        return f"{SCHEME}{self.consortium}/{self.role.value}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Peer:
        """Return the party that `uri` names.

        >>> Peer.parse("fedtwin://c-000102030405060708090a0b0c0d0e0f/lead/ada").role.value
        'lead'

        Raises: NotAPeer, for anything but the one spelling that `uri` of a Peer has.
        """
        parts = uri.removeprefix(SCHEME).split("/")
        if not uri.startswith(SCHEME) or len(parts) != 3:
            raise NotAPeer("not fedtwin://<consortium>/<role>/<name>")
        try:
            return cls(ConsortiumId.parse(parts[0]), Role(parts[1]), parts[2])
        except ValueError as error:
            raise NotAPeer("an unknown consortium, role or name") from error


def peer_of(certificate_pem: bytes) -> Peer:
    """Return whom the certificate names. Its signature is TLS's business, not judged here.

    Raises: NotAPeer, unless exactly one URI names a party.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise NotAPeer("no certificate with a subject alternative name") from error
    if len(uris) != 1:
        raise NotAPeer(f"one URI names the holder, got {len(uris)}")
    return Peer.parse(uris[0])


def due_for_renewal(certificate: x509.Certificate, *, now: datetime) -> bool:
    """Return whether less than a third of the certificate's life is left."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life / RENEW_AT
