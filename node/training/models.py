"""Every kind of model a study may name, as one function of its linear layers.

All in float64: the parameters are the coordinator's numbers exactly, and a clipped gradient's norm is right
to about 1e-15, which is what makes the clip a bound. Each patient is computed without regard to the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import inputs
from privacy import descent
from protocols.model_layout import Layout
from protocols.study import Study

Vector = NDArray[np.float64]
PATIENTS_AT_ONCE = 8192  # in prediction; activations held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One use of a layer: its name, what went in [patients, ..., inputs], what came out."""

    name: str
    into: torch.Tensor
    out: torch.Tensor


@dataclass(slots=True, eq=False)
class Layers:
    """A model's layers by name. While it records, each use is kept and its output carries a gradient."""

    tensors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    recording: bool = False
    uses: list[Use] = field(default_factory=list)

    @classmethod
    def of(
        cls, study: Study, params: Vector, own: Vector | None = None, *, recording: bool = False
    ) -> Layers:
        """Return the layers that hold the shared `params`, and a site's `own` part if it has one."""
        tensors = _tensors(study.layout, params)
        if own is not None and own.size:
            tensors |= _tensors(study.own_layout, own)
        elif study.local_layout:
            tensors |= _tensors(study.local_layout, np.zeros(study.local_parameters))
        return cls(tensors, recording)

    def __call__(self, name: str, into: torch.Tensor) -> torch.Tensor:
        weights, biases = self.tensors[name]
        out = (
            torch.nn.functional.linear(into, weights, biases)
            if weights.numel()
            else biases.expand(*into.shape[:-1], -1)
        )
        if self.recording:
            if not out.requires_grad:
                out = out.detach().requires_grad_()
            self.uses.append(Use(name, into.detach(), out))
        return out

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


def forward(study: Study, layers: Layers, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the model's outputs [..., outputs] for columns [..., columns] and presence [..., modalities].

    Columns of absent modalities do not matter: what stands there is not looked at.
    """
    if study.fusion is None:
        return _headed(study, layers, x)
    groups = [_columns(x, m.columns) * present[..., [at]] for at, m in enumerate(study.modalities)]
    if study.fusion.kind == "early":
        return _headed(study, layers, torch.cat([*groups, present], dim=-1))
    tokens = [
        torch.tanh(layers(f"token.{m.name}", group)) * present[..., [at]]
        for at, (m, group) in enumerate(zip(study.modalities, groups, strict=True))
    ]
    if study.fusion.kind == "intermediate":
        return _headed(study, layers, torch.cat([*tokens, present], dim=-1))
    if study.fusion.kind == "attention":
        pooled = _attention(layers, torch.stack(tokens, dim=-2), present)
        return _headed(study, layers, torch.cat([pooled, present], dim=-1))
    votes = [
        layers(f"logits.{m.name}", token) * present[..., [at]]
        for at, (m, token) in enumerate(zip(study.modalities, tokens, strict=True))
    ]
    found = layers("out", present)
    for vote in votes:
        found = found + vote
    return found + layers("local", x[..., :0]) if "local" in layers else found


def _columns(x: torch.Tensor, columns: tuple[int, ...]) -> torch.Tensor:
    first, last = columns[0], columns[-1]
    beside = last - first + 1 == len(columns)  # a view costs nothing, a choice of columns copies
    return x[..., first : last + 1] if beside else x[..., list(columns)]


def _headed(study: Study, layers: Layers, hidden: torch.Tensor) -> torch.Tensor:
    for place in range(len(study.hidden)):
        hidden = torch.tanh(layers(f"hidden.{place}", hidden))  # bounded: no patient's activations run away
    found = layers("out", hidden)
    if "local" in layers:
        found = found + layers("local", hidden if study.local == "head" else hidden[..., :0])
    return found


def _attention(layers: Layers, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return one vector for tokens [..., modalities, width]: each looks at those present, then all add up.

    The sum, not the mean: several weak signs together are a strong one.
    """
    query, key, value = (layers(f"attention.{role}", tokens) for role in ("query", "key", "value"))
    scores = query @ key.transpose(-1, -2) / math.sqrt(tokens.shape[-1])
    hidden = (1.0 - present)[..., None, :] * HIDDEN_SCORE
    seen = torch.softmax(scores + hidden, dim=-1) @ value
    mixed = torch.tanh(tokens + layers("attention.out", seen)) * present[..., :, None]
    return mixed.sum(dim=-2) / math.sqrt(tokens.shape[-2])


HIDDEN_SCORE = -1e30  # e to it is 0; finite, so a patient with nothing present gives no NaN


def outputs(study: Study, params: Vector, table: FeatureTable, *, own: Vector | None = None) -> Vector:
    """Return the model's outputs [persons, outputs], with what is missing missing. Stays at the node."""
    return _outputs(study, params, table.x, inputs.presence(study, table), own=own)


def logits(study: Study, params: Vector, x: NDArray[np.float32]) -> Vector:
    """Return the first output of each row, all modalities present. Stays at the node."""
    present = np.ones((len(x), len(study.modalities)), dtype=bool)
    return _outputs(study, params, x, present, own=None)[:, 0]


def probabilities(study: Study, params: Vector, x: NDArray[np.float32]) -> Vector:
    """Return the predicted probability of a yes for each row. Stays at the node."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits(study, params, x)))  # a sigmoid that never overflows


def _outputs(
    study: Study, params: Vector, x: NDArray[np.float32], present: NDArray[np.bool_], *, own: Vector | None
) -> Vector:
    layers = Layers.of(study, params, own)
    found = np.empty((len(x), study.outcome.outputs))
    with torch.no_grad():
        for start in range(0, len(x), PATIENTS_AT_ONCE):
            rows = slice(start, start + PATIENTS_AT_ONCE)
            some = torch.from_numpy(np.ascontiguousarray(x[rows])).double()
            found[rows] = forward(study, layers, some, torch.from_numpy(present[rows]).double()).numpy()
    return found


def _tensors(layout: Layout, params: Vector) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (torch.from_numpy(weights.copy()), torch.from_numpy(biases.copy()))
        for name, (weights, biases) in descent.unpacked(layout, params).items()
    }
