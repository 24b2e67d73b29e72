"""Vectors of many pieces over mutual TLS: every site gets the total, and half a vector is no input."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import islice

import numpy as np
import pytest

from coordinator.flower.round_source import ArrivingTotal, RoundSum
from coordinator.server import Serving
from coordinator.sums import SumSession
from node.running import RunningNode
from privacy.lanes import words_for
from protocols.pieces import PIECE_BYTES, pieces
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import Consortium, until

LANES = 3
VALUES = 3_300_007  # nine megabytes: five pieces
CONTEXT = bytes(range(32))


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Four hospitals that have joined; each test lets them serve."""
    return Consortium(tmp_path_factory.mktemp("consortium")).found_and_enrol()


@contextlib.asynccontextmanager
async def session_of(
    consortium: Consortium, *, values: int = VALUES
) -> AsyncIterator[tuple[Serving, list[RunningNode], SumSession]]:
    async with consortium.coordinator() as serving, consortium.nodes() as nodes:
        await until(lambda: len(serving.broker.connected()) == 4)
        session = await serving.sums.open(
            serving.broker.connected(), steps=1, purpose="questions", tolerance=1, most_values=values
        )
        for node in nodes:
            await node.sums.opened(session.id)
        session.take_step()
        yield serving, nodes, session


def vectors(sites: int) -> list[np.ndarray]:
    """Return signed numbers whose sums need all of a lane of 21 bits."""
    most = (2**20 - 1) // sites
    found = np.random.default_rng(1).integers(-most, most + 1, (sites, VALUES))
    found[:, 0], found[:, -1] = most, -most
    return [row.view(np.uint64) for row in found]


def test_a_total_of_many_pieces_is_exact_at_every_site_and_at_the_lead(consortium: Consortium) -> None:
    assert len(list(pieces(words_for(VALUES, lanes=LANES)))) == 5

    async def story() -> None:
        async with session_of(consortium) as (_, nodes, session):
            given = vectors(4)
            adding = [
                asyncio.create_task(node.sums.contribute(session.id, 0, CONTEXT, vector, lanes=LANES))
                for node, vector in zip(nodes, given, strict=True)
            ]
            found = await session.step(0, deadline_s=60, broadcast=True)
            await asyncio.gather(*adding)
            expected = np.sum(given, axis=0, dtype=np.uint64)
            assert len(found.contributors) == 4
            np.testing.assert_array_equal(found.total, expected)
            for node in nodes:
                np.testing.assert_array_equal(await node.sums.result(session.id, 0), expected)
            for_lead = list(found.results(session.id, 0))
            assert len(for_lead) == 5
            assert all(len(piece.total) <= PIECE_BYTES for piece in for_lead)
            arriving = ArrivingTotal()
            *nothing, whole = [arriving.take(piece) for piece in for_lead]
            assert nothing == [None] * 4
            assert isinstance(whole, RoundSum)
            np.testing.assert_array_equal(whole.total, expected)

    asyncio.run(story())


def test_a_vector_cut_in_the_middle_is_a_dropout(consortium: Consortium) -> None:
    async def story() -> None:
        async with session_of(consortium) as (serving, nodes, session):
            given, cut = vectors(4), nodes[3]
            lost = cut._parts.me
            sent: list[pb.NodeFrame] = []
            send = cut.sums._send

            def three_pieces(frame: pb.NodeFrame) -> None:
                if frame.WhichOneof("body") == "sum_input":
                    sent.append(frame)
                    if len(sent) > 3:
                        return
                send(frame)

            cut.sums._send = three_pieces
            for node, vector in zip(nodes, given, strict=True):
                await node.sums.contribute(session.id, 0, CONTEXT, vector, lanes=LANES)
            collector = session.exchange._collector
            await until(lambda: lost in collector._steps[0].waiting)
            await until(lambda: collector._steps[0].waiting[lost].words == 3 * (PIECE_BYTES // 8))
            serving.broker._drop(serving.broker._links[lost])
            found = await session.step(0, deadline_s=60, broadcast=True)
            assert found.contributors == tuple(sorted(node._parts.me for node in nodes[:3]))
            expected = np.sum(given[:3], axis=0, dtype=np.uint64)
            np.testing.assert_array_equal(found.total, expected)
            np.testing.assert_array_equal(await nodes[0].sums.result(session.id, 0), expected)
            with pytest.raises(Refused):
                await cut.sums.result(session.id, 0)

    asyncio.run(story())


def test_a_vector_that_is_late_in_the_middle_is_a_dropout_too(consortium: Consortium) -> None:
    async def story() -> None:
        async with session_of(consortium) as (_, nodes, session):
            given = vectors(4)

            async def never() -> None:
                await asyncio.sleep(3600)

            nodes[0].sums._room = never  # after its first piece
            slow = asyncio.create_task(
                nodes[0].sums.contribute(session.id, 0, CONTEXT, given[0], lanes=LANES)
            )
            for node, vector in list(zip(nodes, given, strict=True))[1:]:
                await node.sums.contribute(session.id, 0, CONTEXT, vector, lanes=LANES)
            found = await session.step(0, deadline_s=3)
            assert len(found.contributors) == 3
            np.testing.assert_array_equal(found.total, np.sum(given[1:], axis=0, dtype=np.uint64))
            slow.cancel()

    asyncio.run(story())


def test_a_vector_longer_than_the_session_has_costs_its_sender_its_place(consortium: Consortium) -> None:
    async def story() -> None:
        async with session_of(consortium, values=10) as (_, nodes, session):
            for node in nodes[:3]:
                await node.sums.contribute(session.id, 0, CONTEXT, np.ones(10, dtype=np.uint64))
            await nodes[3].sums.contribute(session.id, 0, CONTEXT, np.ones(11, dtype=np.uint64))
            found = await session.step(0, deadline_s=20)
            assert len(found.contributors) == 3
            assert session._members.left == {nodes[3]._parts.me: RefusalCode.PROTOCOL_VIOLATION}

    asyncio.run(story())


def results() -> Iterator[pb.SumResult]:
    for start in (0, 3, 6):
        yield pb.SumResult(
            session_id=bytes(16), step=1, total=bytes(24), contributors=4, offset=start, length=18, lanes=2
        )


def test_pieces_of_a_total_that_do_not_fit_together_are_refused() -> None:
    for name, wrong in (
        ("offset", 4),
        ("length", 19),
        ("lanes", 3),
        ("contributors", 3),
        ("step", 2),
        ("total", bytes(23)),
        ("total", b""),
    ):
        arriving = ArrivingTotal()
        first, second = islice(results(), 2)
        arriving.take(first)
        setattr(second, name, wrong)
        with pytest.raises(Refused, match="protocol"):
            arriving.take(second)
    arriving, (first, second, third) = ArrivingTotal(), results()
    third.total = bytes(32)
    arriving.take(first), arriving.take(second)
    with pytest.raises(Refused):
        arriving.take(third)
