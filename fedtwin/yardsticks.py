"""What a private model is measured against: each hospital alone, and everything pooled, both without privacy.

Only a demo can make these rows: its hospitals do not exist, or their records are public. In a consortium no
process ever holds two hospitals' records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE = 1.0  # of the sum of squares of the weights: keeps a fit on few patients finite
NEWTON_STEPS = 50
CONVERGED = 1e-9  # largest change of a weight


# For the UCI heart hospitals: risk factors as any textbook of cardiology names them, each with weight 1
# on the plan's public scale, whose middle is the threshold. No patient of any hospital took part in it.
HEART_TEXTBOOK = {"age": 1.0, "st-depression": 1.0, "heart-rate-reached": -1.0}
HEART_TEXTBOOK_YES_NO = ("male", "no-chest-pain=4", "exercise-angina=1")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One hospital's patients as the plan splits them. Held in the demo's memory only.

    `groups`: of its test patients, as `fedtwin.patient_groups` has them.
    """

    hospital: str
    train_x: Floats
    train_y: Floats
    test_x: Floats
    test_y: Floats
    groups: Mapping[str, Sequence[tuple[str, NDArray[np.bool_]]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the hospitals' own test patients, each hospital counting once (FLamby's metric)."""

    accuracy: float
    auc: float
    by_hospital: Mapping[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the score for a machine to read."""
        each = {
            name: {"accuracy": accuracy, "auc": None if np.isnan(auc) else auc}
            for name, (accuracy, auc) in self.by_hospital.items()
        }
        return {"accuracy": self.accuracy, "auc": self.auc, "by_hospital": each}


def fit_logistic(x: Floats, y: Floats) -> Floats:
    """Return weights then bias of a ridge logistic regression, by Newton's method.

    The bias is not penalised; a hospital whose patients all have one outcome gets a finite fit all the same.
    """
    design = np.column_stack([x, np.ones(len(x))])
    penalty = np.full(design.shape[1], RIDGE)
    penalty[-1] = 1e-3  # only against a constant outcome
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - y) + penalty * weights
        hessian = (design * (p * (1.0 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < CONVERGED:
            break
    return weights


def local_only(splits: Sequence[Split]) -> Score:
    """Score each hospital with a model fitted on its own patients alone, without privacy."""
    return _mean({s.hospital: score(fit_logistic(s.train_x, s.train_y), s) for s in splits})


def pooled(splits: Sequence[Split]) -> Score:
    """Score each hospital with one model fitted on everybody's patients together, without privacy."""
    x, y = np.concatenate([s.train_x for s in splits]), np.concatenate([s.train_y for s in splits])
    return of_model(fit_logistic(x, y), splits)


def textbook(columns: Sequence[str]) -> Floats:
    """Return weights and bias of HEART_TEXTBOOK over a plan's columns. It uses no training data."""
    weights = [HEART_TEXTBOOK.get(name, 2.0 * (name in HEART_TEXTBOOK_YES_NO)) for name in columns]
    bias = -float(sum(name in HEART_TEXTBOOK_YES_NO for name in columns))  # 0 or 1 becomes -1 or 1
    return np.array([*weights, bias])


def of_model(weights: Floats, splits: Sequence[Split]) -> Score:
    """Score each hospital with given weights and bias."""
    return _mean({s.hospital: score(weights, s) for s in splits})


def with_own_intercept(weights: Floats, splits: Sequence[Split]) -> Score:
    """Score each hospital after it has fitted the bias to its own patients, which then never leaves it."""
    each = {}
    for split in splits:
        own = weights.copy()
        own[-1] += _intercept(split.train_x @ weights[:-1] + weights[-1], split.train_y)
        each[split.hospital] = score(own, split)
    return _mean(each)


def _intercept(logits: Floats, y: Floats) -> float:
    """Return what to add to every logit so that the mean of the predictions fits the outcomes."""
    shift = 0.0
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(logits + shift)
        step = float(((p - y).sum() + RIDGE * shift) / ((p * (1.0 - p)).sum() + RIDGE))
        shift -= float(np.clip(step, -1.0, 1.0))  # bounded: far out the curve is flat
        if abs(step) < CONVERGED:
            break
    return shift


def score(weights: Floats, split: Split) -> tuple[float, float]:
    """Return (accuracy, AUC) on one hospital's test patients. The AUC is NaN where all have one outcome."""
    return metrics(split.test_x @ weights[:-1] + weights[-1], split.test_y)


def metrics(logits: Floats, outcome: Floats) -> tuple[float, float]:
    """Return (accuracy at one half, area under the ROC curve; ties count half)."""
    positive = outcome > 0.5
    accuracy = float(((logits > 0) == positive).mean()) if len(outcome) else float("nan")
    ones, zeros = logits[positive], logits[~positive]
    if not len(ones) or not len(zeros):
        return accuracy, float("nan")
    below = np.searchsorted(np.sort(zeros), ones, side="left").sum()
    up_to = np.searchsorted(np.sort(zeros), ones, side="right").sum()
    return accuracy, float((below + up_to) / 2 / (len(ones) * len(zeros)))


def _mean(each: Mapping[str, tuple[float, float]]) -> Score:
    accuracies, aucs = zip(*each.values(), strict=True)
    return Score(float(np.mean(accuracies)), float(np.nanmean(aucs)), dict(each))


def _sigmoid(z: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * z))
