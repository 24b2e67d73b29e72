"""A training run from start to end, from the coordinator's host: propose the plan, start Flower, watch."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.flower.run_folder import FAILED, FINISHED, RunFolder, Status
from coordinator.flower.training_desk import StartedRun, TrainingDesk
from coordinator.home import CoordinatorHome
from coordinator.profile import Profile
from fedtwin.client import Client
from privacy.accountant import epsilon
from privacy.study_noise import event
from protocols import proposal
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study

POLL_S = 0.3
STARTING_S = (
    120.0  # Flower starts the ServerApp in a process of its own; on a busy machine that takes a while
)
FLOWER_POLL_S = 3.0  # how often Flower itself is asked whether the run still lives

Watcher = Callable[[int, int], None]  # rounds done, rounds in all


class RunDied(Exception):
    """Flower ended the run without the run saying why; the log of the SuperLink may."""

    def __init__(self, details: str) -> None:
        super().__init__(f"the run ended early: {details or 'see logs/superlink.log'}")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run: the model's parameters, and what the whole of it cost one patient."""

    run: str
    plan_hash: str
    columns: tuple[str, ...]
    parameters: tuple[float, ...]
    epsilon: float
    delta: float
    rounds: int
    steps: int
    sites: int
    seconds_per_round: float
    refusals: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read."""
        return {name: getattr(self, name) for name in self.__slots__}


def propose(study: Study, *, home: Path) -> tuple[int, int]:
    """Sign the plan as the lead and send it to every connected hospital.

    Returns how many approve it already, and how many have yet to decide.
    Raises: Refused, CoordinatorUnreachable, MalformedProfile.
    """
    profile = Profile.load(CoordinatorHome(home).lead_profile)
    envelope = proposal.signed(study, signer=profile.name, key=profile.identity_key())
    with Client(profile) as client:
        reply = client.propose(envelope)
    return int(reply.approved), int(reply.pending)


def run_study(
    study: Study, *, home: Path, watch: Watcher | None = None, run: str | None = None
) -> FinishedRun:
    """Run the plan across the hospitals that approved it, and return the model.

    Args: run: the name of an earlier run, to go on from its last finished round.
    Raises: Refused (NOT_APPROVED, TOO_FEW_SITES, ...); RunDied; CoordinatorUnreachable.
    """
    approved, _ = propose(study, home=home)
    if approved < study.sites.minimum:
        raise Refused(RefusalCode.NOT_APPROVED)
    name = run or f"{study.name.replace('.', '-').replace('_', '-')[:40]}-{secrets.token_hex(4)}"
    return asyncio.run(_run(study, home=home, name=name, watch=watch))


async def _run(study: Study, *, home: Path, name: str, watch: Watcher | None) -> FinishedRun:
    async with TrainingDesk.open(home) as desk:
        started = await desk.start(study, run=name)
        try:
            status = await _until_done(desk, started, watch)
        except BaseException:
            await desk.stop(started)
            raise
        if status.state == FAILED:
            raise Refused(status.refusal or RefusalCode.INTERNAL)
        return finished(study, started.folder, name=name, status=status)


async def _until_done(desk: TrainingDesk, started: StartedRun, watch: Watcher | None) -> Status:
    loop = asyncio.get_running_loop()
    begun, asked = loop.time(), loop.time()
    while True:
        status = started.folder.status()
        if status is not None:
            if watch is not None:
                watch(status.round, status.rounds)
            if status.state in (FINISHED, FAILED):
                return status
        if loop.time() - asked > FLOWER_POLL_S:
            asked = loop.time()
            state, _ = await desk.state(started)
            late = status is None and loop.time() - begun > STARTING_S
            if state is None or state.status == "finished" or late:
                status = started.folder.status()  # it may have ended well since we looked
                if status is None or status.state not in (FINISHED, FAILED):
                    raise RunDied("" if state is None else state.details)
        await asyncio.sleep(POLL_S)


def finished(study: Study, folder: RunFolder, *, name: str, status: Status) -> FinishedRun:
    """Return what a run's folder holds of a finished run. Raises: MalformedRun."""
    checkpoint = folder.checkpoint(study)
    if checkpoint is None:
        raise Refused(RefusalCode.NOT_READY)
    rounds = [seconds for seconds in status.seconds_per_round if seconds > 0]
    return FinishedRun(
        run=name,
        plan_hash=status.plan_hash,
        columns=study.columns,
        parameters=tuple(checkpoint.parameters.tolist()),
        epsilon=epsilon([event(study, steps=checkpoint.steps)], delta=study.privacy.delta),
        delta=study.privacy.delta,
        rounds=status.round,
        steps=checkpoint.steps,
        sites=status.sites,
        seconds_per_round=sum(rounds) / len(rounds) if rounds else 0.0,
        refusals=dict(status.refusals),
    )
