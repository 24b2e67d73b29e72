"""Questions under way: offer them to the nodes, run the secure sum among those that accept, keep the answer.

Guarantee: one question has one run at a time, and one outcome: asked again, it is not run again. A question
that means the same as an answered one, in the same project, gets that answer, and no node hears of it, as
long as the same hospitals would take part and none of their data have changed (docs/decisions/0010). Two that
are asked at the same moment share one run. A refusal is never passed on to another question.

What a researcher is told besides the noisy totals is how many sites take part, or one code of a closed list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from coordinator.asking import Asking
from coordinator.broker import Broker
from coordinator.epochs import Epochs, setting
from coordinator.exchange import StepTotal, Withdrawn
from coordinator.question_book import QuestionBook
from coordinator.standing import StandingSessions
from coordinator.sums import SumSession
from privacy import release
from privacy.accountant import Event
from protocols.clock import Clock
from protocols.ids import MalformedId, NodeId, QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

OFFER_DEADLINE_S = 10.0  # a node checks and reserves in milliseconds; who is slower is left out
OFFER_S_PER_MEGABYTE = 5.0  # besides: a definition of megabytes takes a node seconds to check
INPUT_DEADLINE_S = 90.0  # above the longest SQL a node allows itself
MAX_OPEN = 64  # questions at one time; each costs the nodes an SQL statement
SESSION_TRIES = 3  # a node may vanish while a session is opened; nothing was charged by then


class QuestionDesk:
    """Runs questions. A Listener of the broker, to be named after the SumService."""

    def __init__(
        self,
        broker: Broker,
        standing: StandingSessions,
        book: QuestionBook,
        epochs: Epochs,
        *,
        minimum_sites: int,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._standing = standing
        self._book = book
        self._epochs = epochs
        self._minimum_sites = minimum_sites
        self._clock = clock
        self._open: dict[QuestionId, Asking] = {}
        self._shared: dict[tuple[bytes, bytes], Asking] = {}  # the one that runs, by meaning and setting
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(
        self, question: Question, *, researcher: str, envelope: bytes
    ) -> AsyncIterator[pb.AskEvent]:
        """Yield progress, then the answer or a refusal. Goes on without the caller if they leave.

        Raises: Refused if it is another's question, too many are open, or no noise reaches its price.
        """
        meaning, price = await asyncio.to_thread(_derived, question)
        asking = self._open.get(question.question_id)
        if asking is None:
            asking = self._begin(question, researcher, envelope, meaning=meaning, price=price)
        if asking.researcher != researcher or asking.envelope != envelope:
            raise Refused(RefusalCode.REPLAYED)
        seen = ("", 0)
        while asking.outcome is None:
            if (asking.stage, asking.sites) != seen:
                seen = asking.stage, asking.sites
                yield pb.AskEvent(progress=pb.AskProgress(stage=seen[0], sites=seen[1]))
                continue
            before = seen
            await asking.bell.until(
                lambda before=before: asking.outcome is not None or (asking.stage, asking.sites) != before,  # type: ignore[misc]
                timeout_s=3600,
            )
        if isinstance(asking.outcome, RefusalCode):
            yield pb.AskEvent(refusal=asking.outcome.value)
        else:
            yield pb.AskEvent(answer=asking.outcome)

    async def stop(self) -> None:
        """End what is under way with NOT_READY; nodes keep what they charged and release the rest."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- Listener ----

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Offer a node that came back what it had accepted and is still wanted; cancel the rest."""
        for raw in hello.unanswered:
            try:
                asking = self._open.get(QuestionId(raw))
            except MalformedId:
                continue
            if asking is not None and asking.step is None and node in asking.offered:
                self._offer(asking, [node])
            else:
                attempt = asking.attempt if asking else 0
                cancel = pb.Cancel(question_id=raw, attempt=attempt)
                self._broker.send(node, pb.CoordinatorFrame(cancel=cancel))

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take a node's reply to an offer, or its word that it will not answer after all."""
        if frame.WhichOneof("body") != "offer_reply":
            return
        reply = frame.offer_reply
        try:
            asking = self._open.get(QuestionId(reply.question_id))
        except MalformedId as error:
            raise Refused(RefusalCode.MALFORMED) from error
        if asking is None or reply.attempt != asking.attempt or node not in asking.offered:
            return  # late
        asking.replied(node, _code(reply.refusal) if reply.refusal else None)
        if reply.refusal and asking.step is not None:
            session, step = asking.step
            session.excuse(node, step=step)
        asking.bell.ring()

    def lost(self, node: NodeId) -> None:
        """Stop waiting for a node."""
        for asking in self._open.values():
            if asking.step is None:
                asking.replies.pop(node, None)
            asking.bell.ring()

    # ---- one question ----

    def _begin(
        self, question: Question, researcher: str, envelope: bytes, *, meaning: bytes, price: Event
    ) -> Asking:
        asking = Asking(question, researcher, envelope, meaning)
        known = self._book.find(question.question_id)
        if known is not None:
            if not known.is_this(researcher, envelope):
                raise Refused(RefusalCode.REPLAYED)
            asking.outcome, asking.attempt = known.outcome, known.attempts
            if known.outcome is not None:
                return asking
        if len(self._open) >= MAX_OPEN:
            raise Refused(RefusalCode.NOT_READY)
        if known is None:
            self._book.asked(question, researcher=researcher, envelope=envelope, meaning=meaning, price=price)
        self._open[asking.id] = asking
        task = asyncio.create_task(self._run(asking))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asking

    async def _run(self, asking: Asking) -> None:
        outcome: pb.Answer | RefusalCode = RefusalCode.INTERNAL
        repeated = None
        try:
            self._must_be_valid(asking)
            repeated = await self._given_before(asking)
            outcome = repeated or await self._answer(asking)
        except Refused as refused:
            outcome = refused.code
        except asyncio.CancelledError:
            outcome = RefusalCode.NOT_READY
        except Exception:
            log.exception("question %s failed", asking.id)
        finally:
            self._cancel(asking, asking.accepted)
            if repeated is None:
                self._book.finished(asking.id, outcome, setting=asking.setting)
            else:
                self._book.repeated(asking.id, repeated)
            for key in [key for key, running in self._shared.items() if running is asking]:
                del self._shared[key]
            del self._open[asking.id]
            asking.outcome = outcome
            asking.bell.ring()

    async def _given_before(self, asking: Asking) -> pb.Answer | None:
        """Return a stored answer to the same question in this setting, or that of one that runs now.

        None makes this the one that runs: whoever asks the same from now on waits for it.
        """
        while True:
            nodes = self._broker.connected()
            asking.epochs = self._epochs.now(nodes)
            here = setting(nodes, asking.epochs)
            if here is None:
                return None
            stored = self._book.stored(asking.meaning, setting=here)
            if stored is not None:
                return asking.answered_by(stored)
            running = self._shared.setdefault((asking.meaning, here), asking)
            if running is asking:
                return None
            await running.bell.until(lambda running=running: running.outcome is not None, timeout_s=3600)  # type: ignore[misc]
            if isinstance(running.outcome, pb.Answer):
                return asking.answered_by(running.outcome)

    async def _answer(self, asking: Asking) -> pb.Answer:
        nodes = set(self._broker.connected())
        refused = Refused(RefusalCode.TOO_MANY_DROPOUTS)
        while asking.attempt < asking.question.attempts:
            asking.attempt += 1
            try:
                session, total = await self._attempt(asking, nodes)
            except Refused as error:
                if error.code is not RefusalCode.TOO_MANY_DROPOUTS:
                    raise
                refused = error
                nodes = asking.accepted & self._broker.connected()
                if len(nodes) < self._minimum_sites:
                    raise
                continue
            # without who accepted and dropped out: they would take part the next time
            asking.setting = setting({*total.contributors, *asking.declined}, asking.epochs)
            return pb.Answer(
                question_id=asking.id.raw,
                scaled_totals=[int(cell) for cell in total.total.view("<i8")],
                contributors=len(total.contributors),
                participants=len(session.participants),
                tolerance=session.tolerance,
                releases=asking.attempt,
                answered_at_unix_s=self._clock.now().timestamp(),
            )
        raise refused

    async def _attempt(self, asking: Asking, nodes: set[NodeId]) -> tuple[SumSession, StepTotal]:
        asking.step, asking.replies, asking.offered = None, {}, set(nodes)
        if len(nodes) < self._minimum_sites:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        self._must_be_valid(asking)
        self._must_fit(asking, len(nodes))
        asking.reached("offered", len(nodes))
        self._offer(asking, nodes)
        await asking.bell.until(
            lambda: set(asking.replies) >= asking.offered & self._broker.connected(),
            timeout_s=OFFER_DEADLINE_S + OFFER_S_PER_MEGABYTE * len(asking.envelope) / 2**20,
        )
        session, step = await self._session(asking)
        asking.step = session, step
        asking.reached("summing", len(session.participants))
        self._cancel(asking, asking.accepted - set(session.participants))
        self._book.attempted(asking.id, attempt=asking.attempt)
        run = pb.Run(question_id=asking.id.raw, attempt=asking.attempt, session_id=session.id.raw, step=step)
        self._broker.send_all(session.participants, pb.CoordinatorFrame(run=run))
        try:
            total = await session.step(step, deadline_s=INPUT_DEADLINE_S)
        except Refused as refused:
            parties = set(session.participants)
            raise Refused(asking.reason(among=parties, otherwise=refused.code)) from refused
        if total.total.shape != (len(asking.question.labels),):
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        for node in total.contributors:
            asking.replies.pop(node, None)  # they are done: nothing to cancel
        return session, total

    async def _session(self, asking: Asking) -> tuple[SumSession, int]:
        """Return a session and a step among those who accepted. Nothing is charged before it is there."""
        for _ in range(SESSION_TRIES):
            ready = asking.accepted & self._broker.connected()
            if len(ready) < self._minimum_sites:
                raise Refused(asking.reason(among=asking.offered, otherwise=RefusalCode.TOO_FEW_SITES))
            asking.reached("accepted", len(ready))
            try:
                return await self._standing.take(ready)
            except Withdrawn as withdrawn:
                asking.replied(withdrawn.node, withdrawn.code)
            except Refused as refused:
                if refused.code is RefusalCode.KEY_HOLDER_AWAY:
                    raise
                log.info("question %s: no session: %s", asking.id, refused.code.value)
        raise Refused(asking.reason(among=asking.offered, otherwise=RefusalCode.TOO_FEW_SITES))

    def _offer(self, asking: Asking, nodes: Iterable[NodeId]) -> None:
        offer = pb.Offer(question_id=asking.id.raw, question_envelope=asking.envelope, attempt=asking.attempt)
        self._broker.send_all(nodes, pb.CoordinatorFrame(offer=offer))

    def _cancel(self, asking: Asking, nodes: Iterable[NodeId]) -> None:
        cancel = pb.Cancel(question_id=asking.id.raw, attempt=asking.attempt)
        self._broker.send_all(nodes, pb.CoordinatorFrame(cancel=cancel))

    def _must_be_valid(self, asking: Asking) -> None:
        if asking.question.expired(self._clock.now()):
            raise Refused(RefusalCode.EXPIRED)

    def _must_fit(self, asking: Asking, sites: int) -> None:
        """Refuse what no plan of noise can serve, before anybody reads a record for it."""
        try:
            release.plan(
                asking.question, participants=sites, tolerance=min(self._standing.tolerance, sites - 1)
            )
        except ValueError as error:
            raise Refused(RefusalCode.MALFORMED) from error


def _derived(question: Question) -> tuple[bytes, Event]:
    """Return meaning and price, which take a while for a definition of megabytes. Raises: Refused."""
    try:
        return question.meaning(), release.price(question)
    except ValueError as error:
        raise Refused(RefusalCode.MALFORMED) from error


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL  # a code this version does not know
