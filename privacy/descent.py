"""Gradient descent on noisy sums: post-processing, so it costs no privacy, and the same on every machine.

Guarantee: the parameters after a step follow from the plan, the parameters before it and the noisy sum
alone, bit for bit. Only elementwise IEEE operations on float64 are used (no reductions, no library whose
result depends on threads), so a coordinator and all nodes that saw the same sums hold the same model.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from protocols.study import Study

Vector = NDArray[np.float64]


class NotFinite(ValueError):
    """A sum or a model holds a value that is no finite number, or has another shape than the plan says."""


def initial(study: Study) -> Vector:
    """Return the parameters every site starts from: they follow from the plan, with no random source.

    A logistic model starts at zero. The weights of an MLP are uniform in ±√(6/(fan-in + fan-out)) (Glorot and
    Bengio 2010), drawn from SHAKE-256 of the plan's hash; biases are zero. They are public.
    """
    vector = np.zeros(study.parameters)
    if not study.hidden:
        return vector
    stream = hashlib.shake_256(b"fedtwin initial parameters" + study.plan_hash()).digest(8 * study.parameters)
    uniform = (np.frombuffer(stream, dtype="<u8") >> np.uint64(11)).astype(np.float64) / 2.0**53
    at = 0
    for fan_in, fan_out in zip(study.layers, study.layers[1:], strict=False):
        weights = fan_in * fan_out
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        vector[at : at + weights] = limit * (2.0 * uniform[at : at + weights] - 1.0)
        at += weights + fan_out
    return vector


def unpacked(study: Study, params: Vector) -> list[tuple[Vector, Vector]]:
    """Return (weights [out, in], biases [out]) of each layer, as views of the flat vector."""
    found, at = [], 0
    for fan_in, fan_out in zip(study.layers, study.layers[1:], strict=False):
        end = at + fan_in * fan_out
        found.append((params[at:end].reshape(fan_out, fan_in), params[end : end + fan_out]))
        at = end + fan_out
    return found


def digest(params: Vector) -> bytes:
    """Return the SHA-256 of the parameters' little-endian bytes: equal models, equal digests."""
    return hashlib.sha256(np.ascontiguousarray(params, dtype="<f8").tobytes()).digest()


class Descent:
    """The steps of one round. Momentum starts at rest in each round, so a round needs the parameters only.

    With `average` in the plan, the round ends at the mean of its iterates, which evens out their noise.
    """

    def __init__(self, study: Study, params: Vector) -> None:
        """Start a round at `params`. Raises: NotFinite for another shape or a value that is not finite."""
        self._plan = study.training
        self.params: Vector = _checked(params, study.parameters).copy()
        self._velocity = np.zeros(study.parameters)
        self._mean = np.zeros(study.parameters)
        self.steps_done = 0

    @property
    def finished(self) -> bool:
        """Whether the round's steps are all done."""
        return self.steps_done == self._plan.steps_per_round

    def apply(self, noisy_sum: Vector) -> Vector:
        """Take one step along the noisy sum of clipped gradients over all sites; return the new parameters.

        The sum is divided by the plan's public `expected_patients`, never by a private count.
        Raises: NotFinite; ValueError if the round is over.
        """
        if self.finished:
            raise ValueError("the round has no further step")
        gradient = _checked(noisy_sum, len(self.params)) / float(self._plan.expected_patients)
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            gradient = gradient + self._plan.l2 * self.params
            velocity = self._plan.momentum * self._velocity + gradient
            params = self.params - self._plan.learning_rate * velocity
            if self._plan.average:
                self._mean = self._mean + (params - self._mean) / float(self.steps_done + 1)
            last = self.steps_done + 1 == self._plan.steps_per_round
            params = _checked(self._mean if last and self._plan.average else params, len(params))
        self._velocity, self.params = velocity, params
        self.steps_done += 1
        return params


def _checked(vector: Vector, size: int) -> Vector:
    found = np.asarray(vector, dtype=np.float64)
    if found.shape != (size,):
        raise NotFinite(f"expected {size} values in one row, got shape {found.shape}")
    if not np.isfinite(found).all():
        raise NotFinite("a value is not finite")
    return found
