"""What each hospital has spent: every release is reserved, committed and marked, durably and in this order.

    reserve   before a record is read: every cap must cover it beside all that is spent or reserved
    exact     before a sum without noise leaves: there is nothing to reserve, and nothing is ever given back
    commit    before the first byte of a contribution leaves: from here on it is spent
    revealed  before shares leave that could open a sum it is part of: from here on the request is over

A crash may waste budget and never gives any back that could have been used: on opening, what was reserved and
not committed is released (nothing had left), what was committed stays spent. A reservation may carry a moment
at which it expires: from then on it cannot be committed, and the next reserve gives back what it held.

A request that was committed and never marked as revealed may be reserved again, and *is charged again*. A
node cannot know whether the others opened the sum its first contribution went into: a coordinator that cuts
nodes off after their input has left could otherwise open one sum with all of them and a second one among
those it cut off, for a single charge.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from privacy.accountant import Composition, Event, largest_further_epsilon
from privacy.budget import NOBODY, Account, Cap, Caps, Selection
from privacy.chain import Chain
from privacy.ledger_entries import EXACT, FORMAT, Entry, Reservation, account_fields, entry_of
from privacy.ledger_state import Request, State
from protocols.clock import Clock
from protocols.refusal import RefusalCode

RESTART = "restart"  # the reason written when opening finds a reservation that no process holds any more
EXPIRED = "expired"  # the reason written when a reservation's time was over
WARMING_DELTA = 1e-6  # any: what is kept for later depends on the releases alone
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}")

# The errors of this module (ChainBroken and ChainBusy of privacy.chain come through as they are):
# Refusals carry the code that may leave the hospital.
#   Exception
#   ├── BudgetExhausted     a refusal: a cap does not cover it
#   ├── Replayed            a refusal: the request is being answered, or its id named something else
#   │   └── AlreadyRevealed     its answer may be out
#   └── ReservationClosed   (ValueError) the caller's mistake: more committed than reserved, or after the end
#       └── ReservationExpired  a refusal: its time was over


class BudgetExhausted(Exception):
    """A cap does not cover the event; which one is for the hospital alone, only the code may leave.

    `asked` is the event's ε alone, `left` the cap minus what is spent and reserved, both at the caps' δ.
    """

    code: ClassVar[RefusalCode] = RefusalCode.BUDGET_EXHAUSTED

    def __init__(self, *, cap: Cap, asked: float, left: float) -> None:
        super().__init__(f"asked for epsilon {asked:.4g}, {left:.4g} is left of the cap per {cap}")
        self.cap = cap
        self.asked = asked
        self.left = left


class Replayed(Exception):
    """The request id is in use."""

    code: ClassVar[RefusalCode] = RefusalCode.REPLAYED


class AlreadyRevealed(Replayed):
    """The request was answered, or may have been."""


class ReservationClosed(ValueError):
    """The reservation does not cover this, or is no longer open."""


class ReservationExpired(ReservationClosed):
    """The reservation's time was over before it was committed."""

    code: ClassVar[RefusalCode] = RefusalCode.EXPIRED


@dataclass(frozen=True, slots=True)
class Spent:
    """ε at δ of what was committed, and how many releases that was."""

    epsilon: float
    delta: float
    events: int


@dataclass(frozen=True, slots=True)
class Left:
    """What caps still cover, counting what is reserved as spent.

    `epsilon` is cap minus spent, the smallest over the caps; `largest_question` is the ε of the largest
    single Gaussian release that still fits, which is more, because composition is sublinear.
    """

    epsilon: float
    delta: float
    largest_question: float


class Ledger:
    """The ledger of one node: one writer process, whose threads share it, and any number of readers."""

    def __init__(self, path: Path, *, clock: Clock, read_only: bool = False) -> None:
        """Open the ledger at `path`; a writer makes it if absent and releases what no process holds any more.

        Raises: ChainBroken if it was tampered with; ChainBusy if another process writes to it;
        FileNotFoundError for reading a ledger that does not exist.
        """
        self._clock = clock
        self._mutex = threading.RLock()
        self._state = State()
        self._chain = Chain(path, writable=not read_only)
        try:
            for entry in self.entries():
                self._state.apply(entry)
            if not read_only:
                if self._state.format != FORMAT:
                    self._write("opened", format=FORMAT)
                for request in list(self._state.open.values()):
                    if request.open is not None:
                        self.release(request.open, reason=RESTART)
        except BaseException:
            self.close()
            raise

    def reserve(
        self,
        request_id: str,
        *,
        account: Account,
        purpose: str,
        event: Event,
        caps: Caps,
        expires_at: datetime | None = None,
    ) -> Reservation:
        """Set `event` aside for `request_id`, durably, until `expires_at` (aware) if it is given.

        Guarantee: what is committed and reserved, this event included, is within each of `caps`, composed by
        `privacy.accountant`. What expired is given back first.
        Raises: BudgetExhausted; AlreadyRevealed; Replayed if it is being answered, or belongs to another
        account; ValueError for a malformed name, or an account without a researcher.
        """
        if not (_NAME.fullmatch(request_id) and _WORD.fullmatch(purpose)):
            raise ValueError("request_id or purpose is malformed")
        if account.researcher == NOBODY:
            raise ValueError("somebody has to be charged: the account names no researcher")
        if expires_at is not None and expires_at.tzinfo is None:
            raise ValueError("a reservation expires at an aware moment")
        with self._mutex:
            self._release_expired()
            request = self._state.requests.get(request_id)
            if request is not None and request.revealed:
                raise AlreadyRevealed("the request was answered, or may have been")
            if request is not None and (request.open is not None or request.account != account):
                raise Replayed("the request id is in use")
            self._require_room(account, event, caps)
            attempt = 1 if request is None else request.attempts + 1
            reservation = Reservation(request_id, account, purpose, event, attempt, expires_at)
            ends = {} if expires_at is None else {"expires_at": expires_at.isoformat()}
            self._write("reserved", **_named(reservation), purpose=purpose, event=event.to_json(), **ends)
            return reservation

    def commit(self, reservation: Reservation, *, count: int | None = None) -> None:
        """Spend `count` releases of the reservation (all that is left of it if None), durably.

        Call it before anything leaves the node. Raises: ReservationClosed, ReservationExpired.
        """
        with self._mutex:
            if reservation.expired(self._clock.now()):  # whether or not it was given back meanwhile
                raise ReservationExpired("the reservation's time is over")
            request = self._held(reservation)
            taken = request.open_count if count is None else count
            if not 1 <= taken <= request.open_count:
                raise ReservationClosed("more than the reservation holds")
            self._write("committed", **_named(reservation), count=taken)

    def release(self, reservation: Reservation, *, reason: str) -> None:
        """Give back what the reservation holds and was not committed. Nothing to do if there is none.

        Args: reason, one word such as a refusal code.
        """
        if not _WORD.fullmatch(reason):
            raise ValueError("reason must be one lower-case word")
        with self._mutex:
            request = self._state.requests.get(reservation.request_id)
            if request is None or request.open != reservation:
                return
            self._write("released", **_named(reservation), count=request.open_count, reason=reason)

    def revealed(self, request_id: str) -> None:
        """Mark, durably, that an answer to `request_id` may be out: it can never be reserved again.

        Call it before shares leave that could open a sum. Marking twice is marking once.
        Raises: ReservationClosed if nothing was committed for it.
        """
        with self._mutex:
            request = self._state.requests.get(request_id)
            if request is None or not request.committed:
                raise ReservationClosed("nothing was committed for this request")
            if not request.revealed:
                self._write("revealed", request_id=request_id, **account_fields(request.account))

    def release_exact(self, request_id: str, *, account: Account, study: str, step: int) -> None:
        """Record, durably, that sum number `step` (from 0) of a study without noise is about to leave.

        It costs no ε, because none covers it: it is counted by itself, and for ever. Guarantee: each sum of a
        study is recorded once, in order, and all of them for one request; so a node that records before it
        sends takes part in each sum once, whatever it is asked, and whether or not it crashed in between.

        Args: study, the plan's hash in hex. Raises: Replayed; ValueError for a malformed name.
        """
        if not (_NAME.fullmatch(request_id) and _DIGEST.fullmatch(study)):
            raise ValueError("request_id or study is malformed")
        if account.researcher == NOBODY:
            raise ValueError("somebody has to be named: the account names no researcher")
        with self._mutex:
            held = self._state.exact.get(study)
            if (0 if held is None else held.releases) != step:
                raise Replayed("this sum of the study was given")
            if held is not None and (held.request_id != request_id or held.account != account):
                raise Replayed("the study was begun for another request")
            fields = {"request_id": request_id, **account_fields(account), "study": study, "step": step}
            self._write(EXACT, **fields)

    def exact_releases(self) -> Mapping[str, int]:
        """Return how many sums of each study without noise have left, by the plan's hash in hex."""
        with self._mutex:
            return {study: held.releases for study, held in sorted(self._state.exact.items())}

    def spent(
        self,
        project: str | None = None,
        *,
        researcher: str | None = None,
        dataset: str | None = None,
        since: datetime | None = None,
        delta: float,
    ) -> Spent:
        """Return ε at `delta` of what was committed: by one project, researcher or dataset, or by all (None).

        Args: since, only from the month on that this moment lies in.
        """
        with self._mutex:
            total = self._state.tally.total(
                Selection(project, researcher, dataset), since=since
            ).composition()
        return Spent(total.epsilon(delta=delta), delta, total.releases)

    def left(self, caps: Caps, account: Account) -> Left:
        """Return what `caps` still cover for `account`: the smallest over the four of them."""
        each = [
            self.left_of(selection, cap=most, since=since, delta=caps.delta)
            for _, selection, since, most in caps.of(account)
        ]
        return Left(
            min(left.epsilon for left in each), caps.delta, min(left.largest_question for left in each)
        )

    def left_of(
        self, selection: Selection, *, cap: float, since: datetime | None = None, delta: float
    ) -> Left:
        """Return what one cap still covers for the accounts that count against it."""
        with self._mutex:
            used = self._state.used(selection, since)
        return Left(
            epsilon=max(0.0, cap - used.epsilon(delta=delta)),
            delta=delta,
            largest_question=largest_further_epsilon(used, cap=cap, delta=delta),
        )

    def open_reservations(self, selection: Selection) -> int:
        """Return how many reservations of these accounts are open and have not expired."""
        with self._mutex:
            now = self._clock.now()
            return sum(
                selection.holds(request.account)
                for request in self._state.open.values()
                if request.open is not None and not request.open.expired(now)
            )

    def warm(self) -> None:
        """Load and compose, if there are pure releases, what the first reservation might wait seconds for.

        For a thread at the node's start. Nothing is written, and no lock is held that others wait for.
        """
        with self._mutex:
            used = self._state.used(Selection(), None)
        if used.pure:
            used.epsilon(delta=WARMING_DELTA)

    def committed_for(self, prefix: str) -> int:
        """Return how many releases were committed for requests whose id starts with `prefix`.

        A study's rounds share a prefix, so a node can hold a run to the number of steps it approved.
        """
        with self._mutex:
            return sum(r.committed for name, r in self._state.requests.items() if name.startswith(prefix))

    def accounts(self) -> frozenset[Account]:
        """Return the accounts that have committed or reserved anything."""
        with self._mutex:
            return self._state.tally.accounts() | {request.account for request in self._state.open.values()}

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, oldest first. Raises: ChainBroken."""
        for record in self._chain.records():
            yield entry_of(record.seq, record.hash, record.fields)

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last entry; the audit log writes it beside each charge."""
        return self._chain.head()

    def verify(self) -> int:
        """Check every entry, its links and the head on the disk; return how many there are.

        Raises: ChainBroken. What it can and cannot find: see privacy.chain.
        """
        return self._chain.verify()

    def close(self) -> None:
        """Close the file. What is reserved and not committed is released at the next opening."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release_expired(self) -> None:
        now = self._clock.now()
        for request in list(self._state.open.values()):
            if request.open is not None and request.open.expired(now):
                self.release(request.open, reason=EXPIRED)

    def _require_room(self, account: Account, event: Event, caps: Caps) -> None:
        for cap, selection, since, most in caps.of(account):
            used = self._state.used(selection, since)
            if not used.plus(event).within(most, delta=caps.delta):
                raise BudgetExhausted(
                    cap=cap,
                    asked=Composition().plus(event).epsilon(delta=caps.delta),
                    left=max(0.0, most - used.epsilon(delta=caps.delta)),
                )

    def _held(self, reservation: Reservation) -> Request:
        request = self._state.requests.get(reservation.request_id)
        if request is None or request.open != reservation:
            raise ReservationClosed("the reservation is not open")
        return request

    def _write(self, kind: str, **fields: Any) -> None:
        fields = {"kind": kind, "at": self._clock.now().isoformat(), **fields}
        record = self._chain.append(fields)
        self._state.apply(entry_of(record.seq, record.hash, fields))


def _named(reservation: Reservation) -> dict[str, Any]:
    return {
        "request_id": reservation.request_id,
        **account_fields(reservation.account),
        "attempt": reservation.attempt,
    }
