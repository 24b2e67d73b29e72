"""A study that has some layers encrypted in a consortium that masks: over real TLS, with a key-holder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from coordinator.server import Serving
from keyholder.serve import serving as key_holder_serving
from node.key_holder import trust
from node.running import RunningNode
from privacy import layered_sum, study_noise
from privacy.encryption import SCHEMES
from privacy.lanes import words_for
from privacy.walks import vector_length
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, Consortium, until
from tests.network.test_rounds_over_the_wire import propose
from tests.network.totals import numbers_of
from tests.protocols.study_forms import study_form

SITES = 4
MODEL = bytes(32)  # the digest that all hospitals name alike


def plan(scheme: str = "ckks", *, adapting: bool = False, **aggregation: Any) -> Study:
    form = study_form(study__model="mlp", study__hidden=[4])
    form["sites"] = {"minimum": 3, "tolerance": 1}
    form["privacy"] |= {"epsilon": 1.0, "delta": 1e-5, "max_sites_per_patient": 2}
    form["aggregation"] = {"encrypted_layers": ["out"], "scheme": scheme} | aggregation
    return Study.from_json(form | ({"clipping": {"quantile": 0.5}} if adapting else {}))


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Four hospitals and a key-holder that they trust, in a consortium that masks."""
    return Consortium(tmp_path_factory.mktemp("consortium"), sites=SITES).found_and_enrol(key_holder=True)


@contextlib.asynccontextmanager
async def running(
    consortium: Consortium, study: Study, *, holder: bool = True
) -> AsyncIterator[tuple[Serving, list[RunningNode]]]:
    async with consortium.coordinator() as serving, contextlib.AsyncExitStack() as stack:
        if holder:
            await stack.enter_async_context(key_holder_serving(consortium.key_holder, clock=CLOCK))
            await until(lambda: serving.key_holder.connected)
        nodes = await stack.enter_async_context(consortium.nodes())
        await until(lambda: len(serving.broker.connected()) == SITES)
        for node in nodes:
            node._parts.approvals.approve(study, clock=CLOCK)
        await propose(consortium, study)
        yield serving, nodes


def vector(study: Study, site: int, step: int) -> np.ndarray:
    rng = np.random.default_rng(100 * site + step)
    most = study_noise.noise_plan(study, participants=SITES, tolerance=1).largest_contribution
    return rng.integers(-most, most + 1, vector_length(study)).view(np.uint64)


async def add(node: RunningNode, study: Study, session: SessionId, site: int) -> list[np.ndarray]:
    opened = await node.sums.opened(session, step=0)
    noise = study_noise.noise_plan(study, participants=SITES, tolerance=1)
    opened.must_hold(values=noise.dimension, largest=noise.largest_contribution)
    totals = []
    for step in range(opened.parameters.steps):
        context = study_noise.step_context(study.plan_hash(), round=1, step=step, model=MODEL)
        given = vector(study, site, step)
        await node.sums.contribute(session, step, context, given, lanes=noise.lanes)
        totals.append(await node.sums.result(session, step))
    return totals


@pytest.mark.parametrize(("scheme", "adapting"), [("ckks", False), ("bfv", False), ("ckks", True)])
def test_a_round_adds_up_both_parts_and_no_layer_crosses_as_it_should_not(
    consortium: Consortium, scheme: str, adapting: bool
) -> None:
    study = plan(scheme, adapting=adapting)
    layers = layered_sum.of(study)
    assert layers is not None
    assert 0 < layers.encrypted < study.parameters
    assert not layers.chosen[study.parameters :].any()  # what a clip norm follows is masked

    async def story() -> None:
        async with running(consortium, study) as (_serving, nodes):
            frames: list[pb.NodeFrame] = []
            for node in nodes:
                send = node.sums._send
                node.sums._send = lambda frame, send=send: (frames.append(frame), send(frame))
            steps = study.training.steps_per_round
            request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=steps)
            async with consortium.channel(consortium.lead) as channel:
                events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                session = SessionId((await anext(events)).opened.session_id)
                adding = [
                    asyncio.create_task(add(node, study, session, site)) for site, node in enumerate(nodes)
                ]
                found = [event async for event in events]
                assert [event.WhichOneof("body") for event in found] == ["sum"] * steps, found
                totals = await asyncio.gather(*adding)
            for step, event in enumerate(found):
                expected = np.sum(
                    [vector(study, site, step) for site in range(SITES)], axis=0, dtype=np.uint64
                )
                assert event.sum.contributors == SITES
                np.testing.assert_array_equal(numbers_of(event.sum), expected)
                for mine in totals:
                    np.testing.assert_array_equal(mine[step], expected)
            lanes = study_noise.noise_plan(study, participants=SITES, tolerance=1).lanes
            masked_words = words_for(vector_length(study) - layers.encrypted, lanes=lanes)
            masked = [frame.sum_input.masked for frame in frames if frame.HasField("sum_input")]
            assert {len(data) for data in masked} == {8 * masked_words}
            shown = [f.sum_ciphertext.ciphertext for f in frames if f.HasField("sum_ciphertext")]
            assert {len(data) for data in shown} == {SCHEMES[scheme].form.ciphertext_bytes(layers.encrypted)}
            assert len(masked) == len(shown) == SITES * steps

    asyncio.run(story())


def test_a_site_lost_in_a_step_is_a_dropout_of_both_parts(consortium: Consortium) -> None:
    study = plan()

    async def story() -> None:
        async with running(consortium, study) as (serving, nodes):
            request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=2)
            async with consortium.channel(consortium.lead) as channel:
                events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                session = SessionId((await anext(events)).opened.session_id)
                for node in nodes:
                    await node.sums.opened(session, step=0)
                lost = nodes[3]._parts.me
                context = study_noise.step_context(study.plan_hash(), round=1, step=0, model=MODEL)
                for site, node in enumerate(nodes):
                    if site == 3:  # its commitment leaves, its masked part does not
                        send = node.sums._send
                        node.sums._send = lambda f, send=send: None if f.HasField("sum_input") else send(f)
                    await node.sums.contribute(session, 0, context, vector(study, site, 0))
                await asyncio.sleep(0.2)
                serving.broker._drop(serving.broker._links[lost])
                event = await anext(events)
                while event.WhichOneof("body") == "left":
                    event = await anext(events)
                assert event.sum.contributors == 3
                expected = np.sum([vector(study, site, 0) for site in range(3)], axis=0, dtype=np.uint64)
                np.testing.assert_array_equal(numbers_of(event.sum), expected)

    asyncio.run(story())


def test_without_a_key_holder_nothing_of_such_a_study_is_added_up(consortium: Consortium) -> None:
    study = plan()

    async def story() -> None:
        async with running(consortium, study, holder=False):
            request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=1)
            async with consortium.channel(consortium.lead) as channel:
                stub = fedtwin_pb2_grpc.ResearchStub(channel)
                (event,) = [event async for event in stub.OpenRound(request)]
            assert event.refusal

    asyncio.run(story())


def test_hospitals_that_trust_another_key_holder_take_no_part(consortium: Consortium) -> None:
    study = plan()

    async def story() -> None:
        for site in (0, 1):
            trust(consortium.node(site).path, "ab" * 32)
        try:
            async with running(consortium, study):
                request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=1)
                async with consortium.channel(consortium.lead) as channel:
                    stub = fedtwin_pb2_grpc.ResearchStub(channel)
                    (event,) = [event async for event in stub.OpenRound(request)]
                assert event.refusal == RefusalCode.TOO_FEW_SITES.value
        finally:
            for site in (0, 1):
                trust(consortium.node(site).path, consortium.key_holder.fingerprint())

    asyncio.run(story())


def test_questions_of_such_a_consortium_get_no_key(consortium: Consortium) -> None:
    """The key-holder of a consortium that masks serves training sessions only."""

    async def story() -> None:
        async with running(consortium, plan()) as (serving, _):
            layers = layered_sum.of(plan())
            with pytest.raises(Refused):
                await serving.sums.open(
                    serving.broker.connected(), steps=1, purpose="questions", tolerance=1, layers=layers
                )

    asyncio.run(story())
