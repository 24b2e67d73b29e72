"""What one question may take, and how it is made to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_AGAIN_S = 0.02  # an interrupt between two statements stops nothing, so it is repeated


@dataclass(frozen=True, slots=True)
class Limits:
    """What one question may take: seconds; DuckDB's memory in its notation (`2GB`; None for 80 %), cores.

    Memory and cores are limits of a DuckDB database, so they are set when it is opened.
    """

    time_s: float
    memory: str | None = None
    threads: int | None = None


class OutOfMemory(Exception):
    """The question needs more memory than it may use."""

    def __init__(self) -> None:
        super().__init__("the question needs more memory than its limit")


class Stopper:
    """Calls `interrupt` again and again once the time is over or someone has asked for it; until closed.

    Args:
        after_s: from now.
        again_s: how long after one call comes the next.
    """

    def __init__(self, interrupt: Callable[[], object], *, after_s: float, again_s: float = _AGAIN_S) -> None:
        self._interrupt = interrupt
        self._end = time.monotonic() + after_s
        self._again_s = again_s
        self._wake = threading.Event()
        self._asked = False
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="question-time-limit", daemon=True)
        self._watcher.start()

    @property
    def left_s(self) -> float:
        """How much time is left: 0 if it is over or someone has asked to stop."""
        return 0.0 if self._asked else max(0.0, self._end - time.monotonic())

    def stop(self) -> None:
        """Begin to interrupt now."""
        self._asked = True
        self._wake.set()

    def close(self) -> None:
        """Interrupt no more. Returns when no call is on its way."""
        self._over.set()
        self._wake.set()
        self._watcher.join()

    def _watch(self) -> None:
        self._wake.wait(self.left_s)
        while not self._over.is_set():
            self._interrupt()
            self._over.wait(self._again_s)
