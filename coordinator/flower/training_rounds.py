"""The rounds of a training run: open a session, send the model, follow the sums, check every reply.

Flower's own strategies average what clients send and wait 3 s between two looks. Here nothing is averaged:
the sites and this loop apply the same noisy sums to the same model; a reply says which model a site holds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from numpy.typing import NDArray

from coordinator.flower.round_source import OpenedRound, RoundSource, RoundSum
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
from privacy import walks
from privacy.descent import NotFinite, digest, initial
from privacy.lattice import NoisePlan, NotEncodable
from privacy.study_noise import noise_plan
from privacy.walks import Walk
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.round import MESSAGE_TYPE, RECORD, MalformedRound, RoundReply, RoundRequest
from protocols.study import Study

Vector = NDArray[np.float64]
Directory = Callable[[Grid], Mapping[NodeId, int]]  # which Flower node is which hospital

POLL_S = 0.1  # between two looks for replies; Flower's own loop waits 3 s
STOP_POLL_S = 0.1  # between two looks whether the run is to stop
SUMS_POLL_S = 0.005  # between two looks for sums: a step takes 20 to 100 ms
MESSAGE_TTL_S = 3600.0
SITES_TIMEOUT_S = 60.0  # for the SuperNodes of the participants to be online
SILENCE_S = 180.0  # with no sum and no reply for this long, a round is lost
REPLY_GRACE_S = 20.0  # after the last sum: a site that fell out does not hold up the others
TRIES = 3  # of a round of which no sum was opened
TRY_AGAIN_S = 3.0
PASSING = frozenset(
    {RefusalCode.TOO_MANY_DROPOUTS, RefusalCode.DEADLINE, RefusalCode.NOT_READY, RefusalCode.TOO_FEW_SITES}
)  # refusals that another try may not meet
SPENT = frozenset({RefusalCode.BUDGET_EXHAUSTED, RefusalCode.REPLAYED})  # the sites' steps are used up
UNREACHED = frozenset(
    {
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    }
)  # Flower's own: the site was away, or went away
NOISE_SDS = 10.0  # a total's noise is not longer than this many times its expected length
TELL_S = 1.0  # between two words on how many steps of a round are done


@dataclass(frozen=True, slots=True, eq=False)
class RoundOutcome:
    """What a round left. With fewer `steps` than planned the session broke: the model is as far as it got."""

    parameters: Vector
    steps: int
    agreeing: tuple[NodeId, ...]
    refusals: Mapping[NodeId, RefusalCode]
    contributors: int = 0
    sum_norm: float = 0.0
    noise_norm: float = 0.0


class BadReply(ValueError):
    """A reply is malformed, or the site holds another model."""


class StopAsked(Exception):
    """Somebody asked the run to end, and this round has opened no sum."""


@dataclass(slots=True)
class _Watch:
    """What a round in progress tells, and what it looks at, between two steps."""

    folder: RunFolder
    status: Status
    told_at: float = 0.0

    def stopping(self) -> bool:
        """Whether the run shall end after the step at hand."""
        return self.folder.stop_asked() == AFTER_STEP

    def stepped(self, steps: int) -> None:
        """Say how many steps of the round are done, now and then."""
        now = time.monotonic()
        if now - self.told_at >= TELL_S:
            self.told_at = now
            told = replace(self.status, state=RUNNING, steps=self.status.steps + steps)
            self.folder.write_status(told)


def train(
    study: Study, *, folder: RunFolder, grid: Grid, source: RoundSource, directory: Directory
) -> Checkpoint:
    """Run the plan's rounds from the last checkpoint on; return the final model.

    Guarantee: a step whose sum was opened is never asked for again, so a broken round costs the rest of its
    steps and no budget twice. Where that leaves too few steps for the last round, the run ends with the model
    so far, and its status names the refusal. A run that somebody asks to stop ends after its round, or after
    its step, and its session with it: no site holds budget for it, and it may go on later. Raises: Refused.
    """
    found = folder.checkpoint(study) or Checkpoint(0, 0, initial(study))
    plan = study.training
    status = Status(
        state=WAITING,
        plan_hash=study.plan_hash().hex(),
        round=found.round,
        rounds=plan.rounds,
        steps=found.steps,
        steps_in_all=plan.steps,
        seconds_per_round=tuple(record.seconds for record in folder.rounds()),
    )
    folder.write_status(status)
    ended = FINISHED
    try:
        while found.round < plan.rounds:
            if folder.stop_asked():
                ended = STOPPED
                break
            began, watch = time.monotonic(), _Watch(folder, status)
            try:
                outcome = _round_with_tries(
                    study, found, grid=grid, source=source, directory=directory, watch=watch
                )
            except StopAsked:
                continue
            except Refused as refused:
                if refused.code not in SPENT or not found.steps:
                    raise
                status = replace(status, refusal=refused.code)  # broken rounds took the rest
                break
            found = Checkpoint(found.round + 1, found.steps + outcome.steps, outcome.parameters)
            folder.write_checkpoint(study, found)
            seconds = round(time.monotonic() - began, 3)
            folder.add_round(_record(found, outcome, seconds=seconds))
            status = replace(
                status,
                state=RUNNING,
                round=found.round,
                steps=found.steps,
                sites=len(outcome.agreeing),
                seconds_per_round=(*status.seconds_per_round, seconds),
                refusals={str(node): code.value for node, code in outcome.refusals.items()},
            )
            folder.write_status(status)
            if outcome.steps < plan.steps_per_round and watch.stopping():
                ended = STOPPED  # in the last round too: it did not come to its end
    except Refused as refused:
        folder.write_status(replace(status, state=FAILED, refusal=refused.code))
        raise
    except BaseException:
        folder.write_status(replace(status, state=FAILED, refusal=RefusalCode.INTERNAL))
        raise
    folder.write_status(replace(status, state=ended))
    return found


def _record(found: Checkpoint, outcome: RoundOutcome, *, seconds: float) -> RoundRecord:
    return RoundRecord(
        round=found.round,
        steps=outcome.steps,
        sites=outcome.contributors,
        agreeing=len(outcome.agreeing),
        seconds=seconds,
        sum_norm=outcome.sum_norm,
        noise_norm=outcome.noise_norm,
        refusals={str(node): code.value for node, code in outcome.refusals.items()},
    )


def _round_with_tries(
    study: Study, found: Checkpoint, *, grid: Grid, source: RoundSource, directory: Directory, watch: _Watch
) -> RoundOutcome:
    for left in reversed(range(TRIES)):
        if watch.folder.stop_asked():
            raise StopAsked
        try:
            return run_round(
                study,
                number=found.round + 1,
                parameters=found.parameters,
                grid=grid,
                source=source,
                directory=directory,
                watch=watch,
            )
        except Refused as refused:
            if left == 0 or refused.code not in PASSING:
                raise
            time.sleep(TRY_AGAIN_S)
    raise AssertionError("unreachable")


def run_round(
    study: Study,
    *,
    number: int,
    parameters: Vector,
    grid: Grid,
    source: RoundSource,
    directory: Directory,
    watch: _Watch,
) -> RoundOutcome:
    """Run one round. Raises: Refused if no sum was opened, or sites hold another model; StopAsked."""
    plan_hash = study.plan_hash()
    opened = source.open(plan_hash=plan_hash, round=number, steps=study.training.steps_per_round)
    with opened:
        request = RoundRequest(plan_hash, number, opened.session_id, parameters)
        state = _Round(study, opened, parameters, watch)
        state.send(grid, request, _online(grid, directory, opened))
        state.follow(grid)
    return state.outcome()


@dataclass(slots=True)
class _Round:
    """A round in progress."""

    study: Study
    opened: OpenedRound
    parameters: Vector
    watch: _Watch
    walk: Walk = field(init=False)
    plan: NoisePlan = field(init=False)
    waiting: dict[str, NodeId] = field(default_factory=dict)
    replies: dict[NodeId, RoundReply] = field(default_factory=dict)
    refusals: dict[NodeId, RefusalCode] = field(default_factory=dict)
    broken: RefusalCode | None = None
    asked_at: float = 0.0
    norms: list[float] = field(default_factory=list)
    contributors: int = 0

    def __post_init__(self) -> None:
        sites = len(self.opened.participants)
        if sites < self.study.sites.minimum:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        self.walk = walks.begin(self.study, self.parameters)
        self.plan = noise_plan(self.study, participants=sites, tolerance=self.study.sites.tolerance)

    def send(self, grid: Grid, request: RoundRequest, flower_ids: Mapping[NodeId, int]) -> None:
        """Send the request to every participant that is online."""
        nodes = sorted(flower_ids)
        messages = [
            Message(
                content=RecordDict({RECORD: ConfigRecord(request.fields())}),
                dst_node_id=flower_ids[node],
                message_type=MESSAGE_TYPE,
                ttl=MESSAGE_TTL_S,
                group_id=str(request.round),
            )
            for node in nodes
        ]
        self.waiting = {
            sent: node for sent, node in zip(grid.push_messages(messages), nodes, strict=True) if sent
        }
        for node in set(self.opened.participants) - set(self.waiting.values()):
            self.refusals[node] = RefusalCode.NOT_READY

    def follow(self, grid: Grid) -> None:
        """Apply the sums and collect the replies until the round is over, one way or another."""
        heard_at = looked_at = time.monotonic()
        while not self.walk.finished or self.waiting:
            now = time.monotonic()
            try:
                arrived = self.opened.poll() if not self.walk.finished else None
            except Refused as refused:
                self.broken = refused.code
                return
            if arrived is not None:
                self._apply(arrived)
                heard_at = now
            if not self.walk.finished and self._stopped():
                self.waiting.clear()  # whoever has not replied by now is not late
                return
            if arrived is not None:
                continue
            if self.waiting and now - looked_at >= POLL_S:
                looked_at = now
                if self._collect(grid):
                    heard_at = now
            if self._hopeless():
                return
            if now - heard_at > (REPLY_GRACE_S if self.walk.finished else SILENCE_S):
                self.broken = None if self.walk.finished else RefusalCode.DEADLINE
                return
            time.sleep(POLL_S if self.walk.finished else SUMS_POLL_S)

    def outcome(self) -> RoundOutcome:
        """Judge the replies. Raises: Refused."""
        for node in self.waiting.values():
            self.refusals[node] = RefusalCode.DEADLINE
        if not self.walk.steps_done:
            raise Refused(self._commonest(self.broken or RefusalCode.TOO_FEW_SITES))
        if not self.walk.finished:  # a broken session: keep what the opened sums taught, ask no step again
            return self._told(())
        ours, steps = digest(self.walk.params), self.walk.steps_done
        for node, reply in self.replies.items():
            if reply.parameters_digest != ours or reply.steps != steps:
                self.refusals[node] = RefusalCode.PROTOCOL_VIOLATION  # it holds another model
        agreeing = tuple(sorted(set(self.replies) - set(self.refusals)))
        disagreeing = RefusalCode.PROTOCOL_VIOLATION in self.refusals.values()
        if disagreeing and len(agreeing) < self.study.sites.minimum:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        # Sites that fell silent do not undo the sums: whether enough are left, the next round will tell.
        return self._told(agreeing)

    def _told(self, agreeing: tuple[NodeId, ...]) -> RoundOutcome:
        noise = self.plan.standard_deviation(contributors=self.contributors) * self.plan.dimension**0.5
        return RoundOutcome(
            self.walk.params,
            self.walk.steps_done,
            agreeing,
            self.refusals,
            contributors=self.contributors,
            sum_norm=float(np.mean(self.norms)),
            noise_norm=float(noise),
        )

    def _stopped(self) -> bool:
        """Whether the round is to end here. Raises: StopAsked if it has opened no sum."""
        now = time.monotonic()
        if now - self.asked_at < STOP_POLL_S:
            return False
        self.asked_at = now
        stopping = self.watch.stopping()
        if stopping and not self.walk.steps_done:
            raise StopAsked
        return stopping

    def _apply(self, arrived: RoundSum) -> None:
        """Take one step, if the total is what the plan describes. Raises: Refused."""
        fewest = len(self.opened.participants) - self.study.sites.tolerance
        if arrived.step != self.walk.steps_done or arrived.contributors < fewest:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        try:
            total = self.plan.decode(arrived.total)
            norm = float(np.linalg.norm(total))
            if norm > self._longest(arrived.contributors):
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            self.walk.apply(total)
        except (NotEncodable, NotFinite, ValueError) as error:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION) from error
        self.norms.append(norm)
        self.contributors = arrived.contributors
        self.watch.stepped(self.walk.steps_done)

    def _longest(self, contributors: int) -> float:
        """Return the L2 norm that no honest total exceeds."""
        noise = self.plan.standard_deviation(contributors=contributors) * self.plan.dimension**0.5
        return float(contributors * self.plan.largest + NOISE_SDS * noise)

    def _collect(self, grid: Grid) -> bool:
        arrived = list(grid.pull_messages(list(self.waiting)))
        for message in arrived:
            node = self.waiting.pop(message.metadata.reply_to_message_id, None)
            if node is None:
                continue
            try:
                self.replies[node] = parse_reply(message)
            except Refused as refused:
                self.refusals[node] = refused.code
            except BadReply:
                self.refusals[node] = RefusalCode.PROTOCOL_VIOLATION
        return bool(arrived)

    def _hopeless(self) -> bool:
        """Whether too few sites are left for another sum."""
        left = len(self.opened.participants) - len(self.refusals)
        fewest = len(self.opened.participants) - self.study.sites.tolerance
        return not self.walk.finished and left < max(self.study.sites.minimum, fewest)

    def _commonest(self, otherwise: RefusalCode) -> RefusalCode:
        counted = Counter(self.refusals.values()).most_common(1)
        return counted[0][0] if counted else otherwise


def parse_reply(message: Message) -> RoundReply:
    """Return the reply in a Flower message. Raises: Refused with the site's code; BadReply."""
    if message.has_error():
        if message.error.code in UNREACHED:
            raise Refused(RefusalCode.NOT_READY)
        try:
            code = RefusalCode(message.error.reason or "")
        except ValueError:
            code = RefusalCode.INTERNAL  # Flower's own words, or a liar's: not repeated
        raise Refused(code)
    content = message.content if message.has_content() else {}
    if set(content) != {RECORD} or not isinstance(content[RECORD], ConfigRecord):
        raise BadReply("needs exactly one record")
    try:
        return RoundReply.parse(dict(content[RECORD]))
    except MalformedRound as error:
        raise BadReply("malformed") from error


def _online(grid: Grid, directory: Directory, opened: OpenedRound) -> Mapping[NodeId, int]:
    """Wait until every participant's SuperNode is online, or time is up; return those that are."""
    ends = time.monotonic() + SITES_TIMEOUT_S
    while True:
        known = directory(grid)
        found = {node: known[node] for node in opened.participants if node in known}
        if len(found) == len(opened.participants) or time.monotonic() > ends:
            return found
        time.sleep(POLL_S)
