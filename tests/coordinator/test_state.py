"""What the coordinator remembers is there as a whole, after a crash and for several processes."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from coordinator.records import InvitationRecord, NodeRecord, PersonRecord
from coordinator.state import State, StateFault
from protocols.ids import NodeId
from protocols.peer import Role

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def hospital(number: int, **changes: object) -> NodeRecord:
    fields: dict[str, object] = {
        "node_id": NodeId(number.to_bytes(16, "big")),
        "name": f"Hospital {number}",
        "identity_key": bytes([number]) * 32,
        "flower_key": f"key {number}",
        "tls_fingerprint": "00",
        "certificate_expires": NOW + timedelta(days=90),
        "joined_at": NOW,
    }
    return NodeRecord(**(fields | changes))  # type: ignore[arg-type]  # from one dict


def invitation(handle: str = "aa") -> InvitationRecord:
    return InvitationRecord(handle, b"hash", "Cleveland", NOW, NOW + timedelta(days=2))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    found = State(tmp_path / "state.sqlite")
    yield found
    found.close()


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = State(tmp_path / "state.sqlite")
    person = PersonRecord("ada", Role.RESEARCHER, b"k" * 32, ("a", "b"), NOW)
    first.add_invitation(invitation())
    first.add_node(hospital(1))
    first.add_person(person)
    first.add_roster(3, b"signed", at=NOW)
    assert first.add_study(b"h" * 32, b"plan", at=NOW)
    assert not first.add_study(b"h" * 32, b"plan", at=NOW)
    first.saw_node(hospital(1).node_id, at=NOW)
    first.close()
    again = State(tmp_path / "state.sqlite")
    assert again.invitations() == (invitation(),)
    assert again.nodes() == (hospital(1, last_seen=NOW),)
    assert again.people() == (person,)
    assert again.roster() == (3, b"signed")
    study = again.study(b"h" * 32)
    assert study is not None
    assert (study.envelope, study.proposed_at) == (b"plan", NOW)
    assert again.studies() == (study,)
    again.close()


def test_it_writes_to_the_disk_before_it_returns(state: State) -> None:
    pragma = state._database.execute
    assert pragma("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert pragma("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_transaction_that_fails_leaves_nothing(state: State) -> None:
    state.add_invitation(invitation())

    def half_way() -> None:
        with state.transaction():
            state.add_node(hospital(1))
            with state.transaction():
                assert state.use_invitation("aa", node_id=hospital(1).node_id, at=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert state.nodes() == ()
    assert state.invitations() == (invitation(),)
    state.add_node(hospital(1))


def test_an_invitation_is_used_once_even_by_two_processes_at_a_time(tmp_path: Path) -> None:
    stores = [State(tmp_path / "state.sqlite") for _ in range(4)]
    for trial in range(20):
        handle = f"h{trial}"
        stores[0].add_invitation(invitation(handle))
        gate = threading.Barrier(len(stores))
        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(partial(use_at_the_gate, stores, handle, gate), range(len(stores))))
        assert sum(won) == 1
        record = stores[0].invitation(handle)
        assert record is not None
        assert record.used_by == hospital(won.index(True)).node_id
    for store in stores:
        store.close()


def use_at_the_gate(stores: list[State], handle: str, gate: threading.Barrier, number: int) -> bool:
    gate.wait()
    return stores[number].use_invitation(handle, node_id=hospital(number).node_id, at=NOW)


@pytest.mark.parametrize("same", ["node_id", "identity_key", "flower_key"])
def test_no_two_hospitals_share_an_id_or_a_key(state: State, same: str) -> None:
    state.add_node(hospital(1))
    with pytest.raises(ValueError, match="exists already"):
        state.add_node(hospital(2, **{same: getattr(hospital(1), same)}))
    assert state.nodes() == (hospital(1),)


def test_a_hospital_is_revoked_once(state: State) -> None:
    state.add_node(hospital(1))
    assert state.revoke_node(hospital(1).node_id, at=NOW)
    assert not state.revoke_node(hospital(1).node_id, at=NOW + timedelta(1))
    assert not state.revoke_node(hospital(2).node_id, at=NOW)
    assert state.nodes() == (hospital(1, revoked_at=NOW),)


def test_state_of_another_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    State(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateFault):
        State(path)


def test_a_file_from_before_key_holders_gets_what_came_since(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    State(path).close()
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript("DROP TABLE key_holders; ALTER TABLE invitations DROP COLUMN role;")
        old.execute(
            "INSERT INTO invitations (handle, secret_hash, name, created_at, expires_at)"
            " VALUES ('ab', x'00', 'Cleveland', '2026-11-21T00:00:00+00:00', '2026-11-23T00:00:00+00:00')"
        )
        old.execute("PRAGMA user_version = 1")
        old.commit()
    for _ in range(2):
        state = State(path)
        (invitation,) = state.invitations()
        assert (invitation.name, invitation.role) == ("Cleveland", Role.NODE)
        assert state.key_holders() == ()
        state.close()
