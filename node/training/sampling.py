"""Which patients a step is computed on: each by a secret coin of their own, thrown anew for each step.

Guarantee: every patient is in with the chance `rate` (rounded down to a multiple of 2^-64, which costs less),
independent of all others and of all other steps; nobody is in twice. The coins come from the node's source of
secrets, nobody else ever sees them, and they are forgotten with the step: what was drawn is in no message,
log or file. A plan is charged for samples, so a step that is tried again throws its coins again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from privacy.rng import SecureBits


def drawn(table: FeatureTable, *, rate: float, bits: SecureBits) -> FeatureTable:
    """Return the patients drawn for one step: all of them at a `rate` of 1. May be none.

    Raises: ValueError for a rate outside (0, 1].
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError("a sampling rate is above 0 and at most 1")
    return table if rate == 1.0 else table.rows(coins(len(table), rate=rate, bits=bits))


def coins(count: int, *, rate: float, bits: SecureBits) -> NDArray[np.bool_]:
    """Return `count` independent coins that are true with chance `rate` < 1."""
    threshold = np.uint64(int(rate * 2.0**64))  # a product with a power of two is exact
    found: NDArray[np.bool_] = bits.uint64(count) < threshold
    return found
