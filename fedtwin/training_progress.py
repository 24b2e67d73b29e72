"""How far a training run is, and how long it will take: a bar on a terminal, a line a round elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coordinator.flower.run_folder import Status
from fedtwin.progress import bar
from fedtwin.screen import say, words


@dataclass
class Pace:
    """How fast steps come, as seen from here. `clock` returns seconds that only grow.

    The clock runs from the first step that is seen to come: what goes before it (Flower starts, hospitals
    open a session) says nothing of the steps. Steps of a round that broke off count as done: what is left is
    whole rounds, less what this one has.
    """

    clock: Callable[[], float]
    _before: int | None = None  # steps that were done when we began to look
    _first: tuple[float, int] | None = None
    _round: tuple[int, int] = field(default=(0, 0))  # the round at hand, and the steps done when it began

    def left_s(self, status: Status) -> float | None:
        """Return the seconds until the run ends; None while nothing says how fast it is."""
        now = self.clock()
        if self._before is None:
            self._before, self._round = status.steps, (status.round, status.steps)
        if self._first is None and status.steps > self._before:
            self._first = (now, status.steps)
        if status.round != self._round[0]:
            self._round = (status.round, status.steps)
        a_round = status.steps_in_all / status.rounds
        steps_left = (status.rounds - status.round) * a_round - (status.steps - self._round[1])
        if self._first is not None and status.steps > self._first[1]:
            began, steps = self._first
            return max(0.0, steps_left) * (now - began) / (status.steps - steps)
        if status.seconds_per_round:  # of an earlier start
            return max(0.0, steps_left) / a_round * status.seconds_per_round[-1]
        return None


@contextmanager
def shown(rounds: int, *, clock: Callable[[], float]) -> Iterator[Callable[[Status], None]]:
    """Show how a run goes while the block runs; call what this yields with each status."""
    pace, told = Pace(clock), -1
    with bar("starting", total=rounds, unit="rounds") as line:

        def watch(status: Status) -> None:
            nonlocal told
            left = pace.left_s(status)
            text = f"{status.state}, step {status.steps} of {status.steps_in_all}"
            text += f", {in_words(left)} left" if left is not None else ""
            line.describe(text)
            line.to(status.round, total=status.rounds)
            if not words.is_terminal and status.round > max(told, 0):
                say(f"round {status.round} of {status.rounds}: {text}")
            told = status.round

        yield watch


def in_words(seconds: float) -> str:
    """Return a duration for a person.

    >>> in_words(7.2), in_words(150), in_words(8000)
    ('8 s', '3 min', '2 h 14 min')
    """
    if seconds < 90:
        return f"{-int(-seconds // 1)} s"
    minutes = -int(-seconds // 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
