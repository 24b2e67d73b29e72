"""The rows a model is trained on: one per person, and never more than one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Rows of persons. It never leaves the node.

    Args:
        person_ids: int64, ascending.
        x: float32 [persons, columns of the study], finite, in [-1, 1].
        mask: bool, of the same shape: whether the entry was observed (False: it is the study's fill).
        y: float32, finite, as the outcome's kind has it: 0 or 1, the number of a class, an amount in [-1, 1];
            or [persons, 2] for times: intervals lived through, and 1 if the outcome came in the next one.
    """

    person_ids: NDArray[np.int64]
    x: NDArray[np.float32]
    mask: NDArray[np.bool_]
    y: NDArray[np.float32]

    def __post_init__(self) -> None:
        persons = len(self.person_ids)
        if self.x.ndim != 2 or self.x.shape != self.mask.shape or len(self.x) != persons:
            raise ValueError("x and mask need one row per person")
        if self.y.shape not in ((persons,), (persons, 2)):
            raise ValueError("y needs one value, or two, per person")
        if len(np.unique(self.person_ids)) != persons:
            raise ValueError("a person has two rows")
        if not np.isfinite(self.x).all() or np.abs(self.x).max(initial=0.0) > 1.0:
            raise ValueError("features must be finite and in [-1, 1]")
        if not np.isfinite(self.y).all():
            raise ValueError("the outcome is finite")

    def __len__(self) -> int:
        return len(self.person_ids)

    def rows(self, chosen: NDArray[np.bool_]) -> FeatureTable:
        """Return the chosen persons."""
        return FeatureTable(self.person_ids[chosen], self.x[chosen], self.mask[chosen], self.y[chosen])
