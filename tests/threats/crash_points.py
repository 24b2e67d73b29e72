"""Where a node can be killed between a question's arrival and its answer, wrapped around production parts.

A `Crash` kills its own process with SIGKILL the n-th time a named point is passed. Production code knows
nothing of it: points lie in subclasses and wrappers that a test hands to the node.
"""

import os
import resource
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from node.queries.engine import CdmEngine, Warehouse
from node.queries.limits import Limits
from privacy.chain import Chain
from privacy.ledger import Ledger
from privacy.ledger_entries import Reservation
from privacy.rng import SecureBits

KINDS = ("opened", "reserved", "committed", "revealed", "released")
STATEMENTS = (
    "before BEGIN",
    "before INSERT",
    "before COMMIT",
    "torn in COMMIT",  # part of what SQLite writes is in its log
    "before the head",
    "after the head",
)
RECORDS = tuple(f"{kind}: {step}" for kind in KINDS for step in STATEMENTS)
LEDGER = tuple(f"{side} {call}" for call in ("reserve", "commit", "revealed") for side in ("before", "after"))
FLOW = (
    "before SQL",
    "after SQL",
    "while noise is drawn",
    "before an input leaves",
    "after an input left",
    "before shares leave",
    "after shares left",
)
OPENING = ("after opening",)
IDLE = "after the last step"  # open reservations, if any, are held
NOWHERE = "not at all"  # the node is stopped as a service is
POINTS = (*RECORDS, *LEDGER, *FLOW, *OPENING, IDLE, NOWHERE)


class Crash:
    """Kills this process the `nth` time `point` is passed; `tear` says how many bytes a torn write has."""

    def __init__(self, point: str, nth: int, tear: int, *, last_words: Callable[[], None]) -> None:
        if point not in POINTS:
            raise ValueError(point)
        self.point, self.tear = point, tear
        self._left = nth
        self._last_words = last_words

    def passing(self, point: str) -> None:
        """Die here if it is time."""
        if self._due(point):
            self._last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    def tearing(self, point: str, wal: Path) -> None:
        """Let the kernel kill this process in the middle of SQLite's next write to its log.

        Beyond the limit a write is cut short, and the next is answered with SIGXFSZ, which ends the process
        as suddenly as SIGKILL does (its handler is the default one: see `armed`).
        """
        if self._due(point):
            self._last_words()
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + self.tear, hard))

    def survived(self, point: str) -> None:
        """Die after all where a write was to be torn and did not grow its file."""
        if self.point == point and self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _due(self, point: str) -> bool:
        if point != self.point:
            return False
        self._left -= 1
        return self._left == 0


def armed() -> None:
    """Make this process die of a write beyond its limit, without a core file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def dying_chain(base: type[Chain], crash: Crash) -> type[Chain]:
    """Return a chain with points in each of its appends."""

    class DyingChain(base):  # type: ignore[misc, valid-type]  # a base that is chosen when it runs
        kind = ""

        def append(self, fields: dict[str, Any]) -> Any:
            self.kind = fields["kind"]
            self._connection.set_trace_callback(self._on_statement)
            try:
                return super().append(fields)
            finally:
                self._connection.set_trace_callback(None)
                self.kind = ""

        def _on_statement(self, statement: str) -> None:
            verb = statement.split()[0]
            crash.passing(f"{self.kind}: before {verb}")
            if verb == "COMMIT":
                crash.tearing(f"{self.kind}: torn in COMMIT", self._path.with_name(self._path.name + "-wal"))

        def _write_head(self) -> None:
            if self.kind:
                crash.survived(f"{self.kind}: torn in COMMIT")
                crash.passing(f"{self.kind}: before the head")
            super()._write_head()
            if self.kind:
                crash.passing(f"{self.kind}: after the head")

    return DyingChain


def dying_ledger(base: type[Ledger], crash: Crash) -> type[Ledger]:
    """Return a ledger with points around each of its calls."""

    class DyingLedger(base):  # type: ignore[misc, valid-type]  # a base that is chosen when it runs
        def reserve(self, request_id: str, **given: Any) -> Reservation:
            crash.passing("before reserve")
            reservation = super().reserve(request_id, **given)
            crash.passing("after reserve")
            return reservation  # type: ignore[no-any-return]  # of the base

        def commit(self, reservation: Reservation, *, count: int | None = None) -> None:
            crash.passing("before commit")  # the noise is drawn, nothing is paid
            super().commit(reservation, count=count)
            crash.passing("after commit")

        def revealed(self, request_id: str) -> None:
            crash.passing("before revealed")
            super().revealed(request_id)
            crash.passing("after revealed")

    return DyingLedger


class DyingBits(SecureBits):
    """Noise, with a point before the first of its bits and at each further draw."""

    def __init__(self, crash: Crash) -> None:
        self._crash = crash

    def bytes(self, n: int) -> bytes:
        self._crash.passing("while noise is drawn")
        return super().bytes(n)


class DyingWarehouse:
    """A warehouse, opened when it is first needed, with points before and after each question's SQL."""

    def __init__(self, opening: Callable[[], Warehouse], crash: Crash) -> None:
        self._opening, self._crash = opening, crash
        self._opened: Warehouse | None = None
        self._lock = Lock()

    def engine(self, limits: Limits) -> CdmEngine:
        self._crash.passing("before SQL")
        with self._lock:
            self._opened = self._opened or self._opening()
        engine = self._opened.engine(limits)
        close = engine.close

        def closing() -> None:
            self._crash.passing("after SQL")
            close()

        engine.close = closing  # type: ignore[method-assign]  # what RunningQuestion calls when it has the rows
        return engine


class Witness:
    """Reads which records are durable, by a connection of its own, not by the ledger that is tested."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"

    def last(self) -> int:
        """Return the number of the last record that SQLite has committed, and so synced."""
        connection = sqlite3.connect(self._uri, uri=True)
        try:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()[0])
        finally:
            connection.close()
