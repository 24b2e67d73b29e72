"""A count goes from a researcher to the hospitals and back over real TLS, and each hospital pays once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocols.refusal import RefusalCode, Refused
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
            assert abs(answer.estimate - truth) < 6.5 * answer.standard_deviation
            assert (answer.contributors, answer.participants, answer.releases) == (4, 4, 1)
            assert [consortium.spent(site) for site in range(4)] == [1, 1, 1, 1]
            assert consortium.entries(0) == [("reserved", 1), ("committed", 1), ("revealed", None)]

    asyncio.run(story())


def test_a_hospital_whose_trail_cannot_be_written_answers_no_further_question(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, _):
            await asyncio.sleep(0.5)  # what is being recorded comes to its end
            trails = {consortium.node(site).audit: b"" for site in range(4)}
            for path in trails:
                trails[path] = path.read_bytes()
                path.write_bytes(b"")  # a cut trail is not written on
            with contextlib.suppress(Refused):
                await consortium.ask()  # its lines are the first that fail
            await asyncio.sleep(0.5)
            spent = [consortium.spent(site) for site in range(4)]
            with pytest.raises(Refused) as refused:
                await consortium.ask(consortium.question(epsilon=0.9))
            assert refused.value.code is RefusalCode.INTERNAL
            assert [consortium.spent(site) for site in range(4)] == spent
            for path, lines in trails.items():
                path.write_bytes(lines)

    asyncio.run(story())
