"""Waiting for a condition in one event loop: who changes something rings, who waits looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Wakes every waiter of one event loop. No locks: all state lives in that loop's thread."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Let every waiter look at its condition again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    async def until(self, holds: Callable[[], bool], *, timeout_s: float) -> bool:
        """Return True as soon as `holds()`, or False after `timeout_s`. Whatever `holds` raises is raised."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not holds():
            left_s = deadline - loop.time()
            if left_s <= 0:
                return False
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.add(waiter)
            try:
                await asyncio.wait_for(waiter, left_s)
            except TimeoutError:
                return holds()
            finally:
                self._waiting.discard(waiter)
        return True
