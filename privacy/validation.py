"""What a look at the model buys: one noisy sum over all sites' validation patients, and what follows from it.

Each validation patient adds (2·loss/bound − 1, ±1 for a right or wrong prediction, 1, w), each other patient
of the study (0, 0, 0, w), all of these in [-1, 1]. So one patient at one site moves the sum by at most
`patient_norm` in L2, and the total carries Gaussian noise of noise multiplier × that norm × sites per
patient, in shares as for gradients. Centring halves the noise of the mean at no price.

The price. All Gaussian sums of a run together are one Gaussian with μ² = Σ count/multiplier² (Dong, Roth, Su
2022). Of the μ² that the plan's (ε, δ) allows, the looks get `share` and the gradients the rest; both noise
multipliers are rounded up. A patient is at one site either in training or in validation, so that the two
could be counted as parallel; they are not, because the ledger adds up whatever was released.

What follows from a total (means, whether to go on, which checkpoint is best) is post-processing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import GRID, GaussianEvent, calibrate
from privacy.lattice import NoisePlan
from protocols.study import Study
from protocols.study_validation import Validation

Vector = NDArray[np.float64]

PATIENTS_WEIGHT = 0.5  # of a study's patients beside those of validation: 4 % more noise in all, ±0.5 % of it
PATIENTS_AT_ONE_SITE = 100_000  # as for gradients (privacy.study_noise)
CONTEXT_LABEL = b"fedtwin validation v2"
FEWEST_SDS = 3.0  # of the noise: with fewer patients than that, a mean would be noise, and none is given


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of the whole fleet, and the standard deviation of its noise."""

    round: int
    name: str
    value: float
    noise_sd: float

    def to_json(self) -> dict[str, int | str | float]:
        """Return the fields for JSON."""
        return {name: getattr(self, name) for name in type(self).__slots__}


def has_classes(study: Study) -> bool:
    """Whether a prediction of the outcome is right or wrong."""
    return study.outcome.task in ("binary", "multiclass")


def vector_length(study: Study) -> int:
    """Return how many numbers a look's sum has."""
    return 4 if has_classes(study) else 3


def patient_norm(study: Study) -> float:
    """Return the largest L2 norm of what one patient adds at one site."""
    return math.sqrt(vector_length(study) - 1 + PATIENTS_WEIGHT**2)


def looks(study: Study) -> int:
    """Return how many looks the plan pays for."""
    return 0 if study.validation is None else study.validation.looks(study.training.rounds)


def due(study: Study, *, round: int) -> bool:
    """Whether the model is tried at the end of this round."""
    return study.validation is not None and study.validation.due(round)


def noise_multipliers(study: Study) -> tuple[float, float]:
    """Return those of a gradient sum and of a look, which together cost the study's (ε, δ)."""
    plan, steps, found = _section(study), study.training.steps, looks(study)
    every = calibrate(epsilon=study.privacy.epsilon, delta=study.privacy.delta, count=steps + found)
    mu_squared = (steps + found) / every**2
    return _rounded_up(math.sqrt(steps / (mu_squared * (1.0 - plan.share)))), _rounded_up(
        math.sqrt(found / (mu_squared * plan.share))
    )


def event(study: Study, *, count: int) -> GaussianEvent:
    """Return what `count` looks cost."""
    return GaussianEvent(noise_multipliers(study)[1], count)


def noise_plan(study: Study, *, participants: int, tolerance: int) -> NoisePlan:
    """Return how a site turns what its patients add into its input of a masked sum. Raises: ValueError."""
    privacy = study.privacy
    norm = patient_norm(study)
    return NoisePlan.for_reals(
        sigma=noise_multipliers(study)[1] * norm * privacy.max_sites_per_patient,
        l2_clip_norm=norm,
        sites_per_patient=privacy.max_sites_per_patient,
        participants=participants,
        tolerance=tolerance,
        dimension=vector_length(study),
        largest=float(PATIENTS_AT_ONE_SITE),
    )


def rows(study: Study, losses: Vector, right: NDArray[np.bool_] | None, *, others: int) -> Vector:
    """Return what each patient adds: those of validation, with their losses, and `others` of the study.

    A loss that is no number counts as the bound.
    """
    bound = _section(study).loss_bound
    clipped = np.clip(np.nan_to_num(losses, nan=bound, posinf=bound, neginf=0.0), 0.0, bound)
    found = np.zeros((len(losses) + others, vector_length(study)))
    mine = found[: len(losses)]
    mine[:, 0] = 2.0 * clipped / bound - 1.0
    if right is not None:
        mine[:, 1] = np.where(right, 1.0, -1.0)
    mine[:, -2] = 1.0
    found[:, -1] = PATIENTS_WEIGHT
    return found


def metrics(study: Study, total: Vector, *, round: int, noise_sd: float) -> tuple[Metric, ...]:
    """Return what a look's total says: patients of the study, and means over validation patients.

    `noise_sd` is that of one coordinate. The means are left out where the noise hides how many patients they
    are over.
    """
    patients = float(total[-1]) / PATIENTS_WEIGHT
    found = [Metric(round, "patients", patients, noise_sd / PATIENTS_WEIGHT)]
    over = float(total[-2])
    if over < FEWEST_SDS * noise_sd:
        return tuple(found)
    half = _section(study).loss_bound / 2.0
    found.append(_mean(round, "loss", float(total[0]) / over, half, noise_sd / over))
    if has_classes(study):
        found.append(_mean(round, "accuracy", float(total[1]) / over, 0.5, noise_sd / over))
    return tuple(found)


def _mean(round: int, name: str, centred: float, half: float, noise: float) -> Metric:
    """Return half · (1 + centred), cut to its range; both sum and count carry the noise."""
    value = half * (1.0 + min(1.0, max(-1.0, centred)))
    return Metric(round, name, value, half * noise * math.sqrt(1.0 + min(1.0, centred**2)))


def best_round(study: Study, seen: Sequence[Metric]) -> int | None:
    """Return the first round at whose end the deciding metric was best; None if no look said anything."""
    history = _deciding(study, seen)
    return min(history, key=_cost).round if history else None


def should_stop(study: Study, seen: Sequence[Metric]) -> bool:
    """Whether the last `patience` looks brought no improvement of more than `min_delta`.

    It follows from the plan and the noisy totals alone: all who saw them come to the same answer.
    """
    plan = _section(study)
    best, without = math.inf, 0
    for metric in _deciding(study, seen):
        if _cost(metric) < best - plan.min_delta:
            best, without = _cost(metric), 0
        else:
            without += 1
    return 0 < plan.patience <= without


def step_context(plan_hash: bytes, *, round: int, model: bytes) -> bytes:
    """Return the 32 bytes that name one look: a gradient and a look, or looks at two models, do not add up.

    Args: model, the digest (privacy.descent.digest) of what is looked at.
    """
    return hashlib.sha256(CONTEXT_LABEL + plan_hash + round.to_bytes(4, "big") + model).digest()


def purpose(plan_hash: bytes) -> str:
    """Return what the looks of this plan are called in the ledger."""
    return f"validation:{plan_hash.hex()}"


def _deciding(study: Study, seen: Sequence[Metric]) -> list[Metric]:
    wanted = _section(study).metric
    return sorted((metric for metric in seen if metric.name == wanted), key=lambda metric: metric.round)


def _cost(metric: Metric) -> float:
    return -metric.value if metric.name == "accuracy" else metric.value


def _section(study: Study) -> Validation:
    if study.validation is None:
        raise ValueError("the plan has no validation")
    return study.validation


def _rounded_up(multiplier: float) -> float:
    return (math.floor(multiplier / GRID) + 1) * GRID
