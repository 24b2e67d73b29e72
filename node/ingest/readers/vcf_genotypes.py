"""Genotypes as VCF writes them ("0/1", "1|1:35", ".", "0"), all of a chunk of text at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from node.ingest.readers.variant_batches import ABSENT, MISSING

_NOT_ONE = np.int8(-128)
_ALLELE = np.full(256, _NOT_ONE, dtype=np.int8)
_ALLELE[list(b"0123456789")] = np.arange(10)
_ALLELE[ord(".")] = MISSING
_COLON = ord(":")
_MANY = 16  # samples from which a line's genotypes are copied as a block
_BEYOND = 127  # any allele number that no record can have

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class NoGenotype(ValueError):
    """What a sample of the row says is none."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}")
        self.row = row


def calls(
    signs: Bytes, starts: Ints, ends: Ints
) -> tuple[NDArray[np.int8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return alleles as [row, sample, copy], whether phased, and which rows have somebody with more copies.

    Args:
        signs: the text, and three signs behind its last genotype.
        starts, ends: where each sample's fields stand, [row, sample]; the genotype is the first of them.
    Raises: NoGenotype.
    """
    first, mark, second, after = _around(signs, starts, ends)
    one, two = _ALLELE[first], _ALLELE[second]
    phased = mark == ord("|")
    width = ends - starts
    usual = (
        (one != _NOT_ONE) & (two != _NOT_ONE) & (phased | (mark == ord("/")))
        & ((width == 3) | ((after == _COLON) & (width > 3)))
    )  # fmt: skip
    many = np.zeros(len(starts), dtype=bool)
    if not usual.all():
        single = (one != _NOT_ONE) & ((width == 1) | ((mark == _COLON) & (width > 1)))
        two = np.where(single, np.int8(ABSENT), two)
        phased &= ~single
        for row, column in np.argwhere(~(usual | single)).tolist():
            text = signs[starts[row, column] : ends[row, column]].tobytes()
            call = _call(text.partition(b":")[0])
            if call is None:
                raise NoGenotype(row)
            one[row, column], two[row, column], phased[row, column], copies = call
            many[row] |= copies > 2
    return np.stack([one, two], axis=2), phased, many


def _around(signs: Bytes, starts: Ints, ends: Ints) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Return the first four signs of each sample."""
    count = starts.shape[1]
    whole = ends[:, -1] - starts[:, 0] == 4 * count - 1
    if count >= _MANY and whole.all() and (ends - starts == 3).all():
        block = np.stack([signs[begin : begin + 4 * count] for begin in starts[:, 0].tolist()])
        four = block.reshape(len(starts), count, 4)
        return four[:, :, 0], four[:, :, 1], four[:, :, 2], four[:, :, 3]
    return signs[starts], signs[starts + 1], signs[starts + 2], signs[starts + 3]


@lru_cache(maxsize=1 << 12)
def _call(said: bytes) -> tuple[int, int, bool, int] | None:
    """Return two alleles, whether phased, and how many there are; None if it is no genotype.

    >>> _call(b"10|2"), _call(b"0/1/1"), _call(b"x")
    ((10, 2, True, 2), (0, 1, False, 3), None)
    """
    parts = said.replace(b"|", b"/").split(b"/")
    found = []
    for part in parts:
        if part == b".":
            found.append(MISSING)
        elif part.isdigit() and len(part) <= 9:
            found.append(min(int(part), _BEYOND))
        else:
            return None
    second = found[1] if len(found) > 1 else ABSENT
    return found[0], second, b"|" in said and len(found) > 1, len(found)
