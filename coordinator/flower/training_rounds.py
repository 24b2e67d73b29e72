"""The rounds of a training run: open a session, let the round run, keep the model, decide whether to go on.

Flower's own strategies average what clients send and wait 3 s between two looks. Here nothing is averaged:
the sites and this loop apply the same noisy sums to the same model; a reply says which model a site holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from coordinator.flower.round_source import OpenedRound, RoundSource
from coordinator.flower.run_folder import (
    AFTER_STEP,
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WAITING,
    Checkpoint,
    RoundRecord,
    RunFolder,
    Status,
)
from coordinator.flower.running_round import RoundLost, RoundOutcome, RunningRound, StopAsked
from privacy import study_noise, validation, walks
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundRequest
from protocols.study import Study

Vector = NDArray[np.float64]
Directory = Callable[[Grid], Mapping[NodeId, int]]  # which Flower node is which hospital

POLL_S = 0.1  # between two looks for SuperNodes
SITES_TIMEOUT_S = 60.0  # for the SuperNodes of the participants to be online
TRIES = 3  # of a round of which no sum was opened
TRY_AGAIN_S = 3.0
TOO_FEW_FOR_S = 60.0  # so long, sites that went away may take to come back
PASSING = frozenset(
    {RefusalCode.TOO_MANY_DROPOUTS, RefusalCode.DEADLINE, RefusalCode.NOT_READY, RefusalCode.TOO_FEW_SITES}
)  # refusals that another try may not meet
SPENT = frozenset({RefusalCode.BUDGET_EXHAUSTED, RefusalCode.REPLAYED})  # the sites' steps are used up
TELL_S = 1.0  # between two words on how many steps of a round are done


@dataclass(slots=True)
class _Watch:
    """What a round in progress tells, and what it looks at, between two steps."""

    study: Study
    folder: RunFolder
    status: Status
    told_at: float = 0.0

    def stopping(self) -> bool:
        """Whether the run shall end after the step at hand."""
        return self.folder.stop_asked() == AFTER_STEP

    def stepped(self, steps: int, carried: Vector) -> None:
        """Keep the model after a step, which was paid for; now and then, say how many steps are done."""
        done = self.status.steps + steps
        self.folder.write_step(self.study, Checkpoint.of(self.study, self.status.round + 1, done, carried))
        now = time.monotonic()
        if now - self.told_at >= TELL_S:
            self.told_at = now
            self.folder.write_status(replace(self.status, state=RUNNING, steps=done))


@dataclass(slots=True)
class _Sites:
    """How a run reaches its sites."""

    grid: Grid
    source: RoundSource
    directory: Directory
    seen: set[NodeId] = field(default_factory=set)  # those that took part in a round
    known: Mapping[NodeId, int] = field(default_factory=dict)  # at the last look

    def open(self, study: Study, *, number: int, without: Collection[NodeId]) -> OpenedRound:
        """Open a round's session, without sites whose SuperNode went away. Raises: Refused."""
        self.known = self.directory(self.grid)
        away = self.seen - self.known.keys()
        opened = self.source.open(
            plan_hash=study.plan_hash(),
            round=number,
            steps=study_noise.session_sums(study, round=number),
            without=sorted(away | set(without)),
        )
        self.seen |= set(opened.participants)
        return opened

    def online(self, opened: OpenedRound) -> Mapping[NodeId, int]:
        """Wait until every participant's SuperNode is online, or time is up; return those that are."""
        ends = time.monotonic() + SITES_TIMEOUT_S
        while True:
            found = {node: self.known[node] for node in opened.participants if node in self.known}
            if len(found) == len(opened.participants) or time.monotonic() > ends:
                return found
            time.sleep(POLL_S)
            self.known = self.directory(self.grid)


def train(
    study: Study, *, folder: RunFolder, grid: Grid, source: RoundSource, directory: Directory
) -> Checkpoint:
    """Run the plan's rounds from the last step on; return the run's model.

    Guarantee: a step whose sum was opened is never asked for again, so a broken round, or a coordinator that
    was killed, costs the rest of a round's steps and no budget twice. Where that leaves too few steps for the
    last round, the run ends with the model so far, and its status names the refusal. A site that broke the
    protocol is not asked again in this run, and named by code. A plan with looks at the model ends when they
    bring no improvement, and its model is the best one. A run that somebody asks to stop ends after its
    round, or after its step, and its session with it: no site holds budget for it, and it may go on later.
    Raises: Refused.
    """
    run = _Run(study, folder, _Sites(grid, source, directory), _found(study, folder))
    folder.write_status(run.status)
    try:
        ended = run.rounds()
    except BaseException as error:
        code = error.code if isinstance(error, Refused) else RefusalCode.INTERNAL
        folder.write_status(replace(run.status, state=FAILED, refusal=code))
        raise
    found = _with_the_best(study, run.found, folder) if ended == FINISHED else run.found
    folder.write_status(replace(run.status, state=ended))
    return found


@dataclass(slots=True)
class _Run:
    """A run at work: the model so far, and what its status says."""

    study: Study
    folder: RunFolder
    sites: _Sites
    found: Checkpoint
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        plan, found = self.study.training, self.found
        self.status = Status(
            state=WAITING,
            plan_hash=self.study.plan_hash().hex(),
            round=found.round,
            rounds=plan.rounds,
            steps=found.steps,
            steps_in_all=plan.steps,
            seconds_per_round=tuple(record.seconds for record in self.folder.rounds()),
            metrics=found.metrics,
            best_round=_best(self.study, found),
            quarantined=dict(found.quarantined),
        )

    def rounds(self) -> str:
        """Run the rounds that are left; return how the run ended. Raises: Refused."""
        plan = self.study.training
        while self.found.round < plan.rounds and not _enough(self.study, self.found):
            if self.folder.stop_asked():
                return STOPPED
            began, watch = time.monotonic(), _Watch(self.study, self.folder, self.status)
            try:
                outcome = _round_with_tries(self.study, self.found, sites=self.sites, watch=watch)
            except StopAsked:
                continue
            except Refused as refused:
                if refused.code not in SPENT or not self.found.steps:
                    raise
                self.status = replace(self.status, refusal=refused.code)  # broken rounds took the rest
                return FINISHED
            self._keep(outcome, seconds=round(time.monotonic() - began, 3))
            if outcome.spoilt:
                raise Refused(
                    RefusalCode.PROTOCOL_VIOLATION
                )  # nobody can say who: a further round is lost too
            if outcome.steps < plan.steps_per_round and watch.stopping():
                return STOPPED  # in the last round too: it did not come to its end
        return FINISHED

    def _keep(self, outcome: RoundOutcome, *, seconds: float) -> None:
        """Take a round's model, durably, and say how it went."""
        found = self.found = _after(self.study, self.found, outcome)
        best = _best(self.study, found)
        self.folder.write_checkpoint(self.study, found, best=best)
        self.folder.add_round(_record(found, outcome, seconds=seconds))
        self.status = replace(
            self.status,
            state=RUNNING,
            round=found.round,
            steps=found.steps,
            sites=len(outcome.agreeing),
            seconds_per_round=(*self.status.seconds_per_round, seconds),
            refusals=_by_name(outcome.refusals),
            metrics=found.metrics,
            best_round=best,
            stopped_early=_enough(self.study, found),
            quarantined=dict(found.quarantined),
        )
        self.folder.write_status(self.status)


def _found(study: Study, folder: RunFolder) -> Checkpoint:
    """Return where the run stands: after its last round, or after a step of a round that was cut off."""
    found = folder.checkpoint(study) or Checkpoint.of(study, 0, 0, walks.initial(study))
    step = folder.step(study)
    if step is not None and step.round == found.round + 1 and step.steps > found.steps:
        found = replace(
            found, round=step.round, steps=step.steps, parameters=step.parameters, memory=step.memory
        )
        folder.write_checkpoint(study, found, best=_best(study, found))
    return found


def _after(study: Study, found: Checkpoint, outcome: RoundOutcome) -> Checkpoint:
    return Checkpoint.of(
        study,
        found.round + 1,
        found.steps + outcome.steps,
        outcome.carried,
        metrics=(*found.metrics, *outcome.metrics),
        quarantined={**found.quarantined, **_by_name(outcome.offenders)},
    )


def _with_the_best(study: Study, found: Checkpoint, folder: RunFolder) -> Checkpoint:
    """Make the model that looks found best the run's, durably."""
    best = _best(study, found)
    if best is None or best == (found.holds or found.round):
        return found
    parameters, memory = folder.kept(study, best)
    found = replace(found, parameters=parameters, memory=memory, holds=best)
    folder.write_checkpoint(study, found, best=best)
    return found


def _best(study: Study, found: Checkpoint) -> int | None:
    return None if study.validation is None else validation.best_round(study, found.metrics)


def _enough(study: Study, found: Checkpoint) -> bool:
    return study.validation is not None and validation.should_stop(study, found.metrics)


def _by_name(codes: Mapping[NodeId, RefusalCode]) -> dict[str, str]:
    return {str(node): code.value for node, code in codes.items()}


def _record(found: Checkpoint, outcome: RoundOutcome, *, seconds: float) -> RoundRecord:
    return RoundRecord(
        round=found.round,
        steps=outcome.steps,
        sites=outcome.contributors,
        agreeing=len(outcome.agreeing),
        seconds=seconds,
        sum_norm=outcome.sum_norm,
        noise_norm=outcome.noise_norm,
        refusals=_by_name(outcome.refusals),
    )


def _round_with_tries(study: Study, found: Checkpoint, *, sites: _Sites, watch: _Watch) -> RoundOutcome:
    """Run the next round; one of which no sum was opened is tried again, without those who offended."""
    offenders: dict[NodeId, RefusalCode] = {}
    left, waits_until = TRIES, time.monotonic() + TOO_FEW_FOR_S
    while True:
        if watch.folder.stop_asked():
            raise StopAsked
        without = {NodeId.parse(name) for name in found.quarantined} | offenders.keys()
        try:
            outcome = run_round(
                study,
                number=found.round + 1,
                carried=found.carried,
                sites=sites,
                watch=watch,
                without=without,
            )
            return replace(outcome, offenders={**offenders, **outcome.offenders})
        except Refused as refused:
            if refused.code is not RefusalCode.TOO_FEW_SITES or time.monotonic() > waits_until:
                left -= 1
            if left == 0 or refused.code not in PASSING:
                raise
            if isinstance(refused, RoundLost):
                offenders |= refused.offenders
            time.sleep(TRY_AGAIN_S)


def run_round(
    study: Study,
    *,
    number: int,
    carried: Vector,
    sites: _Sites,
    watch: _Watch,
    without: Collection[NodeId],
) -> RoundOutcome:
    """Run one round. Raises: Refused if no sum was opened, or sites hold another model; StopAsked."""
    with sites.open(study, number=number, without=without) as opened:
        request = RoundRequest(study.plan_hash(), number, opened.session_id, carried)
        running = RunningRound(study, opened, number, carried, watch)
        running.send(sites.grid, request, sites.online(opened))
        running.follow(sites.grid)
    return running.outcome()
