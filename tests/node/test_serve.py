"""What a serving node loads, and when."""

import asyncio
from pathlib import Path

import pytest

from node import serve
from node.training.approvals import Approvals
from protocols.study import Study
from tests.protocols.study_forms import study_form


class Trainer:
    """A trainer that says when it was loaded."""

    def __init__(self) -> None:
        self.loaded = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def made(self) -> None:
        self._loop.call_soon_threadsafe(self.loaded.set)


def test_what_trains_is_loaded_when_a_plan_came_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "WARM_EVERY_S", 0.01)
    approvals = Approvals(tmp_path)

    async def check() -> None:
        trainer = Trainer()
        warming = asyncio.create_task(serve._warm(trainer, approvals))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert not trainer.loaded.is_set()
        approvals.propose(Study.from_json(study_form()), proposed_by="lead")
        await asyncio.wait_for(trainer.loaded.wait(), 10)
        await warming

    asyncio.run(check())
