"""Sums of vectors that are private before they are summed: masks, an encoding that never wraps, no noise.

What an `UpdateSums` guarantees. A value v in [-1, 1] becomes the integer nearest to v·2^s; n sites add up to
at most n·2^s in absolute value. s is the largest number up to 26 for which that lies below 2^31, so that two
such totals fit into a word (privacy/lanes.py) and none wraps, whatever sites send that keep to the encoding.
A total is off by n·2^-(s+1) at most. One site moves each coordinate by 1 at most: that is what a site can do
to a model, and it can do it in every sum.

It adds no noise. A vector is private by what was done to it before (node/training/local_sgd.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.inversion import Bits
from privacy.lanes import most_lanes
from privacy.lattice import NotEncodable, check_contributors, check_sites, real_numbers, signed

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

SCALE_BITS = 26  # rounding is 1e-8 of the largest update, far below its noise; of up to 31 sites
SUM_BITS = 31  # of a total, without its sign


@dataclass(frozen=True, slots=True)
class UpdateSums:
    """How a site turns its update into its masked-sum input, and a total back."""

    participants: int
    tolerance: int
    dimension: int

    def __post_init__(self) -> None:
        check_sites(participants=self.participants, tolerance=self.tolerance, dimension=self.dimension)

    @property
    def largest(self) -> float:
        """The largest absolute value of a coordinate of one site."""
        return 1.0

    @property
    def scale_bits(self) -> int:
        """Log2 of the lattice's units in 1."""
        return min(SCALE_BITS, SUM_BITS - self.participants.bit_length())

    @property
    def largest_contribution(self) -> int:
        """The same on the lattice."""
        return int(2**self.scale_bits)

    @property
    def lanes(self) -> int:
        """How many totals fit into a word without wrapping."""
        return most_lanes(participants=self.participants, largest=self.largest_contribution)

    def encode(self, vector: NDArray[Any]) -> Words:
        """Return `vector` on the lattice. Raises: NotEncodable for a shape, or a value beyond [-1, 1]."""
        values = np.asarray(vector)
        if values.shape != (self.dimension,):
            raise NotEncodable("another dimension than the plan's")
        exact = real_numbers(values, largest=self.largest)
        return np.rint(exact * 2.0**self.scale_bits).astype(np.int64).view(np.uint64)

    def noise(self, *, bits: Bits) -> Words:
        """Return zeros, where a plan of noise returns a share of it."""
        return np.zeros(self.dimension, dtype=np.uint64)

    def to_send(self, noisy: Words) -> Words:
        """Return the same words: no bit of them is more than is needed."""
        return noisy

    def contribution(self, vector: NDArray[Any], *, bits: Bits) -> Words:
        """Return `vector` on the lattice, and nothing added. Raises: NotEncodable."""
        return self.encode(vector)

    def decode(self, total: Words) -> Reals:
        """Return the sum. Raises: NotEncodable for a shape."""
        return signed(total, dimension=self.dimension).astype(np.float64) * 2.0**-self.scale_bits

    def standard_deviation(self, *, contributors: int) -> float:
        """Return 0: no noise is added. Raises: ValueError for contributors that do not fit."""
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        return 0.0
