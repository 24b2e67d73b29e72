"""What the ledger promises: caps, order, replays, durability's bookkeeping, tampering, threads."""

import contextlib
import json
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.accountant import GaussianEvent, calibrate, epsilon
from privacy.budget import Account, Cap
from privacy.chain import Chain, ChainBroken, ChainBusy
from privacy.ledger import (
    AlreadyRevealed,
    BudgetExhausted,
    Ledger,
    Replayed,
    ReservationClosed,
)
from privacy.ledger_entries import Reservation
from protocols.clock import FixedClock
from tests.privacy.one_ledger import CAPS, CLOCK, DELTA, ONE, caps_of, reserve, spend


def spend_all(ledger: Ledger, names: list[str], *, projects: list[str]) -> None:
    for name, project in zip(names, projects, strict=True):
        spend(ledger, name, project=project)


# ---- spending and caps ----


def test_a_committed_question_is_spent_and_a_reserved_one_is_not_yet(ledger: Ledger) -> None:
    held = reserve(ledger, "q-1")
    assert ledger.spent(delta=DELTA).events == 0
    ledger.commit(held)
    assert ledger.spent(delta=DELTA).epsilon == pytest.approx(1.0, abs=1e-5)


def test_a_second_identical_question_is_charged_again(ledger: Ledger) -> None:
    spend(ledger, "q-1")
    spend(ledger, "q-2")
    assert ledger.spent("heart", delta=DELTA).epsilon == pytest.approx(epsilon([ONE, ONE], delta=DELTA))


def test_a_project_stops_at_its_cap_while_another_goes_on(ledger: Ledger) -> None:
    for n in range(2):
        spend(ledger, f"q-{n}")
    with pytest.raises(BudgetExhausted) as refused:
        spend_all(ledger, [f"q-{n}" for n in range(2, 9)], projects=["heart"] * 7)
    assert refused.value.asked == pytest.approx(1.0, abs=1e-5)
    assert 0 <= refused.value.left < 1.0
    spend(ledger, "other-1", project="lung")
    assert {account.project for account in ledger.accounts()} == {"heart", "lung"}


def test_the_total_cap_holds_over_all_projects(ledger: Ledger) -> None:
    names = [f"q-{n}" for n in range(30)]
    with pytest.raises(BudgetExhausted):
        spend_all(ledger, names, projects=[f"project-of-{name}" for name in names])
    assert 3.0 < ledger.spent(delta=DELTA).epsilon <= 4.0


def test_what_is_reserved_counts_against_the_caps(ledger: Ledger) -> None:
    held = [reserve(ledger, f"q-{n}") for n in range(3)]
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q-3")
    assert ledger.spent(delta=DELTA).events == 0
    ledger.release(held[0], reason="cancelled")
    reserve(ledger, "q-3")


def test_what_is_left_can_be_asked_and_a_little_more_cannot(ledger: Ledger) -> None:
    spend(ledger, "q-1")
    left = ledger.left(CAPS, Account("heart", "ada"))
    assert left.epsilon == pytest.approx(1.0, abs=1e-4)
    assert left.largest_question > left.epsilon
    with pytest.raises(BudgetExhausted):
        reserve(
            ledger,
            "q-2",
            event=GaussianEvent(calibrate(epsilon=left.largest_question * 1.01, delta=DELTA, count=1)),
        )
    fits = calibrate(epsilon=left.largest_question * 0.999, delta=DELTA, count=1)
    reserve(ledger, "q-3", event=GaussianEvent(fits))


def test_a_refused_reservation_leaves_no_trace(ledger: Ledger) -> None:
    before = ledger.head()
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q-1", event=GaussianEvent(0.1))
    assert ledger.head() == before


def test_a_cap_of_zero_allows_nothing(ledger: Ledger) -> None:
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q-1", caps=caps_of(4.0, 0.0))


def test_refusals_carry_the_code_that_may_leave(ledger: Ledger) -> None:
    assert BudgetExhausted(cap=Cap.NODE, asked=1.0, left=0.0).code == "budget-exhausted"
    assert AlreadyRevealed().code == "replayed"


# ---- one request, one answer ----


def test_an_answered_request_is_never_reserved_again(ledger: Ledger) -> None:
    spend(ledger, "q-1")
    with pytest.raises(AlreadyRevealed):
        reserve(ledger, "q-1")


def test_a_request_being_answered_is_not_reserved_twice(ledger: Ledger) -> None:
    reserve(ledger, "q-1")
    with pytest.raises(Replayed):
        reserve(ledger, "q-1")


def test_a_request_id_cannot_move_to_another_project(ledger: Ledger) -> None:
    ledger.commit(reserve(ledger, "q-1"))
    with pytest.raises(Replayed):
        reserve(ledger, "q-1", project="lung")


def test_a_second_attempt_after_a_commit_is_charged_again(ledger: Ledger) -> None:
    """The first contribution may have been opened without this node: one charge would cover two sums."""
    ledger.commit(reserve(ledger, "q-1"))
    again = reserve(ledger, "q-1")
    assert again.attempt == 2
    ledger.commit(again)
    assert ledger.spent(delta=DELTA).events == 2


def test_a_released_request_may_be_asked_again_for_nothing_more(ledger: Ledger) -> None:
    ledger.release(reserve(ledger, "q-1"), reason="too-few-sites")
    ledger.commit(reserve(ledger, "q-1"))
    assert ledger.spent(delta=DELTA).events == 1


def test_nothing_is_revealed_that_was_not_committed(ledger: Ledger) -> None:
    reserve(ledger, "q-1")
    for name in ("q-1", "q-unknown"):
        with pytest.raises(ReservationClosed):
            ledger.revealed(name)


def test_marking_as_revealed_twice_is_marking_once(ledger: Ledger) -> None:
    spend(ledger, "q-1")
    head = ledger.head()
    ledger.revealed("q-1")
    assert ledger.head() == head


def test_training_steps_are_committed_one_by_one_and_the_rest_is_given_back(ledger: Ledger) -> None:
    steps = GaussianEvent(20.0, 10)
    held = reserve(ledger, "training:ab/1/s-1", event=steps)
    for _ in range(4):
        ledger.commit(held, count=1)
        ledger.revealed(held.request_id)
    ledger.release(held, reason="round-over")
    ledger.release(held, reason="round-over")
    assert ledger.spent(delta=DELTA).epsilon == pytest.approx(epsilon([GaussianEvent(20.0, 4)], delta=DELTA))
    assert ledger.committed_for("training:ab/") == 4
    with pytest.raises(ReservationClosed):
        ledger.commit(held, count=1)


@pytest.mark.parametrize("count", [0, -1, 4])
def test_no_more_is_committed_than_was_reserved(ledger: Ledger, count: int) -> None:
    held = reserve(ledger, "r-1", event=GaussianEvent(20.0, 3))
    with pytest.raises(ReservationClosed):
        ledger.commit(held, count=count)


@pytest.mark.parametrize(
    ("name", "project", "purpose"),
    [("", "p", "count"), ("q", "two words", "count"), ("q", "p", "Free text"), ("q\n", "p", "count")],
)
def test_names_that_could_hold_a_sentence_are_refused(
    ledger: Ledger, name: str, project: str, purpose: str
) -> None:
    with pytest.raises(ValueError, match="malformed"):
        ledger.reserve(name, account=Account(project, "ada"), purpose=purpose, event=ONE, caps=CAPS)


# ---- opening again ----


def test_what_was_spent_is_spent_after_a_restart(path: Path) -> None:
    with Ledger(path, clock=CLOCK) as first:
        spend(first, "q-1")
        first.commit(reserve(first, "q-2"))
        before = first.spent(delta=DELTA)
    with Ledger(path, clock=CLOCK) as second:
        assert second.spent(delta=DELTA) == before
        with pytest.raises(AlreadyRevealed):
            reserve(second, "q-1")
        assert reserve(second, "q-2", event=GaussianEvent(50.0)).attempt == 2


def test_a_restart_releases_what_no_process_holds(path: Path) -> None:
    with Ledger(path, clock=CLOCK) as first:
        held = reserve(first, "r-1", event=GaussianEvent(20.0, 10))
        first.commit(held, count=3)
    with Ledger(path, clock=CLOCK) as second:
        assert second.spent(delta=DELTA).events == 3
        last = list(second.entries())[-1]
        assert (last.kind, last.reason, last.count) == ("released", "restart", 7)
        with pytest.raises(ReservationClosed):
            second.commit(held, count=1)


def test_only_one_process_writes(path: Path) -> None:
    with Ledger(path, clock=CLOCK), pytest.raises(ChainBusy):
        Ledger(path, clock=CLOCK)
    Ledger(path, clock=CLOCK).close()


def test_a_reader_runs_beside_the_writer_and_cannot_write(path: Path, ledger: Ledger) -> None:
    spend(ledger, "q-1")
    open_reservation = reserve(ledger, "q-2", event=GaussianEvent(50.0))
    with Ledger(path, clock=CLOCK, read_only=True) as reader:
        assert reader.spent(delta=DELTA) == ledger.spent(delta=DELTA)
        assert reader.verify() == ledger.verify()
        with pytest.raises(ChainBroken):
            reserve(reader, "q-3")
    ledger.commit(open_reservation)


def test_reading_a_ledger_that_does_not_exist_makes_none(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ledger(path, clock=CLOCK, read_only=True)
    assert not path.exists()


def test_the_files_are_for_their_owner_only(path: Path, ledger: Ledger) -> None:
    spend(ledger, "q-1")
    assert {oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {"0o600"}


# ---- tampering ----


@pytest.fixture
def closed(path: Path) -> Path:
    with Ledger(path, clock=CLOCK) as ledger:
        for n in range(3):
            spend(ledger, f"q-{n}", event=GaussianEvent(20.0))
    return path


def edit(path: Path, *statements: str) -> None:
    """Change the file as somebody would who knows SQLite and has write access."""
    connection = sqlite3.connect(path)
    for trigger in ("no_update", "no_delete", "next_only"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = replace(body, '20.0', '90.0') WHERE seq = 2",
        "UPDATE records SET hash = upper(hash) WHERE seq = 3",
        "DELETE FROM records WHERE seq = 4",
        "DELETE FROM records WHERE seq = 1",
        "DELETE FROM records WHERE seq > 7",
        "DELETE FROM records",
        "UPDATE records SET seq = seq + 1 WHERE seq >= 10",
        "INSERT INTO records SELECT 11, body, hash FROM records WHERE seq = 10",
    ],
)
def test_an_edited_ledger_is_not_opened(closed: Path, statement: str) -> None:
    Ledger(closed, clock=CLOCK).close()
    edit(closed, statement)
    for read_only in (False, True):
        with pytest.raises(ChainBroken):
            Ledger(closed, clock=CLOCK, read_only=read_only)


def test_an_edit_while_it_is_open_is_found_by_verify(closed: Path) -> None:
    with Ledger(closed, clock=CLOCK) as ledger:
        assert ledger.verify() == 10
        edit(closed, "DELETE FROM records WHERE seq > 9")
        with pytest.raises(ChainBroken):
            ledger.verify()


def test_a_new_chain_in_place_of_the_old_one_is_found(closed: Path) -> None:
    """Deleting the ledger and starting afresh would forget all that was spent."""
    for file in (closed, closed.with_name(closed.name + "-wal"), closed.with_name(closed.name + "-shm")):
        file.unlink(missing_ok=True)
    with pytest.raises(ChainBroken):
        Ledger(closed, clock=CLOCK)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"0 " + b"0" * 64, b"10 " + b"f" * 64])
def test_a_missing_or_wrong_head_is_found(closed: Path, content: bytes | None) -> None:
    head = closed.with_name(closed.name + ".head")
    head.unlink() if content is None else head.write_bytes(content)
    with pytest.raises(ChainBroken):
        Ledger(closed, clock=CLOCK)


def test_a_head_that_lags_after_a_power_cut_is_no_error(closed: Path) -> None:
    """It is written without a sync of its own: it may be older than the chain, never newer."""
    head = closed.with_name(closed.name + ".head")
    rows = sqlite3.connect(closed).execute("SELECT hash FROM records WHERE seq = 6").fetchone()
    head.write_text(f"6 {rows[0]}".ljust(95) + "\n")
    with Ledger(closed, clock=CLOCK) as ledger:
        assert ledger.verify() == 10
    assert head.read_text().split()[0] == "10"


def test_rows_can_only_be_appended(closed: Path) -> None:
    connection = sqlite3.connect(closed)
    for statement in (
        "UPDATE records SET body = '' WHERE seq = 1",
        "DELETE FROM records WHERE seq = 10",
        "INSERT INTO records VALUES (99, '', '')",
        "INSERT OR REPLACE INTO records VALUES (5, '', '')",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_an_entry_that_no_writer_writes_is_refused(path: Path) -> None:
    """Correctly chained, and still not a ledger: unknown kinds and unknown events are never taken as free."""
    base = {"at": "2026-11-21T00:00:00+00:00", "request_id": "q-1", "project": "p"}
    for n, fields in enumerate(
        (
            {"kind": "refunded", **base},
            {"kind": "committed", **base, "count": 1},
            {"kind": "opened", "at": base["at"], "surprise": 1},
        )
    ):
        file = path.with_name(f"{n}.sqlite")
        with Chain(file, writable=True) as chain:
            chain.append(fields)
        with pytest.raises(ChainBroken):
            Ledger(file, clock=CLOCK)


def test_a_file_of_another_program_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.close()
    with pytest.raises(ChainBroken):
        Ledger(path, clock=CLOCK)


# ---- threads, time, speed ----


def test_threads_share_a_budget_without_overspending_it(ledger: Ledger) -> None:
    caps = caps_of(2.0, 2.0)
    event = GaussianEvent(20.0)
    refusals: list[BudgetExhausted] = []
    faults: list[BaseException] = []

    def ask(worker: int) -> None:
        for n in range(40):
            name = f"q-{worker}-{n}"
            try:
                held = reserve(ledger, name, event=event, caps=caps)
                if n % 5 == 4:
                    ledger.release(held, reason="cancelled")
                else:
                    ledger.commit(held)
                    ledger.revealed(name)
            except BudgetExhausted as refused:
                refusals.append(refused)
            except BaseException as fault:
                faults.append(fault)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert refusals
    spent = ledger.spent(delta=DELTA)
    assert spent.epsilon <= 2.0
    assert epsilon([GaussianEvent(20.0, spent.events + 1)], delta=DELTA) > 2.0, "the whole budget was usable"
    ledger.verify()


def test_one_request_asked_by_many_threads_is_reserved_once(ledger: Ledger) -> None:
    won: list[Reservation] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        with contextlib.suppress(Replayed):
            won.append(reserve(ledger, "q-1"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_entries_carry_the_time_of_the_clock_they_were_given(path: Path) -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    with Ledger(path, clock=clock) as ledger:
        clock.advance(timedelta(hours=5))
        spend(ledger, "q-1")
        assert [entry.at[:13] for entry in ledger.entries()] == ["2026-01-01T00"] + ["2026-01-01T05"] * 3


def test_records_are_plain_json_for_an_auditor(closed: Path) -> None:
    body = json.loads(sqlite3.connect(closed).execute("SELECT body FROM records WHERE seq = 2").fetchone()[0])
    assert body["kind"] == "reserved"
    assert body["event"] == {"kind": "gaussian", "noise_multiplier": 20.0, "count": 1}


def test_what_a_question_pays_for_durability(path: Path) -> None:
    caps = caps_of(50.0, 50.0)
    each: list[float] = []
    with Ledger(path, clock=CLOCK) as ledger:
        for n in range(100):
            start = time.perf_counter()
            ledger.commit(reserve(ledger, f"q-{n}", event=GaussianEvent(20.0 + n / 7), caps=caps))
            ledger.revealed(f"q-{n}")
            each.append((time.perf_counter() - start) * 1e3)
        pragma = ledger._chain._connection.execute("PRAGMA synchronous").fetchone()[0]
        journal = ledger._chain._connection.execute("PRAGMA journal_mode").fetchone()[0]
    each.sort()
    print(f"reserve + commit + revealed: median {each[50]:.2f} ms, p95 {each[95]:.2f} ms")
    assert (pragma, journal) == (2, "wal"), "FULL: the log is synced at every commit"
    assert each[50] < 100
