"""Exact statistics across hospitals, with masks on, are those of pooled data: held against statsmodels.

Hospitals are unequal: one has a single person, one nobody at all, one no events.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from statsmodels.duration.hazard_regression import PHReg

from node.features.table import FeatureTable
from privacy.exact_result import ExactResult, result
from privacy.exact_state import Verdict
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.protocols.exact_forms import exact_study

Vector = NDArray[np.float64]
SIZES = {3: (220, 31, 9), 5: (300, 45, 1, 0, 80), 8: (150, 60, 1, 40, 7, 0, 90, 33)}
WEIGHTS = np.array([0.6, -1.0, 0.3, 0.0])
AGREES = 1e-8


def hospitals(
    sites: int,
    outcome: Callable[[Vector, np.random.Generator], Vector],
    *,
    columns: int = 4,
    quiet: bool = True,
) -> list[FeatureTable]:
    """Return tables of made-up people; in the second hospital nothing ever happens."""
    rng, tables, first = np.random.default_rng(sites), [], 1
    for place, size in enumerate(SIZES[sites]):
        x = rng.uniform(-1.0, 1.0, (size, columns)).astype(np.float32)
        if columns:
            x[:, 1] = x[:, 1] > 0
        y = np.asarray(outcome(x.astype(np.float64), rng), dtype=np.float32)
        if place == 1 and quiet and set(np.unique(y)) <= {0.0, 1.0}:
            y[:] = 0.0
        if place == 1 and y.ndim == 2:
            y[:, 1] = 0.0
        tables.append(FeatureTable(np.arange(first, first + size), x, np.ones(x.shape, dtype=bool), y))
        first += size
    return tables


def yes_no(x: Vector, rng: np.random.Generator) -> Vector:
    return rng.random(len(x)) < 1.0 / (1.0 + np.exp(-x @ WEIGHTS))


def amounts(x: Vector, rng: np.random.Generator) -> Vector:
    return np.clip(0.3 * x @ WEIGHTS + rng.normal(0.0, 0.2, len(x)), -1.0, 1.0)


def counts(x: Vector, rng: np.random.Generator) -> Vector:
    return np.minimum(rng.poisson(np.exp(2.5 + x @ WEIGHTS)), 1000)


def days(x: Vector, rng: np.random.Generator) -> Vector:
    hazard = np.exp(x @ WEIGHTS) if x.shape[1] else np.ones(len(x))
    until, watched = np.ceil(rng.exponential(120.0 / hazard)), np.ceil(rng.uniform(5.0, 400.0, len(x)))
    last = np.minimum(np.minimum(until, watched), 300.0)
    return np.column_stack([last, (until <= watched) & (until <= 300.0)])


def federated(study: Study, tables: Sequence[FeatureTable]) -> ExactResult:
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    assert run.steps <= study.training.steps
    return result(study, run.params)


def pooled(tables: Sequence[FeatureTable]) -> tuple[Vector, Vector]:
    x, y = (np.concatenate([getattr(table, name) for table in tables]).astype(np.float64) for name in "xy")
    return x, y


def columns_of(found: ExactResult) -> tuple[Vector, Vector, Vector]:
    rows = [(one.estimate, one.standard_error, one.p_value) for one in found.coefficients]
    estimates, errors, p_values = np.array(rows).T
    return estimates, errors, p_values


@pytest.mark.parametrize("sites", SIZES)
@pytest.mark.parametrize(
    ("model", "outcome", "family"),
    [
        ("logistic", yes_no, sm.families.Binomial()),
        ("linear", amounts, sm.families.Gaussian()),
        ("poisson", counts, sm.families.Poisson()),
    ],
)
def test_a_glm_is_the_pooled_one(model: str, outcome, family, sites: int) -> None:  # type: ignore[no-untyped-def]
    study = exact_study(model, columns=4)
    tables = hospitals(sites, outcome)
    found = federated(study, tables)
    x, y = pooled(tables)
    design = np.column_stack([x, np.ones(len(x))])
    fit = sm.GLM(y, design, family=family).fit(tol=1e-14, maxiter=100)
    estimates, errors, p_values = columns_of(found)
    assert found.verdict is Verdict.CONVERGED
    assert np.abs(estimates - fit.params).max() < AGREES
    assert np.abs(errors - fit.bse).max() < AGREES
    assert np.abs(p_values - fit.pvalues).max() < AGREES
    assert np.abs(np.array([[c.low, c.high] for c in found.coefficients]) - fit.conf_int()).max() < AGREES
    assert found.people == len(x)
    assert found.sites == sites
    if model != "linear":
        assert found.log_likelihood == pytest.approx(fit.llf, abs=AGREES)
    else:
        assert found.log_likelihood == pytest.approx(sm.OLS(y, design).fit().llf, abs=AGREES)
        assert found.residual_standard_deviation == pytest.approx(np.sqrt(fit.scale), abs=AGREES)


@pytest.mark.parametrize("sites", SIZES)
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_stratified_cox_model_is_the_pooled_one(ties: str, sites: int) -> None:
    study = exact_study("cox", columns=4, ties=ties)
    tables = hospitals(sites, days)
    found = federated(study, tables)
    x, y = pooled(tables)
    strata = np.repeat(np.arange(sites), SIZES[sites])
    fit = PHReg(y[:, 0], x, status=y[:, 1], strata=strata, ties=ties).fit(disp=0, tol=1e-14)
    estimates, errors, _ = columns_of(found)
    assert np.abs(estimates - fit.params).max() < AGREES
    assert np.abs(errors - fit.bse).max() < AGREES
    assert found.log_likelihood == pytest.approx(fit.llf, abs=1e-7)
    assert found.events == y[:, 1].sum()
    unstratified = PHReg(y[:, 0], x, status=y[:, 1], ties=ties).fit(disp=0, tol=1e-14)
    assert np.abs(estimates - unstratified.params).max() > 1e-4  # it is another model, and this test sees it


@pytest.mark.parametrize("sites", SIZES)
def test_a_survival_curve_on_a_grid_of_days_is_the_pooled_one(sites: int) -> None:
    study = exact_study("kaplan-meier", every_days=1)
    tables = hospitals(sites, days, columns=0)
    found = federated(study, tables)
    _, y = pooled(tables)
    fit = sm.SurvfuncRight(y[:, 0], y[:, 1])
    on = {point.day: point for point in found.curve}
    for day, survival, error in zip(fit.surv_times, fit.surv_prob, fit.surv_prob_se, strict=True):
        assert on[int(day)].survival == pytest.approx(survival, abs=AGREES)
        assert on[int(day)].standard_error == pytest.approx(error, abs=AGREES)
    assert found.median_day == fit.quantile(0.5)
    low, high = fit.quantile_ci(0.5, method="cloglog")  # inverts the same interval
    inside = [p.day for p in found.curve if p.low is not None and p.low <= 0.5 <= p.high]
    assert low in inside
    assert max(inside) <= (high if np.isfinite(high) else np.inf)


def test_a_coarse_grid_is_the_curve_of_days_rounded_up_to_it() -> None:
    study = exact_study("kaplan-meier", every_days=45)
    tables = hospitals(5, days, columns=0)
    found = federated(study, tables)
    _, y = pooled(tables)
    grid = np.array(study.exact.grid_days)
    fit = sm.SurvfuncRight(grid[np.searchsorted(grid, y[:, 0])], y[:, 1])
    on = {point.day: point.survival for point in found.curve}
    assert [on[int(day)] for day in fit.surv_times] == pytest.approx(list(fit.surv_prob), abs=AGREES)


def test_a_baseline_is_that_of_all_people_at_the_coefficients_found() -> None:
    study = exact_study("cox", columns=4, grid_days=[50, 120, 300])
    tables = hospitals(5, days)
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    found = result(study, run.params)
    x, y = pooled(tables)
    ratio = np.exp(x @ np.array([one.estimate for one in found.coefficients]))
    hazard = 0.0
    for start, end, point in zip((-1, 50, 120), (50, 120, 300), found.curve, strict=True):
        events = ((y[:, 0] > start) & (y[:, 0] <= end) & (y[:, 1] == 1)).sum()
        hazard += events / ratio[y[:, 0] > start].sum()
        assert point.survival == pytest.approx(np.exp(-hazard), abs=AGREES)
    assert columns_of(found)[0] == pytest.approx(
        columns_of(federated(exact_study("cox", columns=4), tables))[0], abs=AGREES
    )


def test_nearly_dependent_columns_cost_no_more_than_float64_does() -> None:
    """Held against a pooled fit in 40 digits."""
    import mpmath

    study = exact_study("logistic", columns=3)
    rng = np.random.default_rng(8)
    x = rng.uniform(-1.0, 1.0, (400, 3)).astype(np.float32)
    x[:, 2] = np.clip(x[:, 0] + 1e-3 * x[:, 1] + 2e-3 * rng.normal(size=400), -1, 1)
    y = (rng.random(400) < 1.0 / (1.0 + np.exp(-x[:, 0]))).astype(np.float32)
    whole = FeatureTable(np.arange(400), x, np.ones(x.shape, dtype=bool), y)
    found = federated(study, [whole.rows(np.arange(400) % 4 == site) for site in range(4)])
    with mpmath.workdps(40):
        design = mpmath.matrix(np.column_stack([x, np.ones(400)]).astype(float).tolist())
        beta = mpmath.matrix(4, 1)
        for _ in range(12):
            mean = (design * beta).apply(lambda eta: 1 / (1 + mpmath.exp(-eta)))
            weighted = mpmath.matrix(
                [[design[i, j] * mean[i] * (1 - mean[i]) for j in range(4)] for i in range(400)]
            )
            beta += mpmath.lu_solve(design.T * weighted, design.T * (mpmath.matrix(y.tolist()) - mean))
        exact = np.array([float(value) for value in beta])
    assert np.abs(exact).max() > 3.0  # the columns pull against each other
    assert np.abs(columns_of(found)[0] - exact).max() < AGREES


# ---- what has no answer gets none ----


def separated() -> list[FeatureTable]:
    return hospitals(3, lambda x, rng: x[:, 0] > 0.1, quiet=False)


@pytest.mark.parametrize("only_quasi", [False, True])
def test_separated_data_get_a_verdict_and_no_coefficients(only_quasi: bool) -> None:
    study = exact_study("logistic", columns=4)
    tables = (
        separated()
        if not only_quasi
        else hospitals(3, lambda x, rng: (x[:, 1] > 0) & (rng.random(len(x)) < 0.6))
    )
    found = federated(study, tables)
    assert found.verdict is Verdict.SEPARATED
    assert found.coefficients == ()
    shrunk = federated(exact_study("logistic", columns=4, ridge=0.5), tables)
    assert shrunk.verdict is Verdict.CONVERGED


def test_a_column_that_follows_from_others_or_never_varies_gets_a_verdict() -> None:
    study = exact_study("logistic", columns=4)
    tables = hospitals(5, yes_no)
    for change in (lambda x: x[:, 0], lambda x: 0.0 * x[:, 0], lambda x: 1.0 + 0.0 * x[:, 0]):
        changed = []
        for table in tables:
            x = table.x.copy()
            x[:, 3] = change(x)
            changed.append(FeatureTable(table.person_ids, x, table.mask, table.y))
        assert federated(study, changed).verdict is Verdict.SINGULAR


@pytest.mark.parametrize("model", ["logistic", "linear", "poisson", "cox"])
def test_nobody_anywhere_gets_a_verdict(model: str) -> None:
    def nothing(x: Vector, rng: np.random.Generator) -> Vector:
        return np.zeros((0, 2)) if model == "cox" else np.zeros(0)

    tables = [
        FeatureTable(
            np.arange(0),
            np.zeros((0, 4), np.float32),
            np.zeros((0, 4), bool),
            nothing(np.zeros((0, 4)), np.random.default_rng()).astype(np.float32),
        )
        for _ in range(3)
    ]
    assert federated(exact_study(model, columns=4), tables).verdict is Verdict.SINGULAR


def test_a_ridge_is_the_fit_of_the_penalised_likelihood() -> None:
    study = exact_study("logistic", columns=4, ridge=3.0)
    tables = hospitals(3, yes_no)
    found = columns_of(federated(study, tables))[0]
    x, y = pooled(tables)
    design = np.column_stack([x, np.ones(len(x))])
    slope = design.T @ (y - 1.0 / (1.0 + np.exp(-design @ found))) - np.array([3.0] * 4 + [0.0]) * found
    assert np.abs(slope).max() < 1e-9
