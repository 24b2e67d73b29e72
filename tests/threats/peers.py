"""How other systems blur a count, as far as an attack needs it: what ours is held beside.

Modelled after their published behaviour, not their code. SHRINE: Gaussian noise rounded to 5, "10 patients or
fewer" below 10, new noise for each query. Samply Focus: floating-point Laplace noise rounded to 10, kept in
memory under the true count. DataSHIELD: exact counts, refused below a threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHRINE_DEVIATION, SHRINE_STEP, SHRINE_LEAST = 6.5, 5, 10
FOCUS_EPSILON, FOCUS_STEP = 0.28, 10
DATASHIELD_LEAST = 3

Numbers = NDArray[np.float64]


def shrine(count: int, size: int | tuple[int, ...], *, rng: np.random.Generator) -> Numbers:
    """Return so many answers to queries that find `count` patients; 10 stands for "10 or fewer"."""
    noisy = count + rng.normal(0.0, SHRINE_DEVIATION, size)
    rounded = np.rint(noisy / SHRINE_STEP) * SHRINE_STEP
    answers: Numbers = np.maximum(rounded, SHRINE_LEAST)
    return answers


def focus(counts: list[int], games: int, *, rng: np.random.Generator) -> Numbers:
    """Return for each game the answers to queries that find these counts, one for equal counts."""
    kept: dict[int, Numbers] = {}
    for count in counts:
        if count not in kept:
            noisy = count + rng.laplace(0.0, 1.0 / FOCUS_EPSILON, games)
            kept[count] = np.rint(noisy / FOCUS_STEP) * FOCUS_STEP
    return np.stack([kept[count] for count in counts], axis=1)


def datashield(count: int) -> int | None:
    """Return the exact count, or nothing below the threshold."""
    return count if count >= DATASHIELD_LEAST else None
