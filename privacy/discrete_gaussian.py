"""Discrete Gaussian noise from a secure source, with no floating-point number anywhere in the distribution.

N_Z(0, σ²) gives each integer x a probability proportional to exp(−x²/2σ²). Two ways to draw it:

- σ up to `TABLE_SIGMA`: inversion of a cumulative table of 192-bit integers (`privacy.inversion`).
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
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.inversion import ONE, PRECISION_BITS, UNIT_BITS, Bits, Table, exp_minus

TAIL_SIGMAS = 17  # beyond it lies less than 2^-200 of the mass (exp(−17²/2) = 2^-208)
TABLE_SIGMA = 2048  # a table then has 70 thousand entries (5 MB); larger σ are convolved
SMALLEST_SIGMA = Fraction(1, 2)  # below it every bound in this module would need another proof
LARGEST_SIGMA = 2**50  # a draw of at most 17σ, and a sum of 2^8 such draws, fits in 63 bits
SMOOTHING_VARIANCE = 6  # s² of the convolution: 2·exp(−2π²·6) < 2^-169


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """x₁ + k·x₂."""

    fine: _Sampler
    k: int
    coarse: _Sampler

    def draw(self, n: int, bits: Bits) -> NDArray[np.int64]:
        return self.fine.draw(n, bits) + self.k * self.coarse.draw(n, bits)


_Sampler = Table | _Convolution


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


def _table(variance: Fraction) -> Table:
    """Return the cumulative table of N_Z(0, variance), in integers throughout.

    ρ(x+1) = ρ(x)·q^(2x+1) with q = exp(−1/2σ²): two multiplications an entry at 256 bits. Each rounds by at
    most one unit, so after n entries the weights are off by less than n² units of 2^-256, and the scaled sums
    by less than one unit of 2^-192.
    """
    q = exp_minus(1 / (2 * variance))
    end = _end(variance)
    weights, step, square = [ONE], q, (q * q) >> UNIT_BITS
    for _ in range(end):
        weights.append((weights[-1] * step) >> UNIT_BITS)
        step = (step * square) >> UNIT_BITS
    return Table.of([*weights[:0:-1], *weights], first=-end, total=2 * sum(weights) - ONE)
