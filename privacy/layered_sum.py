"""Which words of a plan's sums are added up under encryption, while all others are masked.

The two parts of one vector are two sums of the same step: each is hidden in its own way, and each coordinate
carries its own share of noise, in whichever part it lies. So a step costs what it costs under masks alone; a
site that falls out between the two is in one part only, and each part still has noise of enough sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import BadParameters
from privacy.rng import Words
from privacy.walks import vector_length
from protocols.study import Study


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """What is encrypted, and with which scheme.

    Args:
        chosen: for each word of a step's vector whether it is encrypted; some are, and some are not.
        steps: of a session, from its first; later ones, a look at the model, are masked.
    Raises: BadParameters.
    """

    scheme: str
    chosen: NDArray[np.bool_]
    steps: int

    def __post_init__(self) -> None:
        if self.chosen.dtype != np.bool_ or self.chosen.all() or not self.chosen.any() or self.steps < 1:
            raise BadParameters("some words are encrypted, and some are not")

    @property
    def encrypted(self) -> int:
        """How many words of a vector are encrypted."""
        return int(np.count_nonzero(self.chosen))

    def split(self, vector: Words) -> tuple[Words, Words]:
        """Return the words to mask, and those to encrypt. Raises: BadParameters for another length."""
        if vector.shape != self.chosen.shape:
            raise BadParameters("not a vector of this plan")
        return vector[~self.chosen], vector[self.chosen]

    def joined(self, masked: Words, encrypted: Words) -> Words:
        """Return a total of its two parts. Raises: BadParameters for other lengths."""
        if encrypted.size != self.encrypted or masked.size != self.chosen.size - self.encrypted:
            raise BadParameters("not the parts of a vector of this plan")
        total = np.empty(self.chosen.size, dtype=np.uint64)
        total[~self.chosen], total[self.chosen] = masked, encrypted
        return total


def of(study: Study) -> Layers | None:
    """Return what a study wants encrypted; None: nothing."""
    names = set(study.aggregation.encrypted_layers)
    if not names:
        return None
    chosen = np.zeros(vector_length(study), dtype=np.bool_)
    at = 0
    for layer in study.layout:
        chosen[at : at + layer.size] = layer.name in names
        at += layer.size
    return Layers(study.aggregation.scheme, chosen, study.training.steps_per_round)
