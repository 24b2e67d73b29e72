"""Gradient descent on noisy sums: post-processing, so it costs no privacy, and the same on every machine.

Guarantee: the parameters after a step follow from the plan, the parameters before it and the noisy sum
alone, bit for bit. Only elementwise IEEE operations on float64 are used, the square root among them (no
reductions, no library whose result depends on threads), so a coordinator and all nodes that saw the same sums
hold the same model.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from protocols.model_layout import Layout
from protocols.study import MAX_STEPS, Study

Vector = NDArray[np.float64]

ADAM_SQUARES = 0.98  # runs are tens of steps: 0.999 would still be settling when they end
ADAM_FLOOR = 1e-8  # Kingma and Ba 2015


class NotFinite(ValueError):
    """A sum or a model holds a value that is no finite number, or has another shape than the plan says."""


def initial(study: Study) -> Vector:
    """Return the parameters every site starts from: they follow from the plan, with no random source.

    Biases are zero, and so are the weights of layers that start at zero (a logistic model is one of these).
    Other weights are uniform in ±√(6/(fan-in + fan-out)) (Glorot and Bengio 2010), drawn from SHAKE-256 of
    the plan's hash. They are public. Where the plan states priors, its logistic model starts from these.
    """
    if study.priors:
        return np.array(study.priors, dtype=np.float64)
    vector = np.zeros(study.parameters)
    stream = hashlib.shake_256(b"fedtwin initial parameters" + study.plan_hash()).digest(8 * study.parameters)
    uniform = (np.frombuffer(stream, dtype="<u8") >> np.uint64(11)).astype(np.float64) / 2.0**53
    at = 0
    for layer in study.layout:
        if not layer.starts_at_zero:
            limit = np.sqrt(6.0 / (layer.inputs + layer.outputs))
            end = at + layer.weights
            vector[at:end] = limit * (2.0 * uniform[at:end] - 1.0)
        at += layer.size
    return vector


def unpacked(layout: Layout, params: Vector) -> dict[str, tuple[Vector, Vector]]:
    """Return (weights [out, in], biases [out]) of each layer by its name, as views of the flat vector."""
    found, at = {}, 0
    for layer in layout:
        end = at + layer.weights
        weights = params[at:end].reshape(layer.outputs, layer.inputs)
        found[layer.name] = (weights, params[end : end + layer.outputs])
        at += layer.size
    return found


def digest(params: Vector) -> bytes:
    """Return the SHA-256 of the parameters' little-endian bytes: equal models, equal digests."""
    return hashlib.sha256(np.ascontiguousarray(params, dtype="<f8").tobytes()).digest()


class Descent:
    """The steps of one round. Velocity and scales go on from round to round; a run starts at rest.

    "momentum" moves along a velocity; "adam" (Kingma and Ba 2015) along a mean gradient in units of its own
    recent size, coordinate by coordinate; there `l2` shrinks the parameters beside it (Loshchilov and Hutter
    2019), or it would be scaled away. With `average` in the plan, the round ends at the mean of its
    iterates, which evens out their noise; the next starts from there, at the velocity of the last of them.
    """

    def __init__(self, study: Study, params: Vector, memory: Vector | None = None) -> None:
        """Start a round at `params`, with what the round before remembered (None: at rest).

        Raises: NotFinite for another shape, a value that is not finite, a memory that no sums leave behind.
        """
        self._plan, size = study.training, study.parameters
        self.params: Vector = checked(params, size).copy()
        self._velocity, self._square, self._sums = np.zeros(size), np.zeros(size), 0
        self._mean = np.zeros(size)
        self.steps_done = 0
        remembered = study.training.remembered(size)
        memory = checked(np.zeros(remembered) if memory is None else memory, remembered)
        if remembered:
            self._velocity = memory[:size].copy()
        if self._plan.optimizer == "adam":
            self._square, self._sums = memory[size:-1].copy(), counted(memory[-1])
            if (self._square < 0.0).any():
                raise NotFinite("a mean of squares is negative")

    @property
    def memory(self) -> Vector:
        """What the next sum needs to know of the earlier ones, beside the model."""
        if self._plan.optimizer == "adam":
            return np.concatenate([self._velocity, self._square, [float(self._sums)]])
        return self._velocity if self._plan.momentum else self._velocity[:0]

    @property
    def carried(self) -> Vector:
        """What the next round starts from: the model so far, and the memory of its steps."""
        return np.append(self.params, self.memory) if self.memory.size else self.params

    @property
    def finished(self) -> bool:
        """Whether the round's steps are all done."""
        return self.steps_done == self._plan.steps_per_round

    def apply(self, noisy_sum: Vector) -> Vector:
        """Take one step along the noisy sum of clipped gradients over all sites; return the new parameters.

        The sum is divided by the plan's public `expected_patients` (times the chance of each to be drawn),
        never by a private count.
        Raises: NotFinite; ValueError if the round is over.
        """
        if self.finished:
            raise ValueError("the round has no further step")
        patients = float(self._plan.expected_patients) * self._plan.sampling_rate
        gradient = checked(noisy_sum, len(self.params)) / patients
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            if self._plan.optimizer == "adam":
                velocity, square, direction = self._adam(gradient)
                direction = direction + self._plan.l2 * self.params
            else:
                gradient = gradient + self._plan.l2 * self.params
                velocity, square = self._plan.momentum * self._velocity + gradient, self._square
                direction = velocity
            params = self.params - self._plan.learning_rate * direction
            if self._plan.average:
                self._mean = self._mean + (params - self._mean) / float(self.steps_done + 1)
            last = self.steps_done + 1 == self._plan.steps_per_round
            params = checked(self._mean if last and self._plan.average else params, len(params))
        self._velocity, self._square, self.params = velocity, square, params
        self._sums += 1
        self.steps_done += 1
        return params

    def _adam(self, gradient: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the new means of the gradient and of its square, and the step's direction."""
        first = self._plan.momentum
        velocity = first * self._velocity + (1.0 - first) * gradient
        square = ADAM_SQUARES * self._square + (1.0 - ADAM_SQUARES) * (gradient * gradient)
        steps = self._sums + 1
        grown, settled = 1.0 - power(first, steps), 1.0 - power(ADAM_SQUARES, steps)
        return velocity, square, (velocity / grown) / (np.sqrt(square / settled) + ADAM_FLOOR)


def power(base: float, exponent: int) -> float:
    """Return base^exponent by multiplications alone: a library's pow may differ in the last bit."""
    found = 1.0
    for _ in range(exponent):
        found *= base
    return found


def counted(value: float) -> int:
    """Return how many sums a memory says it is of. Raises: NotFinite for what no run has."""
    if not (0.0 <= value <= MAX_STEPS and float(value).is_integer()):
        raise NotFinite("no whole number of sums")
    return int(value)


def checked(vector: Vector, size: int) -> Vector:
    """Return `vector` as one row of `size` finite numbers. Raises: NotFinite."""
    found = np.asarray(vector, dtype=np.float64)
    if found.shape != (size,):
        raise NotFinite(f"expected {size} values in one row, got shape {found.shape}")
    if not np.isfinite(found).all():
        raise NotFinite("a value is not finite")
    return found
