"""Kaplan-Meier curve from noisy cells, with an interval that knows of the noise.

The cells of one answer are event_1..event_K, censored_1..censored_K and beyond; they are disjoint, so their
noise is independent. In interval j, n_j = Σ_{i≥j}(event_i + censored_i) + beyond patients are at risk (those
who are censored in an interval are at risk for its events), and S_j = Π_{i≤j} (1 − event_i/n_i).

Estimate. n_j from noisy cells is unbiased, with the noise of 2(K − j) + 3 cells. As long as it is above
`RESOLVED` deviations of that, the product of noisy factors is used as it is, made monotone and cut to [0, 1].
From the first interval where it is not, nothing says how many were at risk: the curve goes on with the
factors of the cells projected to non-negative ones, and the interval opens to everything below.

Interval. log S_j = Σ_{i≤j} log(n_i − event_i) − log n_i is a smooth function of the cells: by the delta
method its variance is σ²·Σ (∂ log S_j/∂cell)². The population's interval adds Greenwood's sum of
event/(n·(n − event)). tests/privacy/test_survival.py measures how often the truth is inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privacy.moments import RESOLVED
from privacy.post_processing import CellNoise, Reals, monotone, onto_own_sum

SMALLEST = 1e-9  # of a noisy survival before its logarithm is taken


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """Survival after each of K intervals: falling, within [0, 1].

    `lower` to `upper` hold what the noise can do to the curve of these very patients; `population_lower` to
    `population_upper` hold besides what another sample of as many patients would change. Each point is an
    interval on its own. `resolved` is how many intervals, from the first, have more patients at risk than the
    noise could feign; after them `lower` is 0 and `upper` stays. `at_risk` and `events` are unbiased.
    """

    at_risk: Reals
    events: Reals
    survival: Reals
    lower: Reals
    upper: Reals
    population_lower: Reals
    population_upper: Reals
    resolved: int


def survival_curve(cells: Reals, *, noise: CellNoise) -> SurvivalCurve:
    """Return the curve of noisy cells event_1..event_K, censored_1..censored_K, beyond.

    Args: noise, of each cell; its level is the interval's.
    Raises: ValueError unless there is an odd number of cells, at least 3, all finite.
    """
    given = np.asarray(cells, dtype=np.float64)
    if given.ndim != 1 or given.size < 3 or given.size % 2 == 0 or not np.all(np.isfinite(given)):
        raise ValueError("events, as many censored, and those beyond: an odd number of finite cells")
    events, at_risk = _table(given)
    deviations = noise.deviation * np.sqrt(2.0 * np.arange(events.size, 0, -1) + 1.0)
    unresolved = np.flatnonzero(at_risk < RESOLVED * deviations)
    resolved = int(unresolved[0]) if unresolved.size else events.size
    raw = np.maximum(_products(events[:resolved], at_risk[:resolved]), SMALLEST)
    own, sampling = _log_variances(events[:resolved], at_risk[:resolved], events.size)
    spread = noise.factor * noise.deviation * np.sqrt(own)
    wider = noise.factor * np.sqrt(noise.deviation**2 * own + sampling)
    lower, upper = _band(raw, spread, events.size)
    population_lower, population_upper = _band(raw, wider, events.size)
    return SurvivalCurve(
        at_risk=at_risk,
        events=events,
        survival=_continued(np.clip(monotone(raw), 0.0, 1.0), given),
        lower=lower,
        upper=upper,
        population_lower=population_lower,
        population_upper=population_upper,
        resolved=resolved,
    )


def _table(cells: Reals) -> tuple[Reals, Reals]:
    """Return events and number at risk of each interval."""
    intervals = cells.size // 2
    events = cells[:intervals]
    leaving = events + cells[intervals : 2 * intervals]
    return events, np.cumsum(leaving[::-1])[::-1] + cells[-1]


def _products(events: Reals, at_risk: Reals) -> Reals:
    """Return Π (1 − event/at risk); an interval in which nobody is at risk changes nothing."""
    hazards = np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0.0)
    found: Reals = np.cumprod(np.maximum(1.0 - hazards, 0.0), dtype=np.float64)
    return found


def _log_variances(events: Reals, at_risk: Reals, intervals: int) -> tuple[Reals, Reals]:
    """Return the variance of each log S_j per unit of a cell's variance, and Greenwood's sum.

    With D_l = Σ_{i≤l} 1/(n_i − event_i) − 1/n_i, log S_j moves by D_l with censored_l and by
    D_l − 1/(n_l − event_l) with event_l for l ≤ j, and by D_j with each of the 2·(intervals − j) + 1 later
    cells.
    """
    left = np.maximum(at_risk - events, 1.0)
    total = np.maximum(at_risk, 1.0)
    inverse = 1.0 / left
    steps = np.cumsum(inverse - 1.0 / total)
    later = 2.0 * (intervals - np.arange(1, events.size + 1)) + 1.0
    own = np.cumsum(steps**2 + (steps - inverse) ** 2) + later * steps**2
    return own, np.cumsum(np.maximum(events, 0.0) / (total * left))


def _band(survival: Reals, log_deviations: Reals, intervals: int) -> tuple[Reals, Reals]:
    """Return lower and upper limits: survival·exp(±deviations), then 0 and the last upper limit."""
    lower, upper = np.zeros(intervals), np.ones(intervals)
    reach = np.minimum(log_deviations, 50.0)  # e^±50 is all or nothing
    lower[: survival.size] = np.minimum(survival * np.exp(-reach), 1.0)
    upper[: survival.size] = np.minimum(survival * np.exp(reach), 1.0)
    if survival.size:
        upper[survival.size :] = upper[survival.size - 1]
    return lower, upper


def _continued(resolved: Reals, cells: Reals) -> Reals:
    """Return the curve from its resolved start on, with the factors of the nearest non-negative cells."""
    events, at_risk = _table(onto_own_sum(cells))
    rest = _products(events[resolved.size :], at_risk[resolved.size :])
    return np.concatenate([resolved, rest * (resolved[-1] if resolved.size else 1.0)])
