"""Sums without noise, under the same masks: two words a value, so that a total is as good as the pooled one.

What an `ExactSums` guarantees. A value v, |v| <= `largest`, becomes the integer nearest to v·2^F, written as
high·2^48 + low with both parts of v's sign: |high| <= largest·2^(F-48), |low| <= 2^48. Each part travels in a
word of 64 bits of its own, and the words of n sites add up by themselves:

- No wrap. F is the largest number for which n·(largest·2^(F-48) + 1) <= 2^62; n <= 2^14 gives n·2^48 <= 2^62.
  Both sums lie within ±2^62 and two's complement brings them back with certainty.
- No loss. Scaling by powers of two, cutting off a fraction, and the difference of a number and its own whole
  part are exact in float64; so each site's value is off by 2^-(F+1) at most, and a total, which is divided as
  a whole number and rounded once, by n·2^-(F+1) and half an ulp. One word of 64 bits would leave a logistic
  model with ten columns, at 8 sites of up to a million people, 26 bits of fraction; two leave it 74.

It adds no noise and makes no claim of privacy. Who may use it: docs/threat-model.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.lattice import NotEncodable, check_contributors, check_sites, real_numbers, signed

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

LOW_BITS = 48
HEADROOM_BITS = 62
MOST_BITS = 200  # of fraction: a largest value of next to nothing needs no more


@dataclass(frozen=True, slots=True)
class ExactSums:
    """How a site turns exact values into its masked-sum input, and a total back.

    Args: largest, the largest absolute value of one value of one site, public; dimension, of values.
    """

    participants: int
    tolerance: int
    dimension: int
    largest: float
    scale_bits: int = field(init=False)

    def __post_init__(self) -> None:
        check_sites(participants=self.participants, tolerance=self.tolerance, dimension=self.dimension)
        if not (math.isfinite(self.largest) and self.largest > 0):
            raise ValueError("largest must be a finite number above 0")
        room = 2.0**HEADROOM_BITS / self.participants - 1.0  # of `high`
        bits = math.floor(math.log2(room / self.largest)) if room > 0 else -1
        object.__setattr__(self, "scale_bits", min(LOW_BITS + bits, MOST_BITS))
        if self.scale_bits < LOW_BITS // 2:
            raise ValueError("values so large leave no room for fractions")

    @property
    def lanes(self) -> int:
        """How many numbers fit into a word."""
        return 1

    @property
    def largest_contribution(self) -> int:
        """The largest absolute value of a word of one site."""
        return int(2**HEADROOM_BITS) // self.participants

    @property
    def words(self) -> int:
        """How many words the values take: all high parts, then all low ones."""
        return 2 * self.dimension

    def encode(self, vector: NDArray[Any]) -> Words:
        """Return the words of `vector`. Raises: NotEncodable for another shape, or a value out of range."""
        values = np.asarray(vector)
        if values.shape != (self.dimension,):
            raise NotEncodable("another dimension than the plan's")
        exact = real_numbers(values, largest=self.largest)
        scaled = np.ldexp(exact, self.scale_bits - LOW_BITS)
        high = np.trunc(scaled)
        low = np.rint(np.ldexp(scaled - high, LOW_BITS))
        return np.concatenate([high, low]).astype(np.int64).view(np.uint64)

    def decode(self, total: Words) -> Reals:
        """Return the sum, each value rounded once. Raises: NotEncodable for another shape."""
        parts = signed(total, dimension=self.words)
        high, low = parts[: self.dimension].tolist(), parts[self.dimension :].tolist()
        unit = 2**self.scale_bits
        return np.array([((a << LOW_BITS) + b) / unit for a, b in zip(high, low, strict=True)])

    def standard_deviation(self, *, contributors: int) -> float:
        """Return 0: there is no noise. Raises: ValueError for contributors that do not fit."""
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        return 0.0
