"""The sampler against exact arithmetic: tables, ties, the convolution, and what it refuses."""

import math
import time
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from privacy import discrete_gaussian as dg
from privacy.inversion import Table
from privacy.rng import SecureBits


class ScriptedBits(SecureBits):
    """Gives the words it was told to, in order."""

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def uint64(self, n: int) -> np.ndarray:
        taken, self._words = self._words[:n], self._words[n:]
        return np.array(taken, dtype=np.uint64)


def entries(table: Table) -> list[int]:
    return [(int(high) << 128) | low for high, low in zip(table.high, table.low, strict=True)]


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(5, 2), 7, Fraction(641, 10)])
def test_the_table_is_the_distribution_to_one_hundred_and_ninety_bits(sigma: Fraction | int) -> None:
    variance = Fraction(sigma) ** 2
    table = dg._table(variance)
    reach = -table.first
    with localcontext() as context:
        context.prec = 90
        exponent = Decimal(variance.denominator) / Decimal(2 * variance.numerator)
        weights = [(-exponent * x * x).exp() for x in range(-reach, reach + 1)]
        total = sum(weights)
        cumulative = Decimal(0)
        for entry, weight in zip(entries(table)[:-1], weights[:-1], strict=True):
            cumulative += weight
            assert abs(Decimal(entry) / Decimal(2**192) - cumulative / total) < Decimal(2) ** -190


def test_a_wrong_sigma_is_not_the_distribution() -> None:
    """The check above notices one part in a million."""
    table = dg._table(Fraction(5, 2) ** 2 * Fraction(1_000_001, 1_000_000))
    right = entries(dg._table(Fraction(5, 2) ** 2))
    assert max(abs(a - b) for a, b in zip(entries(table), right, strict=True)) > 2 ** (192 - 24)


@pytest.mark.parametrize("sigma", [Fraction(5, 2), 40])
def test_a_tie_in_the_first_word_is_decided_by_the_next_128_bits(sigma: Fraction | int) -> None:
    table = dg._table(Fraction(sigma) ** 2)
    thresholds = entries(table)
    for index in (0, 1, len(thresholds) // 3, -table.first, len(thresholds) - 3):
        word = int(table.high[index])
        for below in (0, table.low[index] - 1, table.low[index], table.low[index] + 1, 2**128 - 1):
            if not 0 <= below < 2**128:
                continue
            drawn = dg.sample(sigma, 1, bits=ScriptedBits([word, below >> 64, below & (2**64 - 1)]))
            exact = sum(threshold <= (word << 128) | below for threshold in thresholds[:-1])
            assert drawn[0] == exact + table.first


def test_the_extreme_words_stay_inside_the_table() -> None:
    bound = dg.largest(5)
    top = dg.sample(5, 1, bits=ScriptedBits([2**64 - 1] * 3))
    bottom = dg.sample(5, 1, bits=ScriptedBits([0] * 3))
    assert top[0] == bound
    assert -bound <= bottom[0] < 0


def convolved_pmf(fine: Fraction, k: int, coarse: Fraction, xs: np.ndarray) -> np.ndarray:
    reach = int(12 * math.sqrt(coarse))
    x2 = np.arange(-reach, reach + 1)
    p2 = np.exp(-(x2**2) / (2 * float(coarse)))
    p1 = np.exp(-((xs[:, None] - k * x2[None, :]) ** 2) / (2 * float(fine)))
    found = (p1 * p2).sum(axis=1)
    return found / found.sum()


def target_pmf(variance: float, xs: np.ndarray) -> np.ndarray:
    found = np.exp(-(xs**2) / (2 * variance))
    return found / found.sum()


def test_the_convolution_is_the_distribution_and_a_coarser_one_is_not() -> None:
    variance = Fraction(2049) ** 2
    split = dg._split(variance)
    assert split is not None
    assert split.fine + split.k**2 * split.coarse == variance, "exactly"
    xs = np.arange(-3 * 2049, 3 * 2049 + 1)
    target = target_pmf(float(variance), xs)
    found = convolved_pmf(split.fine, split.k, split.coarse, xs)
    assert np.abs(found / target - 1).max() < 1e-10, "float64 sees no difference"
    k = 8 * split.k  # σ₁ is then smaller than k: gaps between the multiples of k
    rough = convolved_pmf(split.fine, k, (variance - split.fine) / k**2, xs)
    assert np.abs(rough / target - 1).max() > 0.01


@pytest.mark.parametrize("sigma", [2049, 4096, 2**20, Fraction(2**20 * 1024 + 1, 1024), 2**31, 2**40, 2**50])
def test_every_convolution_meets_its_smoothing_condition(sigma: Fraction | int) -> None:
    waiting, splits = [Fraction(sigma) ** 2], 0
    while waiting:
        split = dg._split(waiting.pop())
        if split is not None:
            splits += 1
            assert 1 / (1 / split.coarse + split.k**2 / split.fine) >= dg.SMOOTHING_VARIANCE
            waiting += [split.fine, split.coarse]
    assert splits >= 1
    assert dg.distance(sigma) < 2.0**-150
    assert dg.largest(sigma) < 2**56


@pytest.mark.parametrize("sigma", [1.5, "2", True, Fraction(1, 3), 0, -4, 2**51])
def test_a_sigma_that_is_inexact_or_out_of_range_is_refused(sigma: object) -> None:
    with pytest.raises(ValueError, match="sigma"):
        dg.sample(sigma, 1, bits=SecureBits())  # type: ignore[arg-type]  # what a careless caller might pass


def test_shapes_are_kept() -> None:
    assert dg.sample(3, (2, 5), bits=SecureBits()).shape == (2, 5)
    assert dg.sample(3, 0, bits=SecureBits()).shape == (0,)


def test_sums_of_shares_with_variance_four_are_central_and_with_variance_one_are_not() -> None:
    assert dg.sum_divergence(2, 100) < 1e-15
    assert dg.sum_divergence(1, 10) > 1e-5
    assert dg.sum_divergence(64, 1) == 0.0


def test_sampling_is_fast_enough_for_a_gradient_step_and_for_one_count() -> None:
    bits = SecureBits()
    timings = []
    for _ in range(5):
        start = time.thread_time()
        dg.sample(2**20, 100_000, bits=bits)
        timings.append(time.thread_time() - start)
    many_ms = min(timings) * 1e3
    dg.sample(78, 1, bits=bits)
    singles = []
    for _ in range(200):
        start = time.thread_time()
        dg.sample(78, 1, bits=bits)
        singles.append(time.thread_time() - start)
    one_ms = sorted(singles)[len(singles) // 2] * 1e3
    print(f"100,000 draws at σ = 2^20: {many_ms:.1f} ms; one draw at σ = 78: {one_ms:.3f} ms")
    assert many_ms < 30
    assert one_ms < 0.1
