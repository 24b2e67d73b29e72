"""Whoever waits looks again when it rings, and not longer than it said."""

import asyncio

from coordinator.bell import Bell


def test_a_waiter_goes_on_when_its_condition_holds_and_not_before() -> None:
    async def story() -> None:
        bell, seen = Bell(), []
        waiting = asyncio.create_task(bell.until(lambda: len(seen) == 2, timeout_s=5))
        for _ in range(2):
            await asyncio.sleep(0)
            assert not waiting.done()
            seen.append(1)
            bell.ring()
        assert await waiting

    asyncio.run(story())


def test_a_waiter_gives_up_in_time() -> None:
    async def story() -> None:
        began = asyncio.get_running_loop().time()
        assert not await Bell().until(lambda: False, timeout_s=0.05)
        assert asyncio.get_running_loop().time() - began < 1

    asyncio.run(story())
