"""What all make of the sum of the sites' updates: FedAvg, FedProx, FedAdam and Scaffold.

A site's vector is (update / update clip, [its control variate / its own bound,] 1), in [-1, 1]; the last
number counts the sites, so that a sum is divided by those that are in it. Sites weigh alike: how many
patients one has is nobody's to know. (A site with fewer patients moves less by itself, because a local step
is divided by a public number, not by its own.)

Guarantee: as `privacy.descent` has it: elementwise IEEE operations only, so the same totals make the same
model everywhere, bit for bit. It is post-processing of updates that are private, so it costs nothing.

    fedavg    x += rate · mean update (McMahan et al. 2017); fedprox is the same here (Li et al. 2020)
    fedadam   Adam on the mean update (Reddi et al. 2021)
    scaffold  x += rate · mean update, c = mean of the sites' control variates (Karimireddy et al. 2020,
              option II: there c grows by the mean change, which is the same where every site is in every sum.
              Where one is lost, or comes back without its variate, a mean has forgotten that after one sum, a
              sum of changes never)

Adam's means and c go from round to round (`carried`), and start a run at zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.descent import ADAM_FLOOR, ADAM_SQUARES, NotFinite, checked, counted, power
from protocols.study import Study
from protocols.study_local import LocalTraining

Vector = NDArray[np.float64]

ADAM_MEAN = 0.9  # of the mean update; Kingma and Ba 2015
FEWEST_SITES = 0.5  # of the count in a total: with less there is nothing in it, and nothing is done


class ServerStep:
    """The sums of one round in the mode "local", and the model they make."""

    def __init__(self, study: Study, params: Vector, memory: Vector | None = None) -> None:
        """Start a round at `params`, with what the round before remembered (None: at rest).

        Raises: NotFinite for another shape, a value that is not finite, a memory that no sums leave behind.
        """
        self._study = study
        self._plan = section(study)
        size = study.parameters
        self.params: Vector = checked(params, size).copy()
        self.control: Vector = np.zeros(size)
        self._mean, self._square, self._sums = np.zeros(size), np.zeros(size), 0
        self.steps_done = 0
        memory = checked(at_rest(study) if memory is None else memory, study.carried - size)
        if self._plan.aggregator == "scaffold":
            self.control = memory.copy()
        if self._plan.aggregator == "fedadam":
            self._mean, self._square, self._sums = memory[:size], memory[size:-1], counted(memory[-1])
            if (self._square < 0.0).any():
                raise NotFinite("a mean of squares is negative")

    @property
    def carried(self) -> Vector:
        """The model so far, and what the next sum needs to know of the earlier ones."""
        if self._plan.aggregator == "fedadam":
            return np.concatenate([self.params, self._mean, self._square, [float(self._sums)]])
        if self._plan.aggregator == "scaffold":
            return np.append(self.params, self.control)
        return self.params

    @property
    def finished(self) -> bool:
        """Whether the round's sums are all done."""
        return self.steps_done == self._study.training.steps_per_round

    def apply(self, noisy_sum: Vector) -> Vector:
        """Move the model by the sum of the sites' updates and return it. Raises: NotFinite; ValueError."""
        if self.finished:
            raise ValueError("the round has no further step")
        total = checked(noisy_sum, vector_length(self._study))
        sites = float(total[-1])
        if sites < FEWEST_SITES:
            raise NotFinite("no site is in this sum")
        size = self._study.parameters
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            update = total[:size] * (self._plan.update_clip / sites)
            mean, square, step = self._step(update)
            params = checked(self.params + self._plan.server_learning_rate * step, size)
            if self._plan.aggregator == "scaffold":
                self.control = checked(total[size : 2 * size] * (control_bound(self._study) / sites), size)
        self._mean, self._square, self.params = mean, square, params
        self._sums += 1
        self.steps_done += 1
        return params

    def _step(self, update: Vector) -> tuple[Vector, Vector, Vector]:
        if self._plan.aggregator != "fedadam":
            return self._mean, self._square, update
        mean = ADAM_MEAN * self._mean + (1.0 - ADAM_MEAN) * update
        square = ADAM_SQUARES * self._square + (1.0 - ADAM_SQUARES) * (update * update)
        steps = self._sums + 1
        settled = 1.0 - power(ADAM_SQUARES, steps)
        return (
            mean,
            square,
            (mean / (1.0 - power(ADAM_MEAN, steps))) / (np.sqrt(square / settled) + ADAM_FLOOR),
        )


def section(study: Study) -> LocalTraining:
    """Return the study's plan of local training. Raises: ValueError if it has none."""
    if study.local_training is None:
        raise ValueError("the plan has no local training")
    return study.local_training


def at_rest(study: Study) -> Vector:
    """Return what a run's first round remembers: nothing yet, in zeros."""
    return np.zeros(study.carried - study.parameters)


def vector_length(study: Study) -> int:
    """Return how many numbers a site's vector has."""
    return study.parameters * (2 if section(study).aggregator == "scaffold" else 1) + 1


def control_bound(study: Study) -> float:
    """Return the largest L2 norm of a control variate: twice that of an update, in a gradient's unit."""
    plan = section(study)
    return 2.0 * plan.update_clip / (plan.local_steps * study.training.learning_rate)
