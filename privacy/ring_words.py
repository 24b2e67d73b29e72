"""How wide the words of a sum must be, and words of that width as bytes.

No wrap: let n sites each add integers within ±b. Every sum of them lies within ±n·b. If n·b < 2^(k-1), the
numbers within ±n·b have different residues modulo 2^k, and two's complement names the one that lies in
[-2^(k-1), 2^(k-1)): reading a residue as a signed number of k bits gives the sum itself, never another. With
n·b at 2^(k-1) or above, the sum n·b would be read as a negative number: the bound cannot be improved.

Words are added, and masks drawn, modulo 2^32 where k is at most 32, else modulo 2^64 (`ring`), and k bits of
each travel: the low k bits of a uniform word are uniform, and taking them is a homomorphism of addition, so
masks cancel modulo 2^k as they do in the ring, and what is left out says nothing that what is sent does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import BadParameters
from privacy.rng import Words

WORD_BYTES: Final = 8  # of the widest words
_WIDEST = np.dtype("<u8")
_HALF_BYTES = 4  # up to here words are added in half as many bytes: half the mask, half the memory
_CHUNK_WORDS = 2**17  # of a long vector at a time: what is computed on the way stays in the cache


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


def ring(width: int) -> np.dtype[Any]:
    """Return the type of numbers in which words of `width` bytes are added. Raises: BadParameters."""
    check_width(width)
    return np.dtype("<u4") if width <= _HALF_BYTES else _WIDEST


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

    def put(self, words: NDArray[Any], *, at: int) -> None:
        """Write the low bytes of `words`, unsigned, the first of which is word number `at`."""
        for shift, part in self._parts:
            low = words >> words.dtype.type(8 * shift) if shift else words
            np.copyto(part[at : at + words.size], low, casting="unsafe")  # unsafe: to take the low bytes

    def data(self) -> bytes:
        """Return all words."""
        return self._data.tobytes()


def packed(words: Words, *, width: int) -> bytes:
    """Return the low `width` bytes of each word, as `Packed` lays them out. Raises: BadParameters."""
    into, kind = Packed(words.size, width=width), ring(width)
    for start in range(0, words.size, _CHUNK_WORDS):
        into.put(words[start : start + _CHUNK_WORDS].astype(kind, copy=False), at=start)
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


def add_packed(total: NDArray[Any], data: bytes, *, width: int) -> None:
    """Add the words in `data` to `total`, which is of their ring, in place. Raises: BadParameters."""
    if total.dtype != ring(width) or len(data) != total.size * width:
        raise BadParameters("not as many words, or of another ring")
    if width == total.itemsize:
        np.add(total, np.frombuffer(data, dtype=total.dtype), out=total)
        return
    for at, part in _chunks(data, width, kind=total.dtype):
        total[at : at + part.size] += part


def put_signed(out: Words, data: bytes, *, width: int) -> None:
    """Write the words in `data`, read as signed numbers, to `out`. Raises: BadParameters."""
    check_width(width)
    if len(data) != out.size * width:
        raise BadParameters("not as many words")
    if width in (1, 2, 4, 8):  # numbers that the machine has: one copy
        out.view(np.int64)[:] = np.frombuffer(data, dtype=f"<i{width}")
        return
    signed = out.view(np.int64)
    for at, part in _chunks(data, width, kind=ring(width)):
        signed[at : at + part.size] = _as_signed(part, width=width)


def _chunks(data: bytes, width: int, *, kind: np.dtype[Any] = _WIDEST) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield where words begin and what they are, few enough at a time to stay in the cache.

    What is yielded is written over when the next is asked for.
    """
    count = len(data) // width
    (_, low), *more = _laid_out(np.frombuffer(data, dtype=np.uint8), count, width)
    words, high = np.empty((2, min(count, _CHUNK_WORDS)), dtype=kind)
    for start in range(0, count, _CHUNK_WORDS):
        end = min(start + _CHUNK_WORDS, count)
        chunk = words[: end - start]
        np.copyto(chunk, low[start:end])
        for at, part in more:
            shifted = high[: end - start]
            np.copyto(shifted, part[start:end])
            np.left_shift(shifted, kind.type(8 * at), out=shifted)
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


class RunningSum:
    """A sum of words in their ring, in the memory of what it stands for: 8 bytes a word, half of it idle.

    `words` is what is added to; until `signed`, which writes over it. Raises: BadParameters for a width that
    no word has.
    """

    def __init__(self, length: int, *, width: int) -> None:
        self._width = width
        self._room = np.zeros(length, dtype=_WIDEST)
        narrow = ring(width) != _WIDEST
        self.words: NDArray[Any] = self._room.view(ring(width))[length:] if narrow else self._room

    def signed(self) -> Words:
        """Return the signed numbers of the sum, as words of eight bytes. Once."""
        for start in range(0, self._room.size, _CHUNK_WORDS):  # what is written lies before what is read next
            part = self.words[start : start + _CHUNK_WORDS].copy()
            self._room.view(np.int64)[start : start + part.size] = _as_signed(part, width=self._width)
        return self._room


def _as_signed(words: NDArray[Any], *, width: int) -> NDArray[Any]:
    """Return words of a ring as signed numbers of `width` bytes, in place."""
    signed: NDArray[Any] = words.view(f"<i{words.itemsize}")
    unused = 8 * (words.itemsize - width)
    if unused:
        np.left_shift(signed, unused, out=signed)
        np.right_shift(signed, unused, out=signed)
    return signed
