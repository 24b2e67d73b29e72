"""Starting a training run and watching it, from a process on the coordinator's host (`fedtwin train`)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.flower.bundle import code_free_bundle
from coordinator.flower.control_api import ControlApi, RunState
from coordinator.flower.deployment import ADDRESS_FILE
from coordinator.flower.run_folder import Checkpoint, RunFolder, Status
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that Flower has taken on: its id there, and its folder here."""

    run_id: int
    folder: RunFolder


class TrainingDesk:
    """Starts, watches and stops runs of one coordinator. Use `TrainingDesk.open`."""

    def __init__(self, home: Path, control: ControlApi) -> None:
        self._home = home
        self._control = control

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, home: Path) -> AsyncIterator[TrainingDesk]:
        """Speak to the SuperLink of the coordinator whose home is `home`. Raises: Refused(NOT_READY)."""
        try:
            where = json.loads((home / "flower" / ADDRESS_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise Refused(RefusalCode.NOT_READY) from error
        control = ControlApi(where["address"], Path(where["ca"]))
        try:
            yield cls(home, control)
        finally:
            await control.aclose()

    async def start(self, study: Study, *, run: str) -> StartedRun:
        """Start `run`, or continue it from its checkpoint. Raises: MalformedRun, SuperLinkRefused."""
        folder = RunFolder(self._home, run)
        folder.create(study)
        folder.forget_status()
        folder.forget_stop()
        config = {"run": run, "plan_hash": study.plan_hash().hex()}
        run_id = await self._control.start_run(code_free_bundle(), config=config)
        folder.write_flower_run(run_id)
        return StartedRun(run_id, folder)

    async def state(self, started: StartedRun) -> tuple[RunState | None, Status | None]:
        """Return what Flower says of the run, and how far the run itself says it is."""
        found = [run for run in await self._control.runs() if run.run_id == started.run_id]
        return (found[0] if found else None), started.folder.status()

    async def stop(self, started: StartedRun) -> bool:
        """Stop the run; its checkpoint stays. Return whether it was running."""
        return await self._control.stop_run(started.run_id)

    @staticmethod
    def model(started: StartedRun) -> Checkpoint | None:
        """Return the model so far."""
        return started.folder.checkpoint(started.folder.study())
