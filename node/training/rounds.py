"""One training round at one hospital: checked, reserved, then step by step into the secure sum.

Guarantee: nothing of a patient leaves except in a vector that carries this hospital's noise share and its
mask; each such vector was committed in the ledger, durably, before it left; and no plan gets more steps here
than it was approved for, however often its rounds are asked for. All that decides about privacy comes from
the approved plan and the hospital's policy, nothing from the request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.deid_standing import DeidStanding
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.omop.errors import NoSuchTable
from node.omop.store import OmopStore
from node.policy import Policy, Standing
from node.policy_form import MalformedPolicy
from node.queries import cohort
from node.sums import OpenSession
from node.training import second_accountant, validation
from node.training.approvals import Approvals, DamagedApprovals
from node.training.contributions import contribution
from node.training.exact_rounds import ExactRounds
from node.training.held_models import DamagedMemory, HeldModels, ModelsOfRound
from node.training.local_sgd import Site
from node.training.own_fit import fitted
from node.training.own_part import OwnPart, OwnParts
from node.training.round_sums import RoundSums, Sums, Words, check_session
from node.training.second_accountant import AccountantsDisagree
from node.training.validation import LocalFigures, Split
from privacy import descent, norm_bound, study_noise, study_releases, walks
from privacy import validation as looks
from privacy.accountant import GaussianEvent, SampledGaussianEvent
from privacy.budget import DEFAULT_DATASET, Account
from privacy.descent import NotFinite
from privacy.errors import SecureSumError
from privacy.lanes import WORD_BYTES, words_for
from privacy.lattice import NoisePlan, NotEncodable
from privacy.ledger import BudgetExhausted, Ledger, Replayed
from privacy.ledger_entries import Reservation
from privacy.rng import SecureBits
from privacy.update_sums import UpdateSums
from privacy.walks import Walk
from protocols.clock import Clock
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study

PURPOSE = "training"  # in the ledger
STEP_DEADLINE_S = 300.0  # from our input to the total: the slowest site's gradient and a lost connection

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Round:
    """A round that may begin: everything its steps depend on."""

    request: RoundRequest
    study: Study
    plan: NoisePlan | UpdateSums
    reservation: Reservation
    look: _Look | None  # at the model the round ends with, if one is due
    models: ModelsOfRound


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What a look at the model depends on: its own noise, and its own charge."""

    plan: NoisePlan
    reservation: Reservation


class Trainer:
    """Trains rounds, one at a time, on a thread that is not the event loop's.

    Args:
        policy: returns the policy as it stands at this moment; raises Refused or MalformedPolicy.
        loop: the event loop in which `sums` lives.
        dataset: the name under which this hospital's data is charged.
        split_key: the node's own key (16 bytes or more) for the split into training and test patients.
        quality: of the last report on the data, which the policy may ask for.
        deid: of the last evaluation and canary, which the policy may ask for.
        own_parts: where this site's own parts of models, and its control variates, are kept; None: they last
            as long as the trainer.
        held: which models were held here of each plan; None: that is known as long as the trainer lasts.
        figures: where this site's own figures of looks at models are kept; None: nowhere.
    """

    def __init__(
        self,
        *,
        approvals: Approvals,
        policy: Callable[[], Policy],
        ledger: Ledger,
        audit: AuditLog,
        store: OmopStore,
        sums: Sums,
        loop: asyncio.AbstractEventLoop,
        split_key: bytes,
        bits: SecureBits,
        clock: Clock,
        dataset: str = DEFAULT_DATASET,
        step_deadline_s: float = STEP_DEADLINE_S,
        quality: Callable[[], Standing | None] = lambda: None,
        deid: Callable[[], DeidStanding] = DeidStanding,
        own_parts: OwnParts | None = None,
        held: HeldModels | None = None,
        figures: LocalFigures | None = None,
    ) -> None:
        self._approvals = approvals
        self._policy = policy
        self._ledger = ledger
        self._audit = audit
        self._store = store
        self._sums = RoundSums(sums, loop, step_deadline_s)
        self._split_key = split_key
        self._bits = bits
        self._clock = clock
        self._dataset = dataset
        self._quality = quality
        self._deid = deid
        self._own_parts = own_parts
        self._models = held or HeldModels()
        self._figures = figures
        self._own: dict[bytes, OwnPart] = {}
        self._sites: dict[bytes, Site] = {}
        self._exact = ExactRounds(
            approvals, policy, ledger, audit, store, self._sums, split_key, clock, dataset
        )
        self._one_round = threading.Lock()
        self._rows: tuple[tuple[bytes, str], Split] | None = None
        torch.set_num_threads(1)  # a step is a few milliseconds: more threads would cost more than they give

    def train(self, request: RoundRequest) -> RoundReply:
        """Run the steps of the round in its secure-sum session and say which model came out.

        Raises: Refused, and nothing else that is expected; what was reserved and not sent is given back.
        """
        with self._one_round:
            try:
                return self._train(request)
            except Exception as error:
                code = _code_of(error)
                leaving = code or RefusalCode.INTERNAL
                try:
                    self._audit.record(  # first: a crash while the coordinator is told must not lose it
                        AuditEvent.ROUND_REFUSED,
                        plan_hash=request.plan_hash.hex(),
                        session_id=request.session_id,
                        round=request.round,
                        code=leaving,
                    )
                finally:
                    self._sums.withdraw(request.session_id, leaving)
                if code is None:
                    raise
                raise Refused(code) from error

    def _train(self, request: RoundRequest) -> RoundReply:
        study, approved = self._approvals.find(request.plan_hash)
        if study.exact is not None:  # another kind of round: nothing of it passes through what noise pays for
            self._check_standing(self._policy())
            return self._exact.train(study, request, approved=approved)
        self._allowed(study, request, approved=approved)
        models = ModelsOfRound(descent.digest(request.parameters))
        began = self._models.check(study, round=request.round, model=models.now)
        session = self._sums.opened(request.session_id)
        plan, look_plan = _checked_session(study, request, session)
        with ExitStack() as held:
            # by far most of what is left belongs to later rounds, which reserve it again
            reservation = held.enter_context(self._reserved(study, request))
            look = None
            if look_plan is not None:
                look = _Look(look_plan, held.enter_context(self._reserved_look(study, request)))
            rows = self._split(study)  # read only after the budget is set aside
            self._audit.record(
                AuditEvent.ROUND_STARTED,
                plan_hash=request.plan_hash.hex(),
                session_id=request.session_id,
                round=request.round,
                project=study.project,
                reads=",".join(sorted(study.tables | cohort.tables(study.cohort))),
                participants=plan.participants,
                tolerance=plan.tolerance,
                noise_multiplier=study_noise.noise_multiplier(study),
                model_hash=models.now.hex(),
                model_from=began,
            )
            walk = self._steps(_Round(request, study, plan, reservation, look, models), rows)
        self._audit.record(
            AuditEvent.ROUND_FINISHED,
            plan_hash=request.plan_hash.hex(),
            session_id=request.session_id,
            round=request.round,
            steps=walk.steps_done,
            model_hash=models.now.hex(),
        )
        return RoundReply(models.now, walk.steps_done)

    def _allowed(self, study: Study, request: RoundRequest, *, approved: bool) -> None:
        """Refuse a plan that policy or approval do not let train here, or whose noise is not as claimed.

        Raises: Refused, MalformedPolicy, AccountantsDisagree.
        """
        policy = self._policy()
        self._check_standing(policy)
        policy.check_study(
            project=study.project,
            tables=study.tables | cohort.tables(study.cohort),
            epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
            max_sites_per_patient=study.privacy.max_sites_per_patient,
            minimum_sites=study.sites.minimum,
            tolerance=study.sites.tolerance,
            approved=approved,
        )
        if request.round > study.training.rounds or len(request.parameters) != study.carried:
            raise Refused(RefusalCode.MALFORMED)
        second_accountant.check(study)

    def _check_standing(self, policy: Policy) -> None:
        """Raises: Refused while the data, or how identity was taken out, are not as the policy asks."""
        policy.check_quality(self._quality, now=self._clock.now())
        policy.check_deid(self._deid, now=self._clock.now())

    def _reserved(self, study: Study, request: RoundRequest) -> AbstractContextManager[Reservation]:
        """Set aside all steps the plan still has, so that a plan the caps do not cover is refused at once."""
        left = study.training.steps - self.steps_taken(request.plan_hash)
        if left < study.training.steps_per_round:
            raise Refused(RefusalCode.BUDGET_EXHAUSTED)
        purpose = study_noise.session_purpose(request.plan_hash)
        return self._held(study, request, purpose, study_noise.event(study, steps=left))

    def _reserved_look(self, study: Study, request: RoundRequest) -> AbstractContextManager[Reservation]:
        """Set aside all looks the plan still has."""
        left = looks.looks(study) - self.looks_taken(request.plan_hash)
        if left < 1:
            raise Refused(RefusalCode.BUDGET_EXHAUSTED)
        purpose = looks.purpose(request.plan_hash)
        return self._held(study, request, purpose, looks.event(study, count=left))

    @contextmanager
    def _held(
        self, study: Study, request: RoundRequest, purpose: str, event: GaussianEvent | SampledGaussianEvent
    ) -> Iterator[Reservation]:
        """Hold a reservation; what was not committed is given back at the end."""
        account = Account(study.project, self._approvals.proposer(request.plan_hash), self._dataset)
        reservation = self._ledger.reserve(
            f"{purpose}/{request.round}/{request.session_id}",
            account=account,
            purpose=PURPOSE,
            event=event,
            caps=self._policy().caps(account, now=self._clock.now()),
        )
        try:
            self._audit.record(
                AuditEvent.BUDGET_RESERVED,
                request_id=reservation.request_id,
                project=study.project,
                count=event.count,
                noise_multiplier=event.noise_multiplier,
            )
            yield reservation
        finally:
            self._ledger.release(reservation, reason="round-over")

    def steps_taken(self, plan_hash: bytes) -> int:
        """Return how many steps of this plan were committed here, over all its rounds and attempts."""
        releases = self._ledger.committed_for(study_noise.session_purpose(plan_hash) + "/")
        return releases // study_releases.per_sum(self._approvals.find(plan_hash)[0])

    def looks_taken(self, plan_hash: bytes) -> int:
        """Return how many looks at this plan's model were committed here."""
        return self._ledger.committed_for(looks.purpose(plan_hash) + "/")

    def _split(self, study: Study) -> Split:
        key = (study.plan_hash(), self._store.epoch())
        if self._rows is None or self._rows[0] != key:
            self._rows = (key, Split.of(study, feature_table(study, self._store), key=self._split_key))
        return self._rows[1]

    def _steps(self, current: _Round, rows: Split) -> Walk:
        study, request = current.study, current.request
        walk = walks.begin(study, request.parameters)  # what none can begin at, nobody held
        self._models.begin(study, round=request.round, model=current.models.now)
        try:
            return self._walked(current, walk, rows)
        finally:
            self._models.end(study, current.models.after, finished=walk.finished)

    def _walked(self, current: _Round, walk: Walk, rows: Split) -> Walk:
        own, site = self._own_part(current.study), self._site(current.study, round=current.request.round)
        noise = current.plan.noise(bits=self._bits)
        while not walk.finished:
            sums = contribution(current.study, walk, rows.training, site=site, own=own.values)
            _check_sum(current.study, sums.shared, patients=len(rows.training))
            noisy = current.plan.to_send(current.plan.encode(sums.shared) + noise)
            sending = self._send_step(current, walk.steps_done, noisy)
            own.follow(sums)  # the step is committed; like the total, its own part follows a noisy sum
            if walk.steps_done + 1 < current.study.training.steps_per_round:
                self._prepare(current, walk.steps_done + 1)
                noise = current.plan.noise(bits=self._bits)  # for the next step, while the others add
            total = self._sums.total(sending)
            walk.apply(current.plan.decode(total))
            current.models.moved(descent.digest(walk.carried))
            control = site.settle()
            if control is not None and self._own_parts is not None:
                self._own_parts.keep_control(current.study, control)
        self._keep_own_part(current, walk, own, rows.training)
        if current.look is not None:
            self._take_look(current, current.look, walk, own, rows)
        return walk

    def _prepare(self, current: _Round, step: int) -> None:
        """Have the next step's masks computed while the others add. If that fails, so will the step."""
        request, model = current.request, current.models.now
        context = study_noise.step_context(request.plan_hash, round=request.round, step=step, model=model)
        plan = current.plan
        self._sums.prepare(request.session_id, step, context, plan.dimension, lanes=plan.lanes)

    def _take_look(self, current: _Round, look: _Look, walk: Walk, own: OwnPart, rows: Split) -> None:
        """Add to the fleet's sum over validation patients. The round stands, whatever becomes of the sum."""
        study, round_ = current.study, current.request.round
        seen_here = validation.looked(study, walk.params, rows, own=own.values)
        vector = look.plan.contribution_of_rows(seen_here.added, bits=self._bits)
        context = looks.step_context(current.request.plan_hash, round=round_, model=current.models.now)
        sending = self._send(
            current, look.reservation, walk.steps_done, context, vector, lanes=look.plan.lanes
        )
        try:
            total = look.plan.decode(self._sums.total(sending))
        except (Refused, TimeoutError) as error:  # too few are left for the sum: it is charged, and lost
            _log.warning("no total of a look at the model: %s", _code_of(error))
            return
        noise_sd = look.plan.standard_deviation(contributors=look.plan.participants)
        fleet = looks.metrics(study, total, round=round_, noise_sd=noise_sd)
        seen = (*(self._figures.fleet(study) if self._figures else ()), *fleet)
        if self._figures is not None:
            self._figures.add(study, seen_here.figures, fleet, round=round_)
        if looks.best_round(study, seen) == round_:
            self._keep_fitted(study, walk, rows.training)

    def _own_part(self, study: Study) -> OwnPart:
        plan_hash = study.plan_hash()
        if plan_hash not in self._own:
            kept = self._own_parts.load(study) if self._own_parts else None
            self._own[plan_hash] = OwnPart(study, bits=self._bits, values=kept)
        return self._own[plan_hash]

    def _site(self, study: Study, *, round: int) -> Site:
        """Return what this site remembers of the run: nothing in its first round, else its last sum's."""
        key = study.plan_hash()
        if round == 1:
            self._sites[key] = Site(self._bits)
        elif key not in self._sites:
            kept = self._own_parts.control(study) if self._own_parts else None
            self._sites[key] = Site(self._bits, control=kept)
        self._sites[key].next_control = None  # of a sum that was never opened
        return self._sites[key]

    def _keep_own_part(self, current: _Round, walk: Walk, own: OwnPart, rows: FeatureTable) -> None:
        study = current.study
        if study.local_parameters and self._own_parts is not None:
            self._own_parts.keep(study, own.values)
        if current.request.round == study.training.rounds and study.validation is None:
            self._keep_fitted(study, walk, rows)

    def _keep_fitted(self, study: Study, walk: Walk, rows: FeatureTable) -> None:
        """Keep the own part that suits the model so far best: it may be the one that is published."""
        if study.own_parameters and self._own_parts is not None:
            self._own_parts.keep(study, fitted(study, walk.params, rows), final=True)

    def _send_step(self, current: _Round, step: int, vector: Words) -> Future[Words]:
        request, model = current.request, current.models.behind
        context = study_noise.step_context(request.plan_hash, round=request.round, step=step, model=model)
        lanes, releases = current.plan.lanes, study_releases.per_sum(current.study)
        return self._send(current, current.reservation, step, context, vector, lanes=lanes, releases=releases)

    def _send(
        self,
        current: _Round,
        reservation: Reservation,
        step: int,
        context: bytes,
        vector: Words,
        *,
        lanes: int,
        releases: int = 1,
    ) -> Future[Words]:
        """Commit what one sum releases durably, then let its vector leave."""
        request, ledger = current.request, self._ledger
        request_id = reservation.request_id
        self._sums.must_be_open(request.session_id)  # a round may end under a hospital that computes
        ledger.commit(reservation, count=releases)
        seq, head = ledger.head()
        self._audit.record(
            AuditEvent.BUDGET_COMMITTED,
            request_id=request_id,
            session_id=request.session_id,
            step=step,
            count=releases,
            bytes_sent=WORD_BYTES * words_for(vector.size, lanes=lanes),  # next, or never if we stop here
            ledger_seq=seq,
            ledger_head=head,
        )

        def revealing() -> None:
            ledger.revealed(request_id)
            self._audit.record(AuditEvent.SHARES_REVEALED, session_id=request.session_id, step=step)

        return self._sums.send(
            request.session_id, step, context, vector, lanes=lanes, before_reveal=revealing
        )


def _check_sum(study: Study, vector: NDArray[np.float64], *, patients: int) -> None:
    """Raises: NotEncodable for a sum that clipped gradients of so many patients cannot have: a fault here.

    It is not shortened and sent: the lead learns, by a code, that this site has something to repair.
    """
    clipped = study.training.mode == "shared-noise"
    if clipped and not norm_bound.fits(vector, longest=patients * study.privacy.clip_norm):
        raise NotEncodable("longer than the patients' clipped gradients together, or no number")


def _checked_session(
    study: Study, request: RoundRequest, session: OpenSession
) -> tuple[NoisePlan | UpdateSums, NoisePlan | None]:
    """Return the plans of a session that was opened for just this round: of its steps, of its look.

    Raises: Refused.
    """
    check_session(study, request, session, sums=study_noise.session_sums(study, round=request.round))
    sites, tolerance = session.participants, session.tolerance
    look = None
    try:
        plan = study_noise.private_plan(study, participants=sites, tolerance=tolerance)
        if looks.due(study, round=request.round):
            look = looks.noise_plan(study, participants=sites, tolerance=tolerance)
    except ValueError:
        raise Refused(RefusalCode.NOT_ALLOWED) from None
    session.must_hold(values=plan.dimension, largest=plan.largest_contribution)
    if look is not None:
        session.must_hold(values=look.dimension, largest=look.largest_contribution)
    return plan, look


_CODES: tuple[tuple[type[BaseException], RefusalCode], ...] = (
    (BudgetExhausted, RefusalCode.BUDGET_EXHAUSTED),
    (Replayed, RefusalCode.REPLAYED),
    (MalformedPolicy, RefusalCode.NO_POLICY),
    (DamagedApprovals, RefusalCode.NOT_APPROVED),
    (NoSuchTable, RefusalCode.NO_DATA),
    (NotFinite, RefusalCode.PROTOCOL_VIOLATION),
    (NotEncodable, RefusalCode.PROTOCOL_VIOLATION),
    (TimeoutError, RefusalCode.DEADLINE),
    (AccountantsDisagree, RefusalCode.INTERNAL),
    (DamagedMemory, RefusalCode.OTHER_MODEL),
)


def _code_of(error: BaseException) -> RefusalCode | None:
    """Return the code of an expected refusal, None for a fault."""
    if isinstance(error, Refused | SecureSumError):
        return error.code
    with suppress(StopIteration):
        return next(code for kind, code in _CODES if isinstance(error, kind))
    return None
