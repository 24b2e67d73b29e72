"""What is no question is refused by a code, at the coordinator and at the nodes, and costs nobody a thing."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protocols.ids import NodeId, QuestionId
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.malformed import malformed
from tests.network.standing import SITES, Standing, question, standing
from tests.threats.hostile import hostile

AT_ONCE = 16
CODES = {
    RefusalCode.MALFORMED.value,
    RefusalCode.BAD_SIGNATURE.value,
    RefusalCode.UNKNOWN_SIGNER.value,
}
MANY = [300, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("malformed")) as found:
        yield found


@pytest.mark.parametrize("count", MANY)
def test_the_coordinator_refuses_each_with_a_code_and_passes_none_on(network: Standing, count: int) -> None:
    before = network.spent()
    envelopes = malformed(network.consortium, count, seed=count)

    async def send_all() -> Counter[str]:
        codes: Counter[str] = Counter()
        async with network.consortium.channel() as channel:
            stub = fedtwin_pb2_grpc.ResearchStub(channel)

            async def send_some() -> None:
                for data in envelopes:
                    try:
                        async for event in stub.Ask(pb.AskRequest(question_envelope=data), timeout=60):
                            codes[str(event.WhichOneof("body"))] += 1
                    except grpc.aio.AioRpcError as error:
                        codes[str(error.details())] += 1

            await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
        return codes

    codes = network.loop.run(send_all(), timeout_s=280)
    print(f"\n{count} malformed questions: {dict(codes)}")
    assert sum(codes.values()) == count
    assert set(codes) <= CODES
    assert codes[RefusalCode.MALFORMED.value] > count / 3
    assert network.spent() == before
    answer = network.ask(question({"kind": "count"}, epsilon=0.5 + count / 1e6))
    assert answer.contributors == SITES


@pytest.mark.parametrize("count", MANY)
def test_a_node_refuses_each_whoever_brings_it(tmp_path: Path, count: int) -> None:
    """A lying coordinator passes them on: no node dies, reconnects, reserves or charges."""

    async def story() -> None:
        async with hostile(tmp_path) as coordinator:
            consortium = coordinator.consortium
            envelopes = malformed(consortium, count, seed=count + 1)
            codes: Counter[str] = Counter()

            async def flood(node: NodeId) -> None:
                for data in envelopes:
                    codes[await coordinator.offer(node, QuestionId.new(), data)] += 1

            before = coordinator.connections
            await asyncio.gather(*(flood(node) for node in coordinator.nodes))
            print(f"\n{count} malformed questions at four nodes: {dict(codes)}")
            assert sum(codes.values()) == count
            assert set(codes) <= CODES
            assert coordinator.connections == before
            assert all(consortium.entries(site) == [] for site in range(4))
            asked = consortium.question()
            for node in coordinator.nodes:
                assert await coordinator.offer(node, asked.question_id, consortium.signed(asked)) == ""

    asyncio.run(story())
