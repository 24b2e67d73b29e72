"""Any history of operations: what is spent never decreases, and never exceeds any cap.

Each history opens a new ledger and makes operations that hypothesis chooses, with mixed events, two projects,
two researchers, two datasets, monthly periods, expiring reservations, a clock that moves on and restarts.
"""

import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accountant import Event, GaussianEvent, PureEvent, epsilon
from privacy.budget import Account, Cap, Caps, Selection
from privacy.ledger import BudgetExhausted, Ledger, Replayed, ReservationClosed
from privacy.ledger_entries import Reservation
from protocols.clock import FixedClock

DELTA = 1e-6
MOST = {Cap.NODE: 2.0, Cap.DATASET: 1.6, Cap.PROJECT: 1.3, Cap.RESEARCHER: 1.1}
ACCOUNTS = [
    Account("heart", "ada", "cdm"),
    Account("heart", "bo", "registry"),
    Account("lung", "ada", "registry"),
]
ROUNDING = 1 + 1e-9  # two ways of adding the same events up may differ in their last digits

EVENTS = st.one_of(
    st.builds(GaussianEvent, st.sampled_from([4.5, 9.0, 40.0]), st.integers(1, 3)),
    st.builds(PureEvent, st.sampled_from([0.1, 0.33, 0.7]), st.integers(1, 3)),
)
SLOTS = st.integers(0, 3)  # reservations that are held at one time; a newer one takes the slot
RESERVE = st.tuples(
    st.just("reserve"), st.sampled_from(ACCOUNTS), EVENTS, st.sampled_from([None, None, 30.0, 4e6]), SLOTS
)
COMMIT = st.tuples(st.just("commit"), SLOTS, st.sampled_from([None, None, 1]))
OTHERS = (
    st.tuples(st.just("release"), SLOTS),
    st.tuples(st.just("revealed"), SLOTS),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 40.0, 20 * 86_400.0])),
    st.tuples(st.just("restart")),
)
TOGETHER = st.tuples(st.just("together"), st.lists(RESERVE, min_size=2, max_size=4))
OPERATIONS = st.lists(st.one_of(RESERVE, RESERVE, COMMIT, TOGETHER, *OTHERS), min_size=8, max_size=30)


class History:
    """One ledger and what was seen of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FixedClock(datetime(2026, 11, 1, tzinfo=UTC))
        self.ledger = Ledger(path, clock=self.clock)
        self.asked = 0
        self.held: dict[int, Reservation] = {}
        self.before: dict[tuple[Selection, datetime | None], float] = {}

    def caps(self) -> Caps:
        month = self.clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        since = {"project_since": month, "researcher_since": month}
        return Caps(
            DELTA, MOST[Cap.NODE], MOST[Cap.DATASET], MOST[Cap.PROJECT], MOST[Cap.RESEARCHER], **since
        )

    def reserve(self, account: Account, event: Event, seconds: float | None, place: int) -> None:
        ends = None if seconds is None else self.clock.now() + timedelta(seconds=seconds)
        self.asked += 1
        name = (
            f"q-{self.asked}" if self.asked % 4 else f"q-{self.asked - 1}"
        )  # now and then an id comes again
        with suppress(BudgetExhausted, Replayed):
            self.held[place] = self.ledger.reserve(
                name, account=account, purpose="count", event=event, caps=self.caps(), expires_at=ends
            )

    def commit(self, place: int, count: int | None) -> None:
        if place in self.held:
            with suppress(ReservationClosed):
                self.ledger.commit(self.held[place], count=count)

    def together(self, reserving: list[tuple]) -> None:
        """Several questions at one time: all are reserved before the first is committed."""
        for slot, (_, account, event, seconds, _) in enumerate(reserving):
            self.reserve(account, event, seconds, slot)
        for slot in range(len(reserving)):
            self.commit(slot, None)

    def release(self, place: int) -> None:
        if place in self.held:
            self.ledger.release(self.held[place], reason="cancelled")

    def revealed(self, place: int) -> None:
        with suppress(ReservationClosed):
            self.ledger.revealed(self.held[place].request_id if place in self.held else "q-0")

    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, clock=self.clock)

    def check(self) -> None:
        """What the ledger says was spent is never less than it was."""
        for account in ACCOUNTS:
            for _, selection, since, _ in self.caps().of(account):
                spent = self.ledger.spent(
                    selection.project,
                    researcher=selection.researcher,
                    dataset=selection.dataset,
                    since=since,
                    delta=DELTA,
                ).epsilon
                assert spent >= self.before.get((selection, since), 0.0) / ROUNDING
                self.before[(selection, since)] = spent


def check_against_entries(ledger: Ledger) -> None:
    """Add the entries up by ourselves: no cap is exceeded after any, and the ledger says the same."""
    events: dict[str, Event] = {}
    used: dict[tuple[Cap, str, str], list[Event]] = {}
    for entry in ledger.entries():
        if entry.kind == "reserved":
            events[str(entry.request_id)] = entry.event
        if entry.kind == "committed":
            event = events[str(entry.request_id)].times(entry.count)
            for cap, name, month in (
                (Cap.NODE, "", ""),
                (Cap.DATASET, entry.dataset, ""),
                (Cap.PROJECT, entry.project, entry.at[:7]),
                (Cap.RESEARCHER, entry.researcher, entry.at[:7]),
            ):
                used.setdefault((cap, str(name), month), []).append(event)
                assert epsilon(used[(cap, str(name), month)], delta=DELTA) <= MOST[cap] * ROUNDING, cap
    for (cap, name, month), found in used.items():
        chosen = {} if cap is Cap.NODE else {str(cap): name}
        start = datetime.fromisoformat(f"{month}-01T00:00:00+00:00") if month else None
        after = [events for (c, n, m), events in used.items() if (c, n) == (cap, name) and m >= month]
        said = ledger.spent(**chosen, since=start, delta=DELTA)
        assert said.events == sum(event.count for events in after for event in events)
        if len(after) == 1:
            assert said.epsilon == pytest.approx(epsilon(found, delta=DELTA), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_after_any_history_spent_never_decreased_and_no_cap_was_exceeded(operations: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "ledger.sqlite")
        try:
            for name, *arguments in operations:
                getattr(history, name)(*arguments)
                history.check()
            entries = list(history.ledger.entries())
            assert history.ledger.verify() == len(entries)
            reserved = sum(entry.event.count for entry in entries if entry.event is not None)
            ended = sum(entry.count or 0 for entry in entries if entry.kind in ("committed", "released"))
            history.restart()
            again = list(history.ledger.entries())[len(entries) :]
            assert reserved == ended + sum(entry.count or 0 for entry in again)
            history.check()
            check_against_entries(history.ledger)
        finally:
            history.ledger.close()
