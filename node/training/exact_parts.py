"""What one site adds to the next sum of an exact study: scores, informations and counts of its own people.

No noise is added and nobody is clipped: no (ε, δ) covers it. Only node.training.exact_rounds lets it leave,
for plans that the hospital's policy names.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import partial_likelihood
from privacy.cholesky import upper_triangle
from privacy.exact_state import MAX_LOG_MEAN, Total
from privacy.newton import Newton, ProductLimit
from protocols.study import Study
from protocols.study_exact import Exact

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Moments = tuple[Vector, Vector, Vector]  # of each person: residual, weight, log-likelihood

ROWS_AT_ONCE = 16_384  # 26 MB at the most columns


def part(study: Study, walk: Newton | ProductLimit, table: FeatureTable) -> Vector:
    """Return the values that this site's people add at the walk's coefficients."""
    exact = study.exact
    if exact is None:
        raise ValueError("not an exact study")
    if isinstance(walk, ProductLimit):
        return _curve(exact, table).vector()
    if exact.model == "cox":
        return _cox(exact, walk, table).vector()
    return _glm(exact, walk, table).vector()


def _glm(exact: Exact, walk: Newton, table: FeatureTable) -> Total:
    size = len(walk.coefficients)
    score, information, value = np.zeros(size), np.zeros((size, size)), 0.0
    for start in range(0, len(table), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        x, y = table.x[rows].astype(np.float64), table.y[rows].astype(np.float64)
        x = np.column_stack([x, np.ones(len(x))])
        if exact.model == "poisson" and walk.first:
            residual, weight, each = _poisson_start(y)
        else:
            residual, weight, each = _MOMENTS[exact.model](x @ walk.coefficients, y)
        score += x.T @ residual
        information += x.T @ (x * weight[:, None])
        value += float(each.sum())
    events = float(table.y.astype(np.float64).sum()) if exact.model != "linear" else 0.0
    nothing = np.zeros(0)
    return Total(score, upper_triangle(information), value, len(table), events, 1.0, nothing, nothing)


def _logistic(eta: Vector, y: Vector) -> Moments:
    mean = 0.5 * (1.0 + np.tanh(0.5 * eta))  # never overflows
    return y - mean, mean * (1.0 - mean), -np.logaddexp(0.0, np.where(y > 0.5, -eta, eta))


def _linear(eta: Vector, y: Vector) -> Moments:
    residual = y - eta
    return residual, np.ones(len(y)), -0.5 * residual**2


def _poisson(eta: Vector, y: Vector) -> Moments:
    eta = np.minimum(eta, MAX_LOG_MEAN)
    mean = np.exp(eta)
    return y - mean, mean, y * eta - mean - _log_factorial(y)


def _poisson_start(y: Vector) -> Moments:
    """As if everybody's mean were their count, and a little: from zero, large counts are far away."""
    mean = y + 0.1
    return mean * np.log(mean) + (y - mean), mean, np.zeros(len(y))


_MOMENTS = {"logistic": _logistic, "linear": _linear, "poisson": _poisson}


def _log_factorial(y: Vector) -> Vector:
    counts, place = np.unique(y, return_inverse=True)
    found: Vector = np.array([math.lgamma(count + 1.0) for count in counts.tolist()])[place]
    return found


def _cox(exact: Exact, walk: Newton, table: FeatureTable) -> Total:
    x = table.x.astype(np.float64)
    days, came = (table.y[:, place].astype(np.float64) for place in (0, 1))
    found = partial_likelihood.part(x, days, came, walk.coefficients, ties=exact.ties)
    events = risk = np.zeros(len(exact.grid_days))
    if walk.wants_baseline:
        events, risk = on_grid(exact, days, came, np.exp(x @ walk.coefficients))
    return Total(
        found.score,
        upper_triangle(found.information),
        found.log_likelihood,
        len(table),
        float(came.sum()),
        1.0,
        events,
        risk,
    )


def _curve(exact: Exact, table: FeatureTable) -> Total:
    days, came = (table.y[:, place].astype(np.float64) for place in (0, 1))
    events, risk = on_grid(exact, days, came, np.ones(len(days)))
    nothing = np.zeros(0)
    return Total(nothing, nothing, 0.0, len(table), float(came.sum()), 1.0, events, risk)


def on_grid(exact: Exact, days: Vector, came: Vector, weight: Vector) -> tuple[Vector, Vector]:
    """Return events, and the weight at risk, at each day of the grid: a day counts as the next one of it."""
    grid = len(exact.grid_days)
    place = np.searchsorted(np.array(exact.grid_days, dtype=np.float64), days, side="left")
    events = np.bincount(place[came > 0.5], minlength=grid + 1)[:grid].astype(np.float64)
    last = np.bincount(place, weights=weight, minlength=grid + 1)  # of whom this is the last day at risk
    risk = np.cumsum(last[::-1])[::-1][:grid]
    return events, risk.astype(np.float64)
