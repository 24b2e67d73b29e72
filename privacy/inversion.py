"""Draws by inversion of a cumulative table of 192-bit integers: no floating-point number decides anything.

A 64-bit uniform decides nearly every draw; where it equals a table entry's upper word, 128 further bits
decide. Each probability is off by at most 2 units of 2^-192, so a table of n cells whose weights are exact to
2^-200 of their sum is within n·2^-192 in total variation of the distribution that the weights describe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WORD = 64
PRECISION_BITS = 192  # resolution of a table; three words of 64 bits
GUARD_BITS = 64  # further bits of the weights while a table is built
UNIT_BITS = PRECISION_BITS + GUARD_BITS  # callers give weights in units of 2^-256
ONE = 1 << UNIT_BITS
GUIDE_BITS = 18  # 1 MiB: for a Gaussian of σ = 2048 the first 18 bits decide 24 draws of 25
SMALL_GUIDE_BITS = 8  # for tables of few cells
FEW_CELLS = 256
_CHUNK = 2**15  # draws at a time: what is computed on the way stays in the cache


class Bits(Protocol):
    """A source of uniform bits: `privacy.rng.SecureBits`, and in tests a seeded one."""

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """Return `n` uniform 64-bit words."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """P(X ≤ x) for x = first, first+1, …, scaled by 2^192, in three words. Build with `of`."""

    first: int
    high: NDArray[np.uint64]
    low: tuple[int, ...]  # the lower 128 bits
    guide_bits: int
    guide: NDArray[np.int32]  # for each value of the first bits the entry it means; -1: they do not decide

    @classmethod
    def of(cls, weights: Iterable[int], *, first: int, total: int) -> Table:
        """Return the table of P(X = first + i) = weights[i] / total.

        Args: weights, at least one, none negative; total, at least their sum. What the sum lacks falls on the
        last value.
        """
        upper: list[int] = []
        cumulative = 0
        for weight in weights:
            cumulative += weight
            # the far tail may reach 1 exactly; one unit below it keeps the entries sorted in three words
            upper.append(min((cumulative << PRECISION_BITS) // total, (1 << PRECISION_BITS) - 1))
        lower = (1 << (PRECISION_BITS - WORD)) - 1
        high = np.array([u >> (PRECISION_BITS - WORD) for u in upper], dtype=np.uint64)
        high[-1] = 2**WORD - 1  # whatever is drawn is inside the table
        bits = GUIDE_BITS if len(upper) > FEW_CELLS else SMALL_GUIDE_BITS
        edges = np.arange(2**bits, dtype=np.uint64) << np.uint64(WORD - bits)
        first_of = np.searchsorted(high, np.append(edges, np.uint64(2**WORD - 1)), side="left").astype(
            np.int32
        )
        guide = np.where(first_of[:-1] == first_of[1:], first_of[:-1], np.int32(-1))
        guide[-1] = -1  # its last word, 2^64 − 1, can equal an entry
        return cls(first, high, tuple(u & lower for u in upper), bits, guide)

    @property
    def last(self) -> int:
        """The largest value that can be drawn."""
        return self.first + len(self.low) - 1

    def draw(self, n: int, bits: Bits) -> NDArray[np.int64]:
        """Return `n` independent draws."""
        uniform = bits.uint64(n)
        drawn = np.empty(n, dtype=np.int64)
        for start in range(0, n, _CHUNK):
            self._look_up(uniform[start : start + _CHUNK], bits, out=drawn[start : start + _CHUNK])
        return drawn

    def _look_up(self, uniform: NDArray[np.uint64], bits: Bits, *, out: NDArray[np.int64]) -> None:
        """Write the values that these words mean.

        Where the first bits decide, the entry that they mean is above all words that begin so, and equal to
        none. Elsewhere `high` ends in 2^64 − 1, so an index is always inside; equal words need the lower bits
        (once in 2^47).
        """
        index = self.guide[(uniform >> np.uint64(WORD - self.guide_bits)).astype(np.intp)]
        open_ = np.flatnonzero(index < 0)
        words = uniform[open_]
        found = np.searchsorted(self.high, words, side="left")
        for i in np.flatnonzero(self.high[found] == words):
            found[i] = self._decide(int(words[i]), int(found[i]), bits)
        index[open_] = found
        np.add(index, self.first, out=out)

    def _decide(self, word: int, index: int, bits: Bits) -> int:
        more = bits.uint64(2)
        below = (int(more[0]) << WORD) | int(more[1])
        while index < len(self.low) - 1 and int(self.high[index]) == word and self.low[index] <= below:
            index += 1
        return index


def exp_minus(exponent: Fraction) -> int:
    """Return e^(−exponent) for an exponent ≥ 0, in units of 2^-256, to the nearest unit."""
    context = Context(prec=120, rounding=ROUND_HALF_EVEN)  # 120 digits hold 398 bits
    quotient = context.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    # copy_negate, because a unary minus would round to the 28 digits of the thread's own context
    power = context.multiply(context.exp(quotient.copy_negate()), Decimal(ONE))
    return int(power.to_integral_value(context=context))
