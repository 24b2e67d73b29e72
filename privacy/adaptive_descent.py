"""A clip norm that follows the patients' gradients: one more number in each sum, under the same noise.

Each patient adds (√(1−s)·g·min(1/C, 1/|g|), √s·(1 if |g| <= C else −1)) times the plan's clip norm, for a
gradient g and the norm C of this step. Its L2 norm is at most the plan's clip norm, whatever C is; so noise,
encoding and price are those of a plan that does not adapt, and the share s says how much of the noise the
counting takes from the gradients (Andrew et al. 2021, theorem 1, written as one joint vector).

From the total follows the share of patients that C leaves whole, and C moves towards the plan's quantile by
C·e^(−rate·(share − quantile)). It starts at `privacy.clip_norm` and goes from round to round. The count is
divided by the public `expected_patients`: a wrong guess pulls the quantile towards one half and breaks no
promise.

Guarantee: as `privacy.descent` has it, bit for bit: e^x is a series of IEEE operations, not a library's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.descent import Descent, NotFinite, checked
from protocols.study import Study
from protocols.study_local import Clipping

Vector = NDArray[np.float64]

FARTHEST = 1e6  # a norm stays within this factor of the plan's
_TERMS = 24  # of the series, for |x| <= 1: the next is below 1e-24


class AdaptiveDescent:
    """The steps of one round, and the clip norm of the next."""

    def __init__(self, study: Study, params: Vector, memory: Vector | None = None) -> None:
        """Start a round at `params`, with what the round before remembered (None: at rest, the plan's norm).

        The norm is the last number of the memory; what is before it is the descent's.

        Raises: NotFinite for another shape, a value that is not finite, a norm out of its range.
        """
        self._study = study
        self._plan = section(study)
        memory = checked(at_rest(study) if memory is None else memory, study.carried - study.parameters)
        self._descent, norm = Descent(study, params, memory[:-1]), memory[-1]
        unit = study.privacy.clip_norm
        if not unit / FARTHEST <= norm <= unit * FARTHEST:
            raise NotFinite("no walk adapts a clip norm so far")
        self.clip_norm = float(norm)

    @property
    def params(self) -> Vector:
        """The model so far."""
        return self._descent.params

    @property
    def steps_done(self) -> int:
        """How many sums were taken in."""
        return self._descent.steps_done

    @property
    def carried(self) -> Vector:
        """The model so far, the memory of its steps, and the clip norm of the next."""
        return np.append(self._descent.carried, self.clip_norm)

    @property
    def finished(self) -> bool:
        """Whether the round's steps are all done."""
        return self._descent.finished

    def apply(self, noisy_sum: Vector) -> Vector:
        """Take one step, adapt the norm, and return the new parameters. Raises: NotFinite; ValueError."""
        total = np.asarray(noisy_sum, dtype=np.float64)
        if total.shape != (vector_length(self._study),) or not math.isfinite(float(total[-1])):
            raise NotFinite("a total has another shape, or a value that is not finite")
        unit_norm, training = self._study.privacy.clip_norm, self._study.training
        params = self._descent.apply(total[:-1] * unit(self._study, clip_norm=self.clip_norm))
        patients = float(training.expected_patients) * training.sampling_rate
        more_whole = float(total[-1]) / (
            unit_norm * count_part(self._study) * patients
        )  # in [-1, 1] but for noise
        whole = min(1.0, max(0.0, 0.5 * (1.0 + more_whole)))
        moved = self.clip_norm * _exp(-self._plan.learning_rate * (whole - self._plan.quantile))
        self.clip_norm = min(unit_norm * FARTHEST, max(unit_norm / FARTHEST, moved))
        return params


def contribution(study: Study, gradients: Vector, *, clip_norm: float, patients: int, whole: int) -> Vector:
    """Return a site's vector from its sum of gradients clipped to `clip_norm`.

    Args: whole, how many of the `patients` in the sum had gradients no longer than that.
    """
    counted = study.privacy.clip_norm * count_part(study) * float(2 * whole - patients)
    return np.append(gradients / unit(study, clip_norm=clip_norm), counted)


def section(study: Study) -> Clipping:
    """Return the study's adapting clip norm. Raises: ValueError if it has none."""
    if study.clipping is None:
        raise ValueError("the plan's clip norm does not adapt")
    return study.clipping


def at_rest(study: Study) -> Vector:
    """Return what a run's first round remembers: no step yet, and the plan's clip norm."""
    return np.append(np.zeros(study.carried - study.parameters - 1), study.privacy.clip_norm)


def vector_length(study: Study) -> int:
    """Return how many numbers a site's vector has."""
    return study.parameters + 1


def unit(study: Study, *, clip_norm: float) -> float:
    """Return what a gradient in a site's vector is multiplied by to be one clipped to `clip_norm` again."""
    return clip_norm / (study.privacy.clip_norm * gradient_part(study))


def gradient_part(study: Study) -> float:
    """Return the largest part of a patient's vector that is gradient; a little less than the share leaves."""
    return math.sqrt(1.0 - section(study).share) * (1.0 - 1e-9)  # float products of the scaling stay inside


def count_part(study: Study) -> float:
    """Return the part of a patient's vector that is counting."""
    return math.sqrt(section(study).share)


def _exp(x: float) -> float:
    """Return e^x for |x| <= 1."""
    total = term = 1.0
    for n in range(1, _TERMS):
        term *= x / n
        total += term
    return total
