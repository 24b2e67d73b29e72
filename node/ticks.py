"""A grid of time on which answers leave, so that when one leaves says little about how long it took.

What is asked for takes longer to find in many records than in few. On a grid, an answer that is ready leaves
at the next tick, counted from a moment that does not depend on the data: two answers that would both be ready
before the same tick leave at the same moment.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ticks:
    """The moments start_s + k · every_s, k = 1, 2, …, on the event loop's clock; any, with every_s 0."""

    start_s: float
    every_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.every_s) and self.every_s >= 0):
            raise ValueError("every_s is 0 or more seconds")

    def next(self, now_s: float) -> float:
        """Return the first tick that is not before `now_s`.

        >>> Ticks(start_s=10.0, every_s=0.5).next(10.7)
        11.0
        """
        if not self.every_s:
            return now_s
        return self.start_s + max(1, math.ceil((now_s - self.start_s) / self.every_s)) * self.every_s

    async def wait(self) -> None:
        """Return at the next tick."""
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(self.next(now_s) - now_s)
