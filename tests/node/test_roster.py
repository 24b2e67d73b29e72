"""What a node believes about its peers: signed, forward only, and never with a swapped key."""

import dataclasses
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.home import NodeHome
from node.keys import NodeKeys
from node.roster import RosterKeeper
from protocols import envelope
from protocols.envelope import Purpose
from protocols.ids import NodeId
from protocols.peer import Role
from protocols.refusal import RefusalCode, Refused
from protocols.roster import NodeEntry, Roster
from tests.consortium import Consortium, files_of


@pytest.fixture
def home(consortium: Consortium) -> NodeHome:
    """The first of three hospitals; its roster is of the time when it was alone."""
    first = consortium.joined("one")
    consortium.joined("two")
    consortium.joined("three")
    return first


def changed(consortium: Consortium, change: Callable[[Roster], Roster]) -> bytes:
    """The newest roster, changed by a coordinator that misuses its key, as the next version."""
    roster = consortium.book.current()
    return change(dataclasses.replace(roster, version=roster.version + 1)).signed(consortium.book._key)


def with_node(roster: Roster, index: int, **changes: object) -> Roster:
    nodes = list(roster.nodes)
    nodes[index] = dataclasses.replace(nodes[index], **changes)  # type: ignore[arg-type]  # from one dict
    return dataclasses.replace(roster, nodes=tuple(nodes))


def assert_refused(home: NodeHome, keeper: RosterKeeper, data: bytes, code: RefusalCode) -> None:
    before, roster = files_of(home.path), keeper.current
    with pytest.raises(Refused) as caught:
        keeper.accept(data)
    assert caught.value.code == code
    assert keeper.current is roster
    assert files_of(home.path) == before


def index_of(consortium: Consortium, home: NodeHome, *, mine: bool) -> int:
    nodes = consortium.book.current().nodes
    me = home.config().node_id
    return next(place for place, node in enumerate(nodes) if (node.node_id == me) == mine)


def test_a_newer_roster_counts_and_survives_a_restart(consortium: Consortium, home: NodeHome) -> None:
    keeper = RosterKeeper.open(home)
    assert len(keeper.peers()) == 1
    keeper.accept(consortium.book.envelope())
    assert len(keeper.peers()) == 3
    again = RosterKeeper.open(home)
    assert again.current == keeper.current == consortium.book.current()
    assert set(again.signers()) == {"lead"}


def test_the_same_roster_again_changes_nothing(consortium: Consortium, home: NodeHome) -> None:
    keeper = RosterKeeper.open(home)
    keeper.accept(consortium.book.envelope())
    before = files_of(home.path)
    keeper.accept(consortium.book.envelope())
    assert files_of(home.path) == before


def test_an_older_roster_is_refused_also_after_a_restart(consortium: Consortium, home: NodeHome) -> None:
    old = home.roster.read_bytes()
    RosterKeeper.open(home).accept(consortium.book.envelope())
    assert_refused(home, RosterKeeper.open(home), old, RefusalCode.ROSTER_MISMATCH)


def test_two_rosters_of_one_version_are_one_too_many(consortium: Consortium, home: NodeHome) -> None:
    keeper = RosterKeeper.open(home)
    keeper.accept(consortium.book.envelope())
    twin = dataclasses.replace(keeper.current, people=()).signed(consortium.book._key)
    assert_refused(home, keeper, twin, RefusalCode.ROSTER_MISMATCH)


def test_a_peer_with_another_key_is_refused_with_the_whole_roster(
    consortium: Consortium, home: NodeHome
) -> None:
    RosterKeeper.open(home).accept(consortium.book.envelope())
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    place = index_of(consortium, home, mine=False)
    swapped = changed(consortium, lambda roster: with_node(roster, place, identity_key=stranger))
    for keeper in (RosterKeeper.open(home), RosterKeeper.open(home)):
        assert_refused(home, keeper, swapped, RefusalCode.ROSTER_MISMATCH)


def test_a_peer_that_was_gone_does_not_return_with_another_key(
    consortium: Consortium, home: NodeHome
) -> None:
    keeper = RosterKeeper.open(home)
    keeper.accept(consortium.book.envelope())
    place = index_of(consortium, home, mine=False)
    gone = consortium.book.current().nodes[place]
    without = changed(
        consortium,
        lambda roster: dataclasses.replace(roster, nodes=tuple(n for n in roster.nodes if n != gone)),
    )
    keeper.accept(without)
    assert gone.node_id not in keeper.peers()
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    back = changed(
        consortium,
        lambda roster: dataclasses.replace(
            with_node(roster, place, identity_key=stranger), version=roster.version + 1
        ),
    )
    assert_refused(home, RosterKeeper.open(home), back, RefusalCode.ROSTER_MISMATCH)


def test_a_researcher_with_another_key_is_refused(consortium: Consortium, home: NodeHome) -> None:
    def swap(roster: Roster) -> Roster:
        lead = dataclasses.replace(roster.people[0], identity_key=bytes(31) + b"\x01")
        return dataclasses.replace(roster, people=(lead,))

    assert_refused(home, RosterKeeper.open(home), changed(consortium, swap), RefusalCode.ROSTER_MISMATCH)


def test_a_roster_that_gives_this_node_another_key_is_refused(consortium: Consortium, home: NodeHome) -> None:
    place = index_of(consortium, home, mine=True)
    swapped = changed(consortium, lambda roster: with_node(roster, place, identity_key=bytes(32)))
    assert_refused(home, RosterKeeper.open(home), swapped, RefusalCode.ROSTER_MISMATCH)


def test_another_signer_or_purpose_is_refused(consortium: Consortium, home: NodeHome) -> None:
    keeper, roster = RosterKeeper.open(home), consortium.book.current()
    forged = roster.signed(Ed25519PrivateKey.generate())
    assert_refused(home, keeper, forged, RefusalCode.BAD_SIGNATURE)
    signer = str(roster.consortium)
    as_study = envelope.sign(
        roster.to_bytes(), purpose=Purpose.STUDY, signer=signer, key=consortium.book._key
    )
    assert_refused(home, keeper, as_study.to_bytes(), RefusalCode.BAD_SIGNATURE)
    assert_refused(home, keeper, b"", RefusalCode.BAD_SIGNATURE)


def test_a_tampered_roster_is_refused_on_the_wire_and_on_the_disk(
    consortium: Consortium, home: NodeHome
) -> None:
    genuine = consortium.book.envelope()
    fields = envelope.SignedEnvelope.from_bytes(genuine)
    payload = fields.payload.replace(b'"revoked":false', b'"revoked":true ', 1)
    assert payload != fields.payload
    tampered = dataclasses.replace(fields, payload=payload).to_bytes()
    assert_refused(home, RosterKeeper.open(home), tampered, RefusalCode.BAD_SIGNATURE)
    home.roster.write_bytes(tampered)
    with pytest.raises(Refused, match="bad-signature"):
        RosterKeeper.open(home)


@pytest.mark.parametrize("text", [b"{}", b"", b'{"nodes":[],"people":{}}', b'{"nodes":{},"people":{},"x":0}'])
def test_pins_that_cannot_be_read_are_not_forgotten(home: NodeHome, text: bytes) -> None:
    home.peers.write_bytes(text)
    with pytest.raises(Refused, match="roster-mismatch"):
        RosterKeeper.open(home)


def test_who_is_revoked_is_no_peer_and_no_signer(consortium: Consortium, home: NodeHome) -> None:
    keeper = RosterKeeper.open(home)
    keeper.accept(consortium.book.envelope())
    gone = consortium.book.current().nodes[index_of(consortium, home, mine=False)].node_id
    consortium.book.revoke_node(gone)
    consortium.book.revoke_person("lead")
    keeper.accept(consortium.book.envelope())
    assert gone not in keeper.peers()
    assert len(keeper.peers()) == 2
    assert keeper.signers() == {}
    assert keeper.person("lead") is None
    assert not keeper.revoked


def test_a_revoked_node_knows_it(consortium: Consortium, home: NodeHome) -> None:
    keeper, me = RosterKeeper.open(home), home.config().node_id
    consortium.book.revoke_node(me)
    keeper.accept(consortium.book.envelope())
    assert keeper.revoked
    assert me not in keeper.peers()


def test_with_a_list_of_accepted_peers_the_roster_alone_makes_nobody_a_peer(
    consortium: Consortium, home: NodeHome
) -> None:
    me = home.config().node_id
    friend = next(node for node in consortium.book.current().nodes if node.node_id != me)
    keeper = RosterKeeper.open(home, accepted_peers=[friend.fingerprint])
    keeper.accept(consortium.book.envelope())
    assert set(keeper.peers()) == {me, friend.node_id}
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        RosterKeeper.open(home, accepted_peers=["St. Elsewhere"])


def test_an_invented_hospital_is_a_peer_only_without_a_list(consortium: Consortium, home: NodeHome) -> None:
    """What docs/threat-model.md says about Sybils."""
    keys = [Ed25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2)]
    invented = NodeEntry(NodeId(b"\xff" * 16), "Invented", keys[0], "key")

    def add(roster: Roster) -> Roster:
        return dataclasses.replace(roster, nodes=(*roster.nodes, invented))

    data, mine = changed(consortium, add), NodeKeys.load(home.keys).identity_public
    listed = RosterKeeper.open(home, accepted_peers=[keys[1].hex()])
    listed.accept(data)
    assert invented.node_id not in listed.peers()
    assert [key.public_bytes_raw() for key in listed.peers().values()] == [mine]
    assert invented.node_id in RosterKeeper.open(home).peers()


def test_who_may_sign_what_stands_in_the_roster(consortium: Consortium, home: NodeHome) -> None:
    consortium.book.add_person(
        "ada", role=Role.RESEARCHER, identity_key=bytes(31) + b"\x07", projects=("demo",)
    )
    keeper = RosterKeeper.open(home)
    keeper.accept(consortium.book.envelope())
    assert set(keeper.signers()) == {"ada", "lead"}
    assert set(keeper.signers(Role.LEAD)) == {"lead"}
    ada = keeper.person("ada")
    assert ada is not None
    assert (ada.may_use("demo"), ada.may_use("other")) == (True, False)
