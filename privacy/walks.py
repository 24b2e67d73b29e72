"""How a plan moves its model from sum to sum: the same at every site and at the coordinator.

A walk is post-processing of what the secure sums open, so it costs no privacy. It is deterministic bit for
bit, so that all who saw the same totals hold the same model. A plan's training mode says which walk it is.

What a walk remembers of earlier sums (momentum and Adam's means, FedAdam's, Scaffold's control variate, a
clip norm that adapts) follows from noisy totals as well, is as public as the model, and goes with it from
round to round: a run is the same, bit for bit, however it is cut into rounds. One thing belongs to a round by
what it means: where a plan asks for an average, a round ends at the mean of its own iterates.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privacy import adaptive_descent, descent, exact_state, newton, server_step, sufficient
from privacy.adaptive_descent import AdaptiveDescent
from privacy.descent import Descent
from privacy.server_step import ServerStep
from privacy.sufficient import OneStep
from protocols.study import Study

Vector = NDArray[np.float64]


class Walk(Protocol):
    """The sums of one round, and what they make of the model."""

    @property
    def steps_done(self) -> int:
        """How many totals were taken in."""
        ...

    @property
    def params(self) -> Vector:
        """The model so far."""
        ...

    @property
    def carried(self) -> Vector:
        """The model so far, and what later sums need to know of earlier ones: the next round's start."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the round asks for no further sum."""
        ...

    def apply(self, noisy_sum: Vector) -> Vector:
        """Take in the next total and return the new parameters. Raises: privacy.descent.NotFinite."""
        ...


def initial(study: Study) -> Vector:
    """Return what the first round starts from: the plan's model, and a memory at rest."""
    params = descent.initial(study)
    if study.clipping is not None:
        return np.append(params, adaptive_descent.at_rest(study))
    memory = np.zeros(study.carried - study.parameters)
    return np.append(params, memory) if memory.size else params  # a large model is not copied for nothing


def begin(study: Study, carried: Vector) -> Walk:
    """Return the walk of one round from what the round before left. Raises: privacy.descent.NotFinite.

    Whoever tells a site what to start from can break no promise by it: the noise covers a patient whatever
    the model, its memory and a clip norm are.
    """
    carried = descent.checked(carried, study.carried)
    params, memory = carried[: study.parameters], carried[study.parameters :]
    if study.exact is not None:
        return newton.begin(study, params)
    if study.local_training is not None:
        return ServerStep(study, params, memory)
    if study.one_shot is not None:
        return OneStep(study, params)
    if study.clipping is not None:
        return AdaptiveDescent(study, params, memory)
    return Descent(study, params, memory)


def vector_length(study: Study) -> int:
    """Return how many numbers each secure sum of the plan has."""
    if study.exact is not None:
        return exact_state.total_length(study)
    if study.local_training is not None:
        return server_step.vector_length(study)
    if study.one_shot is not None:
        return sufficient.total_length(study)
    if study.clipping is not None:
        return adaptive_descent.vector_length(study)
    return study.parameters
