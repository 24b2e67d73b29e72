"""A study of one sum: noisy sufficient statistics of a linear or logistic model, and a Newton step from them.

With `mode = "one-shot"` in [training] (which then only has `train_fraction` besides, 1 by default), and
`model = "logistic"` in [study]: of an "amount" the model is linear. In [privacy] there is no `clip_norm`:
what one patient adds is of a fixed length. May be left out, as all of its keys:

    [one_shot]  row_norm: patients whose row (with a 1 for the bias) is longer count for less (the length of a
                row of columns that are anything from -1 to 1 alike)
                information_weight: how much of a patient's share of the sum goes into the information, in
                units of what goes into the score (0.5)
                shrinkage: how many times the noise of the information, as far as the information does not
                reach it by itself, is added to it (3)

How the defaults were chosen: docs/training.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, checked_float


@dataclass(frozen=True, slots=True)
class OneShot:
    """How a patient's row becomes part of the one sum."""

    row_norm: float
    information_weight: float = 0.5
    shrinkage: float = 3.0

    @property
    def clip_norm(self) -> float:
        """The L2 norm of what one patient adds, at most: 1 in the score, the weight in the information."""
        return math.sqrt(1.0 + self.information_weight**2)

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {name: getattr(self, name) for name in type(self).__slots__}


def usual_row_norm(columns: int) -> float:
    """Return √(1 + columns / 3), the root of the mean square, to three decimals.

    >>> usual_row_norm(12)
    2.236
    """
    return round(math.sqrt(1.0 + columns / 3.0), 3)


def parse_one_shot(fields: Fields, *, columns: int) -> OneShot:
    """Return what the section describes, of a plan with so many columns. Raises: MalformedStudy."""
    usual = OneShot(usual_row_norm(columns))
    found = OneShot(
        row_norm=checked_float(*fields.take("row_norm", usual.row_norm), above=0.0, high=100.0),
        information_weight=checked_float(
            *fields.take("information_weight", usual.information_weight), low=0.01, high=100.0
        ),
        shrinkage=checked_float(*fields.take("shrinkage", usual.shrinkage), low=0.1, high=1000.0),
    )
    fields.done()
    return found
