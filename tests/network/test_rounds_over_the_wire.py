"""Training rounds over the broker: a lead proposes, hospitals approve, and steps are summed and sent back."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from node.running import RunningNode
from privacy import accountant, study_noise
from protocols import proposal
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, Consortium, until
from tests.network.totals import numbers_of
from tests.protocols.study_forms import study_form

VALUES = 1_000
MODEL = bytes(32)  # the digest that all hospitals name alike


def plan() -> Study:
    """Return a plan that the demo policy allows."""
    form = study_form()
    form["sites"] = {"minimum": 3, "tolerance": 1}
    form["privacy"] |= {"epsilon": 1.0, "delta": 1e-5, "max_sites_per_patient": 2}
    return Study.from_json(form)


async def propose(consortium: Consortium, study: Study) -> pb.ProposeStudyReply:
    lead = consortium.lead
    envelope = proposal.signed(study, signer=lead.name, key=lead.identity_key())
    async with consortium.channel(lead) as channel:
        stub = fedtwin_pb2_grpc.ResearchStub(channel)
        return await stub.ProposeStudy(pb.ProposeStudyRequest(study_envelope=envelope))


async def add(node: RunningNode, study: Study, session: SessionId, value: int, *, values: int) -> list:
    """Do at one node what a trainer does: contribute to each step and wait for its total."""
    opened = await node.sums.opened(session)
    totals = []
    for step in range(opened.parameters.steps):
        context = study_noise.step_context(study.plan_hash(), round=1, step=step, model=MODEL)
        vector = np.full(values, value, dtype=np.uint64)
        await node.sums.contribute(session, step, context, vector)
        totals.append(await node.sums.result(session, step))
    return totals


def test_a_round_gives_every_site_and_the_lead_the_same_totals(tmp_path: Path) -> None:
    async def story() -> None:
        consortium, study = Consortium(tmp_path), plan()
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes() as nodes:
                await until(lambda: len(serving.broker.connected()) == 4)
                reply = await propose(consortium, study)
                assert (reply.approved, reply.pending) == (0, 4)
                for node in nodes:
                    node._parts.approvals.approve(study, clock=CLOCK)
                reply = await propose(consortium, study)
                assert (reply.approved, reply.pending, reply.plan_hash) == (4, 0, study.plan_hash())

                steps = study.training.steps_per_round
                request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=steps)
                async with consortium.channel(consortium.lead) as channel:
                    events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                    opened = (await anext(events)).opened
                    assert len(opened.participants) == 4
                    session = SessionId(opened.session_id)
                    began = time.perf_counter()
                    adding = [
                        asyncio.create_task(add(node, study, session, 10**site, values=VALUES))
                        for site, node in enumerate(nodes)
                    ]
                    sums = [event.sum async for event in events]
                    per_step_ms = (time.perf_counter() - began) / steps * 1e3
                    assert [found.step for found in sums] == list(range(steps))
                    for found in sums:
                        assert found.contributors == 4
                        assert set(numbers_of(found)) == {1111}
                    for totals in await asyncio.gather(*adding):
                        assert all(set(total) == {1111} for total in totals)
                    print(f"{per_step_ms:.1f} ms a step of {VALUES} values at 4 sites in one process")

                    budget = pb.BudgetRequest(project=study.project, delta=study.privacy.delta)
                    seen = await fedtwin_pb2_grpc.ResearchStub(channel).Budget(budget)
                    assert [(line.kind, line.releases) for line in seen.lines] == [("training", steps)]
                    event = study_noise.event(study, steps=steps)
                    cost = accountant.epsilon([event], delta=study.privacy.delta)
                    assert seen.epsilon == pytest.approx(cost, rel=1e-12)

    asyncio.run(story())


def test_a_round_nobody_approved_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        consortium, study = Consortium(tmp_path), plan()
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes():
                await until(lambda: len(serving.broker.connected()) == 4)
                for known in (False, True):
                    if known:
                        await propose(consortium, study)
                    request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=1)
                    async with consortium.channel(consortium.lead) as channel:
                        stub = fedtwin_pb2_grpc.ResearchStub(channel)
                        (event,) = [event async for event in stub.OpenRound(request)]
                    assert event.refusal == RefusalCode.NOT_APPROVED.value

    asyncio.run(story())


def test_a_site_lost_in_a_round_is_a_dropout_and_two_end_it(tmp_path: Path) -> None:
    async def story() -> None:
        consortium, study = Consortium(tmp_path), plan()
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes() as nodes:
                await until(lambda: len(serving.broker.connected()) == 4)
                for node in nodes:
                    node._parts.approvals.approve(study, clock=CLOCK)
                await propose(consortium, study)
                request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=3)
                async with consortium.channel(consortium.lead) as channel:
                    events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                    session = SessionId((await anext(events)).opened.session_id)
                    for node in nodes:
                        await node.sums.opened(session)

                    async def step(number: int, *present: RunningNode) -> pb.RoundEvent:
                        context = study_noise.step_context(
                            study.plan_hash(), round=1, step=number, model=MODEL
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
                    assert (await step(1, *nodes[:3])).sum.contributors == 3
                    serving.broker._drop(serving.broker._links[consortium.node(2).config().node_id])
                    event = await step(2, *nodes[:2])
                    assert event.refusal == RefusalCode.TOO_MANY_DROPOUTS.value
                    with pytest.raises(Refused):
                        await nodes[0].sums.result(session, 2, deadline_s=5)

    asyncio.run(story())
