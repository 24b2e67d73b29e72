"""A count goes from a researcher to the hospitals and back over real TLS, and each hospital pays once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.network.consortium import Consortium, until


@contextlib.asynccontextmanager
async def running(folder: Path, *, sites: int = 4) -> AsyncIterator[tuple[Consortium, object]]:
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes():
            await until(lambda: len(serving.broker.connected()) == sites)
            yield consortium, serving


def test_a_count_is_near_the_truth_and_charged_once_at_each_hospital(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, _):
            answer = await consortium.ask()
            truth = sum(consortium.counts.values())
            assert abs(answer.estimate - truth) < 6 * answer.standard_deviation
            assert (answer.contributors, answer.participants, answer.releases) == (4, 4, 1)
            assert [consortium.spent(site) for site in range(4)] == [1, 1, 1, 1]
            assert consortium.entries(0) == [("reserved", 1), ("committed", 1), ("revealed", None)]

    asyncio.run(story())
