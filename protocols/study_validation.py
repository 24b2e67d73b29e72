"""Trying the model on patients it is not trained on, while it is trained: when, on whom, at which price.

    [validation]
    every = 2             rounds between two looks at the model
    fraction = 0.1        of each site's patients: a third part beside training (train_fraction) and test
    share = 0.1           of the study's privacy, as a part of what all its Gaussian sums together cost (μ²)
    loss_bound = 2.0      a patient's loss counts for at most this much: what one patient can move
    metric = "loss"       what decides: "loss", or "accuracy" where the outcome has classes
    patience = 3          the run ends after so many looks in a row without improvement; 0: it never does
    min_delta = 0.0       of the metric: less is no improvement

What a look buys is one noisy sum over all sites: losses, right predictions, validation patients, and all
patients of the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, checked_float, checked_int, checked_name

METRICS = ("loss", "accuracy")
MAX_EVERY = 10_000  # rounds, as many as a plan may have
MAX_LOSS_BOUND = 1e6


@dataclass(frozen=True, slots=True)
class Validation:
    """When and on whom a plan's model is tried, and what that may cost."""

    every: int
    fraction: float
    share: float
    loss_bound: float
    metric: str
    patience: int
    min_delta: float

    def due(self, round: int) -> bool:
        """Whether the model is tried at the end of this round."""
        return round % self.every == 0

    def looks(self, rounds: int) -> int:
        """Return how many looks a run of so many rounds has: what the accountant composes."""
        return rounds // self.every

    def to_json(self) -> dict[str, Any]:
        """Return the fields, defaults written out."""
        return {name: getattr(self, name) for name in type(self).__slots__}


def parse_validation(fields: Fields) -> Validation:
    """Return the validation that a table describes. Raises: MalformedStudy."""
    found = Validation(
        every=checked_int(*fields.take("every"), low=1, high=MAX_EVERY),
        fraction=checked_float(*fields.take("fraction"), above=0.0, high=0.5),
        share=checked_float(*fields.take("share"), above=0.0, high=0.9),
        loss_bound=checked_float(*fields.take("loss_bound"), above=0.0, high=MAX_LOSS_BOUND),
        metric=checked_name(*fields.take("metric", "loss"), METRICS),
        patience=checked_int(*fields.take("patience"), low=0, high=MAX_EVERY),
        min_delta=checked_float(*fields.take("min_delta", 0.0), low=0.0, high=MAX_LOSS_BOUND),
    )
    fields.done()
    return found
