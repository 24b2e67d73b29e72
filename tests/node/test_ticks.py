"""Answers leave on a grid that begins with their acceptance."""

import asyncio
import selectors

import pytest

from node.ticks import Ticks


class NoWait(selectors.DefaultSelector):
    """Waits for nothing: the time it was to wait has passed at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


class OwnTime(asyncio.SelectorEventLoop):
    """A loop with a time of its own, exact however busy the machine is."""

    def __init__(self) -> None:
        self._waits = NoWait()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.now_s


def test_the_next_tick_is_on_the_grid_and_not_in_the_past() -> None:
    ticks = Ticks(start_s=3.25, every_s=0.5)
    for now_s, expected in ((3.25, 3.75), (3.3, 3.75), (3.75, 3.75), (3.76, 4.25), (10.0, 10.25)):
        assert ticks.next(now_s) == expected


def test_what_is_ready_in_one_interval_leaves_at_one_moment() -> None:
    async def leaving(busy_s: float) -> float:
        loop = asyncio.get_running_loop()
        ticks = Ticks(start_s=loop.time(), every_s=0.3)
        await asyncio.sleep(busy_s)
        await ticks.wait()
        return loop.time() - ticks.start_s

    async def both() -> list[float]:
        return await asyncio.gather(leaving(0.01), leaving(0.2), leaving(0.4))

    with asyncio.Runner(loop_factory=OwnTime) as runner:
        assert runner.run(both()) == pytest.approx([0.3, 0.3, 0.6], abs=1e-6)


def test_without_a_grid_nothing_waits() -> None:
    assert Ticks(start_s=1.0, every_s=0.0).next(1.01) == 1.01


def test_a_grid_of_negative_or_no_time_is_refused() -> None:
    for every_s in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            Ticks(start_s=0.0, every_s=every_s)
