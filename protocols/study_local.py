"""How each site trains by itself between two sums, in the mode "local"; and clipping that adapts itself.

    [local]                 goes with training.mode = "local", and only with it; what "fedadam" and
                            "scaffold" remember of earlier sums goes from round to round with the model
    local_steps = 5         steps of DP-SGD at each site before its update goes into a sum
    sampling_rate = 0.1     the chance of each patient to be drawn for a local step
    aggregator = "fedavg" | "fedprox" | "fedadam" | "scaffold"
    server_learning_rate = 1.0   what the mean update is multiplied by (Adam's rate, for "fedadam")
    proximal = 0.1          strength of the pull back to the round's model; of "fedprox" only
    update_clip = 1.0       the largest L2 norm of a site's update; larger ones are scaled down to it

    [clipping]              of the mode "shared-noise" only: Andrew et al. 2021
    quantile = 0.5          the share of patients whose gradients the norm should leave whole
    learning_rate = 0.2     how fast the norm follows, on a logarithmic scale
    share = 0.02            of the squared sensitivity that is spent on counting, the rest on gradients

`training.learning_rate`, `momentum` and `l2` are those of a local step, whose scale is a site's public share
of `expected_patients`; `privacy.clip_norm` is where an adapting norm starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, MalformedStudy, checked_float, checked_int, checked_name

AGGREGATORS = ("fedavg", "fedprox", "fedadam", "scaffold")
MAX_LOCAL_STEPS = 1_000
SMALLEST_RATE = 1e-6  # of sampling: a patient drawn once in a million steps trains nothing


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What a site does between two sums, and what all make of the mean of the updates."""

    local_steps: int
    sampling_rate: float
    aggregator: str
    server_learning_rate: float
    update_clip: float
    proximal: float = 0.0

    def remembered(self, parameters: int) -> int:
        """Return how many numbers all keep from sum to sum beside a model of so many parameters."""
        return {"fedadam": 2 * parameters + 1, "scaffold": parameters}.get(self.aggregator, 0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found = {name: getattr(self, name) for name in type(self).__slots__}
        return {name: value for name, value in found.items() if name != "proximal" or value}


@dataclass(frozen=True, slots=True)
class Clipping:
    """A clip norm that follows a quantile of the patients' gradient norms."""

    quantile: float
    learning_rate: float
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {name: getattr(self, name) for name in type(self).__slots__}


def parse_local(fields: Fields) -> LocalTraining:
    """Return the local training that a table describes. Raises: MalformedStudy."""
    found = LocalTraining(
        local_steps=checked_int(*fields.take("local_steps"), low=1, high=MAX_LOCAL_STEPS),
        sampling_rate=checked_rate(*fields.take("sampling_rate", 1.0)),
        aggregator=checked_name(*fields.take("aggregator", "fedavg"), AGGREGATORS),
        server_learning_rate=checked_float(*fields.take("server_learning_rate", 1.0), above=0.0, high=1e6),
        update_clip=checked_float(*fields.take("update_clip"), above=0.0, high=1e6),
        proximal=checked_float(*fields.take("proximal", 0.0), low=0.0, high=1e6),
    )
    if (found.aggregator == "fedprox") != bool(found.proximal):
        raise MalformedStudy(f"{fields.path}.proximal", 'goes with aggregator = "fedprox", and only with it')
    fields.done()
    return found


def parse_clipping(fields: Fields) -> Clipping:
    """Return the adapting clip norm that a table describes. Raises: MalformedStudy."""
    found = Clipping(
        quantile=checked_float(*fields.take("quantile"), low=0.01, high=0.99),
        learning_rate=checked_float(*fields.take("learning_rate", 0.2), above=0.0, high=1.0),
        share=checked_float(*fields.take("share", 0.02), low=1e-4, high=0.5),
    )
    fields.done()
    return found


def checked_rate(value: Any, path: str) -> float:
    """Return `value` if it is a chance above 0 and at most 1. Raises: MalformedStudy."""
    return checked_float(value, path, low=SMALLEST_RATE, high=1.0)
