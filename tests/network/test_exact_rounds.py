"""Sessions of studies without noise over the broker: who may open one, and that nobody may be missing."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from node.running import RunningNode
from privacy import study_noise
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, Consortium, until
from tests.network.test_rounds_over_the_wire import propose
from tests.protocols.exact_forms import exact_study

STUDY = exact_study("logistic", iterations=3)
MODEL = bytes(32)  # the digest that all hospitals name alike


def name_in_policies(consortium: Consortium, study: Study, sites: range) -> None:
    for site in sites:
        policy = consortium.node(site).policy
        lines = f'\n[exact]\nstudies = ["{study.plan_hash().hex()}"]\nminimum_people = 20\n'
        policy.write_text(policy.read_text() + lines)


async def opened(consortium: Consortium, study: Study, stub: fedtwin_pb2_grpc.ResearchStub) -> pb.RoundEvent:
    request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=study.training.steps)
    return await anext(aiter(stub.OpenRound(request)))


@pytest.mark.parametrize("naming", [0, 2])
def test_no_session_opens_while_too_few_policies_name_the_study(tmp_path: Path, naming: int) -> None:
    async def story() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes() as nodes:
                await until(lambda: len(serving.broker.connected()) == 4)
                for node in nodes:
                    node._parts.approvals.approve(STUDY, clock=CLOCK)
                name_in_policies(consortium, STUDY, range(naming))
                assert (await propose(consortium, STUDY)).approved == naming
                async with consortium.channel(consortium.lead) as channel:
                    event = await opened(consortium, STUDY, fedtwin_pb2_grpc.ResearchStub(channel))
                assert event.WhichOneof("body") == "refusal"
                assert event.refusal in {"exact-not-named", "not-approved", "too-few-sites"}

    asyncio.run(story())


def test_a_sum_that_one_hospital_is_missing_from_is_not_opened(tmp_path: Path) -> None:
    """With noise, three of these four would do: the plan tolerates one."""

    async def story() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes() as nodes:
                await until(lambda: len(serving.broker.connected()) == 4)
                for node in nodes:
                    node._parts.approvals.approve(STUDY, clock=CLOCK)
                name_in_policies(consortium, STUDY, range(4))
                assert (await propose(consortium, STUDY)).approved == 4
                request = pb.OpenRoundRequest(plan_hash=STUDY.plan_hash(), round=1, steps=3)
                async with consortium.channel(consortium.lead) as channel:
                    events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                    session = SessionId((await anext(events)).opened.session_id)
                    for node in nodes:
                        await node.sums.opened(session)

                    async def step(number: int, *present: RunningNode) -> pb.RoundEvent:
                        context = study_noise.step_context(
                            STUDY.plan_hash(), round=1, step=number, model=MODEL
                        )
                        for node in present:
                            vector = np.ones(3, dtype=np.uint64)
                            await node.sums.contribute(session, number, context, vector)
                        event = await anext(events)
                        while event.WhichOneof("body") == "left":
                            event = await anext(events)
                        return event

                    assert (await step(0, *nodes)).sum.contributors == 4
                    nodes[3].stream._queue = None  # its frames are lost from here on
                    serving.broker._drop(serving.broker._links[consortium.node(3).config().node_id])
                    event = await step(1, *nodes[:3])
                    assert event.WhichOneof("body") == "refusal"
                    with pytest.raises(Refused) as refused:
                        await nodes[0].sums.result(session, 1, deadline_s=5)
                    assert refused.value.code is not RefusalCode.INTERNAL

    asyncio.run(story())
