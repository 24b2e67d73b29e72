"""Any history of operations: what is spent never decreases, and never exceeds any cap.

Each history opens a new ledger and makes operations that hypothesis chooses, with mixed events, two projects,
two researchers, two datasets, monthly periods, expiring reservations, a clock that moves on and restarts.
"""

import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accountant import Event, GaussianEvent, PureEvent
from privacy.budget import Account, Cap, Caps, Selection
from privacy.ledger import BudgetExhausted, Ledger, Replayed, ReservationClosed
from privacy.ledger_entries import Reservation
from protocols.clock import FixedClock

DELTA = 1e-6
MOST = {Cap.NODE: 2.0, Cap.DATASET: 1.6, Cap.PROJECT: 1.3, Cap.RESEARCHER: 1.1}
ACCOUNTS = [Account(p, r, d) for p in ("heart", "lung") for r in ("ada", "bo") for d in ("cdm", "registry")]
ROUNDING = 1 + 1e-9  # two ways of adding the same events up may differ in their last digits

EVENTS = st.one_of(
    st.builds(GaussianEvent, st.sampled_from([6.0, 9.0, 14.5, 40.0]), st.integers(1, 4)),
    st.builds(PureEvent, st.sampled_from([0.05, 0.1, 0.33, 0.7]), st.integers(1, 3)),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("reserve"),
            st.sampled_from(ACCOUNTS),
            EVENTS,
            st.sampled_from([None, 30.0, 4e6]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("commit"), st.integers(0, 9), st.sampled_from([None, 1, 2])),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("revealed"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 40.0, 20 * 86_400.0])),
        st.tuples(st.just("restart")),
    ),
    min_size=5,
    max_size=40,
)


class History:
    """One ledger and what was seen of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FixedClock(datetime(2026, 11, 1, tzinfo=UTC))
        self.ledger = Ledger(path, clock=self.clock)
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
        with suppress(BudgetExhausted, Replayed):
            self.held[place] = self.ledger.reserve(
                f"q-{place}", account=account, purpose="count", event=event, caps=self.caps(), expires_at=ends
            )

    def commit(self, place: int, count: int | None) -> None:
        if place in self.held:
            with suppress(ReservationClosed):
                self.ledger.commit(self.held[place], count=count)

    def release(self, place: int) -> None:
        if place in self.held:
            self.ledger.release(self.held[place], reason="cancelled")

    def revealed(self, place: int) -> None:
        with suppress(ReservationClosed):
            self.ledger.revealed(f"q-{place}")

    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, clock=self.clock)

    def check(self) -> None:
        """No cap is exceeded, and nothing that was spent is less than it was."""
        for account in ACCOUNTS:
            for cap, selection, since, most in self.caps().of(account):
                for start in {since, None}:
                    spent = self.ledger.spent(
                        selection.project,
                        researcher=selection.researcher,
                        dataset=selection.dataset,
                        since=start,
                        delta=DELTA,
                    ).epsilon
                    assert spent >= self.before.get((selection, start), 0.0) / ROUNDING
                    self.before[(selection, start)] = spent
                    if start == since:
                        assert spent <= most * ROUNDING, cap


@settings(max_examples=60, deadline=None)
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
        finally:
            history.ledger.close()
