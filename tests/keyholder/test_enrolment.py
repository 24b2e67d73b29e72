"""A key-holder joins with an invitation, once, and hospitals encrypt for it only if their staff says so."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.enrolment import renew_key_holder
from keyholder.enrolment import enrol
from keyholder.home import KeyHolderConfig, KeyHolderHome, MalformedConfig
from keyholder.rosters import Rosters
from node import key_holder
from privacy import private_files
from protocols import envelope
from protocols.envelope import Purpose
from protocols.key_forms import certificate_request, new_tls_key
from protocols.peer import Peer, Role, peer_of
from protocols.refusal import RefusalCode, Refused
from protocols.roster import (
    KeyHolderEntry,
    MalformedRoster,
    Roster,
    Settings,
    fingerprint,
)
from tests.consortium import Consortium

NAME = "registry"


def invited(consortium: Consortium, name: str = NAME) -> str:
    return consortium.token(name, role=Role.KEY_HOLDER)


def joined(consortium: Consortium) -> KeyHolderHome:
    home = KeyHolderHome(consortium.folder / "keyholder")
    enrol(home, invited(consortium), clock=consortium.clock)
    return home


def test_a_key_holder_that_joined_stands_in_the_roster_with_its_key(consortium: Consortium) -> None:
    home = joined(consortium)
    found = consortium.book.current().key_holder
    assert found is not None
    assert (found.name, fingerprint(found.identity_key)) == (NAME, home.fingerprint())
    peer = peer_of(home.certificate.read_bytes())
    assert peer == Peer(consortium.book.consortium, Role.KEY_HOLDER, NAME)
    assert not consortium.state.nodes()
    for key in home.keys.iterdir():
        assert key.stat().st_mode & 0o077 == 0
    assert KeyHolderConfig.parse(home.config().to_toml()) == home.config()


def test_there_is_one_key_holder_at_a_time_and_its_name_never_comes_back(consortium: Consortium) -> None:
    joined(consortium)
    other = KeyHolderHome(consortium.folder / "other")
    with pytest.raises(Refused) as refused:
        enrol(other, invited(consortium, "other"), clock=consortium.clock)
    assert refused.value.code is RefusalCode.NOT_ALLOWED
    assert not other.path.exists()
    consortium.book.revoke_key_holder(NAME)
    assert consortium.book.current().key_holder is None
    with pytest.raises(Refused):
        enrol(other, invited(consortium), clock=consortium.clock)
    enrol(other, invited(consortium, "other"), clock=consortium.clock)
    holders = consortium.book.current().key_holders
    assert [(holder.name, holder.revoked) for holder in holders] == [("other", False), (NAME, True)]


def test_an_invitation_for_a_key_holder_lets_in_no_hospital_and_the_other_way_round(
    consortium: Consortium,
) -> None:
    from node.enrolment import join

    with pytest.raises(Refused):
        join(consortium.node(), invited(consortium), clock=consortium.clock)
    home = KeyHolderHome(consortium.folder / "keyholder")
    with pytest.raises(Refused):
        enrol(home, consortium.token("Cleveland"), clock=consortium.clock)
    assert not home.path.exists()


def test_an_invitation_is_used_once(consortium: Consortium) -> None:
    token = invited(consortium)
    enrol(KeyHolderHome(consortium.folder / "a"), token, clock=consortium.clock)
    with pytest.raises(Refused) as refused:
        enrol(KeyHolderHome(consortium.folder / "b"), token, clock=consortium.clock)
    assert refused.value.code is RefusalCode.INVITATION_USED


def test_a_home_that_is_there_is_not_overwritten(consortium: Consortium) -> None:
    home = joined(consortium)
    with pytest.raises(FileExistsError):
        enrol(home, invited(consortium, "again"), clock=consortium.clock)


def test_a_certificate_is_renewed_for_the_identity_key_only(consortium: Consortium) -> None:
    home = joined(consortium)
    authority = consortium.home.authority(clock=consortium.clock)
    request = certificate_request(new_tls_key())

    def renewed(key: Ed25519PrivateKey) -> bytes:
        signed = envelope.sign(request, purpose=Purpose.RENEWAL, signer=NAME, key=key)
        return renew_key_holder(consortium.state, authority, NAME, signed.to_bytes())

    consortium.clock.advance(timedelta(days=60))
    new = x509.load_pem_x509_certificate(renewed(home.identity()))
    old = x509.load_pem_x509_certificate(home.certificate.read_bytes())
    assert new.not_valid_after_utc > old.not_valid_after_utc
    with pytest.raises(Refused) as refused:
        renewed(Ed25519PrivateKey.generate())
    assert refused.value.code is RefusalCode.BAD_SIGNATURE
    consortium.book.revoke_key_holder(NAME)
    with pytest.raises(Refused) as refused:
        renewed(home.identity())
    assert refused.value.code is RefusalCode.REVOKED


def test_a_roster_that_is_older_or_swaps_a_hospitals_key_is_refused(consortium: Consortium) -> None:
    home = joined(consortium)
    config = home.config()
    rosters = Rosters(home.roster, consortium=config.consortium, roster_key=config.roster_key)
    before = home.roster.read_bytes()
    consortium.joined("cleveland")
    newer = consortium.book.envelope()
    rosters.accept(newer)
    for wrong in (before, newer[:-3] + b'A"}'):
        with pytest.raises(Refused):
            rosters.accept(wrong)
    roster = rosters.current
    stolen = replace(
        roster.nodes[0], identity_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    )
    swapped = replace(roster, version=roster.version + 1, nodes=(stolen,))
    with pytest.raises(Refused) as refused:
        rosters.accept(swapped.signed(consortium.book._key))
    assert refused.value.code is RefusalCode.ROSTER_MISMATCH
    assert Rosters(home.roster, consortium=config.consortium, roster_key=config.roster_key).current == roster


def test_config_of_another_form_is_refused(consortium: Consortium) -> None:
    text = joined(consortium).config().to_toml()
    for wrong in (text + "more = 1\n", text.replace(NAME, "Not A Name"), "name = 1", "=", ""):
        with pytest.raises(MalformedConfig):
            KeyHolderConfig.parse(wrong)


# ---- what a hospital makes of it ----


def roster_with(consortium: Consortium, scheme: str) -> Roster:
    current = consortium.book.current()
    return replace(current, settings=replace(current.settings, secure_sum=scheme))


def test_a_hospital_believes_no_roster_about_who_holds_keys(consortium: Consortium) -> None:
    """Whoever signs rosters runs the coordinator: it could switch to encryption and name itself."""
    home = joined(consortium)
    folder = consortium.folder
    assert key_holder.encrypted(roster_with(consortium, "masked"), trusted="") is None
    for trusted in ("", "ab" * 32):
        with pytest.raises(Refused) as refused:
            key_holder.encrypted(roster_with(consortium, "bfv"), trusted=trusted)
        assert refused.value.code is RefusalCode.NOT_ALLOWED
    assert key_holder.trusted(folder) == ""
    spaced = " ".join((home.fingerprint()[:32], home.fingerprint()[32:].upper()))
    key_holder.trust(folder, spaced)
    found = key_holder.encrypted(roster_with(consortium, "bfv"), trusted=key_holder.trusted(folder))
    assert found is not None
    assert (found.scheme.name, found.key_holder.name) == ("bfv", NAME)
    assert (folder / key_holder.FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="64 hex digits"):
        key_holder.trust(folder, "abc")


def test_without_a_key_holder_an_encrypting_consortium_adds_nothing(consortium: Consortium) -> None:
    with pytest.raises(Refused) as refused:
        key_holder.encrypted(roster_with(consortium, "ckks"), trusted="")
    assert refused.value.code is RefusalCode.KEY_HOLDER_AWAY


# ---- the roster's form ----


def test_a_roster_without_key_holder_is_written_as_before_there_were_any(consortium: Consortium) -> None:
    plain = consortium.book.current()
    assert b"key_holder" not in plain.to_bytes()
    assert b"secure_sum" not in plain.to_bytes()
    joined(consortium)
    full = roster_with(consortium, "bfv")
    assert Roster.parse(full.to_bytes()) == full
    spelled_out = full.to_bytes().replace(b'"secure_sum":"bfv"', b'"secure_sum":"masked"')
    with pytest.raises(MalformedRoster):
        Roster.parse(spelled_out)


def test_wrong_rosters_cannot_be_built(consortium: Consortium) -> None:
    joined(consortium)
    roster = consortium.book.current()
    (holder,) = roster.key_holders
    another = KeyHolderEntry("z", Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(MalformedRoster):
        replace(roster, key_holders=(holder, another))
    with pytest.raises(MalformedRoster):  # the lead's own key
        replace(roster, key_holders=(KeyHolderEntry("a", roster.people[0].identity_key),))
    for wrong in ("plain", "", "BFV"):
        with pytest.raises(MalformedRoster):
            Settings("Test", 3, 1, wrong)
    with pytest.raises(MalformedRoster):
        KeyHolderEntry("No Name", another.identity_key)


def test_secrets_of_the_home_are_read_from_private_files_only(consortium: Consortium) -> None:
    home = joined(consortium)
    (home.keys / "identity.key").chmod(0o644)
    with pytest.raises(private_files.OpenToOthers):
        home.identity()
