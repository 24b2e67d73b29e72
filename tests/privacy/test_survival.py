"""Kaplan-Meier from noisy cells: exact without noise, always a curve, covered as often as it says."""

import math

import numpy as np
import pytest

from privacy.post_processing import CellNoise
from privacy.survival import survival_curve

SIGMA = 8.4  # a count at ε = 1, δ = 1e-6, patients at two sites
NORMAL = CellNoise(SIGMA, 1.959964, 0.95)


def cohort(
    patients: int, intervals: int, hazard: float, censoring: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the exact cells of a cohort with constant rates."""
    events, censored, left = [], [], patients
    for _ in range(intervals):
        events.append(rng.binomial(left, hazard))
        left -= events[-1]
        censored.append(rng.binomial(left, censoring))
        left -= censored[-1]
    return np.array([*events, *censored, left], dtype=float)


def kaplan_meier(cells: np.ndarray) -> list[float]:
    """Return the textbook's product, one interval after the other."""
    intervals = len(cells) // 2
    at_risk, survival, curve = float(cells.sum()), 1.0, []
    for event, censored in zip(cells[:intervals], cells[intervals : 2 * intervals], strict=True):
        survival *= 1.0 - event / at_risk if at_risk else 1.0
        curve.append(survival)
        at_risk -= event + censored
    return curve


@pytest.mark.parametrize("seed", range(5))
def test_without_noise_it_is_the_kaplan_meier_curve(seed: int) -> None:
    cells = cohort(2000, 24, 0.04, 0.03, np.random.default_rng(seed))
    found = survival_curve(cells, noise=CellNoise(1e-9, 1.96, 0.95))
    assert found.resolved == 24
    assert found.survival == pytest.approx(kaplan_meier(cells), abs=1e-12)
    assert found.at_risk[0] == 2000
    assert found.lower == pytest.approx(found.upper, abs=1e-8)
    events, n, s = cells[:24], found.at_risk, found.survival
    greenwood = s * np.sqrt(np.cumsum(events / (n * (n - events))))
    half = np.log(found.population_upper / s) * s
    assert half == pytest.approx(1.96 * greenwood, rel=1e-3)


def test_a_hand_made_table() -> None:
    """Ten patients: 2 events, then 1 censored, then 1 event, 6 beyond."""
    found = survival_curve(np.array([2.0, 0, 1, 0, 1, 0, 6]), noise=CellNoise(1e-9, 1.96, 0.95))
    assert found.at_risk.tolist() == [10, 8, 7]
    assert found.survival == pytest.approx([0.8, 0.8, 0.8 * 6 / 7])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("patients", [0, 5, 100, 1000])
def test_whatever_the_noise_it_is_a_falling_curve_within_its_bounds(seed: int, patients: int) -> None:
    rng = np.random.default_rng(seed)
    cells = cohort(patients, 20, 0.1, 0.05, rng) + rng.normal(0, SIGMA * 3, 41)
    found = survival_curve(cells, noise=NORMAL)
    assert (np.diff(found.survival) <= 1e-15).all()
    for curve in (found.survival, found.lower, found.upper, found.population_lower, found.population_upper):
        assert curve.shape == (20,)
        assert curve.min() >= 0.0
        assert curve.max() <= 1.0
    assert (found.lower <= found.upper).all()
    assert (found.population_lower <= found.lower).all()
    assert (found.population_upper >= found.upper).all()
    assert found.events.tolist() == cells[:20].tolist(), "the noisy values stay available"


CASES = ((200, 12, 0.05, 0.05), (500, 60, 0.05, 0.05), (1000, 24, 0.02, 0.02), (5000, 60, 0.05, 0.0))


@pytest.mark.parametrize("laplace", [False, True])
@pytest.mark.parametrize(("patients", "intervals", "hazard", "censoring"), CASES)
def test_the_interval_covers_as_often_as_it_says_at_every_point(
    patients: int, intervals: int, hazard: float, censoring: float, laplace: bool
) -> None:
    """Of these patients and of the population they come from; one made for a third of the noise does not."""
    rng = np.random.default_rng(11)
    noise = CellNoise(SIGMA, 2.118 if laplace else NORMAL.factor, 0.95)  # of one Laplace cell: ln 20/√2
    inside, of_population, too_narrow = [], [], []
    truth = (1 - hazard) ** np.arange(1, intervals + 1)
    for _ in range(600):
        cells = cohort(patients, intervals, hazard, censoring, rng)
        size = 2 * intervals + 1
        drawn = rng.laplace(0, SIGMA / math.sqrt(2), size) if laplace else rng.normal(0, SIGMA, size)
        exact = np.array(kaplan_meier(cells))
        found = survival_curve(cells + drawn, noise=noise)
        narrow = survival_curve(cells + drawn, noise=CellNoise(SIGMA / 3, noise.factor, 0.95))
        inside.append((found.lower <= exact) & (exact <= found.upper))
        of_population.append((found.population_lower <= truth) & (truth <= found.population_upper))
        too_narrow.append((narrow.lower <= exact) & (exact <= narrow.upper))
    print(f"{np.mean(inside):.3f} of the points, {np.mean(inside, axis=0).min():.3f} of the worst one")
    assert np.mean(inside) >= 0.935
    assert np.mean(inside, axis=0).min() >= 0.9
    assert np.mean(of_population) >= 0.935
    assert np.mean(too_narrow, axis=0).min() < 0.85


def test_a_large_cohort_has_a_narrow_interval_and_a_hidden_one_none() -> None:
    rng = np.random.default_rng(3)
    wide = cohort(50_000, 24, 0.02, 0.02, rng) + rng.normal(0, SIGMA, 49)
    found = survival_curve(wide, noise=NORMAL)
    assert found.resolved == 24
    assert (found.upper - found.lower).max() < 0.01
    hidden = survival_curve(cohort(10, 24, 0.02, 0.02, rng) + rng.normal(0, SIGMA, 49), noise=NORMAL)
    assert hidden.resolved < 24
    assert hidden.lower[-1] == 0.0


def test_once_nobody_is_seen_at_risk_the_interval_opens_downwards_only() -> None:
    cells = np.zeros(41)
    cells[0:10] = 1000.0  # all have had the event by the tenth interval
    cells += np.random.default_rng(5).normal(0, SIGMA, 41)
    found = survival_curve(cells, noise=NORMAL)
    assert 9 <= found.resolved <= 11
    assert (found.lower[found.resolved :] == 0.0).all()
    assert (found.upper[found.resolved :] == found.upper[found.resolved - 1]).all()


def test_the_curve_errs_less_than_the_bare_product_of_noisy_factors() -> None:
    rng = np.random.default_rng(6)
    ours, bare = [], []
    for _ in range(300):
        cells = cohort(1000, 60, 0.05, 0.05, rng)
        noisy = cells + rng.normal(0, SIGMA, 121)
        exact = np.array(kaplan_meier(cells))
        ours.append((survival_curve(noisy, noise=NORMAL).survival - exact) ** 2)
        bare.append((np.clip(kaplan_meier(noisy), 0.0, 1.0) - exact) ** 2)
    print(
        f"RMSE {math.sqrt(np.mean(ours)):.3f}, of the bare product cut to 0..1 {math.sqrt(np.mean(bare)):.3f}"
    )
    assert np.mean(ours) < 0.75 * np.mean(bare)


@pytest.mark.parametrize(
    "cells", [np.ones(2), np.ones(4), np.ones(1), np.ones((3, 3)), np.array([1, math.nan, 1])]
)
def test_another_table_is_refused(cells: np.ndarray) -> None:
    with pytest.raises(ValueError, match="odd"):
        survival_curve(cells, noise=NORMAL)
