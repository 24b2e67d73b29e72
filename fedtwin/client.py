"""The researcher's client: signed questions in, results with their error bars out.

client = fedtwin.connect("~/.fedtwin/profile")
answer = client.count({"index": {"kind": "condition", "concepts": [201826]}}, epsilon=0.5, project="demo")
print(answer.estimate, answer.ci95)
curve = client.survival("atlas.json", outcome="death.json", horizon_days=365, interval_days=30,
                        epsilon=0.5, project="demo")
curve.plot()

A cohort is a path, a JSON text, a value, or a definition from ATLAS: see `fedtwin.cohort_form`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from coordinator.channel import explained, open_channel
from coordinator.profile import Profile
from fedtwin import cohort_form, results
from fedtwin.budget_view import ProjectBudget
from fedtwin.cohort_form import CohortForm, Given
from fedtwin.count_results import (
    AttritionResult,
    BreakdownResult,
    CountResult,
    FeasibilityResult,
    HistogramResult,
)
from fedtwin.preview import DELTA, Preview, budget_request
from fedtwin.rate_results import ContingencyResult, MeanResult
from fedtwin.result import Result
from fedtwin.terms import Terms, Watcher, one_value, word
from fedtwin.time_results import IncidenceResult, SurvivalResult
from privacy.reading import Answer, read_answer
from protocols import statistic_form
from protocols.clock import Clock, SystemClock
from protocols.ids import NodeId
from protocols.question import Mechanism, Question
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import (
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    Statistic,
    Step,
    Survival,
)
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

MAX_SITES_PER_PATIENT = 2  # until records are linked across hospitals, a patient may be in two
TIMEOUT_S = 120.0

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One hospital's node, as the coordinator sees it."""

    node_id: str
    name: str
    connected: bool
    last_seen: datetime | None
    certificate_expires: str
    revoked: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read."""
        return {
            "node_id": self.node_id,
            "name": self.name,
            "connected": self.connected,
            "last_seen": self.last_seen.isoformat() if self.last_seen else None,
            "certificate_expires": self.certificate_expires,
            "revoked": self.revoked,
        }


class Client:
    """Asks in the name of one profile, over one connection that it keeps. Calls may run in threads.

    Close it, or use it as a context manager.
    """

    def __init__(self, profile: Profile, *, clock: Clock | None = None) -> None:
        self.profile = profile
        self._clock = clock or SystemClock()
        self._channel = open_channel(profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Questions that are still open go on at the coordinator."""
        self._channel.close()

    # ---- questions: each takes the terms of `ask` as keywords ----

    def count(self, cohort: Given, **terms: Unpack[Terms]) -> CountResult:
        """Ask how many patients are in `cohort`. Terms and errors: see `ask`."""
        return _as(CountResult, self.ask(cohort, Count(), **terms))

    def breakdown(
        self,
        cohort: Given,
        *,
        by: str,
        edges: Sequence[int] = (),
        first_year: int | None = None,
        last_year: int | None = None,
        total: bool = False,
        **terms: Unpack[Terms],
    ) -> BreakdownResult:
        """Ask for the cohort split by "sex", "age_band", "year" or (hospitals) "site_count_band".

        Args:
            edges: ascending lower bounds of bands, for the two bands.
            first_year, last_year: of the index date, for years.
            total: measure the total too: more noise in each cell, and less in the total.
        """
        statistic = Breakdown(word("by", by, By), tuple(edges), first_year, last_year, total)
        return _as(BreakdownResult, self.ask(cohort, statistic, **terms))

    def histogram(
        self,
        cohort: Given,
        *,
        concept: int,
        edges: Sequence[float],
        descendants: bool = True,
        unit: int | None = None,
        which: str = "last",
        window: tuple[int, int] | None = None,
        **terms: Unpack[Terms],
    ) -> HistogramResult:
        """Ask how one value per patient is distributed over bins with ascending `edges`.

        Args: see `mean`.
        """
        value = one_value(concept, descendants=descendants, unit=unit, which=which, window=window)
        statistic = Histogram(value, tuple(float(edge) for edge in edges))
        return _as(HistogramResult, self.ask(cohort, statistic, **terms))

    def mean(
        self,
        cohort: Given,
        *,
        concept: int,
        lower: float,
        upper: float,
        descendants: bool = True,
        unit: int | None = None,
        which: str = "last",
        window: tuple[int, int] | None = None,
        **terms: Unpack[Terms],
    ) -> MeanResult:
        """Ask for mean and variance of one value per patient, each clipped to lower..upper.

        Args:
            concept: of the measurement; descendants: whether those below it count too.
            unit: OMOP concept of the unit that a record must have; None for any.
            which: "first", "last", "min", "max" or "mean" of a patient's records.
            window: first and last day relative to the index date; None for all records.
            lower, upper: narrow bounds mean little noise; what lies outside is clipped.
        """
        value = one_value(concept, descendants=descendants, unit=unit, which=which, window=window)
        statistic = Mean(value, float(lower), float(upper))
        return _as(MeanResult, self.ask(cohort, statistic, **terms))

    def contingency(self, cohort: Given, *, other: Given, **terms: Unpack[Terms]) -> ContingencyResult:
        """Ask how many patients are in `cohort`, in `other`, in both, in neither."""
        return _as(ContingencyResult, self.ask(cohort, Contingency(cohort_form.read(other).cohort), **terms))

    def incidence(
        self,
        cohort: Given,
        *,
        outcome: Given,
        first_year: int,
        last_year: int,
        step: str = "year",
        **terms: Unpack[Terms],
    ) -> IncidenceResult:
        """Ask for new outcomes and person-time at risk in each "year", "quarter" or "month"."""
        statistic = Incidence(
            cohort_form.read(outcome).cohort, first_year, last_year, word("step", step, Step)
        )
        return _as(IncidenceResult, self.ask(cohort, statistic, **terms))

    def survival(
        self,
        cohort: Given,
        *,
        outcome: Given,
        horizon_days: int,
        interval_days: int,
        **terms: Unpack[Terms],
    ) -> SurvivalResult:
        """Ask for a Kaplan-Meier curve from the index date to `outcome`, in steps of interval_days."""
        statistic = Survival(cohort_form.read(outcome).cohort, horizon_days, interval_days)
        return _as(SurvivalResult, self.ask(cohort, statistic, **terms))

    def attrition(self, cohort: Given, **terms: Unpack[Terms]) -> AttritionResult:
        """Ask how many patients are left after each inclusion rule, in the order they were written in."""
        return _as(AttritionResult, self.ask(cohort, Attrition(), **terms))

    def feasibility(self, cohort: Given, *, at_least: int, **terms: Unpack[Terms]) -> FeasibilityResult:
        """Ask how many hospitals have at least so many patients of the cohort."""
        return _as(FeasibilityResult, self.ask(cohort, Feasibility(at_least), **terms))

    def ask(
        self,
        cohort: Given,
        statistic: Statistic | dict[str, Any],
        *,
        epsilon: float,
        project: str,
        delta: float | None = None,
        mechanism: str = Mechanism.GAUSSIAN,
        max_sites_per_patient: int = MAX_SITES_PER_PATIENT,
        timeout_s: float = TIMEOUT_S,
        progress: Watcher | None = None,
    ) -> Result:
        """Ask every connected hospital for a statistic of `cohort`; return it read from the noisy totals.

        Guarantee: what each hospital reveals is (epsilon, delta)-differentially private in one patient, and
        each charges it to its own ledger before anything leaves. The same question of the same project over
        the same hospitals and data is answered again free of charge (`result.cached`).

        Args:
            statistic: a value of `protocols.statistic`, or its JSON form.
            epsilon, delta: of this answer. Without delta: 1e-6, and 0 for the laplace mechanism.
            project: one of the profile's projects; its budget at each hospital pays.
            mechanism: "gaussian" or "laplace"; `preview` says which errs less.
            max_sites_per_patient: in how many of these hospitals one person may have records.
            timeout_s: how long to wait; the question goes on without you, and asking again gets its answer.
            progress: called with a stage and the number of sites it concerns.
        Raises: MalformedCohort, MalformedStatistic, MalformedQuestion; Refused with a code;
            CoordinatorUnreachable.
        """
        form, question = self._question(
            cohort,
            statistic,
            epsilon=epsilon,
            project=project,
            delta=delta,
            mechanism=mechanism,
            max_sites_per_patient=max_sites_per_patient,
        )
        answer = self._answer(question, timeout_s=timeout_s, progress=progress)
        return results.read(answer, rules=form.rules_of(question.statistic))

    def preview(
        self,
        cohort: Given,
        statistic: Statistic | dict[str, Any] = Count(),  # noqa: B008 (frozen and without state)
        *,
        epsilon: float,
        project: str,
        delta: float | None = None,
        mechanism: str = Mechanism.GAUSSIAN,
        max_sites_per_patient: int = MAX_SITES_PER_PATIENT,
    ) -> Preview:
        """Return what a question would cost and how exact its answer would be. Spends nothing.

        Args: see `ask`. Raises: what `ask` raises.
        """
        _, question = self._question(
            cohort,
            statistic,
            epsilon=epsilon,
            project=project,
            delta=delta,
            mechanism=mechanism,
            max_sites_per_patient=max_sites_per_patient,
        )
        request = budget_request(question)
        with explained(self.profile):
            stub = _stub(self._channel)
            described = stub.Describe(pb.DescribeRequest(), timeout=10)
            budget = stub.Budget(request, timeout=30)
        return Preview.of(question, described, budget)

    def budget(self, project: str, *, delta: float = DELTA) -> ProjectBudget:
        """Return what the project's questions and training have cost, as the coordinator saw it.

        Args: delta, at which their releases are composed. Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self.profile):
            reply = _stub(self._channel).Budget(pb.BudgetRequest(project=project, delta=delta), timeout=30)
        return ProjectBudget.of(reply)

    def _question(
        self,
        cohort: Given,
        statistic: Statistic | dict[str, Any],
        *,
        epsilon: float,
        project: str,
        delta: float | None,
        mechanism: str,
        max_sites_per_patient: int,
    ) -> tuple[CohortForm, Question]:
        form = cohort_form.read(cohort)
        parsed = statistic_form.parse(statistic) if isinstance(statistic, dict) else statistic
        noise = word("mechanism", mechanism, Mechanism)
        if delta is None:
            delta = DELTA if noise is Mechanism.GAUSSIAN else 0.0
        question = Question.ask(
            form.cohort,
            project=project,
            epsilon=epsilon,
            delta=delta,
            max_sites_per_patient=max_sites_per_patient,
            now=self._clock.now(),
            statistic=form.asked_for(parsed),
            mechanism=noise,
        )
        return form, question

    def _answer(self, question: Question, *, timeout_s: float, progress: Watcher | None) -> Answer:
        """Send the signed question and wait. Raises: Refused, CoordinatorUnreachable."""
        signed = question.signed(signer=self.profile.name, key=self.profile.identity_key())
        with explained(self.profile):
            request = pb.AskRequest(question_envelope=signed)
            for event in _stub(self._channel).Ask(request, timeout=timeout_s):
                kind = event.WhichOneof("body")
                if kind == "progress" and progress is not None:
                    progress(event.progress.stage, event.progress.sites)
                elif kind == "refusal":
                    raise Refused(_known(event.refusal))
                elif kind == "answer":
                    return read_answer(question, event.answer)
        raise Refused(RefusalCode.INTERNAL)  # the stream ended without an answer

    # ---- for a lead ----

    def nodes(self) -> tuple[int, tuple[NodeView, ...]]:
        """Return the roster's version and the nodes it lists (for a lead).

        Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self.profile):
            reply = _stub(self._channel).ListNodes(pb.ListNodesRequest(), timeout=10)
        return reply.roster_version, tuple(_node_view(node) for node in reply.nodes)

    def propose(self, study_envelope: bytes) -> pb.ProposeStudyReply:
        """Send a signed study to every connected hospital (for a lead).

        Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self.profile):
            request = pb.ProposeStudyRequest(study_envelope=study_envelope)
            reply: pb.ProposeStudyReply = _stub(self._channel).ProposeStudy(request, timeout=30)
            return reply


def _stub(channel: grpc.Channel) -> Any:
    return fedtwin_pb2_grpc.ResearchStub(channel)  # type: ignore[no-untyped-call]  # generated code


def _as(kind: type[R], result: Result) -> R:
    assert isinstance(result, kind)  # `results.read` goes by the statistic that was asked for
    return result


def _known(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL


def _node_view(node: pb.NodeState) -> NodeView:
    seen = datetime.fromtimestamp(node.last_seen_unix_s, UTC) if node.last_seen_unix_s else None
    return NodeView(
        str(NodeId(node.node_id)), node.name, node.connected, seen, node.certificate_expires, node.revoked
    )
