"""What is written in tests/vectors reads as it says there; what must fail there fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols import canonical, envelope, ids, roster
from protocols.envelope import BadEnvelope, SignedEnvelope
from protocols.ids import ConsortiumId, MalformedId, NodeId
from protocols.invitation import BadToken, Invitation
from protocols.roster import MalformedRoster
from tests.vectors import make_wire

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = {
    name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in make_wire.made()
}


def good(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[name]["good"])


def bad(name: str) -> pytest.MarkDecorator:
    cases = VECTORS[name]["bad"]
    return pytest.mark.parametrize("case", cases, ids=[case["why"] for case in cases])


def test_the_committed_vectors_are_what_the_generator_makes() -> None:
    assert make_wire.made() == VECTORS


@good("ids")
def test_an_id_reads_and_writes_as_its_vector(case: dict[str, str]) -> None:
    kind = getattr(ids, case["kind"])
    assert kind.parse(case["text"]).raw.hex() == case["hex"]
    assert str(kind(bytes.fromhex(case["hex"]))) == case["text"]


@bad("ids")
def test_a_bad_id_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(MalformedId):
        getattr(ids, case["kind"]).parse(case["text"])


@good("canonical")
def test_a_value_has_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    assert canonical.encode(case["value"]) == case["bytes"].encode()
    assert canonical.decode(case["bytes"].encode(), max_bytes=1_000) == case["value"]


@bad("canonical")
def test_bad_json_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(canonical.MalformedJson):
        canonical.decode(case["bytes"].encode(), max_bytes=1_000)


@pytest.mark.parametrize("data", [b"\xff", b'"\xc3"', b"[" * 100_000], ids=["no UTF-8", "cut", "too deep"])
def test_bytes_that_are_no_text_or_too_deep_are_refused(data: bytes) -> None:
    with pytest.raises(canonical.MalformedJson):
        canonical.decode(data, max_bytes=200_000)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(canonical.MalformedJson):
        canonical.decode(b"[1]", max_bytes=2)


def verified(case: dict[str, str]) -> bytes:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["public_key"]))
    found = SignedEnvelope.from_bytes(case["envelope"].encode())
    return envelope.verify(found, purpose=case["purpose"], signer=case["signer"], key=key)


@good("envelope")
def test_an_envelope_gives_its_payload(case: dict[str, str]) -> None:
    assert verified(case) == case["payload"].encode()
    assert SignedEnvelope.from_bytes(case["envelope"].encode()).to_bytes() == case["envelope"].encode()


@bad("envelope")
def test_a_bad_envelope_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(BadEnvelope):
        verified(case)


@good("invitation")
def test_an_invitation_reads_and_writes_as_its_vector(case: dict[str, Any]) -> None:
    found = Invitation.parse(case["token"])
    assert found.address == case["address"]
    assert found.ca_fingerprint.hex() == case["ca_fingerprint"]
    assert found.roster_key_fingerprint.hex() == case["roster_key_fingerprint"]
    assert found.secret.hex() == case["secret"]
    assert found.expires_at.timestamp() == case["expires_unix_s"]
    assert found.to_token() == case["token"]


@bad("invitation")
def test_a_bad_invitation_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(BadToken):
        Invitation.parse(case["token"])


@good("roster")
def test_a_roster_reads_and_writes_as_its_vector(case: dict[str, Any]) -> None:
    found = opened_roster(case)
    assert found.version == case["version"]
    assert list(found.active_nodes) == [NodeId.parse(text) for text in case["active"]]
    payload = SignedEnvelope.from_bytes(case["envelope"].encode()).payload
    assert found.to_bytes() == payload


@bad("roster")
def test_a_bad_roster_is_refused(case: dict[str, str]) -> None:
    with pytest.raises((BadEnvelope, MalformedRoster)):
        opened_roster(case)


def opened_roster(case: dict[str, Any]) -> roster.Roster:
    vectors = VECTORS["roster"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["public_key"]))
    consortium = ConsortiumId.parse(vectors["consortium"])
    return roster.opened(case["envelope"].encode(), consortium=consortium, key=key)
