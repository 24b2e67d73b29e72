"""Several numbers side by side in each word of a sum, as many as a plan's totals leave room for.

Words are added modulo 2^64 (privacy.masks). Where no total of a plan needs more than k bits with its sign,
L = ⌊64/k⌋ numbers v_0 … v_{L-1} travel as the one word Σ v_j·2^(kj) modulo 2^64, with k widened to ⌊64/L⌋.

No wrap: let n sites each add integers within ±b. Every sum S_j of a lane lies within ±n·b. If n·b < 2^(k-1),
all S_j + 2^(k-1) lie in [0, 2^k), so Σ (S_j + 2^(k-1))·2^(kj) lies in [0, 2^64) and is its own residue; its
digits to the base 2^k name each S_j. And the sum of the sites' words, plus the same constant, is just that
number modulo 2^64: adding lets carries of one site run into the next lane, and the sum takes them back. With
n·b at 2^(k-1) or above, the sum n·b would be read as a negative number: the bound cannot be improved.

What is hidden is not weakened: masks cover whole words, and a total of words is a function of the S_j alone.
A site that adds more than its plan allows spoils the other numbers of the word as well as its own, by which
it gains nothing: it could have sent anything for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from privacy.errors import BadParameters
from privacy.rng import Words

WORD_BITS: Final = 64
WORD_BYTES: Final = 8
MOST_LANES: Final = WORD_BITS // 2  # a number needs a bit and its sign
BLOCK_WORDS: Final = 2**15  # lanes run in parallel through blocks of words: whole arrays, in the cache


def most_lanes(*, participants: int, largest: int) -> int:
    """Return how many numbers fit into a word so that sums of so many values up to ±`largest` never wrap.

    >>> [most_lanes(participants=2, largest=largest) for largest in (2**19, 2**20, 2**30, 2**61)]
    [3, 2, 2, 1]

    Raises: BadParameters if 64 bits are too few.
    """
    if participants < 1 or largest < 0:
        raise BadParameters("needs a participant and a largest absolute value")
    return _lanes_of(participants * largest)


def check_lanes(lanes: int) -> None:
    """Raises: BadParameters for a number of lanes that no word has."""
    if type(lanes) is not int or not 1 <= lanes <= MOST_LANES:
        raise BadParameters(f"a word has 1 to {MOST_LANES} lanes")


def words_for(length: int, *, lanes: int) -> int:
    """Return how many words so many numbers take. Raises: BadParameters.

    >>> words_for(1_000_000, lanes=3)
    333334
    """
    check_lanes(lanes)
    return -(-length // lanes)


def laid(values: Words, *, lanes: int) -> Words:
    """Return signed numbers side by side in words, in a new array.

    A vector may be laid piece by piece: pieces begin at multiples of `lanes` times BLOCK_WORDS.
    Raises: BadParameters.
    """
    words = np.empty(words_for(values.size, lanes=lanes), dtype=np.uint64)
    bits = WORD_BITS // lanes
    for block, of in _blocks(values.size, lanes):
        into, part = words[block], values[of]
        into.fill(0)
        for lane in reversed(range(lanes)):
            some = part[lane * into.size : (lane + 1) * into.size]
            if lane < lanes - 1:
                np.left_shift(into, bits, out=into)
            np.add(into[: some.size], some, out=into[: some.size])
    return words


@dataclass(frozen=True, slots=True, eq=False)
class LaneVector:
    """A vector of `length` signed numbers, `lanes` of them in a word. Raises: BadParameters.

    Args: words: uint64; the numbers of a block of BLOCK_WORDS words, or of the last, shorter one, are those
    of their lowest lanes, one word after the other, then those of the next lanes.
    """

    words: Words
    length: int
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.words.shape != (words_for(self.length, lanes=self.lanes),):
            raise BadParameters("another number of words than the numbers take")

    def signed(self) -> Words:
        """Return the numbers, as words of two's complement."""
        return self._between(0, self.length)

    def narrowed(self) -> LaneVector:
        """Return the same numbers with as many in a word as they allow: for a total, which is no secret."""
        lanes = _lanes_of(max((_magnitude(part) for part in self._parts(1)), default=0))
        if lanes == self.lanes:
            return self
        narrow = np.empty(words_for(self.length, lanes=lanes), dtype=np.uint64)
        at = 0
        for part in self._parts(lanes):
            words = laid(part, lanes=lanes)
            narrow[at : at + words.size] = words
            at += words.size
        return LaneVector(narrow, self.length, lanes)

    def _parts(self, lanes: int) -> Iterator[Words]:
        """Yield the numbers, few at a time, split where blocks with so many lanes begin."""
        numbers = self.lanes * lanes * BLOCK_WORDS
        for start in range(0, self.length, numbers):
            yield self._between(start, min(start + numbers, self.length))

    def _between(self, start: int, stop: int) -> Words:
        """Return some of the numbers. Args: start: where a block begins; stop: where one ends."""
        numbers = np.empty(stop - start, dtype=np.uint64)
        words = self.words[start // self.lanes :]
        bits = WORD_BITS // self.lanes
        half = np.uint64(1 << (bits - 1))
        every = np.uint64(sum(int(half) << (bits * lane) for lane in range(self.lanes)))
        digit = np.uint64((1 << bits) - 1)
        for block, of in _blocks(numbers.size, self.lanes):
            digits, into = words[block] + every, numbers[of]
            for lane in range(self.lanes):
                found = into[lane * digits.size : (lane + 1) * digits.size]
                np.bitwise_and(digits[: found.size], digit, out=found)
                np.subtract(found, half, out=found)
                if lane < self.lanes - 1:
                    np.right_shift(digits, np.uint64(bits), out=digits)
        return numbers


def _blocks(length: int, lanes: int) -> Iterator[tuple[slice, slice]]:
    """Yield which words make up each block, and which numbers are in them."""
    at = 0
    for start in range(0, length, lanes * BLOCK_WORDS):
        stop = min(start + lanes * BLOCK_WORDS, length)
        words = -(-(stop - start) // lanes)
        yield slice(at, at + words), slice(start, stop)
        at += words


def _magnitude(numbers: Words) -> int:
    signed = numbers.view(np.int64)
    return max(int(signed.max(initial=0)), ~int(signed.min(initial=0)))


def _lanes_of(largest: int) -> int:
    """Return how many lanes numbers up to ±`largest` leave room for. Raises: BadParameters."""
    bits = largest.bit_length() + 1  # largest < 2^(bits-1)
    if bits > WORD_BITS:
        raise BadParameters("the sum could wrap modulo 2^64")
    return min(WORD_BITS // bits, MOST_LANES)
