"""Statistics without noise across hospitals, masks on, beside the same on pooled data: how far apart.

Eight unequal hospitals, one of them with a single person and one where nothing happens. Pooled figures are
statsmodels'. Of each model the largest difference over coefficients (or days of the curve), over their
standard errors, and what one sum costs.
"""

import time
from collections.abc import Callable, Iterable

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray
from statsmodels.duration.hazard_regression import PHReg

from node.features.table import FeatureTable
from privacy.exact_result import ExactResult, result
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.bench.figure import Figure
from tests.protocols.exact_forms import exact_study

SIZES = (900, 400, 1, 250, 60, 33, 500, 120)
COLUMNS = 8
GOAL = 1e-8
Vector = NDArray[np.float64]


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield a line for each model."""
    sizes = tuple(max(1, size // 4) for size in SIZES) if quick else SIZES
    for model, family in (
        ("logistic", sm.families.Binomial()),
        ("linear", sm.families.Gaussian()),
        ("poisson", sm.families.Poisson()),
    ):
        study = exact_study(model, columns=COLUMNS)
        tables = hospitals(sizes, _OUTCOMES[model])
        found, seconds, sums = federated(study, tables)
        x, y = pooled(tables)
        fit = sm.GLM(y, np.column_stack([x, np.ones(len(x))]), family=family).fit(tol=1e-14, maxiter=100)
        yield from compared(model, found, fit.params, fit.bse, seconds=seconds, sums=sums)
    for ties in ("efron", "breslow"):
        study = exact_study("cox", columns=COLUMNS, ties=ties)
        tables = hospitals(sizes, _days)
        found, seconds, sums = federated(study, tables)
        x, y = pooled(tables)
        strata = np.repeat(np.arange(len(sizes)), sizes)
        fit = PHReg(y[:, 0], x, status=y[:, 1], strata=strata, ties=ties).fit(disp=0, tol=1e-14)
        yield from compared(f"cox_{ties}", found, fit.params, fit.bse, seconds=seconds, sums=sums)
    study = exact_study("kaplan-meier", every_days=1)
    tables = hospitals(sizes, _days, columns=0)
    found, seconds, _ = federated(study, tables)
    _, y = pooled(tables)
    fit = sm.SurvfuncRight(y[:, 0], y[:, 1])
    on = {point.day: point for point in found.curve}
    apart = [abs(on[int(d)].survival - s) for d, s in zip(fit.surv_times, fit.surv_prob, strict=True)]
    yield Figure("exact.kaplan_meier.survival", float(max(apart)), "largest difference", GOAL, "goal")
    yield Figure("exact.kaplan_meier.sum", seconds, "s")


def compared(
    name: str, found: ExactResult, params: Vector, errors: Vector, *, seconds: float, sums: int
) -> Iterable[Figure]:
    """Yield how far coefficients and standard errors are from the pooled ones."""
    estimates = np.array([one.estimate for one in found.coefficients])
    mine = np.array([one.standard_error for one in found.coefficients])
    difference = "largest difference"
    yield Figure(
        f"exact.{name}.coefficients", float(np.abs(estimates - params).max()), difference, GOAL, "goal"
    )
    yield Figure(
        f"exact.{name}.standard_errors", float(np.abs(mine - errors).max()), difference, GOAL, "goal"
    )
    yield Figure(f"exact.{name}.sum", seconds / sums, "s for one sum")
    yield Figure(f"exact.{name}.sums", sums, "sums")


def federated(study: Study, tables: list[FeatureTable]) -> tuple[ExactResult, float, int]:
    """Return the result, the seconds that the run took in one process, and its sums."""
    began = time.perf_counter()
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    return result(study, run.params), time.perf_counter() - began, run.steps


def hospitals(
    sizes: tuple[int, ...],
    outcome: Callable[[Vector, np.random.Generator], Vector],
    *,
    columns: int = COLUMNS,
) -> list[FeatureTable]:
    """Return made-up people; at the second hospital nothing happens to anybody."""
    rng, tables, first = np.random.default_rng(11), [], 1
    for place, size in enumerate(sizes):
        x = rng.uniform(-1.0, 1.0, (size, columns)).astype(np.float32)
        x[:, ::3] = x[:, ::3] > 0
        y = np.asarray(outcome(x.astype(np.float64), rng), dtype=np.float32)
        if place == 1 and y.ndim == 2:
            y[:, 1] = 0.0
        elif place == 1 and set(np.unique(y)) <= {0.0, 1.0}:
            y[:] = 0.0
        tables.append(FeatureTable(np.arange(first, first + size), x, np.ones(x.shape, dtype=bool), y))
        first += size
    return tables


def pooled(tables: list[FeatureTable]) -> tuple[Vector, Vector]:
    """Return everybody's columns and outcomes."""
    x, y = (np.concatenate([getattr(table, name) for table in tables]).astype(np.float64) for name in "xy")
    return x, y


def _linear_predictor(x: Vector) -> Vector:
    return x @ np.linspace(-0.8, 0.8, x.shape[1]) if x.shape[1] else np.zeros(len(x))


def _yes_no(x: Vector, rng: np.random.Generator) -> Vector:
    return rng.random(len(x)) < 1.0 / (1.0 + np.exp(-_linear_predictor(x)))


def _amounts(x: Vector, rng: np.random.Generator) -> Vector:
    return np.clip(0.2 * _linear_predictor(x) + rng.normal(0.0, 0.2, len(x)), -1.0, 1.0)


def _counts(x: Vector, rng: np.random.Generator) -> Vector:
    return np.minimum(rng.poisson(np.exp(2.0 + _linear_predictor(x))), 1000)


def _days(x: Vector, rng: np.random.Generator) -> Vector:
    until = np.ceil(rng.exponential(120.0 * np.exp(-_linear_predictor(x))))
    watched = np.ceil(rng.uniform(5.0, 400.0, len(x)))
    last = np.minimum(np.minimum(until, watched), 300.0)
    return np.column_stack([last, (until <= watched) & (until <= 300.0)])


_OUTCOMES = {"logistic": _yes_no, "linear": _amounts, "poisson": _counts}
