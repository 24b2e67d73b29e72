"""Which persons a model is trained on, on which it is tried meanwhile, and on which only at the end."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

SPLIT_LABEL = b"fedtwin train/test split v1"


def in_training(person_ids: NDArray[np.int64], *, key: bytes, fraction: float) -> NDArray[np.bool_]:
    """Return for each person whether they belong to the training part.

    Guarantee: the same person falls on the same side in every study of this node that has the same fraction,
    and without `key` (the node's own, 16 bytes or more) nobody can tell which side that is.
    """
    return _drawn(person_ids, key) < int(fraction * 2**64)


def in_validation(
    person_ids: NDArray[np.int64], *, key: bytes, after: float, fraction: float
) -> NDArray[np.bool_]:
    """Return for each person whether they belong to the part that follows the training part (`after`).

    Guarantee: as `in_training`; nobody is in both.
    """
    drawn = _drawn(person_ids, key)
    return (drawn >= int(after * 2**64)) & (drawn < int((after + fraction) * 2**64))


def _drawn(person_ids: NDArray[np.int64], key: bytes) -> NDArray[np.object_]:
    """Return a whole number below 2^64 for each person."""
    if len(key) < 16:
        raise ValueError("the split needs a key of at least 16 bytes")
    drawn = (
        hmac.digest(key, SPLIT_LABEL + int(person).to_bytes(8, "big", signed=True), hashlib.sha256)[:8]
        for person in person_ids
    )
    return np.array([int.from_bytes(digits, "big") for digits in drawn], dtype=object)
