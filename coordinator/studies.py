"""Studies and their rounds: proposals go to the nodes, a round is one secure-sum session of many steps.

Guarantee: a study that no lead of the roster signed is not passed on. A round runs only among connected nodes
that said they approve the plan, and ends when fewer remain than the plan's noise needs. Each node checks its
own approval again when it trains; what is counted here decides nothing at a hospital.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

from coordinator.bell import Bell
from coordinator.broker import Broker
from coordinator.exchange import Withdrawn
from coordinator.question_book import QuestionBook
from coordinator.state import State
from coordinator.sums import MAX_VALUES, SumService, SumSession
from privacy import layered_sum, study_noise, validation
from privacy.accountant import Event
from privacy.walks import vector_length
from protocols import proposal
from protocols.clock import Clock
from protocols.envelope import BadEnvelope
from protocols.ids import NodeId
from protocols.peer import Role
from protocols.question import UnknownSigner
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

REPLY_DEADLINE_S = 5.0  # a node looks into a file
FIRST_STEP_GRACE_S = 60.0  # Flower polls every few seconds, and the first gradient loads the features
OPEN_TRIES = 3  # a node may withdraw or vanish while the session is opened


class StudyDesk:
    """Proposals, approvals and rounds. A Listener of the broker, to be named after the SumService."""

    def __init__(
        self, broker: Broker, sums: SumService, state: State, book: QuestionBook, *, clock: Clock
    ) -> None:
        self._broker = broker
        self._sums = sums
        self._state = state
        self._book = book
        self._clock = clock
        self._replies: dict[bytes, dict[NodeId, str]] = {}  # by plan hash: refusal, empty if approved
        self._bell = Bell()
        self._on_round: list[Callable[[], None]] = []
        self._rounds: dict[bytes, SumSession] = {}  # those in progress
        self._ending: set[bytes] = set()  # of these, the ones that take no further step

    def on_round(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the session of a round is open."""
        self._on_round.append(told)

    async def propose(self, envelope: bytes, *, proposer: str) -> pb.ProposeStudyReply:
        """Keep a study, ask every connected node, and return how many approve it.

        Raises: Refused unless `proposer` is a lead of the roster and signed it.
        """
        study, signer = self._opened(envelope)
        if signer != proposer:
            raise Refused(RefusalCode.UNKNOWN_SIGNER)
        plan_hash = study.plan_hash()
        await asyncio.to_thread(self._state.add_study, plan_hash, envelope, at=self._clock.now())
        approving, asked = await self._ask(plan_hash, envelope)
        return pb.ProposeStudyReply(
            plan_hash=plan_hash, approved=len(approving), pending=len(asked - approving)
        )

    async def round(
        self, plan_hash: bytes, *, number: int, steps: int, without: frozenset[NodeId] = frozenset()
    ) -> AsyncIterator[pb.RoundEvent]:
        """Yield the opened session, then each sum's total, and who fell out; the last may be a refusal.

        Args: steps: sums of the session; without: nodes that are not asked, whatever they approve.
        """
        session: SumSession | None = None
        told: set[NodeId] = set()
        try:
            study, envelope = await self._study(plan_hash)
            most = study_noise.session_sums(study, round=number)
            if not 1 <= steps <= most or not 1 <= number <= study.training.rounds:
                raise Refused(RefusalCode.NOT_ALLOWED)
            session = await self._open(study, envelope, number=number, steps=steps, without=without)
            self._rounds[session.id.raw] = session
            self._tell_of_round()
            participants = [node.raw for node in session.participants]
            yield pb.RoundEvent(opened=pb.RoundOpened(session_id=session.id.raw, participants=participants))
            for step in self._steps(session, steps):
                deadline_s = study.sites.step_deadline_s + (FIRST_STEP_GRACE_S if step == 0 else 0.0)
                if study.exact is None:  # what is without noise costs no ε: each hospital's ledger counts it
                    self._book.trained(study.project, _event(study, step))
                total = await session.step(step, deadline_s=deadline_s, broadcast=True)
                for left in _left(session, told):
                    yield left
                for result in total.results(session.id, step):
                    yield pb.RoundEvent(sum=result)
            session.close()
        except Refused as refused:
            if session is not None:
                for left in _left(session, told):
                    yield left
                session.close(refused.code)
            yield pb.RoundEvent(refusal=refused.code.value)
        finally:
            if session is not None:
                session.close(RefusalCode.NOT_READY)  # nothing, unless whoever listened went away
                self._rounds.pop(session.id.raw, None)
                self._ending.discard(session.id.raw)

    def end_round(self, session_id: bytes) -> None:
        """Let a round end with the sum at hand: it is opened, and no hospital is asked for a further one.

        Raises: Refused(NOT_READY) if there is no such round.
        """
        session = self._rounds.get(session_id)
        if session is None:
            raise Refused(RefusalCode.NOT_READY)
        self._ending.add(session_id)
        session.retire()

    # ---- Listener ----

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Offer a node every study, in case it was away when it was proposed."""
        for record in self._state.studies():
            proposed = pb.StudyProposal(study_envelope=record.envelope)
            self._broker.send(node, pb.CoordinatorFrame(study=proposed))

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take a node's word on a study."""
        if frame.WhichOneof("body") == "study_reply":
            reply = frame.study_reply
            if reply.plan_hash in self._replies:
                self._replies[reply.plan_hash][node] = reply.refusal
                self._bell.ring()

    def lost(self, node: NodeId) -> None:
        """Forget what a node said: it is asked again."""
        for replies in self._replies.values():
            replies.pop(node, None)
        self._bell.ring()

    # ---- the rest ----

    def _steps(self, session: SumSession, steps: int) -> Iterator[int]:
        """Give the steps of a round, until it is to end. Raises: Refused."""
        for _ in range(steps):
            if session.id.raw in self._ending:
                return
            yield session.take_step()

    def _tell_of_round(self) -> None:
        for told in self._on_round:
            told()

    async def _study(self, plan_hash: bytes) -> tuple[Study, bytes]:
        record = await asyncio.to_thread(self._state.study, plan_hash)
        if record is None:
            raise Refused(RefusalCode.NOT_APPROVED)
        return self._opened(record.envelope)[0], record.envelope

    def _opened(self, envelope: bytes) -> tuple[Study, str]:
        try:
            return proposal.opened(envelope, key_of=self._broker.roll.roster.signer_keys(Role.LEAD))
        except UnknownSigner as error:
            raise Refused(RefusalCode.UNKNOWN_SIGNER) from error
        except BadEnvelope as error:
            raise Refused(RefusalCode.BAD_SIGNATURE) from error
        except MalformedStudy as error:
            raise Refused(RefusalCode.MALFORMED) from error

    async def _ask(self, plan_hash: bytes, envelope: bytes) -> tuple[set[NodeId], set[NodeId]]:
        """Ask every connected node about a study. Returns who approves, and who was asked."""
        asked = set(self._broker.connected())
        replies = self._replies[plan_hash] = {}
        proposed = pb.StudyProposal(study_envelope=envelope)
        self._broker.send_all(asked, pb.CoordinatorFrame(study=proposed))
        await self._bell.until(
            lambda: set(replies) >= asked & self._broker.connected(), timeout_s=REPLY_DEADLINE_S
        )
        return {node for node, refusal in replies.items() if not refusal}, asked

    async def _open(
        self, study: Study, envelope: bytes, *, number: int, steps: int, without: frozenset[NodeId]
    ) -> SumSession:
        approving, asked = await self._ask(study.plan_hash(), envelope)
        if not approving and asked:
            raise Refused(RefusalCode.NOT_APPROVED)
        approving -= without
        for _ in range(OPEN_TRIES):
            ready = approving & self._broker.connected()
            if len(ready) < study.sites.minimum:
                raise Refused(RefusalCode.TOO_FEW_SITES)
            try:
                return await self._sums.open(
                    ready,
                    steps=steps,
                    purpose=f"training:{study.plan_hash().hex()}",
                    tolerance=study.sites.tolerance,
                    round=number,
                    most_values=max(MAX_VALUES, 2 * vector_length(study)),  # two words a value if exact
                    layers=layered_sum.of(study),
                )
            except Withdrawn as withdrawn:
                log.info("%s withdrew from a round: %s", withdrawn.node, withdrawn.code.value)
                approving.discard(withdrawn.node)
            except Refused as refused:
                log.info("a round could not be opened: %s", refused.code.value)
        raise Refused(RefusalCode.TOO_FEW_SITES)


def _event(study: Study, step: int) -> Event:
    """Return what a sum of a round's session costs: the last one may be a look at the model."""
    if study.validation is not None and step == study.training.steps_per_round:
        return validation.event(study, count=1)
    return study_noise.event(study, steps=1)


def _left(session: SumSession, told: set[NodeId]) -> Iterator[pb.RoundEvent]:
    """Yield who fell out since the last look."""
    for node, code in session.left.items():
        if node not in told:
            told.add(node)
            yield pb.RoundEvent(left=pb.RoundLeft(node_id=node.raw, refusal=code.value))
