"""A small ledger's clock, caps and questions, as tests of the ledger ask them."""

from datetime import UTC, datetime

from privacy.accountant import Event, GaussianEvent, calibrate
from privacy.budget import Account, Caps
from privacy.ledger import Ledger
from privacy.ledger_entries import Reservation
from protocols.clock import FixedClock

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
DELTA = 1e-6
ONE = GaussianEvent(calibrate(epsilon=1.0, delta=DELTA, count=1))


def caps_of(total: float, project: float) -> Caps:
    """Caps where only the node's and the project's can be reached."""
    return Caps(
        delta=DELTA, epsilon_total=total, epsilon_dataset=75, epsilon_project=project, epsilon_researcher=75
    )


CAPS = caps_of(4.0, 2.0)


def reserve(
    ledger: Ledger, name: str, *, project: str = "heart", event: Event = ONE, caps: Caps = CAPS
) -> Reservation:
    return ledger.reserve(name, account=Account(project, "ada"), purpose="count", event=event, caps=caps)


def spend(ledger: Ledger, name: str, *, project: str = "heart", event: Event = ONE) -> None:
    ledger.commit(reserve(ledger, name, project=project, event=event))
    ledger.revealed(name)
