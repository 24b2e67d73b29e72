"""Whether this hospital answers a question: every check there is, and its price set aside.

Guarantee: nothing here reads a patient's record, so neither the decision nor its time depends on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from node.audit_events import AuditEvent
from node.policy import Policy
from node.queries.tables import tables
from privacy import release
from privacy.budget import DEFAULT_DATASET, Account
from privacy.ledger import Ledger
from privacy.ledger_entries import Reservation
from protocols import question as questions
from protocols.clock import Clock
from protocols.cohort import Cohort
from protocols.ids import QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster

HOLD = timedelta(minutes=3)  # budget reserved for a coordinator that then says nothing is released


class Record(Protocol):
    """Writes a line into the audit trail, soon and in order, without making anybody wait."""

    def __call__(self, event: AuditEvent, **fields: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """A question that will be answered. Args: grid_s: answers to it leave on a grid of so many seconds."""

    question: Question
    reservation: Reservation
    grid_s: float


class Admission:
    """Checks questions. May be used from several threads.

    Args:
        roster, policy: read anew for each question. `policy` raises Refused(NO_POLICY).
        dataset: the name under which this node's data are charged.
    """

    def __init__(
        self,
        *,
        roster: Callable[[], Roster],
        policy: Callable[[], Policy],
        ledger: Ledger,
        record: Record,
        clock: Clock,
        dataset: str = DEFAULT_DATASET,
    ) -> None:
        self._roster = roster
        self._policy = policy
        self._ledger = ledger
        self._record = record
        self._clock = clock
        self._dataset = dataset

    def admit(self, question_id: QuestionId, envelope: bytes, attempt: int) -> Admitted:
        """Return the question that a coordinator offers under this id, its price reserved.

        Raises: Refused, and what `node.boundary.to_code` knows.
        """
        question, signer = self._opened(question_id, envelope)
        policy, read = self._policy(), tables(question)
        policy.check_question(
            kind=question.statistic.kind,
            cohort="fedtwin" if isinstance(question.cohort, Cohort) else "circe",
            mechanism=question.mechanism.value,
            project=question.project,
            tables=read,
            epsilon=question.epsilon,
            delta=question.delta,
            max_sites_per_patient=question.max_sites_per_patient,
            on_behalf=question.on_behalf_of is not None,
            attempts=question.attempts,
        )
        if not 1 <= attempt <= question.attempts:
            raise Refused(RefusalCode.REPLAYED)
        reservation = self._reserved(question, signer, policy)
        self._record(
            AuditEvent.QUESTION_ACCEPTED,
            question_id=question_id,
            attempt=attempt,
            signer=signer,
            on_behalf_of=question.on_behalf_of,
            project=question.project,
            statistic=question.statistic.kind,
            reads=",".join(sorted(read)) or None,
            mechanism=question.mechanism.value,
            cells=len(question.labels),
            epsilon=question.epsilon,
            delta=question.delta,
            max_sites_per_patient=question.max_sites_per_patient,
        )
        return Admitted(question, reservation, policy.answer_grid_ms / 1000)

    def _opened(self, question_id: QuestionId, envelope: bytes) -> tuple[Question, str]:
        """Return the question and who signed it: somebody of the roster, for a project of theirs."""
        roster = self._roster()
        question, signer = questions.opened(envelope, key_of=roster.signer_keys())
        if question.question_id != question_id:
            raise Refused(RefusalCode.MALFORMED)
        if question.expired(self._clock.now()):
            raise Refused(RefusalCode.EXPIRED)
        person = roster.person(signer)
        if person is None or not person.may_use(question.project):
            raise Refused(RefusalCode.NOT_ALLOWED)
        return question, signer

    def _reserved(self, question: Question, signer: str, policy: Policy) -> Reservation:
        """Set the price aside, for as long as the question is held at most."""
        now = self._clock.now()
        whom = signer if question.on_behalf_of is None else f"{signer}/{question.on_behalf_of}"
        account = Account(question.project, whom, self._dataset)
        try:
            price = release.price(question)
        except ValueError:
            raise Refused(RefusalCode.MALFORMED) from None  # no noise reaches this epsilon and delta
        reservation = self._ledger.reserve(
            str(question.question_id),
            account=account,
            purpose=question.statistic.kind,
            event=price,
            caps=policy.caps(account, now=now),
            expires_at=min(question.expires_at, now + HOLD),
        )
        if reservation.attempt > question.attempts:  # every reservation counts, also one a crash released
            self._ledger.release(reservation, reason=RefusalCode.REPLAYED.value)
            raise Refused(RefusalCode.REPLAYED)
        return reservation
