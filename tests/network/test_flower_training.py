"""A training run over Flower's deployment engine: SuperLink, gateway, SuperNodes and our runner, for real."""

import asyncio
from pathlib import Path

from coordinator.flower.training_desk import TrainingDesk
from tests.network.flower_sites import flower_network


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
