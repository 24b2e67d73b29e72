"""The only place that asks what time it is. Everything else takes a clock as an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time; tests pass one that stands still."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        ...


class SystemClock:
    """The computer's clock."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that moves only when told to: for tests and for histories that are replayed."""

    def __init__(self, moment: datetime) -> None:
        if moment.tzinfo is None:
            raise ValueError("moment must carry a time zone")
        self._moment = moment.astimezone(UTC)

    def now(self) -> datetime:
        """Return the moment it was set to."""
        return self._moment

    def advance(self, by: timedelta) -> None:
        """Move forward by `by`. Raises: ValueError for a step back."""
        if by < timedelta(0):
            raise ValueError("a clock only moves forward")
        self._moment += by
