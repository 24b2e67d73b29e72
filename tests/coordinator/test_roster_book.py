"""The roster only grows, each change is a signed version, and nobody comes back."""

import pytest

from coordinator.roster_book import Unknown
from protocols.ids import NodeId
from protocols.peer import Role
from tests.consortium import Consortium
from tests.coordinator.test_state import hospital


def test_each_change_is_a_new_signed_version(consortium: Consortium) -> None:
    book = consortium.book
    assert book.version() == 1
    book.add_node(hospital(1))
    book.add_person("ada", role=Role.RESEARCHER, identity_key=b"\x09" * 32, projects=("b", "a", "b"))
    roster = book.current()
    assert roster.version == book.version() == 3
    assert list(roster.active_nodes) == [hospital(1).node_id]
    assert sorted(roster.active_people) == ["ada", "lead"]
    assert roster.active_people["ada"].projects == ("a", "b")
    assert set(roster.signer_keys(Role.LEAD)) == {"lead"}


def test_who_is_revoked_stays_listed_as_revoked(consortium: Consortium) -> None:
    book = consortium.book
    book.add_node(hospital(1))
    roster = book.revoke_node(hospital(1).node_id)
    assert roster.version == 3
    assert roster.active_nodes == {}
    entry = roster.node(hospital(1).node_id)
    assert entry is not None
    assert entry.revoked
    assert "lead" not in book.revoke_person("lead").active_people


def test_revoking_nobody_changes_nothing(consortium: Consortium) -> None:
    book = consortium.book
    with pytest.raises(Unknown):
        book.revoke_node(NodeId.new())
    with pytest.raises(Unknown):
        book.revoke_person("nobody")
    book.revoke_person("lead")
    with pytest.raises(Unknown):
        book.revoke_person("lead")
    assert book.version() == 2


def test_a_revoked_name_or_key_is_not_given_again(consortium: Consortium) -> None:
    book = consortium.book
    book.add_node(hospital(1))
    book.revoke_node(hospital(1).node_id)
    book.revoke_person("lead")
    version = book.version()
    with pytest.raises(ValueError, match="taken"):
        book.add_person("lead", role=Role.LEAD, identity_key=b"\x09" * 32, projects=("*",))
    with pytest.raises(ValueError, match="exists already"):
        book.add_node(hospital(2, identity_key=hospital(1).identity_key))
    assert book.version() == version


def test_another_process_sees_a_change_at_its_next_look(consortium: Consortium) -> None:
    here, state = consortium.book, consortium.home.open_state()
    elsewhere = consortium.home.roster_book(state, clock=consortium.clock)
    here.add_node(hospital(1))
    assert elsewhere.version() == 2
    elsewhere.revoke_node(hospital(1).node_id)
    assert here.version() == 3
    assert here.current().active_nodes == {}
    state.close()


def test_a_person_cannot_have_a_hospitals_key(consortium: Consortium) -> None:
    book = consortium.book
    book.add_node(hospital(1))
    with pytest.raises(ValueError, match="share"):
        book.add_person(
            "ada", role=Role.RESEARCHER, identity_key=hospital(1).identity_key, projects=("demo",)
        )
    assert book.version() == 2
    assert [person.name for person in consortium.state.people()] == ["lead"]
