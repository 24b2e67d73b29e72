"""Whose record was in the training data, by the likelihood ratio of what a model says of it (LiRA)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_OF_EITHER = 4  # models with and without a record, below which no spread can be told
_SMALLEST_SD = 1e-6


def likelihood_ratios(says: Reals, member: Flags) -> Reals:
    """Return, for each model and record, how much more likely its score is if the record was in: log ratios.

    Each model is attacked with all others as shadow models: for a record, a normal distribution is fitted to
    what those say that were trained with it, and one to what those say that were not.

    Args: says, [models, records], finite: larger where a model fits the record better (the logit of the
    right class); member, of the same shape: whether the record was in that model's training data.
    Returns: of that shape; NaN where fewer than four other models had the record, or had not.
    Raises: ValueError for other shapes.
    Source: Carlini et al. 2022, algorithm 1 (the on-line attack).
    """
    if says.ndim != 2 or says.shape != member.shape:
        raise ValueError("says and member are [models, records]")
    ratios = np.full(says.shape, np.nan)
    for model in range(len(says)):
        others = np.arange(len(says)) != model
        inside = _fitted(says[others], member[others])
        outside = _fitted(says[others], ~member[others])
        ratios[model] = stats.norm.logpdf(says[model], *inside) - stats.norm.logpdf(says[model], *outside)
    return ratios


def _fitted(says: Reals, chosen: Flags) -> tuple[Reals, Reals]:
    """Mean and standard deviation of each record's chosen scores; NaN where there are too few."""
    count = chosen.sum(axis=0)
    enough = np.where(count >= LEAST_OF_EITHER, count, np.nan)
    mean = np.where(chosen, says, 0.0).sum(axis=0) / enough
    square = np.where(chosen, (says - mean) ** 2, 0.0).sum(axis=0) / (enough - 1.0)
    return mean, np.maximum(np.sqrt(square), _SMALLEST_SD)


def auc(scores: Reals, truth: Flags) -> float:
    """Return the chance that a true one scores above a false one (ties count half); NaN scores are left out.

    Raises: ValueError if one of the two kinds is missing.
    """
    known = np.isfinite(scores)
    scores, truth = scores[known], truth[known]
    inside, outside = int(truth.sum()), int((~truth).sum())
    if not inside or not outside:
        raise ValueError("needs scores of members and of others")
    ranks = stats.rankdata(scores)
    return float((ranks[truth].sum() - inside * (inside + 1) / 2) / (inside * outside))
