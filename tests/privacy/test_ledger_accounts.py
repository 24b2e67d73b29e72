"""Who is charged and until when: caps of node, dataset, project, researcher; periods; expiry; old files."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.accountant import Event, GaussianEvent, PureEvent, epsilon
from privacy.budget import Account, Cap, Caps, Selection
from privacy.chain import Chain, ChainBroken
from privacy.ledger import (
    AlreadyRevealed,
    BudgetExhausted,
    Ledger,
    Replayed,
    ReservationExpired,
)
from privacy.ledger_entries import Reservation
from protocols.clock import FixedClock
from tests.privacy.one_ledger import CAPS, CLOCK, DELTA, ONE, caps_of, reserve, spend

# ---- accounts ----


def ask(ledger: Ledger, name: str, account: Account, *, caps: Caps, event: Event = ONE) -> None:
    ledger.commit(ledger.reserve(name, account=account, purpose="count", event=event, caps=caps))


@pytest.mark.parametrize("cap", list(Cap))
def test_each_cap_stops_its_own_accounts_and_no_others(ledger: Ledger, cap: Cap) -> None:
    most = {c: 75.0 for c in Cap} | {cap: 1.2}
    caps = Caps(DELTA, most[Cap.NODE], most[Cap.DATASET], most[Cap.PROJECT], most[Cap.RESEARCHER])
    first = Account("heart", "ada", "cdm")
    ask(ledger, "q-1", first, caps=caps)
    strangers = {
        Cap.DATASET: Account("heart", "ada", "registry"),
        Cap.PROJECT: Account("lung", "ada", "cdm"),
        Cap.RESEARCHER: Account("heart", "bo", "cdm"),
    }
    for other, account in strangers.items():
        if other is cap:
            ask(ledger, f"q-{other}", account, caps=caps)
        else:
            with pytest.raises(BudgetExhausted) as refused:
                ask(ledger, f"q-{other}", account, caps=caps)
            assert refused.value.cap is cap
            assert f"per {cap}" in str(refused.value)


def test_spending_is_told_apart_by_project_researcher_and_dataset(ledger: Ledger) -> None:
    caps = caps_of(75, 75)
    accounts = [
        Account(project, researcher, dataset)
        for project in ("heart", "lung")
        for researcher in ("ada", "bo", "cy")
        for dataset in ("cdm", "registry")
    ]
    for n, account in enumerate(accounts):
        ask(ledger, f"q-{n}", account, caps=caps, event=PureEvent(0.1) if n % 2 else GaussianEvent(20.0))

    def events(**chosen: str) -> int:
        return ledger.spent(**chosen, delta=DELTA).events

    assert events() == 12
    assert (events(project="lung"), events(researcher="bo"), events(dataset="cdm")) == (6, 4, 6)
    assert events(project="lung", researcher="bo") == 2
    assert events(project="lung", researcher="bo", dataset="cdm") == 1
    assert events(researcher="nobody") == 0
    assert ledger.accounts() == set(accounts)
    of_ada = [entry for entry in ledger.entries() if entry.researcher == "ada" and entry.kind == "committed"]
    assert {(entry.project, entry.dataset) for entry in of_ada} == {
        ("heart", "cdm"), ("heart", "registry"), ("lung", "cdm"), ("lung", "registry")
    }  # fmt: skip


def test_pure_and_gaussian_releases_share_one_budget(path: Path) -> None:
    caps = caps_of(1.5, 75)
    with Ledger(path, clock=CLOCK) as ledger:
        ask(ledger, "q-1", Account("heart", "ada"), caps=caps)
        for n in range(4):
            ask(ledger, f"pure-{n}", Account("heart", "ada"), caps=caps, event=PureEvent(0.1))
        with pytest.raises(BudgetExhausted):
            ask(ledger, "q-2", Account("heart", "ada"), caps=caps, event=PureEvent(0.4))
        spent = ledger.spent(delta=DELTA)
    assert spent.epsilon == pytest.approx(epsilon([ONE, PureEvent(0.1, 4)], delta=DELTA))
    with Ledger(path, clock=CLOCK) as again:
        assert again.spent(delta=DELTA) == spent


def test_a_release_is_charged_to_somebody(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="names no researcher"):
        ledger.reserve("q", account=Account("p", ""), purpose="count", event=ONE, caps=CAPS)
    for wrong in (("two words", "ada"), ("p", "two words"), ("p", "naïve"), ("p", "ada\n")):
        with pytest.raises(ValueError, match="malformed"):
            Account(*wrong)
    with pytest.raises(ValueError, match="dataset"):
        Account("p", "ada", "../cdm")


def test_a_request_id_cannot_move_to_another_researcher(ledger: Ledger) -> None:
    ask(ledger, "q-1", Account("heart", "ada"), caps=CAPS)
    with pytest.raises(Replayed):
        ask(ledger, "q-1", Account("heart", "bo"), caps=CAPS)


# ---- periods ----


def test_a_new_period_refills_project_and_researcher_and_never_node_or_dataset(path: Path) -> None:
    clock = FixedClock(datetime(2026, 10, 31, 23, 0, tzinfo=UTC))

    def caps(*, total: float = 75.0, dataset: float = 75.0) -> Caps:
        month = clock.now().replace(day=1, hour=0)
        return Caps(DELTA, total, dataset, 1.2, 1.2, project_since=month, researcher_since=month)

    account = Account("heart", "ada")
    with Ledger(path, clock=clock) as ledger:
        ask(ledger, "q-1", account, caps=caps())
        with pytest.raises(BudgetExhausted):
            ask(ledger, "q-2", account, caps=caps())
        clock.advance(timedelta(hours=1))
        for tight in (caps(total=1.2), caps(dataset=1.2)):
            with pytest.raises(BudgetExhausted) as refused:
                ask(ledger, "q-3", account, caps=tight)
            assert refused.value.cap in (Cap.NODE, Cap.DATASET)
        ask(ledger, "q-4", account, caps=caps())
        assert ledger.spent("heart", since=caps().project_since, delta=DELTA).events == 1
        assert ledger.spent("heart", delta=DELTA).events == 2
    with Ledger(path, clock=clock) as again:
        assert again.spent("heart", since=caps().project_since, delta=DELTA).events == 1
        with pytest.raises(BudgetExhausted):
            ask(again, "q-5", account, caps=caps())


def test_what_is_reserved_before_a_period_counts_in_the_period_it_is_committed_in(path: Path) -> None:
    clock = FixedClock(datetime(2026, 10, 31, 23, 0, tzinfo=UTC))
    november = datetime(2026, 11, 1, tzinfo=UTC)
    caps = Caps(DELTA, 75, 75, 1.2, 1.2, project_since=november)
    account = Account("heart", "ada")
    with Ledger(path, clock=clock) as ledger:
        held = ledger.reserve("q-1", account=account, purpose="count", event=ONE, caps=caps)
        clock.advance(timedelta(hours=2))
        with pytest.raises(BudgetExhausted):
            ask(ledger, "q-2", account, caps=caps)
        ledger.commit(held)
        assert ledger.spent("heart", since=november, delta=DELTA).events == 1


def test_a_clock_that_was_set_back_hides_nothing_from_a_period(path: Path) -> None:
    """What is committed while the clock is wrong counts as of the latest month the ledger has seen."""
    account, caps = Account("heart", "ada"), caps_of(75, 75)
    for moment in (datetime(2026, 11, 5, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)):
        with Ledger(path, clock=FixedClock(moment)) as ledger:
            ask(ledger, f"q-{moment.year}", account, caps=caps)
    with Ledger(path, clock=CLOCK) as ledger:
        assert ledger.spent("heart", since=datetime(2026, 11, 1, tzinfo=UTC), delta=DELTA).events == 2


# ---- expiry ----


@pytest.fixture
def ticking(path: Path) -> Iterator[tuple[Ledger, FixedClock]]:
    clock = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
    with Ledger(path, clock=clock) as opened:
        yield opened, clock


def hold(ledger: Ledger, name: str, clock: FixedClock, *, seconds: float, event: Event = ONE) -> Reservation:
    ends = clock.now() + timedelta(seconds=seconds)
    account = Account("heart", "ada")
    return ledger.reserve(
        name, account=account, purpose="count", event=event, caps=caps_of(1.2, 75), expires_at=ends
    )


def test_an_expired_reservation_frees_its_budget_at_the_next_reserve(
    ticking: tuple[Ledger, FixedClock],
) -> None:
    ledger, clock = ticking
    hold(ledger, "q-1", clock, seconds=60)
    clock.advance(timedelta(seconds=59))
    with pytest.raises(BudgetExhausted):
        hold(ledger, "q-2", clock, seconds=60)
    assert ledger.open_reservations(Selection()) == 1
    clock.advance(timedelta(seconds=1))
    assert ledger.open_reservations(Selection()) == 0
    hold(ledger, "q-2", clock, seconds=60)
    kinds = [(entry.kind, entry.request_id, entry.reason) for entry in ledger.entries()]
    assert kinds[2:] == [("released", "q-1", "expired"), ("reserved", "q-2", None)]


def test_an_expired_reservation_is_not_committed_before_or_after_it_is_released(
    ticking: tuple[Ledger, FixedClock],
) -> None:
    ledger, clock = ticking
    held = hold(ledger, "q-1", clock, seconds=60)
    clock.advance(timedelta(seconds=60))
    with pytest.raises(ReservationExpired) as refused:
        ledger.commit(held)
    assert refused.value.code == "expired"
    hold(ledger, "q-2", clock, seconds=60)  # gives back what the first held
    with pytest.raises(ReservationExpired):
        ledger.commit(held)
    ledger.release(held, reason="late")
    assert ledger.spent(delta=DELTA).events == 0


def test_what_was_committed_in_time_stays_spent_when_the_rest_expires(
    ticking: tuple[Ledger, FixedClock],
) -> None:
    ledger, clock = ticking
    steps = hold(ledger, "r-1", clock, seconds=60, event=GaussianEvent(20.0, 4))
    ledger.commit(steps, count=3)
    clock.advance(timedelta(seconds=61))
    hold(ledger, "q-2", clock, seconds=60, event=GaussianEvent(20.0))
    assert ledger.spent(delta=DELTA).events == 3
    assert [entry.count for entry in ledger.entries() if entry.kind == "released"] == [1]


def test_an_expired_request_may_be_asked_again(ticking: tuple[Ledger, FixedClock]) -> None:
    ledger, clock = ticking
    hold(ledger, "q-1", clock, seconds=60)
    clock.advance(timedelta(seconds=60))
    assert hold(ledger, "q-1", clock, seconds=60).attempt == 2


def test_an_expiry_without_a_time_zone_is_refused(ledger: Ledger) -> None:
    naive = datetime(2026, 11, 21)
    account = Account("heart", "ada")
    with pytest.raises(ValueError, match="aware"):
        ledger.reserve("q", account=account, purpose="count", event=ONE, caps=CAPS, expires_at=naive)


# ---- ledgers of the first format ----


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger as version 1 of its format was written: two releases spent, one reservation left open."""
    at = "2026-10-05T00:00:00+00:00"
    event = {"kind": "gaussian", "noise_multiplier": ONE.noise_multiplier, "count": 1}

    def named(name: str) -> dict[str, object]:
        return {"at": at, "request_id": name, "project": "heart", "attempt": 1}

    with Chain(path, writable=True) as chain:
        chain.append({"kind": "opened", "at": at, "format": "fedtwin-ledger-v1"})
        for name in ("q-1", "q-2", "q-3"):
            chain.append({"kind": "reserved", **named(name), "purpose": "count", "event": event})
        for name in ("q-1", "q-2"):
            chain.append({"kind": "committed", **named(name), "count": 1})
        chain.append({"kind": "revealed", "at": at, "request_id": "q-1", "project": "heart"})
    return path


def test_a_ledger_of_the_first_format_is_read_and_still_counts(old: Path) -> None:
    with Ledger(old, clock=CLOCK, read_only=True) as reader:
        before = reader.spent("heart", delta=DELTA)
        assert before.events == 2
        assert reader.accounts() == {Account("heart", "", "cdm")}
    with Ledger(old, clock=CLOCK) as ledger:
        assert ledger.spent("heart", delta=DELTA) == ledger.spent(dataset="cdm", delta=DELTA) == before
        last = list(ledger.entries())[-2:]
        assert [(entry.kind, entry.format, entry.reason) for entry in last] == [
            ("opened", "fedtwin-ledger-v2", None),
            ("released", None, "restart"),
        ]
        with pytest.raises(BudgetExhausted) as refused:
            reserve(ledger, "q-4", caps=caps_of(75, 1.6))
        assert refused.value.cap is Cap.PROJECT
        with pytest.raises(AlreadyRevealed):
            reserve(ledger, "q-1")
        spend(ledger, "q-5", event=GaussianEvent(20.0))
        spent = ledger.spent(delta=DELTA)
    with Ledger(old, clock=CLOCK) as again:
        assert again.spent(delta=DELTA) == spent
        assert again.verify() == len(list(again.entries()))
        assert [entry.kind for entry in again.entries()].count("opened") == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "opened", "at": "2026-11-21T00:00:00+00:00", "format": "fedtwin-ledger-v3"},
        {"kind": "opened", "at": "2026-11-21T00:00:00+00:00", "format": "fedtwin-ledger-v1"},
        {
            "kind": "reserved",
            "at": "2026-11-21T00:00:00+00:00",
            "request_id": "q-9",
            "project": "heart",
            "purpose": "count",
            "attempt": 1,
            "event": {"kind": "pure", "epsilon": 0.5, "count": 1},
        },
        {
            "kind": "committed",
            "at": "2026-11-21T00:00:00+00:00",
            "request_id": "q-1",
            "project": "heart",
            "researcher": "eve",
            "dataset": "cdm",
            "attempt": 1,
            "count": 1,
        },
    ],
    ids=["a later format", "an earlier format after a later one", "no researcher", "another account"],
)
def test_entries_that_no_writer_of_this_format_writes_are_refused(
    path: Path, fields: dict[str, object]
) -> None:
    with Ledger(path, clock=CLOCK) as ledger:
        reserve(ledger, "q-1")
    with Chain(path, writable=True) as chain:
        chain.append(fields)
    with pytest.raises(ChainBroken):
        Ledger(path, clock=CLOCK)
