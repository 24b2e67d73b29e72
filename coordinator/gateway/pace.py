"""How fast one person may ask: windows kept in memory, by pseudonym.

Rates keep one person from crowding out the others. They protect no patient: the hospitals' ledgers do, so
that windows may be forgotten when the process restarts.
"""

from __future__ import annotations

import math

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from coordinator.gateway import problems
from coordinator.gateway.problems import Problem
from protocols.clock import Clock


class Pace:
    """Counts requests of each account over a moving minute."""

    def __init__(self, *, questions_per_minute: int, reads_per_minute: int, clock: Clock) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._questions = RateLimitItemPerMinute(questions_per_minute, namespace="questions")
        self._reads = RateLimitItemPerMinute(reads_per_minute, namespace="reads")
        self._clock = clock

    def question(self, account: str) -> None:
        """Count a question. Raises: Problem (429, Retry-After)."""
        self._count(self._questions, account)

    def read(self, account: str) -> None:
        """Count anything else. Raises: Problem (429, Retry-After)."""
        self._count(self._reads, account)

    def _count(self, item: RateLimitItemPerMinute, account: str) -> None:
        if self._limiter.hit(item, account):
            return
        reset_at, _ = self._limiter.get_window_stats(item, account)
        left_s = math.ceil(reset_at - self._clock.now().timestamp())
        raise Problem(problems.RATE, headers={"retry-after": str(min(60, max(1, left_s)))})
