"""The consortium's certificate authority: who a certificate names is decided here, not by who asks.

Guarantee: of a certificate request only the public key is used, after its self-signature has been checked;
the name, the uses and the life of the certificate are the authority's. Nothing outlives the authority.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.clock import Clock
from protocols.ids import ConsortiumId
from protocols.peer import Peer

AUTHORITY_LIFETIME = timedelta(days=3_653)  # ten years: replacing it means that every hospital joins again
CERTIFICATE_LIFETIME = timedelta(days=90)  # a stolen key is worth a quarter at most; nodes renew at 60 days
PERSON_LIFETIME = timedelta(days=365)  # a person renews by hand
SERVER_LIFETIME = timedelta(days=365)  # renewed when the coordinator starts
CLOCK_SKEW = timedelta(minutes=5)  # how far a hospital's clock may lag
MAX_CSR_BYTES = 4_096  # a P-256 request has about 300


class BadRequest(ValueError):
    """The certificate request is malformed, not self-signed, or for another kind of key."""


class Authority:
    """Issues certificates for one consortium. Prints without its key."""

    def __init__(
        self,
        consortium: ConsortiumId,
        *,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        clock: Clock,
    ) -> None:
        if certificate.public_key() != key.public_key():
            raise ValueError("the authority's key is not that of its certificate")
        self.consortium = consortium
        self.certificate = certificate
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"Authority({self.consortium}, key=<hidden>)"

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the authority's certificate: what an invitation carries."""
        return self.certificate.fingerprint(hashes.SHA256())

    def issue(self, csr_der: bytes, peer: Peer, *, lifetime: timedelta = CERTIFICATE_LIFETIME) -> bytes:
        """Return a client certificate (PEM) for the key of a request, naming `peer`.

        Raises: BadRequest; ValueError for a peer of another consortium.
        """
        if peer.consortium != self.consortium:
            raise ValueError("a peer of another consortium")
        uri = x509.UniformResourceIdentifier(peer.uri)
        certificate = self._leaf(
            _key_of(csr_der), name=peer.name, alternatives=[uri], usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            lifetime=lifetime,
        )  # fmt: skip
        return certificate.public_bytes(Encoding.PEM)

    def issue_server(self, key: ec.EllipticCurvePublicKey, *, hosts: Sequence[str]) -> bytes:
        """Return a server certificate (PEM) for `hosts`, followed by the authority's own.

        The authority's certificate travels along so that a joining node can compare its fingerprint.
        """
        alternatives = [_host_name(host) for host in dict.fromkeys(hosts)]
        uri = x509.UniformResourceIdentifier(f"fedtwin://{self.consortium}/coordinator/coordinator")
        certificate = self._leaf(
            key, name="fedtwin coordinator", alternatives=[*alternatives, uri],
            usage=ExtendedKeyUsageOID.SERVER_AUTH, lifetime=SERVER_LIFETIME,
        )  # fmt: skip
        return certificate.public_bytes(Encoding.PEM) + self.certificate_pem

    def _leaf(
        self,
        key: ec.EllipticCurvePublicKey,
        *,
        name: str,
        alternatives: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        lifetime: timedelta,
    ) -> x509.Certificate:
        now = self._clock.now()
        end = min(now + lifetime, self.certificate.not_valid_after_utc)
        if end <= now:
            raise ValueError("the authority's own certificate has expired")
        return (
            _builder(_subject(name), self.certificate.subject, key, now - CLOCK_SKEW, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def found_authority(
    consortium: ConsortiumId, *, key: ec.EllipticCurvePrivateKey, clock: Clock
) -> x509.Certificate:
    """Return a self-signed certificate that makes `key` the authority of `consortium`."""
    now, name = clock.now(), _subject(f"fedtwin {consortium}")
    public = key.public_key()
    return (
        _builder(name, name, public, now - CLOCK_SKEW, now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def certificate_facts(pem: bytes) -> tuple[str, datetime]:
    """Return (SHA-256 in hex, expiry) of a certificate."""
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.fingerprint(hashes.SHA256()).hex(), certificate.not_valid_after_utc


def _key_of(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr_der) > MAX_CSR_BYTES:
        raise BadRequest(f"a certificate request has at most {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest("not a certificate request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequest("the request is for another kind of key than ECDSA P-256")
    if not signed:
        raise BadRequest("the request is not signed with its own key")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
