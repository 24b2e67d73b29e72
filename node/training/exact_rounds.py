"""The one round of an exact study at one hospital: sums without noise, for plans that its policy names.

Guarantee: nothing leaves for a plan that the policy does not name by its hash; nor with fewer of this
hospital's people in it than the policy asks, or than `PEOPLE_PER_COEFFICIENT` for each coefficient. Each sum
is recorded in the ledger, durably, before it leaves; each is given once, in order, in one session, and no
more of them than the plan has. Sums are taken at the coefficients that follow from the totals before, from
zero on, whatever the request says, and only go on over the same people at all hospitals of the session.

What this does not give is privacy in the sense of any (ε, δ): docs/threat-model.md says what the sums tell.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from node.policy import Policy
from node.queries import cohort
from node.sums import OpenSession
from node.training import exact_parts
from node.training.approvals import Approvals
from node.training.round_sums import RoundSums, Words, check_session
from privacy import descent, newton, study_noise
from privacy.budget import Account
from privacy.descent import NotFinite
from privacy.exact_state import State, exact_sums
from privacy.exact_sums import ExactSums
from privacy.ledger import Ledger
from protocols.clock import Clock
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study

# As many parameters as people, and the sums are the people. DataSHIELD asks for three by default
# (nfilter.glm = 0.33).
PEOPLE_PER_COEFFICIENT = 3


@dataclass(frozen=True, slots=True, eq=False)
class ExactRounds:
    """What a round without noise needs of its hospital; the arguments are those of a Trainer."""

    approvals: Approvals
    policy: Callable[[], Policy]
    ledger: Ledger
    audit: AuditLog
    store: OmopStore
    sums: RoundSums
    split_key: bytes
    clock: Clock
    dataset: str

    def train(self, study: Study, request: RoundRequest, *, approved: bool) -> RoundReply:
        """Take part in the study's sums and say which result came out. Raises: Refused, as rounds do.

        Args: study, the plan of the request's hash, as this hospital keeps it; approved, whether it is.
        """
        fewest_people = self._allowed(study, request, approved=approved)
        session = self.sums.opened(request.session_id)
        plan = _checked_session(study, request, session)
        if self.ledger.exact_releases().get(request.plan_hash.hex()):
            raise Refused(RefusalCode.REPLAYED)  # before anything is read
        rows = self._people(study)
        self.audit.record(
            AuditEvent.ROUND_STARTED,
            plan_hash=request.plan_hash.hex(),
            session_id=request.session_id,
            round=request.round,
            project=study.project,
            reads=",".join(sorted(study.tables | cohort.tables(study.cohort))),
            participants=plan.participants,
            tolerance=plan.tolerance,
        )
        if len(rows) < fewest_people:
            raise Refused(RefusalCode.TOO_FEW_PEOPLE)
        params, steps = self._steps(study, request, plan, rows)
        self.audit.record(
            AuditEvent.ROUND_FINISHED,
            plan_hash=request.plan_hash.hex(),
            session_id=request.session_id,
            round=request.round,
            steps=steps,
        )
        return RoundReply(descent.digest(params), steps)

    def _allowed(self, study: Study, request: RoundRequest, *, approved: bool) -> int:
        """Return the fewest people with which this hospital takes part. Raises: Refused, MalformedPolicy."""
        if study.exact is None:
            raise ValueError("not an exact study")
        policy = self.policy()
        minimum = policy.check_exact(
            request.plan_hash,
            project=study.project,
            tables=study.tables | cohort.tables(study.cohort),
            minimum_sites=study.sites.minimum,
            tolerance=study.sites.tolerance,
            approved=approved,
        )
        policy.caps(self._account(study), now=self.clock.now())  # whom no line covers, nobody answers
        start = descent.initial(study)
        if request.round != 1 or not np.array_equal(request.parameters, start):
            raise Refused(RefusalCode.MALFORMED)  # sums at chosen coefficients are of chosen people
        return max(minimum, PEOPLE_PER_COEFFICIENT * study.exact.coefficients(len(study.columns)))

    def _account(self, study: Study) -> Account:
        return Account(study.project, self.approvals.proposer(study.plan_hash()), self.dataset)

    def _people(self, study: Study) -> FeatureTable:
        table = feature_table(study, self.store)
        fraction = study.training.train_fraction
        return table.rows(in_training(table.person_ids, key=self.split_key, fraction=fraction))

    def _steps(
        self, study: Study, request: RoundRequest, plan: ExactSums, rows: FeatureTable
    ) -> tuple[NDArray[np.float64], int]:
        walk = newton.begin(study, descent.initial(study))
        while not walk.finished:
            vector, model = plan.encode(exact_parts.part(study, walk, rows)), descent.digest(walk.params)
            total = self.sums.total(self._send(study, request, walk.steps_done, vector, model=model))
            walk.apply(plan.decode(total))
            if State.of(study, walk.params).sites != plan.participants:
                raise NotFinite("a total is not that of all hospitals of the session")
        return walk.params, walk.steps_done

    def _send(
        self, study: Study, request: RoundRequest, step: int, vector: Words, *, model: bytes
    ) -> Future[Words]:
        """Record one sum durably, then let this hospital's part of it leave."""
        request_id = f"exact/{request.session_id}"
        self.sums.must_be_open(request.session_id)
        self.ledger.release_exact(
            request_id, account=self._account(study), study=request.plan_hash.hex(), step=step
        )
        seq, head = self.ledger.head()
        self.audit.record(
            AuditEvent.EXACT_RELEASED,
            request_id=request_id,
            plan_hash=request.plan_hash.hex(),
            session_id=request.session_id,
            project=study.project,
            step=step,
            bytes_sent=vector.nbytes,  # next, or never if we stop here
            ledger_seq=seq,
            ledger_head=head,
        )
        context = study_noise.step_context(request.plan_hash, round=request.round, step=step, model=model)

        def revealing() -> None:
            self.audit.record(AuditEvent.SHARES_REVEALED, session_id=request.session_id, step=step)

        return self.sums.send(request.session_id, step, context, vector, lanes=1, before_reveal=revealing)


def _checked_session(study: Study, request: RoundRequest, session: OpenSession) -> ExactSums:
    """Return how values are added in a session that was opened for just this study. Raises: Refused."""
    check_session(study, request, session, sums=study.training.steps)
    try:
        plan = exact_sums(study, participants=session.participants, tolerance=session.tolerance)
    except ValueError:
        raise Refused(RefusalCode.NOT_ALLOWED) from None
    session.must_hold(values=plan.words, largest=plan.largest_contribution)
    return plan
