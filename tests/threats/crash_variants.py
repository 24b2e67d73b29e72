"""Nodes that are wrong on purpose: what the histories of crashes must find."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from node.sums import SumSessions
from privacy.budget import Caps
from privacy.chain import Chain, ChainBusy
from privacy.ledger import RESTART, Ledger, ReservationClosed
from privacy.ledger_entries import Reservation, account_fields
from privacy.ledger_state import State
from protocols import canonical
from tests.threats.crash_oracle import Invariant
from tests.threats.crashing_node import Parts


class LateLedger(Ledger):
    """Remembers what is to be committed."""

    owed: ClassVar[list[Callable[[], None]]] = []

    def commit(self, reservation: Reservation, *, count: int | None = None) -> None:
        self.owed.append(lambda: super(LateLedger, self).commit(reservation, count=count))


class PaysLate(SumSessions):
    """Commits once the input has left."""

    async def contribute(self, *given: Any, **named: Any) -> None:
        await super().contribute(*given, **named)
        while LateLedger.owed:
            LateLedger.owed.pop()()


class MarksLate(SumSessions):
    """Marks a question as revealed once its shares have left."""

    _late: ClassVar[dict[int, Callable[[], None]]] = {}

    async def contribute(self, *given: Any, before_reveal: Any = None, **named: Any) -> None:
        self._late[given[1]] = before_reveal
        await super().contribute(*given, **named)

    async def _reveal(self, joined: Any, body: Any) -> None:
        await super()._reveal(joined, body)
        self._late[body.step]()


class GivesBack(Ledger):
    """On opening, gives back what was committed and not marked as revealed: "nobody got an answer"."""

    def __init__(self, path: Path, **given: Any) -> None:
        super().__init__(path, **given)
        entries = list(self.entries())
        self._state = State()
        for entry in entries:
            committed = entry.kind == "committed" and not self._marked(entries, entry.request_id)
            self._state.apply(replace(entry, kind="released", reason=RESTART) if committed else entry)

    @staticmethod
    def _marked(entries: list[Any], request_id: str | None) -> bool:
        return any(entry.kind == "revealed" and entry.request_id == request_id for entry in entries)


class WritesBack(Ledger):
    """The same, written down as a release."""

    def __init__(self, path: Path, **given: Any) -> None:
        super().__init__(path, **given)
        for name, request in self._state.requests.items():
            if request.committed and not request.revealed:
                fields = {"kind": "released", "at": self._clock.now().isoformat(), "request_id": name}
                fields |= account_fields(request.account) | {"count": 1, "reason": RESTART}
                self._chain.append(fields)


class Forgets(Ledger):
    """Takes a mark for a mark of this life only: what was answered before may be answered again."""

    def __init__(self, path: Path, **given: Any) -> None:
        super().__init__(path, **given)
        for request in self._state.requests.values():
            request.revealed = False


class Generous(Ledger):
    """Looks at no cap."""

    def reserve(self, request_id: str, *, caps: Caps, **given: Any) -> Reservation:
        most = {name: 60.0 for name in Caps.__slots__ if name.startswith("epsilon")}
        return super().reserve(request_id, caps=replace(caps, **most), **given)


class Keeps(Ledger):
    """On opening, keeps what was reserved by a process that is gone."""

    def release(self, reservation: Reservation, *, reason: str) -> None:
        if reason != RESTART:
            super().release(reservation, reason=reason)


class ReleasesLate(Ledger):
    """Takes a commit for done before it is written, and lets a release run over it."""

    def commit(self, reservation: Reservation, *, count: int | None = None) -> None:
        super().release(reservation, reason="answered")
        request = self._state.requests.get(reservation.request_id)
        if request is None:
            raise ReservationClosed("never reserved")
        request.committed += 1


class HeadFirst(Chain):
    """Writes the head before the record."""

    def append(self, fields: dict[str, Any]) -> Any:
        kept = self._last
        body = canonical.encode({**fields, "previous": kept[1], "seq": kept[0] + 1})
        self._last = (kept[0] + 1, hashlib.sha256(body).hexdigest())
        self._write_head()
        self._last = kept
        return super().append(fields)


class StaleLock(Ledger):
    """Takes a file that a killed process left behind for a process that is alive."""

    def __init__(self, path: Path, *, read_only: bool = False, **given: Any) -> None:
        lock = path.with_name(path.name + ".running")
        try:
            lock.touch(exist_ok=False)
        except FileExistsError:
            raise ChainBusy(path.name) from None
        self._running = lock
        super().__init__(path, read_only=read_only, **given)

    def close(self) -> None:
        self._running.unlink(missing_ok=True)
        super().close()


HONEST = "honest"
VARIANTS: dict[str, tuple[Parts, frozenset[Invariant]]] = {  # and at least what they must be caught by
    HONEST: (Parts(), frozenset()),
    "commit after send": (Parts(ledger=LateLedger, sums=PaysLate), frozenset({Invariant.PAID})),
    "mark after shares": (Parts(sums=MarksLate), frozenset({Invariant.MARKED})),
    "committed forgotten at opening": (Parts(ledger=GivesBack), frozenset({Invariant.SPENT})),
    "committed released at opening": (
        Parts(ledger=WritesBack),
        frozenset({Invariant.GIVEN_BACK, Invariant.VERIFIES}),
    ),
    "marks forgotten at opening": (Parts(ledger=Forgets), frozenset({Invariant.ONCE})),
    "no caps": (Parts(ledger=Generous), frozenset({Invariant.CAPS})),
    "dead reservations kept": (Parts(ledger=Keeps), frozenset({Invariant.GIVEN_BACK})),
    "released instead of committed": (Parts(ledger=ReleasesLate), frozenset({Invariant.PAID})),
    "head before record": (Parts(chain=HeadFirst), frozenset({Invariant.VERIFIES})),
    "a stale lock": (Parts(ledger=StaleLock), frozenset({Invariant.USABLE})),
}
