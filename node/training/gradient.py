"""One step's contribution of one site: the sum of its patients' clipped gradients.

Guarantee: one patient more or less changes the sum by at most `clip_norm` in L2, whatever their row says and
whatever the parameters are. A patient whose gradient is not finite counts as zero. A site's own part of the
model is clipped together with the shared one: both sums side by side move by at most `clip_norm`.

One backward pass gives the gradient of the loss at every layer's output. With what went into the layers that
is all there is to know (book-keeping, Bu et al. 2022): a patient's gradient of a weight matrix is the outer
product of the two, its norm the product of theirs, and the clipped sum one matrix product. Where a layer is
used on several tokens or views, a patient's outer products are added up first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import inputs
from node.training.losses import losses
from node.training.models import Layers, Use, forward
from protocols.model_layout import Layout
from protocols.study import Study

Vector = NDArray[np.float64]

# A patient's gradient is clipped a little below the bound, so that float64 rounding of norms and of sums over
# a million patients (1e6 · 2^-53 ≈ 1e-10 relative) stays inside it.
CLIP_MARGIN = 1e-9
# Of the square of what tokens' gradients would add up to if none cancelled. Above the rounding of inner
# products of 80,000 numbers; and a sum in which more than that cancels is not made large by its factor, so
# that its own rounding stays within the margin (√1e-11 against 2^-53 per token).
TOKEN_SLACK = 1e-11
PATIENTS_AT_ONCE = 4096  # activations held at a time: 34 MB at the widest layer a study may have
# Matrix products round the last rows of an odd batch otherwise than those before, which huge parameters would
# magnify. In whole blocks each row comes out the same wherever it stands (tests/node/test_fusion.py).
BLOCK = 64
NUMBERS_AT_ONCE = 8_000_000  # of patients' own gradients, where these must be held: 64 MB


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The sum for the shared parameters, which leaves with noise, and that for the site's own part.

    Args: whole, how many patients' gradients were not clipped; own_unit, what the own sum is multiplied by
        once its noise is in it, where a clip norm adapts. In local training `own` is no sum but the own part
        itself, as the site's noisy steps left it (node.training.own_part.OwnPart.follow).
    """

    shared: Vector
    own: Vector
    whole: int = 0
    own_unit: float = 1.0


def sum_of_clipped_grads(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return the sum over the table's patients of the loss' gradient at `params`, each clipped.

    No patients: zeros. The same inputs give the same sum, bit for bit, on one machine.
    """
    return clipped_sums(study, params, table).shared


def clipped_sums(
    study: Study,
    params: Vector,
    table: FeatureTable,
    *,
    own: Vector | None = None,
    clip_norm: float | None = None,
) -> Sums:
    """Return both sums at the shared `params` and the site's `own` (zeros if it is not given).

    Args: clip_norm, another than the plan's, of a step whose norm adapts itself.
    """
    bound = study.privacy.clip_norm if clip_norm is None else clip_norm
    whole = 0
    shared = torch.zeros(study.parameters, dtype=torch.float64)
    mine = torch.zeros(study.local_parameters, dtype=torch.float64)
    seen = inputs.views(study, inputs.presence(study, table), table.person_ids, params)
    for rows in _batches(len(table), _batch_size(study)):
        uses, grads = _backward(study, params, own, table, seen, rows)
        per_layer = _per_layer(uses, grads)
        per_layer, factors = _clipped(per_layer, rows.stop - rows.start, bound=bound)
        whole += int((factors == 1.0).sum())
        shared += _weighted(study.layout, per_layer, factors)
        mine += _weighted(study.local_layout, per_layer, factors)
    return Sums(shared.numpy(), mine.numpy(), whole)


def gradient_norms(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return the L2 norm of each patient's gradient, before clipping. Stays at the node."""
    seen = inputs.views(study, inputs.presence(study, table), table.person_ids, params)
    found = [np.zeros(0)]
    for rows in _batches(len(table), _batch_size(study)):
        per_layer = _per_layer(*_backward(study, params, None, table, seen, rows))
        found.append(_squares(per_layer).sqrt().numpy()[: rows.stop - rows.start])
    return np.concatenate(found)


def _backward(
    study: Study,
    params: Vector,
    own: Vector | None,
    table: FeatureTable,
    seen: NDArray[np.bool_],
    rows: slice,
) -> tuple[list[Use], tuple[torch.Tensor, ...]]:
    layers = Layers.of(study, params, own, recording=True)
    present, x, y = (_padded(values[rows]) for values in (seen, table.x, table.y))
    x = x[:, None, :].expand(-1, present.shape[1], -1)
    each = losses(study.outcome, forward(study, layers, x, present), y).mean(dim=1)
    return layers.uses, torch.autograd.grad(each.sum(), [use.out for use in layers.uses])


@dataclass(frozen=True, slots=True, eq=False)
class _Once:
    """A layer that each patient went through once: the two factors of an outer product are kept."""

    into: torch.Tensor  # [patients, inputs]
    grad: torch.Tensor  # [patients, outputs]

    def squares(self) -> torch.Tensor:
        return (self.grad**2).sum(dim=1) * ((self.into**2).sum(dim=1) + 1.0)

    def sum(self, factors: torch.Tensor) -> list[torch.Tensor]:
        weighted = self.grad * factors[:, None]
        return [weighted.T @ self.into, weighted.sum(dim=0)]

    def only(self, usable: torch.Tensor) -> _Once:
        return _Once(self.into[usable], self.grad[usable])


@dataclass(frozen=True, slots=True, eq=False)
class _Tokens:
    """A wide layer used on a few tokens or views: their outer products are never written out.

    The squared norm of their sum follows from inner products of tokens (ghost norm, Li et al. 2022). These
    may cancel, so as much is added to it as rounding could have taken away.
    """

    into: torch.Tensor  # [patients, tokens, inputs]
    grad: torch.Tensor  # [patients, tokens, outputs]

    def squares(self) -> torch.Tensor:
        into, grad = self.into @ self.into.transpose(1, 2), self.grad @ self.grad.transpose(1, 2)
        lengths = (into.diagonal(dim1=1, dim2=2) * grad.diagonal(dim1=1, dim2=2)).sqrt().sum(dim=1)
        found = (into * grad).sum(dim=(1, 2)) + TOKEN_SLACK * lengths**2
        return found + (self.grad.sum(dim=1) ** 2).sum(dim=1)

    def sum(self, factors: torch.Tensor) -> list[torch.Tensor]:
        weighted = (self.grad * factors[:, None, None]).flatten(0, 1)
        return [weighted.T @ self.into.flatten(0, 1), weighted.sum(dim=0)]

    def only(self, usable: torch.Tensor) -> _Tokens:
        return _Tokens(self.into[usable], self.grad[usable])


@dataclass(frozen=True, slots=True, eq=False)
class _Often:
    """A narrow layer used on many tokens or views: each patient's gradient, added up over them."""

    weights: torch.Tensor  # [patients, outputs, inputs]
    biases: torch.Tensor  # [patients, outputs]

    def squares(self) -> torch.Tensor:
        return (self.weights**2).sum(dim=(1, 2)) + (self.biases**2).sum(dim=1)

    def sum(self, factors: torch.Tensor) -> list[torch.Tensor]:
        return [torch.einsum("p,poi->oi", factors, self.weights), factors @ self.biases]

    def only(self, usable: torch.Tensor) -> _Often:
        return _Often(self.weights[usable], self.biases[usable])


PerLayer = Mapping[str, _Once | _Tokens | _Often]


def _per_layer(uses: list[Use], grads: tuple[torch.Tensor, ...]) -> PerLayer:
    found: dict[str, _Once | _Tokens | _Often] = {}
    for use, grad in zip(uses, grads, strict=True):
        times = math.prod(grad.shape[1:-1])  # tokens, views
        into, out = (t.reshape(len(t), times, t.shape[-1]) for t in (use.into, grad))
        if use.name in found:
            raise ValueError("a layer takes all its tokens at once")
        if out.shape[1] == 1:
            found[use.name] = _Once(into[:, 0], out[:, 0])
        elif times * times < out.shape[2] * into.shape[2]:
            found[use.name] = _Tokens(into, out)
        else:
            found[use.name] = _Often(torch.einsum("pto,pti->poi", out, into), out.sum(dim=1))
    return found


def _clipped(per_layer: PerLayer, patients: int, *, bound: float) -> tuple[PerLayer, torch.Tensor]:
    """Return what each patient's gradient is multiplied by, and the gradients of those that are finite.

    A gradient that is not finite is left out, not multiplied by 0: that would be no number either.
    """
    squares = _squares(per_layer)
    usable = torch.isfinite(squares)
    if not bool(usable.all()):
        per_layer = {name: layer.only(usable) for name, layer in per_layer.items()}
    factors = torch.clamp(bound * (1.0 - CLIP_MARGIN) / squares.sqrt(), max=1.0)
    factors[patients:] = 0.0  # padding
    return per_layer, factors[usable]


def _squares(per_layer: PerLayer) -> torch.Tensor:
    return torch.stack([layer.squares() for layer in per_layer.values()]).sum(dim=0)


def _weighted(layout: Layout, per_layer: PerLayer, factors: torch.Tensor) -> torch.Tensor:
    parts = [part.flatten() for layer in layout for part in per_layer[layer.name].sum(factors)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _batch_size(study: Study) -> int:
    """Return how many patients' gradients are computed at a time, so that memory stays bounded."""
    if study.fusion is None or (study.fusion.views == 1 and study.fusion.kind != "attention"):
        return PATIENTS_AT_ONCE
    widest = max(layer.size for layer in study.layout)
    return max(16, min(PATIENTS_AT_ONCE, NUMBERS_AT_ONCE // widest))


def _padded(rows: NDArray[Any]) -> torch.Tensor:
    """Return rows in float64, and rows of zeros up to a whole number of blocks."""
    padding = np.zeros((-len(rows) % BLOCK, *rows.shape[1:]))
    return torch.from_numpy(np.concatenate([rows.astype(np.float64), padding]))


def _batches(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
