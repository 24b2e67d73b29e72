"""One round in progress: the model goes out, sums are applied as they are opened, every reply is checked.

Guarantee: a total is applied only if it is the next one, of as many sites as the plan's noise needs, and no
longer than honest sites and their noise can make it. Who fell out is known by a code and nothing else.

What this check does for robustness, and what not: a vector under its mask cannot be looked at, so a site that
runs other code can add whatever it likes. As long as the total stays within the bound, it bends one step by
at most that bound; beyond it the total is not applied, the round ends, and nobody can say who it was: opening
the same step to others, to find out, would be a further release of every honest site's patients.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from numpy.typing import NDArray

from coordinator.flower.round_source import OpenedRound, RoundSum
from privacy import study_noise, validation, walks
from privacy.descent import NotFinite, digest
from privacy.exact_sums import ExactSums
from privacy.lattice import NoisePlan, NotEncodable
from privacy.update_sums import UpdateSums
from privacy.validation import Metric
from privacy.walks import Walk
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.round import MESSAGE_TYPE, RECORD, MalformedRound, RoundReply, RoundRequest
from protocols.study import Study

log = logging.getLogger(__name__)

Vector = NDArray[np.float64]

POLL_S = 0.1  # between two looks for replies, as long as sums are awaited; Flower's own loop waits 3 s
LAST_POLL_S = 0.05  # between two looks for replies after the last sum: they are on their way
STOP_POLL_S = 0.1  # between two looks whether the run is to stop
END_PATIENCE_S = 60.0  # of a run that is to stop: for the sums that were opened, and the one at hand
SUMS_POLL_S = 0.005  # between two looks for sums: a step takes 20 to 100 ms
MESSAGE_TTL_S = 3600.0
SILENCE_S = 180.0  # with no sum and no reply for this long, a round is lost
REPLY_GRACE_S = 20.0  # after the last sum: a site that fell out does not hold up the others
HOPELESS_GRACE_S = 1.0  # when too few are left: for the session to end, and to say why they fell out
UNREACHED = frozenset(
    {
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    }
)  # Flower's own: the site was away, or went away
OFFENCES = frozenset({RefusalCode.PROTOCOL_VIOLATION, RefusalCode.MALFORMED})


@dataclass(frozen=True, slots=True, eq=False)
class RoundOutcome:
    """What a round left: `carried` is the model, and what goes with it to the next round.

    With fewer `steps` than planned the session broke: the model is as far as it got. `spoilt`: it broke
    because a total was none that honest sites can make.
    """

    carried: Vector
    steps: int
    agreeing: tuple[NodeId, ...]
    refusals: Mapping[NodeId, RefusalCode]
    offenders: Mapping[NodeId, RefusalCode]
    contributors: int = 0
    sum_norm: float = 0.0
    noise_norm: float = 0.0
    metrics: tuple[Metric, ...] = ()
    spoilt: bool = False


class BadReply(ValueError):
    """A reply is malformed, or the site holds another model."""


class StopAsked(Exception):
    """Somebody asked the run to end, and this round has opened no sum."""


class RoundLost(Refused):
    """A round of which no sum was opened. Carries the code, and who broke the protocol in it."""

    def __init__(self, code: RefusalCode, offenders: Mapping[NodeId, RefusalCode]) -> None:
        super().__init__(code)
        self.offenders = offenders


class Watch(Protocol):
    """Whom a round in progress tells how far it is, and asks whether to go on."""

    def stopping(self) -> bool:
        """Whether the run shall end after the step at hand."""
        ...

    def stepped(self, steps: int, carried: Vector) -> None:
        """Take note of the model after so many steps of the round, and of what goes with it."""
        ...


@dataclass(slots=True)
class RunningRound:
    """A round between its opening and its outcome: `send`, `follow`, `outcome`."""

    study: Study
    opened: OpenedRound
    number: int
    carried: Vector  # what it starts from: privacy.walks
    watch: Watch
    walk: Walk = field(init=False)
    plan: NoisePlan | ExactSums | UpdateSums = field(init=False)
    look: NoisePlan | None = None  # of the look that is still to come, if one is
    waiting: dict[str, NodeId] = field(default_factory=dict)
    replies: dict[NodeId, RoundReply] = field(default_factory=dict)
    refusals: dict[NodeId, RefusalCode] = field(default_factory=dict)
    broken: RefusalCode | None = None
    spoilt: bool = False
    asked_at: float = 0.0
    ends_by: float | None = None  # once it was asked to end: when to wait no longer for its last sum
    norms: list[float] = field(default_factory=list)
    contributors: int = 0
    metrics: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        sites, tolerance = len(self.opened.participants), self.study.sites.tolerance
        if sites < self.study.sites.minimum:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        self.walk = walks.begin(self.study, self.carried)
        self.plan = study_noise.sum_plan(self.study, participants=sites, tolerance=tolerance)
        if validation.due(self.study, round=self.number):
            self.look = validation.noise_plan(self.study, participants=sites, tolerance=tolerance)

    @property
    def sums_done(self) -> bool:
        """Whether no further sum is expected."""
        return self.walk.finished and self.look is None

    def send(self, grid: Grid, request: RoundRequest, flower_ids: Mapping[NodeId, int]) -> None:
        """Send the request to every participant that is online."""
        nodes = sorted(flower_ids)
        records = {name: ConfigRecord(fields) for name, fields in request.records().items()}
        messages = [
            Message(
                content=RecordDict(dict(records)),
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
        while not self.sums_done or self.waiting:
            now = time.monotonic()
            arrived = self._arrived()
            if arrived is not None:
                self._take(arrived)
                heard_at = now
            if self._ended_as_asked():
                return
            if self.broken is not None:
                return
            self._end_if_asked()
            if arrived is not None:
                continue
            if self.ends_by is not None and not self.walk.finished:
                time.sleep(SUMS_POLL_S)  # what sites say of a round that ends under them is no refusal
                continue
            self._note_who_left()
            if self.waiting and now - looked_at >= (LAST_POLL_S if self.sums_done else POLL_S):
                looked_at = now
                if self._collect(grid):
                    heard_at = now
            if now - heard_at > self._patience_s():
                self.broken = None if self.walk.finished or self._hopeless() else RefusalCode.DEADLINE
                return
            time.sleep(LAST_POLL_S if self.sums_done else SUMS_POLL_S)

    def outcome(self) -> RoundOutcome:
        """Judge the replies. Raises: RoundLost; Refused(PROTOCOL_VIOLATION)."""
        self._note_who_left()
        for node in self.waiting.values():
            self.refusals[node] = RefusalCode.DEADLINE
        if not self.walk.steps_done:
            code = self.broken if self.spoilt and self.broken else self._commonest()
            raise RoundLost(code, self._offenders())
        if not self.walk.finished:  # a broken session: keep what the opened sums taught, ask no step again
            return self._told(())
        ours, steps = digest(self.walk.carried), self.walk.steps_done
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
            self.walk.carried,
            self.walk.steps_done,
            agreeing,
            self.refusals,
            self._offenders(),
            contributors=self.contributors,
            sum_norm=float(np.mean(self.norms)),
            noise_norm=float(noise),
            metrics=self.metrics,
            spoilt=self.spoilt,
        )

    def _offenders(self) -> dict[NodeId, RefusalCode]:
        """Return who broke the protocol. A session that broke by itself tells every site that very code."""
        if self.broken in OFFENCES:
            return {}
        return {node: code for node, code in self.refusals.items() if code in OFFENCES}

    def _arrived(self) -> RoundSum | None:
        """Return the next total if it is there; a session that ended is noted."""
        if self.sums_done:
            return None
        try:
            return self.opened.poll()
        except Refused as refused:
            log.warning("round %d: its session ended: %s", self.number, refused.code.value)
            if self.walk.finished:
                self.look = None  # the round stands without it
            else:
                self.broken = refused.code
            return None

    def _note_who_left(self) -> None:
        """Wait no longer for the replies of those who fell out of the session."""
        for node, code in self.opened.left.items():
            if code in OFFENCES:
                self.refusals[node] = code  # whatever it says itself
            elif node not in self.replies:
                self.refusals.setdefault(node, code)
        self.waiting = {sent: node for sent, node in self.waiting.items() if node not in self.refusals}

    def _end_if_asked(self) -> None:
        """Let the round end with the sum at hand if the run is to stop; what was opened is still taken."""
        now = time.monotonic()
        if self.walk.finished or self.ends_by is not None or now - self.asked_at < STOP_POLL_S:
            return
        self.asked_at = now
        if self.watch.stopping():
            self.ends_by = now + END_PATIENCE_S
            self.opened.end()

    def _ended_as_asked(self) -> bool:
        """Whether the round was asked to end, and has. Raises: StopAsked if it has opened no sum."""
        if self.ends_by is None or self.walk.finished or self.spoilt:
            return False
        if self.broken is None and time.monotonic() < self.ends_by:
            return False
        if not self.walk.steps_done:
            raise StopAsked
        self.waiting.clear()  # whoever has not replied by now is not late
        return True

    def _take(self, arrived: RoundSum) -> None:
        """Take one step, or one look, if the total is what the plan describes; else the round ends here."""
        fewest = len(self.opened.participants) - self.study.sites.tolerance
        fits = arrived.step == self.walk.steps_done and arrived.contributors >= fewest
        try:
            if not fits:
                raise ValueError("it is not the next one, or of too few sites")
            if self.walk.finished:
                self._look(arrived)
            else:
                self._apply(arrived)
        except (NotEncodable, NotFinite, ValueError) as error:
            log.warning("round %d: sum %d is not taken: %s", self.number, self.walk.steps_done, error)
            if self.walk.finished:
                self.look = None
            else:
                self.broken, self.spoilt = RefusalCode.PROTOCOL_VIOLATION, True

    def _apply(self, arrived: RoundSum) -> None:
        total = self.plan.decode(arrived.total)
        bounds = study_noise.total_bounds(self.study, self.plan, contributors=arrived.contributors)
        norm = bounds.check(total)
        self.walk.apply(total)
        self.norms.append(norm)
        self.contributors = arrived.contributors
        self.watch.stepped(self.walk.steps_done, self.walk.carried)

    def _look(self, arrived: RoundSum) -> None:
        plan = self.look
        if plan is None:
            raise ValueError("no look is due")
        self.look = None
        noise_sd = plan.standard_deviation(contributors=plan.participants)  # as the sites state it
        total = plan.decode(arrived.total)
        self.metrics = validation.metrics(self.study, total, round=self.number, noise_sd=noise_sd)

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

    def _patience_s(self) -> float:
        """Return how long nothing may be heard before the round is over."""
        if self._hopeless():
            return HOPELESS_GRACE_S
        return REPLY_GRACE_S if self.sums_done else SILENCE_S

    def _hopeless(self) -> bool:
        """Whether too few sites are left for another sum."""
        left = len(self.opened.participants) - len(self.refusals)
        fewest = len(self.opened.participants) - self.study.sites.tolerance
        return not self.walk.finished and left < max(self.study.sites.minimum, fewest)

    def _commonest(self) -> RefusalCode:
        """Return why no sum was opened: what most sites said. A few offenders do not speak for the others."""
        codes = list(self.refusals.values())
        if sum(code in OFFENCES for code in codes) <= self.study.sites.tolerance:
            codes = [code for code in codes if code not in OFFENCES]
        counted = Counter(codes).most_common(1)
        return counted[0][0] if counted else self.broken or RefusalCode.TOO_FEW_SITES


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
