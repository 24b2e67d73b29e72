"""A training run, from the coordinator's host: propose the plan, start Flower, watch, stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.flower.run_folder import (
    AFTER_STEP,
    ENDED,
    FAILED,
    FINISHED,
    STOPPED,
    MalformedRun,
    RunFolder,
    Status,
)
from coordinator.flower.training_desk import StartedRun, TrainingDesk
from coordinator.home import CoordinatorHome
from coordinator.profile import Profile
from fedtwin.client import Client
from privacy import validation
from privacy.accountant import Event, epsilon
from privacy.study_noise import event
from protocols import proposal
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study

POLL_S = 0.3
STARTING_S = (
    120.0  # Flower starts the ServerApp in a process of its own; on a busy machine that takes a while
)
FLOWER_POLL_S = 3.0  # how often Flower itself is asked whether the run still lives
INTERRUPTED_S = 15.0  # after Ctrl-C, for the step at hand to end; then the run is cut off

Watcher = Callable[[Status], None]


class RunDied(Exception):
    """Flower ended the run without the run saying why; the log of the SuperLink may."""

    def __init__(self, details: str) -> None:
        super().__init__(f"the run ended early: {details or 'see logs/superlink.log'}")


class UnknownRun(ValueError):
    """This coordinator keeps no run of that name, or none that has begun."""

    def __init__(self, run: str) -> None:
        super().__init__(f"no run {run} here; `fedtwin train list` shows those there are")


class HasEnded(ValueError):
    """The run has ended already, so it can neither be stopped nor, if it is finished, go on."""

    def __init__(self, run: str, state: str) -> None:
        super().__init__(f"{run} is {state} already")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that ended: the model's parameters (none before the first round), and what one patient paid."""

    run: str
    state: str
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
        """Return the fields for a machine to read; `epsilon` is null where no ε holds."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return found | {"epsilon": self.epsilon if math.isfinite(self.epsilon) else None}


def folder_of(run: str, *, home: Path) -> RunFolder:
    """Return the folder of a run that is there. Raises: UnknownRun."""
    with contextlib.suppress(MalformedRun):
        found = RunFolder(home, run)
        if (found.path / "study.json").is_file():
            return found
    raise UnknownRun(run)


def listed(home: Path) -> list[dict[str, Any]]:
    """Return a row for each run, the earliest first; one that cannot be read does not hide the others."""
    rows = []
    for path in sorted((home / "runs").iterdir()) if (home / "runs").is_dir() else []:
        row: dict[str, Any] = {"run": path.name, "study": "", "plan_hash": "", "round": 0, "rounds": 0}
        row["started_at"] = _written_at(path / "study.json")
        try:
            folder = RunFolder(home, path.name)
            study, status = folder.study(), folder.status()
        except ValueError:
            rows.append(row | {"state": "unreadable"})
            continue
        row |= {"study": study.name, "plan_hash": study.plan_hash().hex(), "rounds": study.training.rounds}
        rows.append(
            row | {"state": status.state if status else "starting", "round": status.round if status else 0}
        )
    return sorted(rows, key=lambda row: row["started_at"] or "")


def _written_at(file: Path) -> str | None:
    """Return when a file was written, in UTC; None if there is none."""
    try:
        moment = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    return moment.isoformat(timespec="milliseconds")


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
    Raises: Refused (NOT_APPROVED, TOO_FEW_SITES, ...); RunDied; CoordinatorUnreachable; HasEnded.
    """
    if run is not None:
        with contextlib.suppress(UnknownRun):
            _must_be_unfinished(folder_of(run, home=home), run)
    approved, _ = propose(study, home=home)
    if approved < study.sites.minimum:
        raise Refused(RefusalCode.NOT_APPROVED)
    name = run or f"{study.name.replace('.', '-').replace('_', '-')[:40]}-{secrets.token_hex(4)}"
    return asyncio.run(_run(study, home=home, name=name, watch=watch))


def _must_be_unfinished(folder: RunFolder, run: str) -> None:
    checkpoint = folder.checkpoint(folder.study())
    if checkpoint is not None and checkpoint.round >= folder.study().training.rounds:
        raise HasEnded(run, FINISHED)


async def _run(study: Study, *, home: Path, name: str, watch: Watcher | None) -> FinishedRun:
    async with TrainingDesk.open(home) as desk:
        started = await desk.start(study, run=name)
        try:
            status = await _until_ended(desk, started, watch)
        except (asyncio.CancelledError, KeyboardInterrupt):
            await _interrupted(desk, started)
            raise
        except BaseException:
            await desk.stop(started)
            raise
        if status.state == FAILED:
            raise Refused(status.refusal or RefusalCode.INTERNAL)
        return finished(study, started.folder, name=name, status=status)


async def _interrupted(desk: TrainingDesk, started: StartedRun) -> None:
    """End the run after its step, so that what it has paid for is kept; cut it off if that takes too long."""
    started.folder.ask_to_stop(AFTER_STEP)
    loop = asyncio.get_running_loop()
    until = loop.time() + INTERRUPTED_S
    while loop.time() < until:
        status = started.folder.status()
        if status is not None and status.state in ENDED:
            return
        await asyncio.sleep(POLL_S)
    await desk.stop(started)
    mark_stopped(started.folder)


async def _until_ended(desk: TrainingDesk, started: StartedRun, watch: Watcher | None) -> Status:
    loop = asyncio.get_running_loop()
    begun, asked = loop.time(), loop.time()
    while True:
        status = started.folder.status()
        if status is not None:
            if watch is not None:
                watch(status)
            if status.state in ENDED:
                return status
        if loop.time() - asked > FLOWER_POLL_S:
            asked = loop.time()
            state, _ = await desk.state(started)
            late = status is None and loop.time() - begun > STARTING_S
            if state is None or state.status == "finished" or late:
                status = started.folder.status()  # it may have ended well since we looked
                if status is None or status.state not in ENDED:
                    raise RunDied("" if state is None else state.details)
        await asyncio.sleep(POLL_S)


def stop_run(run: str, *, home: Path, after: str, watch: Watcher | None = None) -> Status:
    """Ask a run to end after its current round or step, and wait until it has; return where it stands.

    Guarantee: the wish is on the disk before anything is waited for, so it holds if this process is killed.
    The model so far is kept. A run whose process is gone is marked as stopped.
    Raises: UnknownRun; HasEnded.
    """
    folder = folder_of(run, home=home)
    status = folder.status()
    if status is not None and status.state in ENDED:
        raise HasEnded(run, status.state)
    folder.ask_to_stop(after)
    return asyncio.run(_stopped(folder, home=home, watch=watch))


async def _stopped(folder: RunFolder, *, home: Path, watch: Watcher | None) -> Status:
    while True:
        begun = time.monotonic()
        while time.monotonic() - begun < FLOWER_POLL_S:
            status = folder.status()
            if status is not None:
                if watch is not None:
                    watch(status)
                if status.state in ENDED:
                    return status
            await asyncio.sleep(POLL_S)
        if not await _lives(folder, home=home):
            return mark_stopped(folder)


async def _lives(folder: RunFolder, *, home: Path) -> bool:
    """Whether Flower still runs the latest start of the run. Without its SuperLink nothing does."""
    import httpx

    run_id = folder.flower_run()
    if run_id is None:
        return False
    try:
        async with TrainingDesk.open(home) as desk:
            state, _ = await desk.state(StartedRun(run_id, folder))
    except (Refused, httpx.TransportError):  # there is no SuperLink, or nobody listens there any more
        return False
    return state is not None and state.status != "finished"


def mark_stopped(folder: RunFolder) -> Status:
    """Say that a run has stopped whose process cannot say so any more; return where it stands.

    Raises: MalformedRun.
    """
    status = folder.status()
    if status is not None and status.state in ENDED:
        return status  # it has said so since
    study = folder.study()
    at = folder.checkpoint(study)
    if status is None:
        plan = study.training
        status = Status(STOPPED, study.plan_hash().hex(), 0, plan.rounds, 0, plan.steps)
    status = replace(status, state=STOPPED, round=at.round if at else 0, steps=at.steps if at else 0)
    folder.write_status(status)
    return status


def finished(study: Study, folder: RunFolder, *, name: str, status: Status) -> FinishedRun:
    """Return what is kept of a run that ended. Raises: MalformedRun; Refused if there is no model."""
    checkpoint = folder.checkpoint(study)
    if checkpoint is None and status.state != STOPPED:
        raise Refused(RefusalCode.NOT_READY)
    steps = checkpoint.steps if checkpoint else 0
    rounds = [seconds for seconds in status.seconds_per_round if seconds > 0]
    return FinishedRun(
        run=name,
        state=status.state,
        plan_hash=status.plan_hash,
        columns=study.columns,
        parameters=tuple(checkpoint.parameters.tolist()) if checkpoint else (),
        epsilon=spent(study, steps=max(steps, opened_steps(status, folder)), looks=looks(status)),
        delta=study.privacy.delta,
        rounds=status.round,
        steps=steps,
        sites=status.sites,
        seconds_per_round=sum(rounds) / len(rounds) if rounds else 0.0,
        refusals=dict(status.refusals),
    )


def opened_steps(status: Status, folder: RunFolder) -> int:
    """Return how many sums the run has opened, also those that the model kept did not follow in the end.

    A coordinator that was killed left no record of its last round; its status then knows more, or less.
    """
    return max(status.steps, sum(record.steps for record in folder.rounds()))


def looks(status: Status, *, until: int | None = None) -> int:
    """Return how many looks at the model were bought, up to the end of round `until`."""
    return len({metric.round for metric in status.metrics if until is None or metric.round <= until})


def spent(study: Study, *, steps: int, looks: int = 0) -> float:
    """Return ε, at the plan's δ, of `steps` opened sums of the plan and `looks` at its model.

    Infinite for an exact study: no (ε, δ) covers sums without noise.
    """
    if study.exact is not None:
        return math.inf
    events: list[Event] = [event(study, steps=steps)] if steps else []
    events += [validation.event(study, count=looks)] if looks else []
    return epsilon(events, delta=study.privacy.delta)
