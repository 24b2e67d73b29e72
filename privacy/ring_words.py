"""How wide the words of a sum must be, and words of that width as bytes.

No wrap: let n sites each add integers within ±b. Every sum of them lies within ±n·b. If n·b < 2^(k-1), the
numbers within ±n·b have different residues modulo 2^k, and two's complement names the one that lies in
[-2^(k-1), 2^(k-1)): reading a residue as a signed number of k bits gives the sum itself, never another. With
n·b at 2^(k-1) or above, the sum n·b would be read as a negative number: the bound cannot be improved.

Masks are drawn modulo 2^64 and k bits of each word travel: the low k bits of a uniform word are uniform, and
taking them is a homomorphism of addition, so masks cancel modulo 2^k as they do modulo 2^64, and what is left
out says nothing that what is sent does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import BadParameters
from privacy.rng import Words

WORD_BYTES: Final = 8  # of the words that are added
_CHUNK_WORDS = 2**14  # of a long vector at a time: what is computed on the way stays in the cache


def fewest_bytes(*, participants: int, largest: int) -> int:
    """Return the width of words, in bytes, in which sums of so many values up to ±`largest` never wrap.

    >>> [fewest_bytes(participants=2, largest=largest) for largest in (63, 64, 2**31, 2**61)]
    [1, 2, 5, 8]

    Raises: BadParameters if 64 bits are too few.
    """
    if participants < 1 or largest < 0:
        raise BadParameters("needs a participant and a largest absolute value")
    bits = (participants * largest).bit_length() + 1  # n·b < 2^(bits-1)
    if bits > 8 * WORD_BYTES:
        raise BadParameters("the sum could wrap modulo 2^64")
    return -(-bits // 8)


def check_width(width: int) -> None:
    """Raises: BadParameters for a width that no word has."""
    if type(width) is not int or not 1 <= width <= WORD_BYTES:
        raise BadParameters(f"words have 1 to {WORD_BYTES} bytes")


def width_of(words: Words) -> int:
    """Return the fewest bytes that hold all of these signed numbers: for a total, which is no secret."""
    signed = words.view(np.int64)
    largest = max(int(signed.max(initial=0)), ~int(signed.min(initial=0)))
    return largest.bit_length() // 8 + 1


class Packed:
    """Words of `width` bytes as they travel: the low parts of all words, then the next parts of all.

    Parts are of four, two and one byte, least significant first: whole arrays are copied, never single bytes.
    Raises: BadParameters for a width that no word has.
    """

    def __init__(self, count: int, *, width: int) -> None:
        check_width(width)
        self._data = np.empty(count * width, dtype=np.uint8)
        self._parts = _laid_out(self._data, count, width)

    def put(self, words: Words, *, at: int) -> None:
        """Write the low bytes of `words`, the first of which is word number `at`."""
        for shift, part in self._parts:
            low = words >> np.uint64(8 * shift) if shift else words
            np.copyto(part[at : at + words.size], low, casting="unsafe")  # unsafe: to take the low bytes

    def data(self) -> bytes:
        """Return all words."""
        return self._data.tobytes()


def packed(words: Words, *, width: int) -> bytes:
    """Return the low `width` bytes of each word, as `Packed` lays them out. Raises: BadParameters."""
    into = Packed(words.size, width=width)
    for start in range(0, words.size, _CHUNK_WORDS):
        into.put(words[start : start + _CHUNK_WORDS], at=start)
    return into.data()


def unpacked(data: bytes, *, width: int) -> Words:
    """Return the words in `data`, none of them negative: reduced modulo 2^(8·width). Read-only at full width.

    Raises: BadParameters if `data` is not whole words.
    """
    check_width(width)
    if len(data) % width:
        raise BadParameters(f"not whole words of {width} bytes")
    if width == WORD_BYTES:
        return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
    words = np.empty(len(data) // width, dtype=np.uint64)
    for at, part in _chunks(data, width):
        words[at : at + part.size] = part
    return words


def add_packed(total: Words, data: bytes, *, width: int) -> None:
    """Add the words in `data` to `total`, modulo 2^64, in place. Raises: BadParameters."""
    check_width(width)
    if len(data) != total.size * width:
        raise BadParameters("not as many words")
    for at, part in _chunks(data, width):
        total[at : at + part.size] += part


def put_signed(out: Words, data: bytes, *, width: int) -> None:
    """Write the words in `data`, read as signed numbers, to `out`. Raises: BadParameters."""
    check_width(width)
    if len(data) != out.size * width:
        raise BadParameters("not as many words")
    if width in (1, 2, 4, 8):  # numbers that the machine has: one copy
        out.view(np.int64)[:] = np.frombuffer(data, dtype=f"<i{width}")
        return
    for at, part in _chunks(data, width):
        extend(part, width=width)
        out[at : at + part.size] = part


def _chunks(data: bytes, width: int) -> Iterator[tuple[int, Words]]:
    """Yield where words begin and what they are, few enough at a time to stay in the cache.

    What is yielded is written over when the next is asked for.
    """
    count = len(data) // width
    (_, low), *more = _laid_out(np.frombuffer(data, dtype=np.uint8), count, width)
    words, high = np.empty((2, min(count, _CHUNK_WORDS)), dtype=np.uint64)
    for start in range(0, count, _CHUNK_WORDS):
        end = min(start + _CHUNK_WORDS, count)
        chunk = words[: end - start]
        np.copyto(chunk, low[start:end])
        for at, part in more:
            shifted = high[: end - start]
            np.copyto(shifted, part[start:end])
            np.left_shift(shifted, np.uint64(8 * at), out=shifted)
            np.bitwise_or(chunk, shifted, out=chunk)
        yield start, chunk


def _laid_out(data: NDArray[np.uint8], count: int, width: int) -> list[tuple[int, NDArray[Any]]]:
    """Return at which byte of a word each part begins, and that part of all words in `data`."""
    found, at = [], 0
    for size in (8, 4, 2, 1):
        if width & size:
            found.append((at, data[at * count : (at + size) * count].view(f"<u{size}")))
            at += size
    return found


def extend(words: Words, *, width: int) -> None:
    """Read each word as a signed number of `width` bytes and write it as one of eight, in place."""
    check_width(width)
    if width < WORD_BYTES:
        unused = 8 * (WORD_BYTES - width)
        np.left_shift(words, np.uint64(unused), out=words)
        signed = words.view(np.int64)
        np.right_shift(signed, unused, out=signed)
