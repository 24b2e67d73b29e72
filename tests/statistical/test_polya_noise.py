"""Sums of Pólya shares as drawn: accepted as the exact central mechanism, rejected as one 10 % off.

Seeded; thresholds are p-values, 1e-4 to accept and 1e-9 to reject. The distribution a sum is held against is
computed from log-gamma and convolution, by nothing of the sampler's.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from privacy import polya
from privacy.polya import LaplacePlan
from tests.privacy.seeded_bits import SeededBits

ACCEPT = 1e-4
REJECT = 1e-9
DRAWS = 100_000
WRONG = (0.9, 1.1)


def cumulative(rate: float, shape: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x and P(X ≤ x) of the difference of two NB(shape, e^−rate); shape 1 is the discrete Laplace."""
    k = np.arange(int(40 / rate) + 20)
    side = stats.nbinom.pmf(k, shape, -math.expm1(-rate))
    size = 2 * len(k)
    spectrum = np.fft.rfft(side, size)
    mass = np.roll(np.fft.irfft(np.abs(spectrum) ** 2, size), len(k))
    return np.arange(-len(k), len(k)), np.cumsum(mass)


def p_value(draws: np.ndarray, rate: float, shape: float = 1.0) -> float:
    """Chi-square over up to 60 slices of equal probability, or single points where these have more."""
    x, below = cumulative(rate, shape)
    edges = np.unique(np.searchsorted(below, np.arange(1, 60) / 60))  # slice ends at x[edge]
    expected = np.diff(below[edges], prepend=0.0, append=1.0) * len(draws)
    observed = np.bincount(np.searchsorted(x[edges], draws, side="left"), minlength=len(edges) + 1)
    keep = expected >= 10
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    rest, rest_seen = expected[~keep].sum(), observed[~keep].sum()
    if rest >= 10:
        statistic += (rest_seen - rest) ** 2 / rest
    return float(stats.chi2.sf(statistic, int(keep.sum()) - (rest < 10)))


def total_of(plan: LaplacePlan, sites: int, *, seed: int) -> np.ndarray:
    """Return the noise in the totals of `sites` sites that each hold 100 in every cell."""
    total = np.zeros(plan.dimension, dtype=np.uint64)
    for site in range(sites):
        total += plan.contribution(np.full(plan.dimension, 100), bits=SeededBits(1000 * seed + site))
    return plan.decode(total) - 100.0 * sites


def plan(rate: float, participants: int, tolerance: int) -> LaplacePlan:
    return LaplacePlan.for_counts(
        epsilon=2.0 * rate,
        l1_sensitivity=2,
        participants=participants,
        tolerance=tolerance,
        dimension=DRAWS,
    )


@pytest.mark.parametrize(
    "rate", [Fraction(8), Fraction(2), Fraction(1, 2), Fraction(1, 30), Fraction(1, 1000)]
)
@pytest.mark.parametrize("parts", [1, 9])
def test_one_share_has_the_distribution_it_should_have(rate: Fraction, parts: int) -> None:
    draws = polya.share(rate, parts, DRAWS if rate < 8 else 20 * DRAWS, bits=SeededBits(parts))
    assert p_value(draws, float(rate), 1 / parts) > ACCEPT
    for wrong in WRONG:
        assert p_value(draws, float(rate) * wrong, 1 / parts) < REJECT


@pytest.mark.parametrize("rate", [2.0, 0.5, 0.05, 0.001])
@pytest.mark.parametrize(("participants", "tolerance"), [(2, 0), (10, 0), (10, 1), (10, 3), (50, 10)])
def test_the_shares_that_must_do_are_the_discrete_laplace_of_one_curator(
    rate: float, participants: int, tolerance: int
) -> None:
    """Exactly n − t of n, the others missing. One share fewer, or a scale 10 % off, is seen."""
    made = plan(rate, participants, tolerance)
    needed = participants - tolerance
    noise = total_of(made, needed, seed=participants)
    assert p_value(noise, rate) > ACCEPT
    for wrong in WRONG:
        assert p_value(noise, rate * wrong) < REJECT
    if participants <= 10:
        assert p_value(total_of(made, needed - 1, seed=participants), rate) < REJECT


@pytest.mark.parametrize(("participants", "tolerance"), [(10, 1), (10, 3)])
def test_shares_of_all_are_surplus_noise_and_none_too_little(participants: int, tolerance: int) -> None:
    rate = 0.5
    noise = total_of(plan(rate, participants, tolerance), participants, seed=3)
    shape = participants / (participants - tolerance)
    assert p_value(noise, rate, shape) > ACCEPT
    assert p_value(noise, rate) < REJECT, "it is not the discrete Laplace: it is more"
    for wrong in WRONG:
        assert p_value(noise, rate * wrong, shape) < REJECT


@pytest.mark.parametrize(("participants", "tolerance"), [(10, 1), (10, 3), (4, 1)])
def test_colluders_who_subtract_their_shares_leave_the_promised_noise(
    participants: int, tolerance: int
) -> None:
    """And one colluder more than tolerated leaves less."""
    rate = 0.5
    made = plan(rate, participants, tolerance)
    shares = [made.noise(bits=SeededBits(70 + site)) for site in range(participants)]
    total = np.sum(shares, axis=0, dtype=np.uint64)
    for known in shares[:tolerance]:
        total = total - known
    assert p_value(made.decode(total), rate) > ACCEPT
    for wrong in WRONG:
        assert p_value(made.decode(total), rate * wrong) < REJECT
    assert p_value(made.decode(total - shares[tolerance]), rate) < REJECT


def test_noise_of_a_rate_that_needs_digits_is_the_laplace_and_leaves_no_gaps() -> None:
    rate = 1 / 24_576  # a mean of 4,096 steps asked at ε = 1 with patients at two sites
    noise = total_of(plan(rate, 10, 1), 9, seed=5)
    assert stats.kstest(noise, stats.laplace(scale=1 / rate).cdf).pvalue > ACCEPT
    for wrong in WRONG:
        assert stats.kstest(noise, stats.laplace(scale=wrong / rate).cdf).pvalue < REJECT
    step = 2 ** polya._shift(Fraction(rate))
    for modulus in (2, 3, step):
        counts = np.bincount(noise.astype(np.int64) % modulus, minlength=modulus)
        assert stats.chisquare(counts).pvalue > ACCEPT
    coarse = step * polya.share(Fraction(rate) * step, 9, DRAWS, bits=SeededBits(6))
    assert len(np.unique(coarse % step)) == 1, "without the digits it would be on a grid"


def test_one_cell_tells_nothing_about_the_next() -> None:
    noise = total_of(plan(0.5, 10, 1), 9, seed=9)
    assert stats.pearsonr(noise[:-1], noise[1:]).pvalue > ACCEPT
    assert stats.pearsonr(noise[:-1], noise[1:] + 0.1 * noise[:-1]).pvalue < REJECT


@pytest.mark.slow
@pytest.mark.parametrize("rate", [2.0, 0.5, 0.05, 0.001])
@pytest.mark.parametrize(("participants", "tolerance"), [(10, 1), (50, 10)])
def test_millions_of_totals_are_the_discrete_laplace_and_not_one_that_is_two_percent_off(
    rate: float, participants: int, tolerance: int
) -> None:
    made = plan(rate, participants, tolerance)
    rounds = [total_of(made, participants - tolerance, seed=seed) for seed in range(100, 130)]
    noise = np.concatenate(rounds)
    assert p_value(noise, rate) > ACCEPT
    for wrong in (0.98, 1.02):
        assert p_value(noise, rate * wrong) < REJECT
