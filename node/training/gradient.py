"""One step's contribution of one site: the sum of its patients' clipped gradients.

Guarantee: one patient more or less changes the sum by at most `clip_norm` in L2, whatever their row says and
whatever the parameters are. A patient whose gradient is not finite counts as zero.

Clipping is Opacus' ghost clipping: one backward pass gives each patient's norm without holding the gradients,
a second one the sum of the loss weighted by min(1, clip_norm/norm). At 100,000 parameters and 250 patients
that takes 8 ms, against 250 ms with every gradient held.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import nn

from node.features.table import FeatureTable
from node.training import models
from protocols.study import Study

Vector = NDArray[np.float64]

# A patient's gradient is clipped a little below the bound, so that float64 rounding of norms and of sums over
# a million patients (1e6 · 2^-53 ≈ 1e-10 relative) stays inside it.
CLIP_MARGIN = 1e-9
PATIENTS_AT_ONCE = 8192  # activations held at a time: 67 MB at the widest layer a study may have


def sum_of_clipped_grads(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return the sum over the table's patients of the logistic loss' gradient at `params`, each clipped.

    No patients: zeros. The same inputs give the same sum, bit for bit, on one machine.
    """
    total = torch.zeros(study.parameters, dtype=torch.float64)
    model = models.build(study, params)
    for rows in _batches(len(table), PATIENTS_AT_ONCE):
        x = torch.from_numpy(table.x[rows]).double()
        y = torch.from_numpy(table.y[rows]).double()
        norms = gradient_norms(model, x, y)
        usable = torch.isfinite(norms)  # squares may overflow at absurd parameters: then x drops out
        factors = torch.clamp(study.privacy.clip_norm * (1.0 - CLIP_MARGIN) / norms[usable], max=1.0)
        total += _weighted_gradient(model, x[usable], y[usable], factors)
    return total.numpy()


def gradient_norms(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the L2 norm of each patient's gradient."""
    ghost = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    try:
        # Opacus' backward hooks want an input that needs a gradient
        torch.autograd.backward(_losses(ghost, x.clone().requires_grad_(), y).sum())
        norms: torch.Tensor = ghost.get_norm_sample().detach()
        return norms
    finally:
        ghost.to_standard_module()  # takes its hooks off the model


def _weighted_gradient(
    model: nn.Sequential, x: torch.Tensor, y: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    parameters = list(model.parameters())
    grads = torch.autograd.grad((_losses(model, x, y) * factors).sum(), parameters)
    return torch.cat([grad.flatten() for grad in grads])


def _losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y, reduction="none")


def _batches(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, start + size)
