"""Discrete Gaussian noise from a secure source, with no floating-point number anywhere in the distribution.

N_Z(0, σ²) gives each integer x a probability proportional to exp(−x²/2σ²). Two ways to draw it:

- σ up to `TABLE_SIGMA`: inversion of a cumulative table of 192-bit integers. A 64-bit uniform decides nearly
  every draw; where it equals a table entry's upper word, 128 further bits decide.
- larger σ: x₁ + k·x₂ with independent x₁ ~ N_Z(0, σ₁²), x₂ ~ N_Z(0, σ₂²) and σ² = σ₁² + k²σ₂². Given the sum,
  x₂ is Gaussian of variance s² = 1/(1/σ₂² + k²/σ₁²) around a real centre, so the probabilities are those of
  N_Z(0, σ²) within (1 ± e)/(1 ∓ e), e = 2·Σ_j exp(−2π²s²j²) (Poisson summation; Micciancio, Walter 2017,
  "Gaussian Sampling over the Integers", Corollary 1). s² ≥ 6 makes e < 2^-169; the constructor checks it.

`distance(σ)` bounds the total-variation distance of one draw to N_Z(0, σ²); callers multiply it by the number
of draws and pay for it in δ. What it does not cover: the source is ChaCha20 (computational), and the look-up
is not constant-time; a node draws noise in its own process, so that only its own machine can time the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WORD = 64
PRECISION_BITS = 192  # resolution of the table; three words of 64 bits
GUIDE_BITS = 16  # 512 KiB: at σ = 2048 the first 16 bits decide four draws of five without a search
GUARD_BITS = 64  # further bits while building it: 2^15 multiplications lose fewer than 17
TAIL_SIGMAS = 17  # beyond it lies less than 2^-200 of the mass (exp(−17²/2) = 2^-208)
TABLE_SIGMA = 2048  # a table then has 70 thousand entries (5 MB); larger σ are convolved
SMALLEST_SIGMA = Fraction(1, 2)  # below it every bound in this module would need another proof
LARGEST_SIGMA = 2**50  # a draw of at most 17σ, and a sum of 2^8 such draws, fits in 63 bits
SMOOTHING_VARIANCE = 6  # s² of the convolution: 2·exp(−2π²·6) < 2^-169


class Bits(Protocol):
    """A source of uniform bits: `privacy.rng.SecureBits`, and in tests a seeded one."""

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """Return `n` uniform 64-bit words."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """P(X ≤ x) for x = first, first+1, …, scaled by 2^192, in three words."""

    first: int
    high: NDArray[np.uint64]
    low: tuple[int, ...]  # the lower 128 bits
    guide: NDArray[np.int64]  # for each value of the first 16 bits, the first entry it can mean

    def draw(self, n: int, bits: Bits) -> NDArray[np.int64]:
        uniform = bits.uint64(n)
        start = (uniform >> np.uint64(WORD - GUIDE_BITS)).astype(np.int64)
        index = self.guide[start]
        open_ = np.flatnonzero(self.guide[start + 1] != index)  # the first bits do not decide alone
        index[open_] = np.searchsorted(self.high, uniform[open_], side="left")
        # `high` ends in 2^64 − 1, so `index` is always inside; equal words need the lower bits (once in 2^47)
        for i in np.flatnonzero(self.high[index] == uniform):
            index[i] = self._decide(int(uniform[i]), int(index[i]), bits)
        return index + self.first

    def _decide(self, word: int, index: int, bits: Bits) -> int:
        more = bits.uint64(2)
        below = (int(more[0]) << WORD) | int(more[1])
        while index < len(self.low) - 1 and int(self.high[index]) == word and self.low[index] <= below:
            index += 1
        return index


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """x₁ + k·x₂."""

    fine: _Sampler
    k: int
    coarse: _Sampler

    def draw(self, n: int, bits: Bits) -> NDArray[np.int64]:
        return self.fine.draw(n, bits) + self.k * self.coarse.draw(n, bits)


_Sampler = _Table | _Convolution


def sample(sigma: Fraction | int, size: int | Sequence[int], *, bits: Bits) -> NDArray[np.int64]:
    """Return independent draws of the discrete Gaussian N_Z(0, σ²).

    Guarantee: each draw is within `distance(sigma)` (< 2^-150) of N_Z(0, σ²) in total variation, if the words
    of `bits` are uniform; and |draw| ≤ `largest(sigma)` always.
    Args: sigma, in lattice units, 1/2 to 2^50, exact; size, a count or a shape.
    Raises: ValueError for a sigma out of range or not exact.
    """
    shape = (size,) if isinstance(size, int) else tuple(size)
    return _sampler(_variance(sigma)).draw(math.prod(shape), bits).reshape(shape)


def distance(sigma: Fraction | int) -> float:
    """Return a bound on the total-variation distance of one draw of `sample` to N_Z(0, σ²)."""
    return _distance(_variance(sigma))


def largest(sigma: Fraction | int) -> int:
    """Return the largest absolute value that `sample` can give."""
    return _largest(_variance(sigma))


def sum_divergence(sigma: Fraction | int, terms: int) -> float:
    """Return τ: the sum of `terms` draws of N_Z(0, σ²) is within max-divergence τ of N_Z(0, terms·σ²).

    Both ways; the total-variation distance is at most τ as well.
    Source: Kairouz, Liu, Steinke 2021, "The Distributed Discrete Gaussian Mechanism", Theorem 1: τ =
    10·Σ_{k<terms} exp(−2π²σ²·k/(k+1)), for σ ≥ 1/2.

    >>> sum_divergence(2, 10) < 1e-16
    True
    """
    variance = float(_variance(sigma))
    first = sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, min(terms, 50)))
    rest = max(0, terms - 50) * math.exp(-2 * math.pi**2 * variance * 50 / 51)
    return 10.0 * (first + rest) if terms > 1 else 0.0


def _variance(sigma: Fraction | int) -> Fraction:
    if not isinstance(sigma, Fraction | int) or isinstance(sigma, bool):
        raise ValueError("sigma must be exact: an int or a Fraction")
    if not SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA:
        raise ValueError(f"sigma must be {SMALLEST_SIGMA} to {LARGEST_SIGMA} lattice units")
    return Fraction(sigma) ** 2


@dataclass(frozen=True, slots=True)
class _Split:
    """σ² = fine + k²·coarse, and the smoothing error of drawing it so."""

    fine: Fraction
    k: int
    coarse: Fraction
    error: float


def _split(variance: Fraction) -> _Split | None:
    """Return how a variance is convolved, or None where a table serves. Raises: ValueError if unsafe.

    σ₁ = 5k/2 and σ₂ = √(σ² − σ₁²)/k ≥ σ₁ put both near √(5σ/2), and s² = 1/(1/σ₂² + 4/25) above 6.
    """
    if variance <= TABLE_SIGMA**2:
        return None
    k = math.isqrt(2 * math.isqrt(int(variance)) // 5)
    fine = Fraction(5 * k, 2) ** 2
    coarse = (variance - fine) / k**2
    smoothing = 1 / (1 / coarse + k**2 / fine)
    if smoothing < SMOOTHING_VARIANCE:
        raise ValueError("this sigma cannot be convolved safely")
    e = smoothing_error(float(smoothing))
    return _Split(fine, k, coarse, 2.0 * e / (1.0 - e))


def smoothing_error(variance: float) -> float:
    """Return e such that Σ_z exp(−(z−c)²/2v) = √(2πv)·(1 ± e) for every real c, v = `variance` ≥ 1/4.

    Source: Poisson summation: e = 2·Σ_{j≥1} exp(−2π²·v·j²); the terms after the first are below e⁻¹⁴ of it.
    """
    return 2.0 * math.exp(-2.0 * math.pi**2 * variance) * (1.0 + 1e-6)


def _distance(variance: Fraction) -> float:
    split = _split(variance)
    if split is None:  # each of n cells is off by at most 2 units, and both tails hold less than 2^-200
        return (2 * _end(variance) + 1) * 2.0**-PRECISION_BITS + 2.0**-200
    return _distance(split.fine) + _distance(split.coarse) + split.error


def _largest(variance: Fraction) -> int:
    split = _split(variance)
    if split is None:
        return _end(variance)
    return _largest(split.fine) + split.k * _largest(split.coarse)


def _end(variance: Fraction) -> int:
    return TAIL_SIGMAS * (math.isqrt(math.ceil(variance)) + 1)


@lru_cache(maxsize=32)
def _sampler(variance: Fraction) -> _Sampler:
    split = _split(variance)
    if split is None:
        return _table(variance)
    return _Convolution(_sampler(split.fine), split.k, _sampler(split.coarse))


def _table(variance: Fraction) -> _Table:
    """Return the cumulative table of N_Z(0, variance), in integers throughout.

    ρ(x+1) = ρ(x)·q^(2x+1) with q = exp(−1/2σ²): two multiplications an entry at 256 bits. Each rounds by at
    most one unit, so after n entries the weights are off by less than n² units of 2^-256, and the scaled sums
    by less than one unit of 2^-192.
    """
    bits = PRECISION_BITS + GUARD_BITS
    one = 1 << bits
    context = Context(prec=120, rounding=ROUND_HALF_EVEN)  # 120 digits hold 398 bits
    exponent = context.divide(Decimal(variance.denominator), Decimal(2 * variance.numerator))
    # copy_negate, because a unary minus would round to the 28 digits of the thread's own context
    q = int(
        context.multiply(context.exp(exponent.copy_negate()), Decimal(one)).to_integral_value(context=context)
    )
    end = _end(variance)
    weights, step, square = [one], q, (q * q) >> bits
    for _ in range(end):
        weights.append((weights[-1] * step) >> bits)
        step = (step * square) >> bits
    total = 2 * sum(weights) - one
    upper: list[int] = []
    cumulative = 0
    for weight in [*weights[:0:-1], *weights]:
        cumulative += weight
        # the far tail may reach 1 exactly; one unit below it keeps the entries sorted in three words
        upper.append(min((cumulative << PRECISION_BITS) // total, (1 << PRECISION_BITS) - 1))
    lower = (1 << (PRECISION_BITS - WORD)) - 1
    high = np.array([u >> (PRECISION_BITS - WORD) for u in upper], dtype=np.uint64)
    edges = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(WORD - GUIDE_BITS)
    guide = np.searchsorted(high, np.append(edges, np.uint64(2**WORD - 1)), side="left").astype(np.int64)
    return _Table(-end, high, tuple(u & lower for u in upper), guide)
