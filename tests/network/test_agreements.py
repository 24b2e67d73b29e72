"""Two hospitals of seven are missing, over mutual TLS: the others compare whom they were told of and open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from coordinator.masked_exchange import MaskedExchange
from coordinator.server import Serving
from coordinator.sums import SumSession
from node.running import RunningNode
from privacy.sum_party import SumParty
from protocols.refusal import RefusalCode, Refused
from tests.network.consortium import Consortium, until

SITES, MISSING = 7, 2
CONTEXT = bytes(range(32))
VALUES = np.arange(5, dtype=np.uint64)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Seven hospitals that have joined; each test lets them serve."""
    return Consortium(tmp_path_factory.mktemp("consortium"), sites=SITES).found_and_enrol()


@contextlib.asynccontextmanager
async def session_of(consortium: Consortium) -> AsyncIterator[tuple[Serving, list[RunningNode], SumSession]]:
    async with consortium.coordinator() as serving, consortium.nodes() as nodes:
        await until(lambda: len(serving.broker.connected()) == SITES)
        session = await serving.sums.open(
            serving.broker.connected(), steps=1, purpose="questions", tolerance=MISSING
        )
        for node in nodes:
            await node.sums.opened(session.id)
        session.take_step()
        yield serving, nodes, session


async def sent(nodes: list[RunningNode], session: SumSession) -> None:
    """Let all but two send the same vector."""
    for node in nodes[MISSING:]:
        await node.sums.contribute(session.id, 0, CONTEXT, VALUES)


def test_the_sum_of_those_who_are_left_is_opened_after_they_agreed(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[int] = []
    agree = SumParty.agree
    monkeypatch.setattr(
        SumParty, "agree", lambda party, **told: signed.append(len(told["survivors"])) or agree(party, **told)
    )

    async def story() -> None:
        async with session_of(consortium) as (_, nodes, session):
            await sent(nodes, session)
            found = await session.step(0, deadline_s=2)
            assert len(found.contributors) == SITES - MISSING
            np.testing.assert_array_equal(found.total, (SITES - MISSING) * VALUES)

    asyncio.run(story())
    assert signed == [SITES - MISSING] * (SITES - MISSING)


def test_a_coordinator_that_leaves_the_comparison_out_gets_no_sum(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        """Ask nobody."""

    monkeypatch.setattr(MaskedExchange, "_agree", nothing)

    async def story() -> None:
        async with session_of(consortium) as (_, nodes, session):
            await sent(nodes, session)
            with pytest.raises(Refused) as refused:
                await session.step(0, deadline_s=2)
            assert refused.value.code is RefusalCode.TOO_MANY_DROPOUTS

    asyncio.run(story())
