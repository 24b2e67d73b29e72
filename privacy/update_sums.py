"""Sums of vectors that are private before they are summed: masks, an encoding that never wraps, no noise.

What an `UpdateSums` guarantees. A value v in [-1, 1] becomes the integer nearest to v·2^26; n sites add up to
at most n·2^26 in absolute value, and words of `ring_bytes` hold every such number (privacy/ring_words.py), so
no total wraps, whatever sites send that keep to the encoding. A total is off by n·2^-27 at most. One site
moves each coordinate by 1 at most: that is what a site can do to a model, and it can do it in every sum.

It adds no noise. A vector is private by what was done to it before (node/training/local_sgd.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.inversion import Bits
from privacy.lattice import NotEncodable, check_contributors, check_sites, real_numbers, signed
from privacy.ring_words import fewest_bytes

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

SCALE_BITS = 26  # rounding is 1e-8 of the largest update, far below its noise; 31 sites need 4 bytes


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
    def largest_contribution(self) -> int:
        """The same on the lattice."""
        return int(2**SCALE_BITS)

    @property
    def ring_bytes(self) -> int:
        """The bytes of a word in which no total wraps."""
        return fewest_bytes(participants=self.participants, largest=self.largest_contribution)

    def encode(self, vector: NDArray[Any]) -> Words:
        """Return `vector` on the lattice. Raises: NotEncodable for a shape, or a value beyond [-1, 1]."""
        values = np.asarray(vector)
        if values.shape != (self.dimension,):
            raise NotEncodable("another dimension than the plan's")
        exact = real_numbers(values, largest=self.largest)
        return np.rint(exact * 2.0**SCALE_BITS).astype(np.int64).view(np.uint64)

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
        return signed(total, dimension=self.dimension).astype(np.float64) * 2.0**-SCALE_BITS

    def standard_deviation(self, *, contributors: int) -> float:
        """Return 0: no noise is added. Raises: ValueError for contributors that do not fit."""
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        return 0.0
