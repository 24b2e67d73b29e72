"""The authority decides what a certificate says; the request gives a key and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.authority import AUTHORITY_LIFETIME, Authority, BadRequest, found_authority
from protocols.clock import FixedClock
from protocols.ids import ConsortiumId, NodeId
from protocols.key_forms import certificate_request, new_tls_key
from protocols.peer import NotAPeer, Peer, Role, due_for_renewal, peer_of

CONSORTIUM = ConsortiumId(bytes(16))
ME = Peer(CONSORTIUM, Role.NODE, str(NodeId(bytes(16))))


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 11, 21, tzinfo=UTC))


@pytest.fixture
def authority(clock: FixedClock) -> Authority:
    key = new_tls_key()
    certificate = found_authority(CONSORTIUM, key=key, clock=clock)
    return Authority(CONSORTIUM, certificate=certificate, key=key, clock=clock)


def named(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequestBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject)


def test_a_request_for_another_name_gets_the_name_the_authority_decides(authority: Authority) -> None:
    key = new_tls_key()
    lead = x509.UniformResourceIdentifier(f"fedtwin://{CONSORTIUM}/lead/lead")
    greedy = (
        named(key, "lead")
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([lead, x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    pem = authority.issue(greedy, ME)
    certificate = x509.load_pem_x509_certificate(pem)
    assert peer_of(pem) == ME
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [ME.uri]
    assert certificate.subject.rfc4514_string() == f"CN={ME.name}"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(authority.certificate)


def requests() -> dict[str, bytes]:
    p384 = ec.generate_private_key(ec.SECP384R1())
    big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    right = certificate_request(new_tls_key())
    return {
        "another curve": named(p384, "x").sign(p384, hashes.SHA256()).public_bytes(Encoding.DER),
        "RSA": named(p384, "x").sign(big, hashes.SHA256()).public_bytes(Encoding.DER),
        "a broken signature": right[:-1] + bytes([right[-1] ^ 1]),
        "bytes": b"please",
        "nothing": b"",
        "a flood": bytes(5_000),
    }


@pytest.mark.parametrize("why", requests())
def test_a_bad_request_gets_nothing(authority: Authority, why: str) -> None:
    with pytest.raises(BadRequest):
        authority.issue(requests()[why], ME)


def test_nobody_of_another_consortium_is_certified(authority: Authority) -> None:
    stranger = Peer(ConsortiumId(bytes([1]) * 16), Role.NODE, ME.name)
    with pytest.raises(ValueError, match="another consortium"):
        authority.issue(certificate_request(new_tls_key()), stranger)


def test_a_certificate_lives_for_a_quarter_and_is_due_in_its_last_third(
    authority: Authority, clock: FixedClock
) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(certificate_request(new_tls_key()), ME))
    assert certificate.not_valid_after_utc == clock.now() + timedelta(days=90)
    for days, due in ((0, False), (59, False), (61, True), (91, True)):
        assert due_for_renewal(certificate, now=clock.now() + timedelta(days=days)) == due


def test_nothing_outlives_the_authority(authority: Authority, clock: FixedClock) -> None:
    clock.advance(AUTHORITY_LIFETIME - timedelta(days=3))
    request = certificate_request(new_tls_key())
    certificate = x509.load_pem_x509_certificate(authority.issue(request, ME))
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    clock.advance(timedelta(days=3))
    with pytest.raises(ValueError, match="expired"):
        authority.issue(request, ME)


def test_an_authority_needs_its_own_key(authority: Authority, clock: FixedClock) -> None:
    with pytest.raises(ValueError, match="not that of its certificate"):
        Authority(CONSORTIUM, certificate=authority.certificate, key=new_tls_key(), clock=clock)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://example.org/node/x",
        f"fedtwin://{CONSORTIUM}/node",
        f"fedtwin://{CONSORTIUM}/king/ada",
        f"fedtwin://{CONSORTIUM}/node/ada",
        f"fedtwin://{CONSORTIUM}/lead/ada/x",
        f"fedtwin://{CONSORTIUM}/lead/a%64a",
        f"fedtwin://{CONSORTIUM}/lead/Ada",
        f"fedtwin://{CONSORTIUM}/lead/",
        "fedtwin://c-1/lead/ada",
    ],
)
def test_a_uri_names_somebody_in_one_spelling_or_nobody(uri: str) -> None:
    with pytest.raises(NotAPeer):
        Peer.parse(uri)


def test_a_certificate_of_two_names_is_nobody(authority: Authority) -> None:
    pem = authority.issue(certificate_request(new_tls_key()), ME)
    assert peer_of(pem) == ME
    with pytest.raises(NotAPeer):
        peer_of(authority.certificate_pem)
    with pytest.raises(NotAPeer):
        peer_of(b"")
