"""What one site adds to the one sum of a one-shot study: its patients' scores and informations, bounded.

Guarantee: one patient more or less changes the vector by at most the plan's clip norm in L2, whatever their
row says and whatever the parameters are (the derivation is in privacy/sufficient.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.gradient import CLIP_MARGIN
from privacy.sufficient import curvature_bound, packed, residual_bound
from protocols.study import Study

Vector = NDArray[np.float64]

ROWS_AT_ONCE = 16_384  # 26 MB at the most columns


def part(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return the site's vector at `params`. No patients: zeros."""
    plan, size = study.one_shot, study.parameters
    if plan is None:
        raise ValueError("not a one-shot study")
    score, information = np.zeros(size), np.zeros((size, size))
    for start in range(0, len(table), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        x, y = table.x[rows].astype(np.float64), table.y[rows].astype(np.float64)
        z = np.column_stack([x, np.ones(len(x))])
        with np.errstate(over="ignore", invalid="ignore"):  # absurd parameters: cut to the bounds below
            eta = z @ params
        mean, curvature = _moments(study, eta)
        residual = np.clip((y - mean) / residual_bound(study), -1.0, 1.0)
        weight = (1.0 - CLIP_MARGIN) * np.minimum(1.0, plan.row_norm**2 / (z**2).sum(axis=1))
        bent = np.clip(curvature / curvature_bound(study), 0.0, 1.0)
        score += z.T @ (weight * residual) / plan.row_norm
        information += (z * (weight * bent)[:, None]).T @ z / plan.row_norm**2
    return packed(score, plan.information_weight * information)


def _moments(study: Study, eta: Vector) -> tuple[Vector, Vector]:
    """Return each patient's mean and curvature; what is no number counts as 0, or as even odds."""
    eta = np.nan_to_num(eta, nan=0.0, posinf=1e300, neginf=-1e300)
    if study.outcome.task == "regression":
        return eta, np.ones(len(eta))
    mean = 0.5 * (1.0 + np.tanh(0.5 * eta))
    return mean, mean * (1.0 - mean)
