"""Consistent cells: each promise on random tables, against a solver that knows nothing of the formulas."""

import math

import numpy as np
import pytest
from scipy import optimize

from privacy import post_processing as pp
from privacy.lattice import NoisePlan
from privacy.polya import LaplacePlan
from privacy.post_processing import CellNoise

SEEDS = range(20)


def cells(seed: int, size: int = 8, sigma: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Return true counts and noisy ones."""
    rng = np.random.default_rng(seed)
    true = np.floor(rng.exponential(5.0, size)).astype(float)
    return true, true + rng.normal(0.0, sigma, size)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_below_zero_become_zero_and_no_count_gets_worse(seed: int) -> None:
    true, noisy = cells(seed)
    found = pp.non_negative(noisy)
    assert found.min() >= 0.0
    assert (np.abs(found - true) <= np.abs(noisy - true)).all()
    assert (found[noisy > 0] == noisy[noisy > 0]).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("decreasing", [True, False])
def test_monotone_values_are_the_nearest_in_weighted_least_squares(seed: int, decreasing: bool) -> None:
    rng = np.random.default_rng(seed)
    noisy, weights = rng.normal(size=12), rng.uniform(0.2, 5.0, 12)
    found = pp.monotone(noisy, weights=weights, decreasing=decreasing)
    best = optimize.isotonic_regression(noisy, weights=weights, increasing=not decreasing).x
    assert np.abs(found - best).max() < 1e-12
    steps = np.diff(found)
    assert (steps <= 0).all() if decreasing else (steps >= 0).all()
    assert (weights * found).sum() == pytest.approx((weights * noisy).sum()), "the weighted mean is kept"


@pytest.mark.parametrize("seed", SEEDS)
def test_monotone_values_are_no_farther_from_a_monotone_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.sort(rng.integers(0, 200, 30))[::-1].astype(float)
    noisy = true + rng.normal(0.0, 20.0, 30)
    found = pp.monotone(noisy)
    assert ((found - true) ** 2).sum() < ((noisy - true) ** 2).sum()
    assert pp.monotone(found).tolist() == found.tolist(), "twice is once"


def test_what_is_monotone_is_left_alone() -> None:
    assert pp.monotone(np.array([5.0, 3.0, 3.0, -1.0])).tolist() == [5.0, 3.0, 3.0, -1.0]
    assert pp.monotone(np.array([])).tolist() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_with_a_total_are_the_generalised_least_squares_solution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy, total = rng.normal(30, 9, 6), 170.0
    variances, of_total = rng.uniform(1, 30, 6), 7.0
    found = pp.with_total(noisy, total, cell_variance=variances, total_variance=of_total)
    design = np.vstack([np.eye(6), np.ones(6)])
    weight = np.diag(1 / np.append(variances, of_total))
    covariance = np.linalg.inv(design.T @ weight @ design)
    best = covariance @ design.T @ weight @ np.append(noisy, total)
    assert found.cells == pytest.approx(best)
    assert found.total == pytest.approx(found.cells.sum())
    assert found.cell_variance == pytest.approx(np.diag(covariance))
    assert found.total_variance == pytest.approx(covariance.sum())
    assert (found.cell_variance < variances).all()
    assert found.total_variance < of_total


def test_the_variances_of_cells_with_a_total_are_those_that_are_seen() -> None:
    rng = np.random.default_rng(1)
    true = np.array([40.0, 3.0, 0.0, 12.0])
    found = [
        pp.with_total(
            true + rng.normal(0, 5, 4), 55.0 + rng.normal(0, 5), cell_variance=25.0, total_variance=25.0
        )
        for _ in range(20_000)
    ]
    seen = np.var([f.cells for f in found], axis=0)
    assert seen == pytest.approx(found[0].cell_variance, rel=0.05)
    assert np.var([f.total for f in found]) == pytest.approx(found[0].total_variance, rel=0.05)
    assert np.mean([f.cells for f in found], axis=0) == pytest.approx(true, abs=0.15), "unbiased"
    assert seen != pytest.approx(25.0, rel=0.1), "untouched cells would be seen"


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_with_a_given_sum_are_the_nearest_ones(seed: int) -> None:
    true, noisy = cells(seed)
    total = float(true.sum())
    found = pp.onto_sum(noisy, total)
    assert found.min() >= 0.0
    assert found.sum() == pytest.approx(total)
    best = optimize.minimize(
        lambda x: ((x - noisy) ** 2).sum(),
        np.full(8, total / 8),
        jac=lambda x: 2 * (x - noisy),
        bounds=[(0, None)] * 8,
        constraints={"type": "eq", "fun": lambda x: x.sum() - total, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found == pytest.approx(best.x, abs=1e-5)
    assert ((found - true) ** 2).sum() <= ((noisy - true) ** 2).sum()


def test_cells_that_sum_already_and_a_sum_of_zero() -> None:
    assert pp.onto_sum(np.array([1.0, 2.0]), 3.0).tolist() == [1.0, 2.0]
    assert pp.onto_sum(np.array([1.0, -2.0]), 0.0).tolist() == [0.0, 0.0]
    assert pp.onto_sum(np.array([-5.0]), 3.0).tolist() == [3.0]
    assert pp.onto_own_sum(np.array([-5.0, 2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_attrition_only_falls_and_starts_where_the_cells_sum_to(seed: int) -> None:
    true, noisy = cells(seed)
    found = pp.attrition(noisy, noise=CellNoise(6.0, 1.96, 0.95))
    assert found.raw[0] == pytest.approx(noisy.sum())
    assert found.raw[-1] == noisy[-1]
    assert found.remaining[0] == pytest.approx(max(noisy.sum(), 0.0))
    assert (np.diff(found.remaining) <= 1e-12).all()
    assert found.remaining.min() >= 0.0
    exact = pp.attrition(true, noise=CellNoise(6.0, 1.96, 0.95))
    assert exact.remaining.tolist() == exact.raw.tolist() == [float(true[j:].sum()) for j in range(8)]


def test_the_interval_of_each_rule_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    true = np.array([500.0, 120.0, 30.0, 4.0, 800.0])
    noise = CellNoise(6.0, 1.959964, 0.95)
    left = np.cumsum(true[::-1])[::-1]
    inside = [
        np.abs(found.raw - left) <= found.half_width
        for found in (pp.attrition(true + rng.normal(0, 6.0, 5), noise=noise) for _ in range(5000))
    ]
    assert np.mean(inside, axis=0) == pytest.approx(0.95, abs=0.012)


def test_the_noise_of_a_plan_covers_one_cell_and_sums_of_cells() -> None:
    """One cell of discrete Laplace noise needs more than the normal 1.96 deviations, and gets it."""
    gaussian = NoisePlan.for_counts(sigma=8.4, sensitivity=2, participants=4, tolerance=1)
    laplace = LaplacePlan.for_counts(epsilon=0.1, l1_sensitivity=2, participants=4, tolerance=1)
    for plan, least, most in ((gaussian, 1.95, 1.97), (laplace, 2.0, 2.2)):
        noise = CellNoise.of(plan, contributors=4, level=0.95)
        assert least < noise.factor < most
        assert noise.deviation == plan.standard_deviation(contributors=4)
        drawn = plan.simulated_noise((40_000, 9), contributors=4, rng=np.random.default_rng(3))
        for width in (1, 9):
            inside = np.mean(np.abs(drawn[:, :width].sum(axis=1)) <= noise.half_width(cells=width))
            assert 0.945 < inside < 0.975
    assert CellNoise.of(laplace, contributors=4, level=0.5).factor == pytest.approx(0.6745, abs=1e-3)


def test_arguments_are_never_changed() -> None:
    given = np.array([3.0, -1.0, 5.0])
    kept = given.copy()
    pp.non_negative(given)
    pp.monotone(given)
    pp.onto_sum(given, 4.0)
    pp.with_total(given, 4.0, cell_variance=1.0, total_variance=1.0)
    pp.attrition(given, noise=CellNoise(1.0, 2.0, 0.95))
    assert given.tolist() == kept.tolist()


@pytest.mark.parametrize("bad", [np.array([1.0, math.nan]), np.array([math.inf]), np.ones((2, 2))])
def test_what_is_no_row_of_numbers_is_refused(bad: np.ndarray) -> None:
    for function in (pp.non_negative, pp.monotone, pp.onto_own_sum):
        with pytest.raises(ValueError, match="finite"):
            function(bad)


def test_what_has_no_answer_is_refused() -> None:
    row = np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="total"):
        pp.onto_sum(row, -1.0)
    with pytest.raises(ValueError, match="cell"):
        pp.onto_sum(np.array([]), 1.0)
    with pytest.raises(ValueError, match="weight"):
        pp.monotone(row, weights=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="variances"):
        pp.with_total(row, 3.0, cell_variance=0.0, total_variance=1.0)
    with pytest.raises(ValueError, match="variance"):
        pp.with_total(row, 3.0, cell_variance=1.0, total_variance=0.0)
    with pytest.raises(ValueError, match="level"):
        CellNoise(1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        CellNoise(0.0, 2.0, 0.95)
