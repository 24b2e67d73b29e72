"""The own part of a model that suits a hospital's patients, and how much of it they show need of.

It is exact and computed from training patients alone, here. It must not leave the site, nor anything that is
computed with it: neither which strength was chosen nor whether there is a part at all.

A ridge of λ is a random effect of variance 1/λ around the shared model, at its mode (partial pooling). No
site sees the others', so λ is public, or chosen at the site by its own cross-validation ("earned"): the
strongest pull towards the shared model whose held-out loss is within one standard error of the best. The
strongest of all leaves the shared model as it is, which is what a site keeps that cannot tell.

Sources: Breiman, Friedman, Olshen and Stone 1984, 3.4.3 (the one-standard-error rule); Hastie, Tibshirani and
Friedman 2009, 7.10; Gelman and Hill 2007, 12 (partial pooling); Steyerberg et al. 2004 (a site's own
intercept on a shared model).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import inputs
from node.training.losses import losses
from node.training.models import PATIENTS_AT_ONCE, Layers, forward
from protocols.study import Study

Vector = NDArray[np.float64]

RIDGE = 1.0  # of half the sum of squares beside the sum of losses: a site with one outcome stays finite
# The shared model as it is, then random effects whose standard deviation is .06 to 1; less moves no logit.
RIDGES = (np.inf, 300.0, 100.0, 30.0, 10.0, 3.0, RIDGE)
FOLDS = 10  # of cross-validation, as the sources have it
FITTING_STEPS = 60
CONVERGED = 1e-10  # of what a Newton step promises of the loss: the step after it would be of its square


def fitted(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return the own part under which the shared model suits these patients, by the plan's rule. It stays.

    The same patients give the same part, bit for bit, on one machine. No patients: zeros, the shared model.
    """
    if not study.own_parameters or not len(table):
        return np.zeros(study.own_parameters)
    top, everyone = _Top.of(study, params, table), torch.arange(len(table))
    ridge = RIDGE if study.own_part.kept == "always" else _earned_ridge(top, _folds(table.y))
    own = _fit(top, top.nothing(), everyone, ridge=ridge)
    return torch.cat([own[:, :-1].flatten(), own[:, -1]]).numpy()


@dataclass(frozen=True, slots=True, eq=False)
class _Top:
    """What makes an own part [outputs, inputs and a constant] into patients' losses: a linear layer."""

    study: Study
    into: torch.Tensor  # [patients, inputs and a constant]
    shared: torch.Tensor  # [patients, outputs] of the shared model
    y: torch.Tensor

    @classmethod
    def of(cls, study: Study, params: Vector, table: FeatureTable) -> _Top:
        into, shared = [], []
        present = inputs.presence(study, table)
        for start in range(0, len(table), PATIENTS_AT_ONCE):
            rows = slice(start, start + PATIENTS_AT_ONCE)
            layers = Layers.of(study, params, np.zeros(study.own_parameters), recording=True)
            x, seen = torch.from_numpy(table.x[rows]).double(), torch.from_numpy(present[rows]).double()
            shared.append(forward(study, layers, x, seen).detach())
            (use,) = (use for use in layers.uses if use.name == "local")
            into.append(torch.cat([use.into, torch.ones(len(x), 1, dtype=torch.float64)], dim=1))
        return cls(study, torch.cat(into), torch.cat(shared), torch.from_numpy(table.y).double())

    def nothing(self) -> torch.Tensor:
        """Return the own part that leaves the shared model as it is."""
        return torch.zeros(self.shared.shape[1], self.into.shape[1], dtype=torch.float64)

    def outputs(self, own: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Return the outputs of some patients."""
        return self.shared[who] + self.into[who] @ own.T

    def losses(self, outputs: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        """Return each patient's loss."""
        return losses(self.study.outcome, outputs[:, None], self.y[who])[:, 0]

    def slopes(self, own: torch.Tensor, who: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed losses' gradient and Hessian by the own part, flattened."""
        into, out = self.into[who], self.outputs(own, who).requires_grad_()
        (grads,) = torch.autograd.grad(self.losses(out, who).sum(), out, create_graph=True)
        rows = [
            torch.autograd.grad(each.sum(), out, retain_graph=True)[0] for each in grads.unbind(dim=1)
        ]  # a patient's loss hangs on that patient's outputs alone
        curvatures = torch.stack(rows, dim=1)
        hessian = torch.einsum("nop,ni,nj->oipj", curvatures, into, into)
        return (grads.detach().T @ into).flatten(), hessian.reshape(own.numel(), own.numel())


def _earned_ridge(top: _Top, folds: NDArray[np.int64]) -> float:
    """Return the strongest of `RIDGES` whose held-out loss is within one standard error of the best one's.

    Infinite: the site's patients do not show that an own part predicts better than none.
    """
    if folds.max() == 0:
        return np.inf  # nobody to hold out
    held_out = np.empty((len(RIDGES), len(folds)))
    for fold in range(int(folds.max()) + 1):
        inside, outside = (
            torch.from_numpy(np.flatnonzero(where)) for where in (folds != fold, folds == fold)
        )
        own = top.nothing()
        for place, ridge in enumerate(RIDGES):  # each starts where the stronger pull ended
            own = _fit(top, own, inside, ridge=ridge)
            held_out[place, outside.numpy()] = top.losses(top.outputs(own, outside), outside).numpy()
    means = held_out.mean(axis=1)
    best = int(means.argmin())
    error = held_out[best].std(ddof=1) / np.sqrt(len(folds))
    return RIDGES[int(np.argmax(means <= means[best] + error))]


def _folds(y: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each patient's fold: as many of each outcome in each, as near as can be."""
    order = np.lexsort(y.T) if y.ndim > 1 else np.argsort(y, kind="stable")
    folds = np.empty(len(y), np.int64)
    folds[order] = np.arange(len(y)) % min(FOLDS, len(y))
    return folds


def _fit(top: _Top, own: torch.Tensor, who: torch.Tensor, *, ridge: float) -> torch.Tensor:
    """Return the own part of least penalized loss: Newton's steps, halved until the loss falls."""
    if np.isinf(ridge):
        return top.nothing()

    def penalized(part: torch.Tensor) -> float:
        return float(top.losses(top.outputs(part, who), who).sum() + 0.5 * ridge * (part**2).sum())

    value, unit = penalized(own), torch.eye(own.numel(), dtype=torch.float64)
    for _ in range(FITTING_STEPS):
        gradient, hessian = top.slopes(own, who)
        gradient += ridge * own.flatten()
        step = torch.linalg.solve(hessian + ridge * unit, gradient)
        for halving in range(20):
            there = own - step.reshape(own.shape) / 2.0**halving
            if (found := penalized(there)) < value:
                break
        else:
            break
        own, value = there, found
        if float(gradient @ step) < CONVERGED:
            break
    return own
