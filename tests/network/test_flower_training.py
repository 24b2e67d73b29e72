"""A training run over Flower's deployment engine: SuperLink, gateway, SuperNodes and our runner, for real."""

import asyncio
from pathlib import Path

import numpy as np

from coordinator.flower.training_desk import TrainingDesk
from node.training.contributions import contribution
from node.training.local_sgd import Site
from privacy import walks
from privacy.descent import digest
from privacy.rng import SecureBits
from privacy.study_noise import private_plan
from protocols.ids import NodeId
from protocols.round import BYTES_PER_PARAMETER, PIECE_BYTES, RoundReply, RoundRequest
from protocols.study import Study
from sim.privacy_audit import made_up
from tests.network.flower_sites import OpenSums, flower_network
from tests.protocols.study_forms import study_form

SITES = {"minimum": 3, "tolerance": 1}
SHARED = Study.from_json(study_form(sites=SITES))
ADAM = {"local_steps": 2, "update_clip": 5.0, "aggregator": "fedadam", "server_learning_rate": 0.1}
LOCAL = Study.from_json(
    study_form(sites=SITES, training__mode="local", training__rounds=3, training__steps_per_round=1)
    | {"local": ADAM}
)


class AnyPlan:
    """Trains by the node's own steps on made-up patients, whichever of the two plans is asked for."""

    def __init__(self, _study: Study, sums: OpenSums, node: NodeId) -> None:
        self._sums, self._node = sums, node
        self._site = Site(SecureBits())

    def train(self, request: RoundRequest) -> RoundReply:
        (study,) = (plan for plan in (SHARED, LOCAL) if plan.plan_hash() == request.plan_hash)
        [table] = made_up(study, sites=1, patients=20, generator=np.random.default_rng(self._node.raw[0]))
        plan = private_plan(study, participants=3, tolerance=1)
        walk = walks.begin(study, request.parameters)
        while not walk.finished:
            found = contribution(study, walk, table, site=self._site).shared
            vector, step = plan.contribution(found, bits=SecureBits()), walk.steps_done
            self._sums.contribute(request.session_id, step, self._node, vector)
            walk.apply(plan.decode(self._sums.total(request.session_id, step)))
        return RoundReply(digest(walk.carried), walk.steps_done)


def test_runs_of_two_modes_end_with_one_model_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=3, study=SHARED, trainers=AnyPlan) as network:
            started = await network.run()
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.round, status.steps, status.sites) == ("finished", 2, 6, 3)
            model = TrainingDesk.model(started)
            assert model is not None
            assert (model.parameters != 0).all()
            assert [site.supernode.tasks_done for site in network.sites] == [2, 2, 2]
            print(status.seconds_per_round)

            started = await network.run(LOCAL, name="local")
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.round, status.steps, status.sites) == ("finished", 3, 3, 3)
            model = TrainingDesk.model(started)
            assert model is not None
            assert (model.parameters != 0).all()
            assert model.parameters.shape == (LOCAL.parameters,)
            assert model.memory[-1] == 3.0, "what FedAdam remembers went through Flower with the model"

    asyncio.run(scenario())


def test_a_model_of_several_pieces_reaches_every_site(tmp_path: Path) -> None:
    form = study_form(study__model="mlp", study__hidden=[1000, 600], sites__minimum=2, sites__tolerance=0)
    form["training"] |= {"rounds": 1, "steps_per_round": 1}
    study = Study.from_json(form)
    assert study.parameters * BYTES_PER_PARAMETER > PIECE_BYTES

    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2, study=study) as network:
            started = await network.run()
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.steps, status.sites) == ("finished", 1, 2)

    asyncio.run(scenario())
