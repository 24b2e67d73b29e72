"""What a question will cost and how exact its answer will be, before anything is spent.

Computed here from public figures: how many hospitals are connected, the tolerance they agreed on, and what
the coordinator saw the project spend. No hospital is asked, so nothing says that its policy allows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from fedtwin.budget_view import ProjectBudget
from fedtwin.estimates import finite, shown
from fedtwin.time_results import years_of
from fedtwin.view import View
from privacy import release, sensitivity
from privacy.accountant import Event
from privacy.post_processing import CellNoise
from privacy.reading import LEVEL
from protocols import canonical
from protocols.question import Mechanism, Question
from protocols.statistic import (
    MEAN_UNIT,
    UNIT,
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    Survival,
)
from protocols.wire import fedtwin_pb2 as pb

DELTA = 1e-6  # of a gaussian release where none is named: below one in the patients of any consortium
FEW = 10  # counts at epsilon 1 in all, delta 1e-6: laplace errs 14.1 in each of 10, gaussian 13.4
MEAN_OF = 1_000  # patients, for whom the error of a mean is shown

Errors = dict[str, float]  # half-widths of 95 % intervals, by figure


@dataclass(frozen=True, slots=True, repr=False)
class Preview:
    """Cost and expected error of a question that nobody was asked yet.

    Args:
        event: what each hospital would charge for one release; after dropouts there may be a second one.
        hospitals: connected now; errors holds if all of them answer. It is empty if they are too few.
        other_errors: the same with the other mechanism at the same epsilon; `better` is the one of the two
            that errs less for this question.
        spent: what the coordinator saw the project spend; `epsilon_after`: with this release, composed.
    """

    question: Question
    event: Event
    hospitals: int
    minimum_sites: int
    tolerance: int
    errors: Errors
    other_errors: Errors
    better: Mechanism
    spent: ProjectBudget
    epsilon_after: float

    @classmethod
    def of(cls, question: Question, consortium: pb.DescribeReply, budget: pb.BudgetReply) -> Self:
        """Return the preview of `question`. `budget` is the reply to `budget_request(question)`.

        Raises: ValueError if no noise reaches the question's epsilon and delta.
        """
        sites, tolerance = consortium.connected, consortium.tolerance
        enough = sites >= max(consortium.minimum_sites, 1)
        errors = expected_errors(question, sites=sites, tolerance=tolerance) if enough else {}
        other = _with_other_mechanism(question)
        others = expected_errors(other, sites=sites, tolerance=tolerance) if enough else {}
        return cls(
            question=question,
            event=release.price(question),
            hospitals=sites,
            minimum_sites=consortium.minimum_sites,
            tolerance=tolerance,
            errors=errors,
            other_errors=others,
            better=_better(question, other),
            spent=ProjectBudget.of(budget),
            epsilon_after=budget.epsilon_with_next,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read."""
        return {
            "kind": self.question.statistic.kind,
            "cells": list(self.question.labels),
            "cost": {
                "epsilon": self.question.epsilon,
                "delta": self.question.delta,
                "event": self.event.to_json(),
                "releases_at_most": self.question.attempts,
                "charged_to": self.question.project,
            },
            "mechanism": self.question.mechanism.value,
            "better_mechanism": self.better.value,
            "hospitals": self.hospitals,
            "minimum_sites": self.minimum_sites,
            "tolerance": self.tolerance,
            "enough_hospitals": bool(self.errors),
            "expected_error_95": self.errors,
            "expected_error_95_of_the_other_mechanism": self.other_errors,
            "project": {**self.spent.to_json(), "epsilon_after": finite(self.epsilon_after)},
        }

    def view(self) -> View:
        """Return what a console or a notebook shows."""
        question, mechanism = self.question, self.question.mechanism
        other = Mechanism.LAPLACE if mechanism is Mechanism.GAUSSIAN else Mechanism.GAUSSIAN
        cells = len(question.labels)
        facts = {
            "would charge": f"epsilon {question.epsilon:g}, delta {question.delta:g}, to {question.project};"
            f" nothing if the same was answered before; up to {question.attempts} times after dropouts",
            "project": f"epsilon {self.spent.epsilon:.3g} spent, {self.epsilon_after:.3g} with this,"
            f" at delta {self.spent.delta:g} (as the coordinator saw it)",
            "hospitals": f"{self.hospitals} connected, at least {self.minimum_sites} needed, noise for"
            f" {self.tolerance} that drop out or collude",
        }
        if self.better is not mechanism:
            facts["better"] = f"mechanism {self.better.value} errs less for this question"
            if self.better is Mechanism.LAPLACE:
                facts["better"] += (
                    f"; over more than about {FEW} questions gaussian does, which composes better"
                )
        if not self.errors:
            facts["error"] = "not known: too few hospitals are connected"
        return View(
            f"{question.statistic.kind}: {cells} {'cell' if cells == 1 else 'cells'}, nothing was spent",
            ["expected 95 % error of", f"{mechanism.value}", f"{other.value}"],
            [
                [name, f"± {shown(error)}", f"± {shown(self.other_errors[name])}"]
                for name, error in self.errors.items()
            ],
            facts,
        )

    def __repr__(self) -> str:
        return self.view().text()

    def _repr_html_(self) -> str:
        return self.view().html()


def budget_request(question: Question) -> pb.BudgetRequest:
    """Return what to ask the coordinator's mirror for a preview: at the question's delta, or the default."""
    event = canonical_event(release.price(question))
    return pb.BudgetRequest(project=question.project, delta=question.delta or DELTA, next=event)


def canonical_event(event: Event) -> str:
    """Return an event as the coordinator reads it."""
    return canonical.encode(event.to_json()).decode()


def expected_errors(question: Question, *, sites: int, tolerance: int) -> Errors:
    """Return half-widths of 95 % intervals if `sites` hospitals answer, by what they are of.

    Raises: ValueError if no noise reaches the question's epsilon and delta.
    """
    plan = release.plan(question, participants=sites, tolerance=min(tolerance, sites - 1))
    noise = CellNoise.of(plan, contributors=sites, level=LEVEL)
    half, cells = noise.half_width(), len(question.labels)
    match question.statistic:
        case Count():
            return {"patients": half}
        case Breakdown() | Histogram():
            return _errors_of_cells(question, noise)
        case Mean(lower=lower, upper=upper):
            of_patients = half / MEAN_UNIT
            middle = (upper - lower) / 2.0 * of_patients / MEAN_OF
            return {"patients with a value": of_patients, f"mean, if {MEAN_OF:,} have a value": middle}
        case Contingency():
            return {"patients in each cell": half}
        case Incidence() as incidence:
            years = half / sensitivity.person_time_unit(incidence) * max(years_of(incidence))
            return {"events in each period": half / UNIT, "person-years in each period": years}
        case Survival():
            return {"patients in each interval": half, "at risk at first": noise.half_width(cells=cells)}
        case Attrition():
            return {"after the last rule": half, "before any rule": noise.half_width(cells=cells)}
        case Feasibility():
            return {"hospitals": half}


def _errors_of_cells(question: Question, noise: CellNoise) -> Errors:
    half, cells = noise.half_width(), len(question.labels)
    reconciled = half * math.sqrt(1.0 - 1.0 / cells)  # by least squares with a sum that is known or measured
    match question.statistic:
        case Breakdown(by=By.SITE_COUNT_BAND):
            return {"hospitals in each band": reconciled}
        case Breakdown(total=True):
            return {"patients in each cell": reconciled, "their total": reconciled}
        case _:
            return {"patients in each cell": half, "their total": noise.half_width(cells=cells)}


def _with_other_mechanism(question: Question) -> Question:
    if question.mechanism is Mechanism.GAUSSIAN:
        return replace(question, mechanism=Mechanism.LAPLACE, delta=0.0)
    return replace(question, mechanism=Mechanism.GAUSSIAN, delta=DELTA)


def _better(question: Question, other: Question) -> Mechanism:
    """Return the mechanism that errs less in one cell at one site: more sites change both alike."""
    errors = {}
    for asked in (question, other):
        plan = release.plan(asked, participants=1, tolerance=0)
        errors[asked.mechanism] = plan.half_width(contributors=1, level=LEVEL)
    return question.mechanism if errors[question.mechanism] <= errors[other.mechanism] else other.mechanism
