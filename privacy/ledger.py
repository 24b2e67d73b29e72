"""What each hospital has spent: every release is reserved, committed and marked, durably and in this order.

    reserve   before a record is read: the caps must cover it beside all that is spent or reserved
    commit    before the first byte of a contribution leaves: from here on it is spent
    revealed  before shares leave that could open a sum it is part of: from here on the request is over

A crash may waste budget and never gives any back that could have been used: on opening, what was reserved and
not committed is released (nothing had left), what was committed stays spent.

A request that was committed and never marked as revealed may be reserved again, and *is charged again*. A
node cannot know whether the others opened the sum its first contribution went into: a coordinator that cuts
nodes off after their input has left could otherwise open one sum with all of them and a second one among
those it cut off, for a single charge.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from privacy.accountant import (
    LARGEST_EPSILON,
    Composition,
    GaussianEvent,
    event_from_json,
    largest_further_epsilon,
)
from privacy.chain import Chain, ChainBroken
from protocols.clock import Clock
from protocols.refusal import RefusalCode

FORMAT = "fedtwin-ledger-v1"
RESTART = "restart"  # the reason written when opening finds a reservation that no process holds any more
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,199}")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}")

# The errors of this module (ChainBroken and ChainBusy of privacy.chain come through as they are):
# Refusals carry the code that may leave the hospital.
#   Exception
#   ├── BudgetExhausted     a refusal: the caps do not cover it
#   ├── Replayed            a refusal: the request is being answered, or its id named something else
#   │   └── AlreadyRevealed     its answer may be out
#   └── ReservationClosed   (ValueError) the caller's mistake: more committed than reserved, or after the end


class BudgetExhausted(Exception):
    """The caps do not cover the event.

    `asked` is its ε alone, `left` the ε of the largest single release that still fits, both at the caps' δ.
    """

    code: ClassVar[RefusalCode] = RefusalCode.BUDGET_EXHAUSTED

    def __init__(self, *, asked: float, left: float) -> None:
        super().__init__(f"asked for epsilon {asked:.4g}, {left:.4g} is left")
        self.asked = asked
        self.left = left


class Replayed(Exception):
    """The request id is in use."""

    code: ClassVar[RefusalCode] = RefusalCode.REPLAYED


class AlreadyRevealed(Replayed):
    """The request was answered, or may have been."""


class ReservationClosed(ValueError):
    """The reservation does not cover this, or is no longer open."""


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent, as ε at `delta`, over all projects and within one."""

    delta: float
    epsilon_total: float
    epsilon_project: float

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise ValueError("delta must lie strictly between 0 and 1")
        for cap in (self.epsilon_total, self.epsilon_project):
            if not (math.isfinite(cap) and 0.0 <= cap <= LARGEST_EPSILON):
                raise ValueError(f"a cap is an epsilon from 0 to {LARGEST_EPSILON}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """Budget that is set aside for one attempt at one request."""

    request_id: str
    project: str
    purpose: str
    event: GaussianEvent
    attempt: int


@dataclass(frozen=True, slots=True)
class Spent:
    """ε at δ of what was committed, and how many releases that was."""

    epsilon: float
    delta: float
    events: int


@dataclass(frozen=True, slots=True)
class Left:
    """What the caps still cover, counting what is reserved as spent.

    `epsilon` is cap minus spent, the smaller of project and total; `largest_question` is the ε of the largest
    single release that still fits, which is more, because composition is sublinear.
    """

    epsilon: float
    delta: float
    largest_question: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, for people and audits."""

    seq: int
    at: str
    kind: str
    hash: str
    request_id: str | None = None
    project: str | None = None
    purpose: str | None = None
    attempt: int | None = None
    event: GaussianEvent | None = None
    count: int | None = None
    reason: str | None = None


class _Request:
    """What is known about one request id."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.attempts = 0
        self.open: Reservation | None = None
        self.open_count = 0
        self.committed = 0
        self.revealed = False


class Ledger:
    """The ledger of one node: one writer process, whose threads share it, and any number of readers."""

    def __init__(self, path: Path, *, clock: Clock, read_only: bool = False) -> None:
        """Open the ledger at `path`; a writer makes it if absent and releases what no process holds any more.

        Raises: ChainBroken if it was tampered with; ChainBusy if another process writes to it;
        FileNotFoundError for reading a ledger that does not exist.
        """
        self._clock = clock
        self._mutex = threading.RLock()
        self._requests: dict[str, _Request] = {}
        self._open: dict[str, _Request] = {}
        self._committed: dict[str, Composition] = {}
        self._chain = Chain(path, writable=not read_only)
        try:
            for entry in self.entries():
                self._apply(entry)
            if not read_only:
                if self._chain.head()[0] == 0:
                    self._write("opened", format=FORMAT)
                for request in list(self._open.values()):
                    if request.open is not None:
                        self.release(request.open, reason=RESTART)
        except BaseException:
            self.close()
            raise

    def reserve(
        self, request_id: str, *, project: str, purpose: str, event: GaussianEvent, caps: Caps
    ) -> Reservation:
        """Set `event` aside for `request_id`, durably.

        Guarantee: what is committed and reserved, this event included, is within `caps` for the project and
        in total, composed by `privacy.accountant`.
        Raises: BudgetExhausted; AlreadyRevealed; Replayed if it is being answered, or belongs to another
        project; ValueError for a malformed name.
        """
        if not (_NAME.fullmatch(request_id) and _NAME.fullmatch(project) and _WORD.fullmatch(purpose)):
            raise ValueError("request_id, project or purpose is malformed")
        with self._mutex:
            request = self._requests.get(request_id)
            if request is not None and request.revealed:
                raise AlreadyRevealed("the request was answered, or may have been")
            if request is not None and (request.open is not None or request.project != project):
                raise Replayed("the request id is in use")
            self._require_room(project, event, caps)
            attempt = 1 if request is None else request.attempts + 1
            self._write(
                "reserved",
                request_id=request_id,
                project=project,
                purpose=purpose,
                attempt=attempt,
                event=event.to_json(),
            )
            return Reservation(request_id, project, purpose, event, attempt)

    def commit(self, reservation: Reservation, *, count: int | None = None) -> None:
        """Spend `count` releases of the reservation (all that is left of it if None), durably.

        Call it before anything leaves the node. Raises: ReservationClosed.
        """
        with self._mutex:
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
            request = self._requests.get(reservation.request_id)
            if request is None or request.open != reservation:
                return
            self._write("released", **_named(reservation), count=request.open_count, reason=reason)

    def revealed(self, request_id: str) -> None:
        """Mark, durably, that an answer to `request_id` may be out: it can never be reserved again.

        Call it before shares leave that could open a sum. Marking twice is marking once.
        Raises: ReservationClosed if nothing was committed for it.
        """
        with self._mutex:
            request = self._requests.get(request_id)
            if request is None or not request.committed:
                raise ReservationClosed("nothing was committed for this request")
            if not request.revealed:
                self._write("revealed", request_id=request_id, project=request.project)

    def spent(self, project: str | None = None, *, delta: float) -> Spent:
        """Return ε at `delta` of all that was committed, in one project or in all of them."""
        with self._mutex:
            total = self._composed(project, reserved=False)
        return Spent(total.epsilon(delta=delta), delta, total.releases)

    def left(self, caps: Caps, project: str) -> Left:
        """Return what `caps` still cover for `project`."""
        with self._mutex:
            used, used_total = (self._composed(name, reserved=True) for name in (project, None))
        pairs = ((used, caps.epsilon_project), (used_total, caps.epsilon_total))
        return Left(
            epsilon=max(0.0, min(cap - spent.epsilon(delta=caps.delta) for spent, cap in pairs)),
            delta=caps.delta,
            largest_question=min(
                largest_further_epsilon(spent, cap=cap, delta=caps.delta) for spent, cap in pairs
            ),
        )

    def committed_for(self, prefix: str) -> int:
        """Return how many releases were committed for requests whose id starts with `prefix`.

        A study's rounds share a prefix, so a node can hold a run to the number of steps it approved.
        """
        with self._mutex:
            return sum(r.committed for name, r in self._requests.items() if name.startswith(prefix))

    def projects(self) -> tuple[str, ...]:
        """Return the projects that have spent anything."""
        with self._mutex:
            return tuple(sorted(self._committed))

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, oldest first. Raises: ChainBroken."""
        for record in self._chain.records():
            fields: dict[str, Any] = dict(record.fields)
            fields.pop("format", None)
            if fields.get("event") is not None:
                fields["event"] = event_from_json(fields["event"])
            try:
                yield Entry(seq=record.seq, hash=record.hash, **fields)
            except TypeError as error:
                raise ChainBroken(record.seq, "a field this version does not know") from error

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

    def _require_room(self, project: str, event: GaussianEvent, caps: Caps) -> None:
        pairs = (
            (self._composed(project, reserved=True), caps.epsilon_project),
            (self._composed(None, reserved=True), caps.epsilon_total),
        )
        if any(spent.plus(event).epsilon(delta=caps.delta) > cap for spent, cap in pairs):
            raise BudgetExhausted(
                asked=Composition().plus(event).epsilon(delta=caps.delta),
                left=min(largest_further_epsilon(spent, cap=cap, delta=caps.delta) for spent, cap in pairs),
            )

    def _composed(self, project: str | None, *, reserved: bool) -> Composition:
        chosen = [c for name, c in sorted(self._committed.items()) if project in (None, name)]
        held = [
            GaussianEvent(request.open.event.noise_multiplier, request.open_count)
            for request in self._open.values()
            if reserved and request.open is not None and project in (None, request.project)
        ]
        total = Composition(sum(c.mu_squared for c in chosen), sum(c.releases for c in chosen))
        for event in held:
            total = total.plus(event)
        return total

    def _held(self, reservation: Reservation) -> _Request:
        request = self._requests.get(reservation.request_id)
        if request is None or request.open != reservation:
            raise ReservationClosed("the reservation is not open")
        return request

    def _write(self, kind: str, **fields: Any) -> None:
        record = self._chain.append({"kind": kind, "at": self._clock.now().isoformat(), **fields})
        fields.pop("format", None)
        if "event" in fields:
            fields["event"] = event_from_json(fields["event"])
        self._apply(Entry(seq=record.seq, at="", kind=kind, hash=record.hash, **fields))

    def _apply(self, entry: Entry) -> None:
        """Bring what is known up to date with one entry. Raises: ChainBroken for what no writer writes."""
        if entry.kind == "opened":
            return
        if entry.request_id is None or entry.project is None:
            raise ChainBroken(entry.seq, "names no request")
        request = self._requests.setdefault(entry.request_id, _Request(entry.project))
        if entry.kind == "reserved" and entry.event is not None and entry.attempt and entry.purpose:
            request.attempts = entry.attempt
            request.open = Reservation(
                entry.request_id, entry.project, entry.purpose, entry.event, entry.attempt
            )
            request.open_count = entry.event.count
            self._open[entry.request_id] = request
        elif entry.kind in ("committed", "released") and request.open is not None and entry.count:
            if entry.kind == "committed":
                spent = GaussianEvent(request.open.event.noise_multiplier, entry.count)
                before = self._committed.get(entry.project, Composition())
                self._committed[entry.project] = before.plus(spent)
                request.committed += entry.count
            request.open_count -= entry.count
            if request.open_count <= 0:
                request.open = None
                self._open.pop(entry.request_id, None)
        elif entry.kind == "revealed":
            request.revealed = True
        else:
            raise ChainBroken(entry.seq, "an entry that no writer writes")


def _named(reservation: Reservation) -> dict[str, Any]:
    return {
        "request_id": reservation.request_id,
        "project": reservation.project,
        "attempt": reservation.attempt,
    }
