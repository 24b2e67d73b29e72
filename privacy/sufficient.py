"""One noisy sum of sufficient statistics, and one Newton step from it.

What a site adds up. Let z be a patient's row with a 1 for the bias, θ where the plan starts (its priors, or
0), B the plan's row norm, w = min(1, B²/‖z‖²). With the residual r = y - mean(zθ), a curvature h, which is
mean·(1 - mean) of a logistic model and 1 of a linear one, and their public bounds R and H:

    score         s = w · r/R · z / B                 ‖s‖ <= 1, as |r| <= R (or is cut there) and w‖z‖ <= B
    information   I = v · w · h/H · z zᵀ / B²         ‖I‖_F <= v, as h <= H and w‖z‖² <= B²

The sum has s and the upper triangle of I, with entries off the diagonal times √2, so that its L2 norm is I's
Frobenius norm: one patient more or less moves it by at most √(1 + v²), the plan's clip norm, and one Gaussian
release of the plan's noise is all that the study costs. R is 1/2 at θ = 0 for a yes or no, else 1.

What becomes of it (post-processing). The sum's information is off by noise whose largest eigenvalue is about
its standard deviation times √(2d). As AdaSSP does (Wang 2018), what the smallest eigenvalue lacks of
`shrinkage` × sd × √d is added to all of them, so little data are shrunk towards θ and much data are not at
all; AdaSSP buys that eigenvalue, here the noisy matrix itself says it. For a linear model the step is the
whole regression. For a logistic model it is the first step of Newton's method, which ends where the quadratic
approximation of the loss has its minimum (PASS-GLM, Huggins et al. 2017, with Taylor's second coefficient in
the place of Chebyshev's): coefficients come out too small, by about one factor for all of them, which neither
ranks nor classes mind, and probabilities do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy import cholesky, validation
from privacy.accountant import calibrate
from privacy.descent import NotFinite
from protocols.study import Study
from protocols.study_exact import triangle
from protocols.study_one_shot import OneShot

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

HALVINGS = 40  # of an interval that holds the smallest eigenvalue: 1e-12 of it is left


def total_length(study: Study) -> int:
    """Return how many values the sum has."""
    return study.parameters + triangle(study.parameters)


def residual_bound(study: Study) -> float:
    """Return R: how large a residual counts at most."""
    return 0.5 if study.outcome.task == "binary" and not study.priors else 1.0


def curvature_bound(study: Study) -> float:
    """Return H."""
    return 0.25 if study.outcome.task == "binary" else 1.0


def noise_sd(study: Study) -> float:
    """Return the standard deviation of the noise of one value of the total."""
    privacy = study.privacy
    if study.validation is not None:  # a look at what comes out is bought from the same epsilon
        return validation.noise_multipliers(study)[0] * privacy.sensitivity
    return calibrate(epsilon=privacy.epsilon, delta=privacy.delta, count=1) * privacy.sensitivity


def packed(score: Vector, information: Matrix) -> Vector:
    """Return one row whose L2 norm is that of both: the information by its Frobenius norm."""
    weights = math.sqrt(2.0) * np.ones(information.shape)
    np.fill_diagonal(weights, 1.0)
    return np.concatenate([score, cholesky.upper_triangle(information * weights)])


def unpacked(total: Vector, size: int) -> tuple[Vector, Matrix]:
    """Return what was packed."""
    score, rest = total[:size], cholesky.square_matrix(total[size:], size)
    information = rest / math.sqrt(2.0)
    np.fill_diagonal(information, np.diagonal(rest))
    return score, information


class OneStep:
    """The walk of a one-shot study: one sum, one step."""

    def __init__(self, study: Study, params: Vector) -> None:
        """Start at `params`. Raises: NotFinite for another shape, or a value that is not finite."""
        self._study, self._plan = study, _plan(study)
        start = np.asarray(params, dtype=np.float64)
        if start.shape != (study.parameters,) or not np.isfinite(start).all():
            raise NotFinite("parameters have another shape, or a value that is not finite")
        self.params: Vector = start.copy()
        self.steps_done = 0

    @property
    def carried(self) -> Vector:
        """What comes out: there is no further round."""
        return self.params

    @property
    def finished(self) -> bool:
        """Whether the sum was taken in."""
        return self.steps_done == 1

    def apply(self, total: Vector) -> Vector:
        """Take the step and return the new parameters. Raises: NotFinite; ValueError if it is over."""
        if self.finished:
            raise ValueError("one sum is all there is")
        found = np.asarray(total, dtype=np.float64)
        if found.shape != (total_length(self._study),) or not np.isfinite(found).all():
            raise NotFinite("a total has another shape, or a value that is not finite")
        size = len(self.params)
        score, information = unpacked(found, size)
        wanted = self._plan.shrinkage * noise_sd(self._study) * math.sqrt(size)
        lacking = max(0.0, wanted - smallest_eigenvalue(information))
        lower = cholesky.factor(information + lacking * np.eye(size))
        if lower is None:
            raise NotFinite("the information is none")
        step = cholesky.backward(lower, cholesky.forward(lower, score))
        params = self.params + step * self._unit()
        if not np.isfinite(params).all():
            raise NotFinite("a parameter is not finite")
        self.params, self.steps_done = params, 1
        return params

    def _unit(self) -> float:
        """Return by what a step in the packed units is multiplied: (R·B) / (H·B²/v)."""
        plan, study = self._plan, self._study
        scale = curvature_bound(study) * plan.row_norm / plan.information_weight
        return residual_bound(study) / scale


def smallest_eigenvalue(matrix: Matrix) -> float:
    """Return a number just below the smallest eigenvalue, the same bits everywhere.

    Halves Gershgorin's interval; a Cholesky factor says in which half the eigenvalue lies.
    """
    size = len(matrix)
    reach = max(math.fsum(abs(float(value)) for value in row) for row in matrix)
    low, high = -reach, reach
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if cholesky.factor(matrix - middle * np.eye(size)) is None:
            high = middle
        else:
            low = middle
    return low


def _plan(study: Study) -> OneShot:
    if study.one_shot is None:
        raise ValueError("not a one-shot study")
    return study.one_shot
