"""Shares of discrete Laplace noise: pure ε for a sum whose sites may drop out or collude.

What a `LaplacePlan` guarantees. Let at least n − t of n sites add their share honestly. Then the total they
open is, up to a total-variation distance of `plan.distance` (never above 2^-128),

    (sum of the sites' exact values) + DL(λ) + independent noise,    λ = ε / (L1 sensitivity)

with independent coordinates of the discrete Laplace distribution, P(x) ∝ e^(−λ|x|): ε-differential privacy,
δ = 0, for one patient more or less. How, with m = n − t:

1. Shares. DL(λ) is G − G' for geometric G, G' with P(k) = (1 − p)·p^k, p = e^(−λ), and a geometric variable
   is the sum of m independent negative binomial ones, NB(1/m, p): their generating functions,
   ((1 − p)/(1 − pz))^(1/m) each, multiply. Each site adds the difference of two. m shares give DL(λ) exactly;
   those of further honest sites are surplus; colluders know theirs, up to t of them. Source: Goryczka, Xiong
   2017, "A Comprehensive Comparison of Multiparty Secure Additions with Differential Privacy"; Balle, Bell,
   Gascón, Nissim 2020, "Private Summation in the Multi-Message Shuffle Model".
2. Drawing. NB(1/m, p) by inversion of a table of 192-bit integers (`privacy.inversion`), cut where the
   geometric tail, which is heavier, is below 2^-200.
3. Small λ, where a table would be too long. The binary digits of a geometric variable are independent:
   G(λ) = Σ_{j<s} 2^j·B_j + 2^s·G(2^s·λ) with P(B_j = 1) = 1/(1 + e^(λ·2^j)). The digits cannot be shared, so
   each site adds all of them: m shares hold the DL(λ) they need, and m − 1 sets of digits are surplus. With
   2^s·λ < 2^-9 that surplus is below (m − 1)·2^-21.5 of the variance of DL(λ).
4. No wrap. Draws are bounded, so n·(largest value + largest noise) < 2^63 holds with certainty.

The look-up is not constant-time and the source is ChaCha20, as in `privacy.discrete_gaussian`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import DISTANCE_PER_RELEASE
from privacy.inversion import ONE, PRECISION_BITS, UNIT_BITS, Bits, Table, exp_minus
from privacy.lattice import Reals, Words, check_contributors, check_level, check_sites, signed, whole_numbers

TAIL_BITS = 200  # of a table: what lies beyond it has less than 2^-200 of the mass
TABLE_RATE = Fraction(1, 1024)  # a table then has up to 142 thousand entries; smaller λ draw digits besides
SMALLEST_RATE = Fraction(1, 2**40)  # noise of 2^40 still leaves 2^22 sites below the wrap
LARGEST_RATE = 64  # the largest ε anybody may ask for; p is then 2^-92


def share(rate: Fraction, parts: int, size: int, *, bits: Bits) -> NDArray[np.int64]:
    """Return one site's share of the noise, `size` independent coordinates. Never use one twice.

    Guarantee: the sum of `parts` shares is DL(rate) plus independent noise (none for a rate from 1/1024 on),
    up to `parts` times `distance(rate, parts)` a coordinate; and no coordinate is beyond `largest(rate)`.
    Args: rate, λ, exact, 2^-40 to 64; parts, how many shares must do, at least 1.
    Raises: ValueError for a rate or parts out of range.
    """
    return _one_side(rate, parts, size, bits) - _one_side(rate, parts, size, bits)


def distance(rate: Fraction, parts: int) -> float:
    """Return a bound on the total-variation distance of one coordinate of `share` to its ideal.

    Each of a table's n cells is off by at most 2 units of 2^-192, so n units in total variation; a digit's
    table has two cells. A share is made of two such sides.
    """
    shift = _shift(rate)
    cells = _end(rate * 2**shift) + 1
    return 2.0 * ((cells + 2 * shift) * 2.0**-PRECISION_BITS + 2.0**-TAIL_BITS)


def largest(rate: Fraction) -> int:
    """Return the largest absolute value of a coordinate of `share`."""
    shift = _shift(rate)
    return int(2**shift * (_end(rate * 2**shift) + 1)) - 1


def variance(rate: Fraction, parts: int, *, shares: int) -> float:
    """Return the variance of the sum of `shares` shares, each made for `parts` of them to do."""
    shift = _shift(rate)
    geometric = 0.5 / math.sinh(float(rate * 2**shift) / 2.0) ** 2  # of DL: 2·p/(1 − p)²
    digits = sum(4.0**j / (2.0 + 2.0 * math.cosh(float(rate * 2**j))) for j in range(shift))
    return shares * (4.0**shift * geometric / parts + 2.0 * digits)


def _one_side(rate: Fraction, parts: int, size: int, bits: Bits) -> NDArray[np.int64]:
    shift = _shift(rate)
    drawn = _negative_binomial(rate * 2**shift, parts).draw(size, bits) << shift
    for j in range(shift):
        drawn += _digit(rate * 2**j).draw(size, bits) << j
    return drawn


def _shift(rate: Fraction) -> int:
    """Return s, the number of digits that are drawn apart. Raises: ValueError for a rate out of range."""
    if not isinstance(rate, Fraction) or not SMALLEST_RATE <= rate <= LARGEST_RATE:
        raise ValueError(f"rate must be a Fraction, {SMALLEST_RATE} to {LARGEST_RATE}")
    shift = 0
    while rate * 2**shift < TABLE_RATE:
        shift += 1
    return shift


def _end(rate: Fraction) -> int:
    """Return the last entry of a table: P(NB(1/m, p) > end) ≤ P(geometric > end) < p^end ≤ 2^-200."""
    return math.ceil(TAIL_BITS * Fraction(math.log(2.0) * (1.0 + 1e-9)) / rate)


@lru_cache(maxsize=16)  # 7 MB each at most
def _negative_binomial(rate: Fraction, parts: int) -> Table:
    """Return the table of NB(1/parts, e^(−rate)), in integers throughout.

    P(k+1)/P(k) = p·(k + 1/m)/(k + 1), so the weights need no gamma function, and their sum replaces
    (1 − p)^(−1/m). Each step loses at most two units of 2^-256, so weights of n entries are off by less than
    n² units together: 2^-220 of their sum, which is at least 1.
    """
    if not isinstance(parts, int) or isinstance(parts, bool) or parts < 1:
        raise ValueError("parts must be an integer of at least 1")
    p = exp_minus(rate)
    weights = [ONE]
    for k in range(_end(rate)):
        weights.append((weights[-1] * p * (k * parts + 1) // (parts * (k + 1))) >> UNIT_BITS)
    return Table.of(weights, first=0, total=sum(weights))


@lru_cache(maxsize=256)
def _digit(rate: Fraction) -> Table:
    """Return the table of a digit that is 1 with probability 1/(1 + e^rate)."""
    one = exp_minus(rate)
    return Table.of([ONE, one], first=0, total=ONE + one)


@dataclass(frozen=True, slots=True)
class LaplacePlan:
    """How a site turns its whole numbers into its masked-sum input, for pure ε. Build with `for_counts`.

    Guarantee: a total with the shares of at least participants − tolerance honest sites is ε-DP, up to the
    total-variation distance `distance`, for every change of the sum of at most `l1_sensitivity` in L1; what
    up to `tolerance` dropouts or colluders do takes nothing away from it. See the module for the proof.
    """

    epsilon: float
    l1_sensitivity: float
    participants: int
    tolerance: int
    dimension: int
    largest: int
    rate: Fraction = field(init=False)

    def __post_init__(self) -> None:
        for name in ("epsilon", "l1_sensitivity"):
            value = getattr(self, name)
            if not (isinstance(value, float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite float above 0")
        check_sites(participants=self.participants, tolerance=self.tolerance, dimension=self.dimension)
        if not isinstance(self.largest, int) or isinstance(self.largest, bool) or self.largest < 1:
            raise ValueError("largest must be an integer of at least 1")
        object.__setattr__(self, "rate", Fraction(self.epsilon) / Fraction(self.l1_sensitivity))
        if self.participants * self.largest_contribution >= 2**63:
            raise ValueError(
                "the sum could wrap modulo 2^64: fewer sites, smaller values or a larger epsilon"
            )
        if self.distance > DISTANCE_PER_RELEASE:
            raise ValueError("the noise would be too far from the ideal one")

    @classmethod
    def for_counts(
        cls,
        *,
        epsilon: float,
        l1_sensitivity: float,
        participants: int,
        tolerance: int,
        dimension: int = 1,
        largest: int = 2**32,
    ) -> LaplacePlan:
        """Return the plan for whole numbers.

        Args: epsilon, of one total; l1_sensitivity, of one patient over all their sites and all cells (a
        patient who is in one cell at each of m sites: m); largest, the largest absolute value of one site.
        Raises: ValueError; epsilon/l1_sensitivity must lie between 2^-40 and 64.

        >>> plan = LaplacePlan.for_counts(epsilon=1.0, l1_sensitivity=1, participants=10, tolerance=1)
        >>> round(plan.standard_deviation(contributors=9), 3)  # DL(1): √(2e)/(e − 1)
        1.357
        """
        return cls(float(epsilon), float(l1_sensitivity), participants, tolerance, dimension, largest)

    @property
    def parts(self) -> int:
        """How many shares make up the promised noise."""
        return self.participants - self.tolerance

    @property
    def largest_contribution(self) -> int:
        """The largest absolute value of a cell of one site's contribution."""
        return self.largest + largest(self.rate)

    @property
    def distance(self) -> float:
        """Total-variation distance of one total to values plus discrete Laplace plus independent noise."""
        return self.dimension * self.participants * distance(self.rate, self.parts)

    def standard_deviation(self, *, contributors: int) -> float:
        """Return the standard deviation of one coordinate of a total that `contributors` sites are in.

        Raises: ValueError for fewer contributors than the noise tolerates, or more than there are.
        """
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        return math.sqrt(variance(self.rate, self.parts, shares=contributors))

    def half_width(self, *, contributors: int, level: float, cells: int = 1) -> float:
        """Return h such that the noise of the sum of `cells` coordinates is within ±h, at least at `level`.

        The smallest whole number, from the characteristic function of the sum of the shares; for a rate below
        1/1024 to one part in 500. Raises: ValueError.

        >>> plan = LaplacePlan.for_counts(epsilon=1.0, l1_sensitivity=1, participants=4, tolerance=0)
        >>> plan.half_width(contributors=4, level=0.95)
        3.0
        """
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        check_level(level)
        shift = _shift(self.rate)
        shape = cells * contributors / self.parts
        return float(2**shift * _half_width(self.rate * 2**shift, shape, level))

    def simulated_noise(
        self, shape: tuple[int, ...], *, contributors: int, rng: np.random.Generator
    ) -> Reals:
        """Return noise as the total's coordinates carry it, for error bars. It protects nothing."""
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        shape_of_sum, success = contributors / self.parts, -math.expm1(-float(self.rate))
        sides = rng.negative_binomial(shape_of_sum, success, (2, *shape)).astype(np.float64)
        found: Reals = sides[0] - sides[1]
        return found

    def encode(self, vector: NDArray[Any]) -> Words:
        """Return `vector` modulo 2^64. Raises: NotEncodable."""
        return whole_numbers(vector, dimension=self.dimension, largest=self.largest).view(np.uint64)

    def noise(self, *, bits: Bits) -> Words:
        """Return a fresh share of the noise. Never use one twice."""
        return share(self.rate, self.parts, self.dimension, bits=bits).view(np.uint64)

    def contribution(self, vector: NDArray[Any], *, bits: Bits) -> Words:
        """Return `vector` plus a fresh share of the noise. Raises: NotEncodable."""
        return self.encode(vector) + self.noise(bits=bits)

    def decode(self, total: Words) -> Reals:
        """Return the sum of contributions. Raises: NotEncodable for a shape."""
        return signed(total, dimension=self.dimension).astype(np.float64)


@lru_cache(maxsize=256)
def _half_width(rate: Fraction, shape: float, level: float) -> int:
    """Return the smallest h with P(|NB(shape, p) − NB(shape, p)| ≤ h) ≥ level, p = e^(−rate).

    The characteristic function is (1 + sin²(θ/2)/sinh²(rate/2))^(−shape); its discrete Fourier transform is
    the distribution folded at a period beyond which lies less than 1e-8.
    """
    spread = math.sqrt(shape / 2.0) / math.sinh(float(rate) / 2.0)
    period = 2 ** math.ceil(math.log2(2.0 * (20.0 / float(rate) + 12.0 * spread) + 16.0))
    angles = np.pi * np.arange(period // 2 + 1) / period  # θ/2
    transform = (1.0 + (np.sin(angles) / math.sinh(float(rate) / 2.0)) ** 2) ** -shape
    mass = np.fft.irfft(transform, period)[: period // 2]
    mass[1:] *= 2.0
    return int(np.searchsorted(np.cumsum(mass), level - 1e-12))
