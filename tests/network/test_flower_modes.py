"""Local training and encrypted layers through a whole deployment: Flower, broker, key-holder, ledgers.

One network for three plans: with a start of SuperLink and SuperNodes each, most of the time would be theirs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.flower.run_folder import Checkpoint
from coordinator.flower.training_desk import TrainingDesk
from coordinator.server import Serving
from keyholder.serve import serving as key_holder_serving
from node.features.study_rows import feature_table
from node.running import RunningNode
from node.training.own_part import OwnParts
from privacy import layered_sum, study_noise, study_releases
from privacy.encryption import SCHEMES
from privacy.lanes import words_for
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import CLOCK, Consortium, until
from tests.network.test_rounds_over_the_wire import propose
from tests.network.training_sites import auc, enrol, study

SITES = 3
LOCAL = study(
    "scaffolded",
    sites=SITES,
    tolerance=1,
    study__local="intercept",
    training__mode="local",
    training__rounds=5,
    training__steps_per_round=1,
    training__momentum=0.0,
    local={"local_steps": 3, "sampling_rate": 0.5, "aggregator": "scaffold", "update_clip": 10.0},
)
ENCRYPTED = [
    study(
        f"encrypted-{scheme}",
        sites=SITES,
        tolerance=1,
        study__model="mlp",
        study__hidden=[4],
        training__rounds=1,
        aggregation={"encrypted_layers": ["out"], "scheme": scheme},
    )
    for scheme in ("ckks", "bfv")
]


@contextlib.asynccontextmanager
async def deployed(consortium: Consortium) -> AsyncIterator[tuple[Serving, list[RunningNode]]]:
    """Serve a coordinator with a SuperLink, a key-holder, and hospitals with SuperNodes."""
    async with consortium.coordinator(flower=True) as serving, contextlib.AsyncExitStack() as stack:
        for site in range(SITES):
            await enrol(consortium, site)
        await consortium.enrol_key_holder()
        await stack.enter_async_context(key_holder_serving(consortium.key_holder, clock=CLOCK))
        await until(lambda: serving.key_holder.connected)
        nodes = await stack.enter_async_context(consortium.nodes(flower=True))
        await until(lambda: len(serving.broker.connected()) == SITES, timeout_s=60.0)
        yield serving, nodes


async def trained(consortium: Consortium, nodes: list[RunningNode], plan: Study) -> Checkpoint:
    """Propose, approve and run a plan as the lead does; return its model."""
    for node in nodes:
        node._parts.approvals.approve(plan, clock=CLOCK)
    await propose(consortium, plan)
    async with TrainingDesk.open(consortium.home.path) as desk:
        started = await desk.start(plan, run=plan.name)
        async with asyncio.timeout(240.0):
            while (state := (await desk.state(started))[0]) is None or state.status != "finished":
                await asyncio.sleep(0.2)
    status = started.folder.status()
    assert status is not None
    assert (status.state, status.sites, status.refusals) == ("finished", SITES, {})
    model = started.folder.checkpoint(plan)
    assert model is not None
    assert model.steps == plan.training.steps
    for node in nodes:
        charged = node._parts.ledger.committed_for(study_noise.session_purpose(plan.plan_hash()) + "/")
        assert charged == plan.training.steps * study_releases.per_sum(plan)
    return model


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_local_training_and_encrypted_layers_through_flower(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, sites=SITES)
    consortium.found()

    async def scenario() -> None:
        async with deployed(consortium) as (_, nodes):
            model = await trained(consortium, nodes, LOCAL)
            assert model.memory.shape == (LOCAL.parameters,)
            parts = [OwnParts(consortium.node(site).own_parts) for site in range(SITES)]
            controls = [part.control(LOCAL) for part in parts]
            assert np.allclose(np.mean(controls, axis=0), model.memory, atol=1e-6)  # type: ignore[arg-type]
            assert len({float(part.load(LOCAL)[0]) for part in parts}) == SITES  # type: ignore[index]
            tables = [feature_table(LOCAL, node._parts.store()) for node in nodes]
            assert auc(LOCAL, model.parameters, tables) > 0.7

            frames: list[pb.NodeFrame] = []
            for node in nodes:
                send = node.sums._send
                node.sums._send = lambda frame, send=send: (frames.append(frame), send(frame))
            for plan in ENCRYPTED:
                frames.clear()
                model = await trained(consortium, nodes, plan)
                assert np.isfinite(model.parameters).all()
                layers = layered_sum.of(plan)
                assert layers is not None
                lanes = study_noise.noise_plan(plan, participants=SITES, tolerance=1).lanes
                masked = [len(frame.sum_input.masked) for frame in frames if frame.HasField("sum_input")]
                form = SCHEMES[plan.aggregation.scheme].form
                shown = [
                    len(frame.sum_ciphertext.ciphertext)
                    for frame in frames
                    if frame.HasField("sum_ciphertext")
                ]
                assert set(masked) == {8 * words_for(plan.parameters - layers.encrypted, lanes=lanes)}
                assert set(shown) == {form.ciphertext_bytes(layers.encrypted)}
                assert len(masked) == len(shown) == SITES * plan.training.steps

    asyncio.run(scenario())
