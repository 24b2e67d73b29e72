"""A training run over Flower's deployment engine: SuperLink, gateway, SuperNodes and our runner, for real."""

import asyncio
from pathlib import Path

from coordinator.flower.training_desk import TrainingDesk
from protocols.round import BYTES_PER_PARAMETER, PIECE_BYTES
from protocols.study import Study
from tests.network.flower_sites import flower_network
from tests.protocols.study_forms import study_form


def test_a_run_ends_with_one_model_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=3) as network:
            started = await network.run()
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.round, status.steps, status.sites) == ("finished", 2, 6, 3)
            model = TrainingDesk.model(started)
            assert model is not None
            assert (model.parameters != 0).all()
            assert [site.supernode.tasks_done for site in network.sites] == [2, 2, 2]
            print(status.seconds_per_round)

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
