"""What an exact study's parameter vector and sums are made of: the same at every site and the coordinator.

A sum's total:     score and upper triangle of the information (of a model); then log-likelihood, people,
                   events, sites; then, on the grid, events and what was at risk
The state, which is the plan's parameter vector (protocols.study_exact): coefficients, of a model (a bias,
which a Cox model leaves at 0); a verdict, and what the totals told at these coefficients.

What a person may add to a value of a sum at most is public, so that sums never wrap: features lie in [-1, 1],
and no coefficient is beyond `MAX_COEFFICIENT`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from privacy.descent import NotFinite
from privacy.exact_sums import ExactSums
from protocols.study import Study
from protocols.study_exact import HEAD, Exact, triangle

Vector = NDArray[np.float64]

MAX_COEFFICIENT = 1_000.0  # on a scale of [-1, 1]: an odds ratio of e^1000; whatever goes there has no end
PEOPLE_AT_ONE_SITE = 1_000_000
# Of log means beyond it, which Newton's method may pass but no count has: sites compute with it instead.
MAX_LOG_MEAN = 20.0


class Verdict(IntEnum):
    """How a walk ended. The numbers stand in states: give no number a second meaning."""

    UNFINISHED = 0
    CONVERGED = 1
    NOT_CONVERGED = 2
    SINGULAR = 3
    SEPARATED = 4

    @property
    def words(self) -> str:
        """One sentence for a person."""
        return _WORDS[self]


_WORDS = {
    Verdict.UNFINISHED: "The hospitals' sums ended before the fit did: its coefficients mean nothing.",
    Verdict.CONVERGED: "The fit converged.",
    Verdict.NOT_CONVERGED: "The fit did not converge within the plan's iterations: nothing is reported.",
    Verdict.SINGULAR: "A column follows from the others or never varies, so no fit is the only best one: "
    "leave it out, or plan a ridge.",
    Verdict.SEPARATED: "A combination of columns tells the outcome without fail, so no finite coefficients "
    "fit best: leave a column out, or plan a ridge.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """What one secure sum opened."""

    score: Vector
    information: Vector  # upper triangle
    log_likelihood: float
    people: float
    events: float
    sites: float
    grid_events: Vector
    grid_risk: Vector

    @classmethod
    def of(cls, study: Study, vector: Vector) -> Total:
        """Return the parts of a total. Raises: NotFinite for another shape, or a value that is not finite."""
        found = np.asarray(vector, dtype=np.float64)
        if found.shape != (total_length(study),) or not np.isfinite(found).all():
            raise NotFinite("a total has another shape, or a value that is not finite")
        exact = _exact(study)
        fitted, grid = exact.coefficients(len(study.columns)), len(exact.grid_days)
        score, information, head, events, risk = np.split(
            found, np.cumsum([fitted, triangle(fitted), 4, grid])
        )
        value, people, happened, sites = (float(one) for one in head)
        return cls(score, information, value, people, happened, sites, events, risk)

    def vector(self) -> Vector:
        """Return it as one row."""
        head = np.array([self.log_likelihood, self.people, self.events, self.sites])
        return np.concatenate([self.score, self.information, head, self.grid_events, self.grid_risk])


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a walk stands, or what it found."""

    coefficients: Vector  # the intercept, if there is one, is the last
    verdict: Verdict
    people: float
    events: float
    sites: float
    log_likelihood: float
    log_likelihood_start: float
    information: Vector
    grid_events: Vector
    grid_risk: Vector

    @classmethod
    def of(cls, study: Study, params: Vector) -> State:
        """Return the parts of a state. Raises: NotFinite if the vector is none."""
        found = np.asarray(params, dtype=np.float64)
        if found.shape != (study.parameters,) or not np.isfinite(found).all():
            raise NotFinite("a state has another shape, or a value that is not finite")
        exact = _exact(study)
        columns, grid = len(study.columns), len(exact.grid_days)
        predictor = 0 if exact.model == "kaplan-meier" else columns + 1
        fitted = exact.coefficients(columns)
        weights, head, information, events, risk = np.split(
            found, np.cumsum([predictor, len(HEAD), triangle(fitted), grid])
        )
        try:
            verdict = Verdict(int(head[0]))
        except ValueError as error:
            raise NotFinite("a state names no verdict") from error
        people, happened, sites, log_likelihood, start = (float(one) for one in head[1:])
        return cls(
            weights[:fitted],
            verdict,
            people,
            happened,
            sites,
            log_likelihood,
            start,
            information,
            events,
            risk,
        )

    def params(self, study: Study) -> Vector:
        """Return the parameter vector."""
        exact = _exact(study)
        bias = np.zeros(int(exact.model == "cox"))
        head = [float(self.verdict), self.people, self.events, self.sites]
        head += [self.log_likelihood, self.log_likelihood_start]
        parts = [self.coefficients, bias, np.array(head), self.information, self.grid_events, self.grid_risk]
        return np.concatenate(parts)


def total_length(study: Study) -> int:
    """Return how many values each sum has."""
    exact = _exact(study)
    fitted = exact.coefficients(len(study.columns))
    return fitted + triangle(fitted) + 4 + 2 * len(exact.grid_days)


def largest_of_one(study: Study) -> float:
    """Return what one person adds to any value of a sum at most."""
    exact = _exact(study)
    reach = MAX_COEFFICIENT * max(1, exact.coefficients(len(study.columns)))  # of a linear predictor
    return {
        "logistic": reach + 1.0,
        "linear": (reach + 1.0) ** 2,
        "poisson": math.exp(MAX_LOG_MEAN) + study.outcome.most * (reach + MAX_LOG_MEAN),
        "cox": max(2.0 * reach + math.log(PEOPLE_AT_ONE_SITE), math.exp(MAX_LOG_MEAN)),
        "kaplan-meier": 1.0,
    }[exact.model]


def exact_sums(study: Study, *, participants: int, tolerance: int) -> ExactSums:
    """Return how sites turn values into inputs of masked sums. Raises: ValueError for too many sites."""
    return ExactSums(
        participants=participants,
        tolerance=tolerance,
        dimension=total_length(study),
        largest=PEOPLE_AT_ONE_SITE * largest_of_one(study),
    )


def _exact(study: Study) -> Exact:
    if study.exact is None:
        raise ValueError("not an exact study")
    return study.exact
