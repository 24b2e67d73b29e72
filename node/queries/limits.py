"""What one count may take, and how it is made to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_AGAIN_S = 0.02  # an interrupt between two statements stops nothing, so it is repeated


@dataclass(frozen=True, slots=True)
class Limits:
    """What one count may take: seconds, DuckDB's memory in its notation (`2GB`), cores (None for all)."""

    time_s: float
    memory: str
    threads: int | None = None


class OutOfMemory(Exception):
    """The count needs more memory than it may use."""

    def __init__(self, memory: str) -> None:
        super().__init__(f"the count needs more than {memory} of memory")
        self.memory = memory


@contextmanager
def stopping(interrupt: Callable[[], None], *, after_s: float) -> Iterator[Callable[[], bool]]:
    """Call `interrupt` again and again once the block has taken `after_s`; yields whether it has."""
    over, late = threading.Event(), threading.Event()

    def watch() -> None:
        if over.wait(after_s):
            return
        late.set()
        interrupt()
        while not over.wait(_AGAIN_S):
            interrupt()

    watcher = threading.Thread(target=watch, name="count-time-limit", daemon=True)
    watcher.start()
    try:
        yield late.is_set
    finally:
        over.set()
        watcher.join()
