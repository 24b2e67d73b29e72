"""Questions at this hospital: check, reserve, count, add the noise share, commit, and send it masked.

Guarantee: nothing is read before the budget is reserved, and nothing leaves before it is committed. A
question must be signed by a researcher of the verified roster for this very content; it is answered once.
What leaves is one masked number, or one code of the closed list.

A question that was committed and not revealed may be attempted again, in a new session and at a new charge,
as often as its researcher signed (`attempts`): the first masked number may have been opened without us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from node.audit_events import AuditEvent
from node.omop.store import OmopStore
from node.policy import Policy
from node.queries.cohort import tables
from node.queries.running import RunningCount
from node.sums import QUESTIONS, SumSessions
from privacy import release
from privacy.budget import Account
from privacy.ledger import Ledger
from privacy.ledger_entries import Reservation
from privacy.rng import SecureBits
from protocols import question as questions
from protocols.clock import Clock
from protocols.cohort import Cohort
from protocols.ids import QuestionId, SessionId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster
from protocols.statistic import Count
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

SQL_DEADLINE_S = 60.0  # for one count; the coordinator waits 90 s for inputs
HOLD_S = 180.0  # budget reserved for a coordinator that then says nothing is released
MAX_OPEN = 16  # questions at one time


class Record(Protocol):
    """Writes a line into the audit trail, soon and in order, without making anybody wait."""

    def __call__(self, event: AuditEvent, **fields: Any) -> None: ...


@dataclass(eq=False)
class _Open:
    """One question between its acceptance and its end."""

    question: Question
    envelope: bytes
    attempt: int
    reservation: Reservation
    count: RunningCount
    counted: asyncio.Future[int]
    deadline: asyncio.TimerHandle | None = None
    running: bool = False
    ended: bool = field(default=False)


class Answering:
    """The open questions of this node. Lives in one event loop; SQL and disk work happen in threads.

    Args:
        roster, policy: read anew for each question. `policy` raises Refused(NO_POLICY).
        store: the hospital's open store; raises Refused(NO_DATA) if there is none.
        threads: for SQL only, so that a long count never keeps a reply from leaving.
        to_code: turns whatever goes wrong into a code (node.boundary).
    """

    def __init__(
        self,
        *,
        roster: Callable[[], Roster],
        policy: Callable[[], Policy],
        ledger: Ledger,
        store: Callable[[], OmopStore],
        sums: SumSessions,
        send: Callable[[pb.NodeFrame], None],
        record: Record,
        to_code: Callable[[BaseException], RefusalCode],
        threads: Executor,
        clock: Clock,
        bits: SecureBits | None = None,
    ) -> None:
        self._roster = roster
        self._policy = policy
        self._ledger = ledger
        self._store = store
        self._sums = sums
        self._send = send
        self._record = record
        self._to_code = to_code
        self._threads = threads
        self._clock = clock
        self._bits = bits or SecureBits()
        self._open: dict[QuestionId, _Open] = {}
        self._checking: set[QuestionId] = set()

    def unanswered(self) -> list[QuestionId]:
        """Return what was accepted and is neither answered nor cancelled."""
        return list(self._open)

    async def offer(self, offer: pb.Offer) -> None:
        """Check a question, reserve its price, start counting, and reply with acceptance or a code."""
        refusal = ""
        try:
            await self._accept(QuestionId(offer.question_id), offer.question_envelope, offer.attempt)
        except Exception as error:
            refusal = self._to_code(error).value
            named = QuestionId(offer.question_id) if len(offer.question_id) == 16 else None
            self._record(AuditEvent.QUESTION_REFUSED, question_id=named, attempt=offer.attempt, code=refusal)
        reply = pb.OfferReply(question_id=offer.question_id, attempt=offer.attempt, refusal=refusal)
        self._send(pb.NodeFrame(offer_reply=reply))

    async def run(self, run: pb.Run) -> None:
        """Answer an accepted question in the named session and step; on failure say so, with a code."""
        found = self._open.get(QuestionId(run.question_id)) if len(run.question_id) == 16 else None
        if found is None or found.attempt != run.attempt or found.running:
            log.warning("a run that nothing was accepted for is ignored")
            return
        found.running = True
        try:
            await self._answer(found, SessionId(run.session_id), run.step)
        except Exception as error:
            code = self._to_code(error)
            self._record(
                AuditEvent.QUESTION_REFUSED,
                question_id=found.question.question_id,
                attempt=run.attempt,
                code=code,
            )
            await self._end(found, reason=code.value)
            reply = pb.OfferReply(question_id=run.question_id, attempt=run.attempt, refusal=code.value)
            self._send(pb.NodeFrame(offer_reply=reply))

    async def cancel(self, cancel: pb.Cancel) -> None:
        """Forget an accepted question and release what was reserved and not committed."""
        found = self._open.get(QuestionId(cancel.question_id)) if len(cancel.question_id) == 16 else None
        if found is not None and cancel.attempt in (0, found.attempt):
            self._record(AuditEvent.QUESTION_CANCELLED, question_id=found.question.question_id)
            await self._end(found, reason="cancelled")

    async def stop(self) -> None:
        """Release what is reserved and not committed."""
        for found in list(self._open.values()):
            await self._end(found, reason="stopped")

    # ---- accepting ----

    async def _accept(self, question_id: QuestionId, envelope: bytes, attempt: int) -> None:
        earlier = self._open.get(question_id)
        if earlier is not None:
            same = earlier.envelope == envelope
            if same and attempt == earlier.attempt and not earlier.running:
                return  # offered again after a reconnect: it is still reserved and being counted
            if not (same and earlier.running and attempt == earlier.attempt + 1):
                raise Refused(RefusalCode.REPLAYED)
            await self._end(earlier, reason="superseded")
        if question_id in self._checking:
            raise Refused(RefusalCode.REPLAYED)
        if len(self._open) + len(self._checking) >= MAX_OPEN:
            raise Refused(RefusalCode.NOT_READY)
        self._checking.add(question_id)
        try:
            checked = asyncio.to_thread(self._check_and_reserve, question_id, envelope, attempt)
            question, reservation = await checked
            assert isinstance(question.cohort, Cohort)  # checked before it was reserved
            count = RunningCount(question.cohort, self._store)
            self._start(_Open(question, envelope, attempt, reservation, count, self._counting(count)))
        finally:
            self._checking.discard(question_id)

    def _check_and_reserve(
        self, question_id: QuestionId, envelope: bytes, attempt: int
    ) -> tuple[Question, Reservation]:
        """Return the question and what was reserved for it. Runs in a thread. Raises: Refused and others."""
        roster = self._roster()
        question, signer = questions.opened(envelope, key_of=roster.signer_keys())
        if question.question_id != question_id:
            raise Refused(RefusalCode.MALFORMED)
        if question.expired(self._clock.now()):
            raise Refused(RefusalCode.EXPIRED)
        person = roster.person(signer)
        if person is None or not person.may_use(question.project):
            raise Refused(RefusalCode.NOT_ALLOWED)
        if not isinstance(question.cohort, Cohort) or question.statistic != Count():
            raise Refused(RefusalCode.NOT_ALLOWED)
        policy = self._policy()
        policy.check_question(
            kind=question.statistic.kind,
            cohort="fedtwin" if isinstance(question.cohort, Cohort) else "circe",
            mechanism=question.mechanism.value,
            project=question.project,
            tables=tables(question.cohort),
            epsilon=question.epsilon,
            delta=question.delta,
            max_sites_per_patient=question.max_sites_per_patient,
            on_behalf=question.on_behalf_of is not None,
            attempts=question.attempts,
        )
        if not 1 <= attempt <= question.attempts:
            raise Refused(RefusalCode.REPLAYED)
        for_whom = "" if question.on_behalf_of is None else f"/{question.on_behalf_of}"
        account = Account(question.project, signer + for_whom)
        reservation = self._ledger.reserve(
            str(question_id),
            account=account,
            purpose=question.statistic.kind,
            event=release.price(question),
            caps=policy.caps(account, now=self._clock.now()),
            expires_at=question.expires_at,
        )
        if reservation.attempt > question.attempts:  # every reservation counts, also one a crash released
            self._ledger.release(reservation, reason=RefusalCode.REPLAYED.value)
            raise Refused(RefusalCode.REPLAYED)
        self._record(
            AuditEvent.QUESTION_ACCEPTED,
            question_id=question_id,
            attempt=attempt,
            signer=signer,
            project=question.project,
            epsilon=question.epsilon,
            delta=question.delta,
            max_sites_per_patient=question.max_sites_per_patient,
        )
        return question, reservation

    def _start(self, accepted: _Open) -> None:
        loop = asyncio.get_running_loop()
        left_s = (accepted.question.expires_at - self._clock.now()).total_seconds()
        accepted.deadline = loop.call_later(
            max(0.0, min(HOLD_S, left_s)), lambda: loop.create_task(self._end(accepted, reason="expired"))
        )
        self._open[accepted.question.question_id] = accepted

    def _counting(self, count: RunningCount) -> asyncio.Future[int]:
        """Start counting in a thread; what goes wrong is seen when the question is run."""
        counted = asyncio.get_running_loop().run_in_executor(self._threads, count)
        counted.add_done_callback(lambda done: done.cancelled() or done.exception())
        return counted

    # ---- answering ----

    async def _answer(self, found: _Open, session_id: SessionId, step: int) -> None:
        question = found.question
        session = await self._sums.opened(session_id)
        if session.parameters.purpose != QUESTIONS:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        plan = release.plan(question, participants=session.participants, tolerance=session.tolerance)
        try:
            async with asyncio.timeout(SQL_DEADLINE_S):
                patients = await asyncio.shield(found.counted)
        except TimeoutError as error:
            raise Refused(RefusalCode.DEADLINE) from error
        if not self._sums.is_open(session_id) or found.ended:
            raise Refused(RefusalCode.NOT_READY)  # nothing was charged: the coordinator is gone, or gave up

        def noised_and_committed() -> np.ndarray:
            vector = plan.contribution(np.array([patients], dtype=np.int64), bits=self._bits)
            self._ledger.commit(found.reservation)
            return vector

        vector = await asyncio.to_thread(noised_and_committed)
        self._record_charge(found, session_id, step)
        await self._sums.contribute(
            session_id,
            step,
            question.context(attempt=found.attempt, tolerance=session.tolerance),
            vector,
            before_reveal=lambda: self._revealing(found, session_id, step),
        )

    def _record_charge(self, found: _Open, session_id: SessionId, step: int) -> None:
        seq, head = self._ledger.head()
        question = found.question
        self._record(
            AuditEvent.BUDGET_COMMITTED,
            question_id=question.question_id,
            attempt=found.attempt,
            project=question.project,
            **found.reservation.event.to_json(),
            ledger_seq=seq,
            ledger_head=head,
        )
        self._record(
            AuditEvent.INPUT_SENT,
            question_id=question.question_id,
            session_id=session_id,
            step=step,
            bytes_sent=8,
        )

    def _revealing(self, found: _Open, session_id: SessionId, step: int) -> None:
        """Mark, in a thread and before shares leave, that the question is over. Raises: Refused if it was."""
        if found.ended:
            raise Refused(RefusalCode.REPLAYED)  # cancelled, expired, or attempted again
        self._ledger.revealed(found.reservation.request_id)
        self._record(
            AuditEvent.SHARES_REVEALED,
            question_id=found.question.question_id,
            session_id=session_id,
            step=step,
        )
        found.ended = True
        found.counted.get_loop().call_soon_threadsafe(self._forget, found)

    # ---- ends ----

    async def _end(self, found: _Open, *, reason: str) -> None:
        """Forget a question; release what was reserved and not committed (nothing, if it was)."""
        if found.ended:
            return
        found.ended = True
        self._forget(found)
        if not found.counted.done():
            found.count.interrupt()
            found.counted.cancel()
        await asyncio.to_thread(self._ledger.release, found.reservation, reason=reason)

    def _forget(self, found: _Open) -> None:
        if found.deadline is not None:
            found.deadline.cancel()
        if self._open.get(found.question.question_id) is found:
            del self._open[found.question.question_id]
