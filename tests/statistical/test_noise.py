"""Noise as drawn: each test accepts the right distribution and rejects one whose scale is 10 % off.

Seeded, so that a pass is a pass every time; thresholds are p-values, 1e-4 to accept and 1e-9 to reject.
"""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from privacy import discrete_gaussian as dg
from privacy.lattice import NoisePlan
from tests.privacy.seeded_bits import SeededBits

ACCEPT = 1e-4
REJECT = 1e-9
DRAWS = 100_000


def lattice_p_value(draws: np.ndarray, sigma: float) -> float:
    """Chi-square: over single lattice points for a small sigma, over 60 slices for a large one.

    Cell edges lie half-way between lattice points; N(0, σ²) has the discrete Gaussian's mass between them to
    1e-4 of a cell from σ = 60 on.
    """
    if sigma < 60:
        edges = np.arange(-int(5 * sigma) - 1, int(5 * sigma) + 1) + 0.5
        points = np.arange(-int(15 * sigma) - 9, int(15 * sigma) + 10)
        weights = np.exp(-(points**2) / (2 * sigma**2))
        below = np.concatenate([[0], np.cumsum(weights)])[np.searchsorted(points, edges)] / weights.sum()
    else:
        edges = np.rint(stats.norm.ppf(np.arange(1, 60) / 60) * sigma) + 0.5
        below = stats.norm.cdf(edges / sigma)
    expected = np.diff(below, prepend=0.0, append=1.0) * len(draws)
    observed = np.diff(np.searchsorted(np.sort(draws), edges), prepend=0, append=len(draws))
    keep = expected >= 10
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    rest, rest_seen = expected[~keep].sum(), observed[~keep].sum()
    if rest >= 10:
        statistic += (rest_seen - rest) ** 2 / rest
    return float(stats.chi2.sf(statistic, int(keep.sum()) - (rest < 10)))


def variance_p_value(draws: np.ndarray, variance: float) -> float:
    """Two-sided, from the chi-square distribution of n·sample variance / variance (mean known to be 0)."""
    scaled = float((draws.astype(float) ** 2).sum()) / variance
    return 2 * min(stats.chi2.sf(scaled, len(draws)), stats.chi2.cdf(scaled, len(draws)))


@pytest.mark.parametrize("sigma", [Fraction(1, 2), 2, Fraction(5, 2), 64, 1000, 2048, 2049, 2**20, 2**33])
def test_draws_follow_the_lattice_distribution_and_not_one_ten_percent_off(sigma: Fraction | int) -> None:
    draws = dg.sample(sigma, DRAWS, bits=SeededBits(int(sigma)))
    assert lattice_p_value(draws, float(sigma)) > ACCEPT
    for wrong in (0.9, 1.1):
        assert lattice_p_value(draws, float(sigma) * wrong) < REJECT


@pytest.mark.parametrize("sigma", [2, 64, 2**20])
def test_the_variance_is_right_and_ten_percent_off_in_scale_is_seen(sigma: int) -> None:
    draws = dg.sample(sigma, DRAWS, bits=SeededBits(sigma + 1))
    assert variance_p_value(draws, sigma**2) > ACCEPT
    for wrong in (0.9, 1.1):
        assert variance_p_value(draws, (sigma * wrong) ** 2) < REJECT


def test_the_convolution_leaves_no_trace_of_its_step() -> None:
    """x₁ + k·x₂ is uniform modulo k and modulo small numbers; k·x₂ alone is not."""
    split = dg._split(Fraction(2**20) ** 2)
    assert split is not None
    draws = dg.sample(2**20, DRAWS, bits=SeededBits(5))
    for modulus in (2, 3, 16, split.k):
        groups = min(modulus, 50)
        counts = np.bincount((draws % modulus) * groups // modulus, minlength=groups)
        weights = np.bincount(np.arange(modulus) * groups // modulus, minlength=groups) / modulus
        assert stats.chisquare(counts, weights * DRAWS).pvalue > ACCEPT
    coarse = split.k * dg.sample(1619, DRAWS, bits=SeededBits(6))
    assert len(np.unique(coarse % split.k)) == 1


def test_one_draw_tells_nothing_about_the_next() -> None:
    draws = dg.sample(2**20, DRAWS, bits=SeededBits(7)).astype(float)
    together = stats.pearsonr(draws[:-1], draws[1:])
    assert together.pvalue > ACCEPT
    mixed = draws[1:] + 0.1 * draws[:-1]
    assert stats.pearsonr(draws[:-1], mixed).pvalue < REJECT


@pytest.mark.parametrize(("participants", "tolerance"), [(3, 1), (4, 1), (10, 3)])
def test_the_total_after_the_tolerated_dropouts_carries_the_promised_noise(
    participants: int, tolerance: int
) -> None:
    """And shares made for no dropout (σ²/n) are rejected: a node that forgets the tolerance is found here."""
    plan = NoisePlan.for_counts(
        sigma=8.449358, sensitivity=2, participants=participants, tolerance=tolerance, dimension=DRAWS
    )
    total = np.zeros(DRAWS, dtype=np.uint64)
    for site in range(participants - tolerance):
        total += plan.contribution(np.full(DRAWS, 100), bits=SeededBits(site))
    noise = plan.decode(total) - 100 * (participants - tolerance)
    assert variance_p_value(noise, plan.sigma**2) > ACCEPT
    assert stats.kstest(noise, stats.norm(scale=plan.sigma).cdf).pvalue > ACCEPT
    for wrong in (0.9, 1.1, ((participants - tolerance) / participants) ** 0.5):
        assert variance_p_value(noise, (plan.sigma * wrong) ** 2) < REJECT


def test_a_noisy_gradient_sum_is_right_in_every_coordinate_together() -> None:
    plan = NoisePlan.for_reals(
        sigma=20.0,
        l2_clip_norm=1.0,
        sites_per_patient=2,
        participants=4,
        tolerance=1,
        dimension=DRAWS,
        largest=1e4,
    )
    values = np.linspace(-50, 50, DRAWS)
    total = np.zeros(DRAWS, dtype=np.uint64)
    for site in range(3):
        total += plan.contribution(values, bits=SeededBits(100 + site))
    noise = plan.decode(total) - 3 * values
    drawn = plan.standard_deviation(contributors=3)  # rounding and float error are paid for: a little above σ
    assert variance_p_value(noise, drawn**2) > ACCEPT
    for wrong in (0.9, 1.1):
        assert variance_p_value(noise, (drawn * wrong) ** 2) < REJECT


def test_rounded_shares_that_are_too_small_would_collapse() -> None:
    """Why the lattice is fine: ten shares of variance 0.1 rounded to integers lose most of their variance."""
    shares = np.rint(np.random.default_rng(3).normal(scale=0.1**0.5, size=(10, DRAWS)))
    assert variance_p_value(shares.sum(axis=0), 1.0) < REJECT
