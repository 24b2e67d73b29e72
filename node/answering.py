"""Questions at this hospital: check, reserve, compute, add the noise share, commit, and send it masked.

Guarantee: nothing is read before the budget is reserved, and nothing leaves before it is committed. A
question must be signed by a researcher of the verified roster for this very content; it is answered once.
What leaves is one masked vector, or one code of the closed list that does not depend on a patient's records:
where time or memory ran out, the vector is noise around nothing. Once a question is accepted, either leaves
at a tick of the policy's grid of time, counted from the acceptance (node.ticks).

A question that was committed and not revealed may be attempted again, in a new session and at a new charge,
as often as its researcher signed (`attempts`): the first masked vector may have been opened without us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from node.admission import HOLD, Admission, Admitted, Record
from node.audit_events import AuditEvent
from node.queries.engine import Warehouse
from node.queries.limits import Limits
from node.queries.running import RunningQuestion
from node.queries.vector import vector
from node.sums import QUESTIONS, OpenSession, SumSessions
from node.ticks import Ticks
from privacy import release
from privacy.ledger import Ledger
from privacy.ledger_entries import Reservation
from privacy.rng import SecureBits
from protocols.clock import Clock
from protocols.ids import QuestionId, SessionId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

SQL_DEADLINE_S = 60.0  # for one question; the coordinator waits 90 s for inputs
MAX_OPEN = 64  # questions at one time, as many as a coordinator passes on; few of them compute at once

OF_THE_DATA = frozenset({RefusalCode.DEADLINE, RefusalCode.INTERNAL})  # one patient's records may cause them

Cells = NDArray[np.int64]


@dataclass(eq=False)
class _Open:
    """One question between its acceptance and its end."""

    admitted: Admitted
    envelope: bytes
    attempt: int
    computing: RunningQuestion[Cells]
    cells: asyncio.Future[Cells]
    ticks: Ticks
    deadline: asyncio.TimerHandle | None = None
    running: bool = False
    ended: bool = field(default=False)

    @property
    def question(self) -> Question:
        """What is asked."""
        return self.admitted.question

    @property
    def reservation(self) -> Reservation:
        """What is set aside for it."""
        return self.admitted.reservation


class Answering:
    """The open questions of this node. Lives in one event loop; SQL and disk work happen in threads.

    Args:
        warehouse: the hospital's CDM; raises Refused(NO_DATA) if there is none.
        threads: for SQL only, so that a long statement never keeps a reply from leaving.
        to_code: turns whatever goes wrong into a code (node.boundary).
    """

    def __init__(
        self,
        *,
        admission: Admission,
        ledger: Ledger,
        warehouse: Callable[[], Warehouse],
        sums: SumSessions,
        send: Callable[[pb.NodeFrame], None],
        record: Record,
        to_code: Callable[[BaseException], RefusalCode],
        threads: Executor,
        clock: Clock,
        bits: SecureBits | None = None,
    ) -> None:
        self._admission = admission
        self._ledger = ledger
        self._warehouse = warehouse
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
        """Check a question, reserve its price, start computing, and reply with acceptance or a code."""
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
            await found.ticks.wait()  # the reason may lie in the data
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
                return  # offered again after a reconnect: it is still reserved and being computed
            if not (same and earlier.running and attempt == earlier.attempt + 1):
                raise Refused(RefusalCode.REPLAYED)
            await self._end(earlier, reason="superseded")
        if question_id in self._checking:
            raise Refused(RefusalCode.REPLAYED)
        if len(self._open) + len(self._checking) >= MAX_OPEN:
            raise Refused(RefusalCode.NOT_READY)
        self._checking.add(question_id)
        try:
            admitted = await asyncio.to_thread(self._admission.admit, question_id, envelope, attempt)
            self._start(admitted, envelope, attempt)
        finally:
            self._checking.discard(question_id)

    def _start(self, admitted: Admitted, envelope: bytes, attempt: int) -> None:
        """Begin to compute in a thread; what goes wrong there is seen when the question is run."""
        loop = asyncio.get_running_loop()
        question = admitted.question
        computing = RunningQuestion(
            lambda engine: vector(question.cohort, question.statistic, engine),
            self._warehouse,
            limits=Limits(time_s=SQL_DEADLINE_S),
        )
        ticks = Ticks(start_s=loop.time(), every_s=admitted.grid_s)
        cells = loop.run_in_executor(self._threads, computing)
        cells.add_done_callback(lambda done: done.cancelled() or done.exception())
        accepted = _Open(admitted, envelope, attempt, computing, cells, ticks)
        left_s = min(HOLD.total_seconds(), (question.expires_at - self._clock.now()).total_seconds())
        accepted.deadline = loop.call_later(
            max(0.0, left_s), lambda: loop.create_task(self._end(accepted, reason="expired"))
        )
        self._open[question.question_id] = accepted

    # ---- answering ----

    async def _answer(self, found: _Open, session_id: SessionId, step: int) -> None:
        question = found.question
        session = await self._sums.opened(session_id, step=step)
        if session.parameters.purpose != QUESTIONS:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        plan = _plan(question, session)
        cells = await self._computed(found)
        if not self._sums.is_open(session_id) or found.ended:
            raise Refused(RefusalCode.NOT_READY)  # nothing was charged: the coordinator is gone, or gave up

        def noised_and_committed() -> tuple[bytes, NDArray[np.uint64]]:
            context = question.context(attempt=found.attempt, tolerance=session.tolerance)
            noised = plan.contribution(cells, bits=self._bits)
            self._ledger.commit(found.reservation)
            return context, noised

        context, noised = await asyncio.to_thread(noised_and_committed)
        self._record_charge(found, session_id, step, cells=len(noised))
        await found.ticks.wait()
        await self._sums.contribute(
            session_id,
            step,
            context,
            noised,
            before_reveal=lambda: self._revealing(found, session_id, step),
        )

    async def _computed(self, found: _Open) -> Cells:
        """Return the cells, or zeros where computing them failed for what may lie in one patient's records.

        A refusal then would tell that patient apart, and no noise would hide it. So this hospital adds noise
        to nothing, is charged, and its staff find the reason in the audit trail. Raises: what is no such
        failure (no data, no vocabulary, a question that was ended meanwhile).
        """
        try:
            async with asyncio.timeout(SQL_DEADLINE_S):
                return await asyncio.shield(found.cells)
        except Exception as error:
            code = self._to_code(error)
            if found.ended or code not in OF_THE_DATA:
                raise
            self._record(
                AuditEvent.ANSWERED_EMPTY,
                question_id=found.question.question_id,
                attempt=found.attempt,
                code=code,
            )
            return np.zeros(len(found.question.labels), dtype=np.int64)

    def _record_charge(self, found: _Open, session_id: SessionId, step: int, *, cells: int) -> None:
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
            bytes_sent=8 * cells,
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
        found.cells.get_loop().call_soon_threadsafe(self._forget, found)

    # ---- ends ----

    async def _end(self, found: _Open, *, reason: str) -> None:
        """Forget a question; release what was reserved and not committed (nothing, if it was)."""
        if found.ended:
            return
        found.ended = True
        self._forget(found)
        if not found.cells.done():
            found.computing.interrupt()
            found.cells.cancel()
        await asyncio.to_thread(self._ledger.release, found.reservation, reason=reason)

    def _forget(self, found: _Open) -> None:
        if found.deadline is not None:
            found.deadline.cancel()
        if self._open.get(found.question.question_id) is found:
            del self._open[found.question.question_id]


def _plan(question: Question, session: OpenSession) -> release.Plan:
    """Return how noise is shared in this session. Raises: Refused if no plan can serve the question."""
    try:
        plan = release.plan(question, participants=session.participants, tolerance=session.tolerance)
    except ValueError:
        raise Refused(RefusalCode.MALFORMED) from None
    session.must_hold(values=plan.dimension, largest=plan.largest_contribution)
    return plan
