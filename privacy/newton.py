"""Exact walks: Newton's method on sums of scores and informations, and a survival curve from its counts.

Guarantee: what a walk makes of the totals follows from the plan and the totals alone, bit for bit
(privacy.cholesky), so all sites go on with the same coefficients, and end at the same sum. At most the plan's
number of sums is asked for. All sums are over the same people: if their number, that of events or that of
sites is not what the first total said, the walk goes no further.

Method. From zero, coefficients move by information⁻¹ · score; where the log-likelihood then is lower than
before, half of the way is taken back. A step shorter than the plan's tolerance in units of standard errors is
the last one. Each (McCullagh and Nelder 1989) is what pooled data would give: the sums of scores and
informations of disjoint people are those of all of them; of a stratified Cox model, the sums of the strata's.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from privacy import cholesky
from privacy.descent import NotFinite
from privacy.exact_state import MAX_COEFFICIENT, State, Total, Verdict
from protocols.study import Study

Vector = NDArray[np.float64]

MAX_HALVINGS = 10
SLACK = 1e-11  # of a log-likelihood: two sums of millions of terms may differ by as much
# A standard error on a scale of [-1, 1] beyond which nobody is left who tells anything of a coefficient.
MAX_STANDARD_ERROR = 1e3


class OtherPeople(NotFinite):
    """A later sum is not over the people of the first one: some hospital is missing, or has other data."""


class Newton:
    """The walk of a model with coefficients."""

    def __init__(self, study: Study, params: Vector) -> None:
        """Start a walk at a state that nothing was added to yet. Raises: NotFinite."""
        if study.exact is None:
            raise ValueError("not an exact study")
        self._study, self._plan = study, study.exact
        self._state = State.of(study, params)
        self._size = len(self._state.coefficients)
        self._start = self._state.coefficients
        self._before: tuple[Vector, float] | None = None  # the last point that was taken, and its likelihood
        self._halvings = 0
        self._at_end = False  # the coefficients are found, and the next sum is for the baseline
        self.steps_done = 0
        self.finished = self._state.verdict is not Verdict.UNFINISHED

    @property
    def params(self) -> Vector:
        """Where the walk stands."""
        return self._state.params(self._study)

    @property
    def carried(self) -> Vector:
        """What comes out: there is no further round."""
        return self.params

    @property
    def coefficients(self) -> Vector:
        """At which the next sum is to be taken."""
        return self._state.coefficients

    @property
    def first(self) -> bool:
        """Whether the next sum is the first."""
        return self.steps_done == 0

    @property
    def wants_baseline(self) -> bool:
        """Whether the next sum is to tell what was at risk on the grid."""
        return self._at_end

    def apply(self, total: Vector) -> Vector:
        """Take the next total in and return the new state. Raises: NotFinite; ValueError if it is over."""
        if self.finished:
            raise ValueError("the walk asks for no further sum")
        found = Total.of(self._study, total)
        state = self._counted(found)
        if self._at_end:
            state = replace(
                state,
                information=found.information,
                log_likelihood=found.log_likelihood,
                grid_events=found.grid_events,
                grid_risk=found.grid_risk,
                verdict=Verdict.CONVERGED,
            )
        elif self._lower(found, state.coefficients):
            state = self._halfway(state)
        else:
            state = self._stepped(found, state)
        self.steps_done += 1
        if state.verdict is Verdict.UNFINISHED and self.steps_done == self._study.training.steps_per_round:
            state = replace(state, verdict=Verdict.NOT_CONVERGED)
        self.finished = state.verdict is not Verdict.UNFINISHED
        self._state = state
        return self.params

    def _counted(self, found: Total) -> State:
        state = self._state
        if self.steps_done == 0:
            return replace(
                state,
                people=found.people,
                events=found.events,
                sites=found.sites,
                log_likelihood_start=found.log_likelihood,
            )
        if (found.people, found.events, found.sites) != (state.people, state.events, state.sites):
            raise OtherPeople("a sum is not over the same people as the first")
        return state

    def _penalised(self, found: Total, coefficients: Vector) -> float:
        shrunk = coefficients[: len(self._study.columns)]
        return found.log_likelihood - 0.5 * self._plan.ridge * math.fsum(float(b) * float(b) for b in shrunk)

    def _lower(self, found: Total, coefficients: Vector) -> bool:
        """Whether the last step made things worse, by more than rounding can."""
        if self._before is None:
            return False
        value, before = self._penalised(found, coefficients), self._before[1]
        return value < before - SLACK * (abs(before) + 1.0)

    def _halfway(self, state: State) -> State:
        assert self._before is not None  # else nothing is lower
        self._halvings += 1
        if self._halvings > MAX_HALVINGS:
            return replace(state, verdict=Verdict.NOT_CONVERGED)
        return replace(state, coefficients=0.5 * (state.coefficients + self._before[0]))

    def _stepped(self, found: Total, state: State) -> State:
        """Return the state after a Newton step from the point at which `found` was summed."""
        shrunk = np.zeros(self._size)
        shrunk[: len(self._study.columns)] = self._plan.ridge
        score = found.score - shrunk * state.coefficients
        matrix = cholesky.square_matrix(found.information, self._size) + np.diag(shrunk)
        lower = cholesky.factor(matrix)
        told = replace(state, information=found.information, log_likelihood=found.log_likelihood)
        degenerate = Verdict.SINGULAR if self._is_start(state) else Verdict.SEPARATED
        if lower is None:
            return replace(told, verdict=degenerate)
        half = cholesky.forward(lower, score)
        step = cholesky.backward(lower, half)
        errors = np.sqrt(np.diagonal(cholesky.inverse(lower)))
        coefficients = state.coefficients + step
        reached = float(np.max(np.abs(coefficients), initial=0.0))
        if not (np.isfinite(coefficients).all() and reached <= MAX_COEFFICIENT):
            return replace(told, verdict=degenerate)
        if self._plan.model != "linear" and float(np.max(errors)) > MAX_STANDARD_ERROR:
            return replace(told, verdict=degenerate)
        # the first sum of a Poisson model is not taken at a point: it has no likelihood to compare with
        started_elsewhere = self._plan.model == "poisson" and self.first
        self._before = None
        if not started_elsewhere:
            self._before = (state.coefficients, self._penalised(found, state.coefficients))
        self._halvings = 0
        told = replace(told, coefficients=coefficients)
        length = math.sqrt(math.fsum(float(one) * float(one) for one in half))
        if started_elsewhere or length > self._plan.tolerance:
            return told
        if self._plan.grid_days:
            self._at_end = True
            return told
        return replace(told, verdict=Verdict.CONVERGED)

    def _is_start(self, state: State) -> bool:
        return self._plan.model == "linear" or bool((state.coefficients == self._start).all())


class ProductLimit:
    """The walk of a Kaplan-Meier curve: one sum."""

    def __init__(self, study: Study, params: Vector) -> None:
        """Start at a state that nothing was added to yet. Raises: NotFinite."""
        self._study = study
        self._state = State.of(study, params)
        self.steps_done = 0
        self.finished = self._state.verdict is not Verdict.UNFINISHED

    @property
    def params(self) -> Vector:
        """Where the walk stands."""
        return self._state.params(self._study)

    @property
    def carried(self) -> Vector:
        """What comes out: there is no further round."""
        return self.params

    def apply(self, total: Vector) -> Vector:
        """Take the total in and return the new state. Raises: NotFinite; ValueError if it is over."""
        if self.finished:
            raise ValueError("the walk asks for no further sum")
        found = Total.of(self._study, total)
        self._state = replace(
            self._state,
            verdict=Verdict.CONVERGED,
            people=found.people,
            events=found.events,
            sites=found.sites,
            grid_events=found.grid_events,
            grid_risk=found.grid_risk,
        )
        self.steps_done, self.finished = 1, True
        return self.params


def begin(study: Study, params: Vector) -> Newton | ProductLimit:
    """Return the walk of an exact study. Raises: NotFinite."""
    curve = study.exact is not None and study.exact.model == "kaplan-meier"
    return ProductLimit(study, params) if curve else Newton(study, params)
