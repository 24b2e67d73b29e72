"""How well a model does on patients that it was not trained on. Exact figures of patients: they stay here.

`performance` says it in numbers, by the kind of outcome; `calibration` in bins of the prediction; and
`by_group` for groups of patients. Nothing here has noise: none of it may leave the hospital.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.study_outcome import Outcome

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 10
FEWEST_IN_BIN = 15  # patients: with fewer, what is observed in a bin is mostly chance
Z95 = 1.959964  # of a normal distribution, two-sided
LOWEST = 1e-15  # a probability nearer to 0 or 1 counts as this in the log loss
PAIRS_AT_ONCE = 512  # rows of patients against all others, in the concordance index


def predictions(outcome: Outcome, outputs: Floats) -> Floats:
    """Return what the outputs [patients, outputs] mean.

    [patients] probabilities of a yes; [patients, classes] probabilities; [patients] amounts in the
    outcome's own unit; [patients, edges] probabilities to be free of the outcome at each edge.
    """
    if outcome.task == "multiclass":
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        found: Floats = shifted / shifted.sum(axis=1, keepdims=True)
        return found
    if outcome.task == "regression":
        return in_unit(outcome, outputs[:, 0])
    probabilities: Floats = 0.5 * (1.0 + np.tanh(0.5 * outputs))  # a sigmoid that never overflows
    if outcome.task == "survival":
        free: Floats = np.cumprod(1.0 - probabilities, axis=1, dtype=np.float64)
        return free
    return probabilities[:, 0]


def in_unit(outcome: Outcome, scaled: Floats) -> Floats:
    """Return amounts on [-1, 1] in the outcome's own unit."""
    assert outcome.range is not None  # the parser gives this kind its range
    low, high = outcome.range
    found: Floats = low + 0.5 * (scaled + 1.0) * (high - low)
    return found


def performance(outcome: Outcome, outputs: Floats, y: Floats) -> dict[str, Any]:
    """Return the figures of the outcome's kind; None where they say nothing (no patients, one outcome)."""
    found: dict[str, Any] = {"patients": len(y)}
    if not len(y):
        return found
    predicted = predictions(outcome, outputs)
    if outcome.task == "binary":
        return found | _binary(predicted, y)
    if outcome.task == "multiclass":
        return found | _multiclass(predicted, y.astype(np.int64))
    if outcome.task == "regression":
        return found | _regression(predicted, in_unit(outcome, y))
    return found | _survival(predicted, y)


def _binary(p: Floats, y: Floats) -> dict[str, Any]:
    yes = y > 0.5
    area = auc(p, yes)
    return {
        "with_outcome": int(yes.sum()),
        "auc": area,
        "auc_ci95": None if area is None else _auc_interval(area, int(yes.sum()), int((~yes).sum())),
        "accuracy": float(((p > 0.5) == yes).mean()),
        "brier": float(((p - y) ** 2).mean()),
        "log_loss": _log_loss(np.where(yes, p, 1.0 - p)),
        "mean_prediction": float(p.mean()),
    }


def _multiclass(p: Floats, y: NDArray[np.int64]) -> dict[str, Any]:
    truth = np.eye(p.shape[1])[y]
    areas = [auc(p[:, place], y == place) for place in range(p.shape[1])]
    known = [area for area in areas if area is not None]
    return {
        "auc": float(np.mean(known)) if known else None,  # each class against the others, unweighted
        "accuracy": float((p.argmax(axis=1) == y).mean()),
        "brier": float(((p - truth) ** 2).sum(axis=1).mean()),
        "log_loss": _log_loss(p[np.arange(len(y)), y]),
    }


def _regression(predicted: Floats, y: Floats) -> dict[str, Any]:
    around = float(((y - y.mean()) ** 2).sum())
    return {
        "rmse": float(np.sqrt(((predicted - y) ** 2).mean())),
        "mean_absolute_error": float(np.abs(predicted - y).mean()),
        "r2": 1.0 - float(((predicted - y) ** 2).sum()) / around if around > 0.0 else None,
    }


def _survival(free: Floats, y: Floats) -> dict[str, Any]:
    lived, came = y[:, 0], y[:, 1] > 0.5
    hazards = 1.0 - free / np.concatenate([np.ones((len(free), 1)), free[:, :-1]], axis=1).clip(LOWEST)
    interval = np.arange(free.shape[1])
    at_risk = interval < (lived + came)[:, None]
    event = came[:, None] & (interval == lived[:, None])
    likelihood = np.where(event, hazards, 1.0 - hazards)[at_risk]
    return {
        "with_outcome": int(came.sum()),
        "concordance": concordance(-free.sum(axis=1), lived, came),
        "log_loss": _log_loss(likelihood) if len(likelihood) else None,  # of an interval lived through
    }


def auc(score: Floats, positive: Bools) -> float | None:
    """Return the area under the ROC curve, ties counting half; None if all have one outcome."""
    ones, zeros = score[positive], np.sort(score[~positive])
    if not len(ones) or not len(zeros):
        return None
    below = np.searchsorted(zeros, ones, side="left").sum()
    up_to = np.searchsorted(zeros, ones, side="right").sum()
    return float((below + up_to) / 2 / (len(ones) * len(zeros)))


def _auc_interval(area: float, ones: int, zeros: int) -> list[float]:
    """Return a 95 % interval. Source: Hanley, McNeil 1982."""
    q1, q2 = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    variance = area * (1.0 - area) + (ones - 1) * (q1 - area**2) + (zeros - 1) * (q2 - area**2)
    half = Z95 * float(np.sqrt(max(variance, 0.0) / (ones * zeros)))
    return [max(0.0, area - half), min(1.0, area + half)]


def _log_loss(likelihood: Floats) -> float:
    return float(-np.log(np.clip(likelihood, LOWEST, 1.0)).mean())


def concordance(risk: Floats, lived: Floats, came: Bools) -> float | None:
    """Return Harrell's C: of pairs of whom it is known who came first, how often the riskier one did.

    Ties in risk count half. None if there is no such pair.
    """
    right = pairs = 0.0
    for start in range(0, len(risk), PAIRS_AT_ONCE):
        rows = slice(start, start + PAIRS_AT_ONCE)
        # the outcome of the row came first: the other lived through that interval, or was censored behind it
        first = came[rows, None] & ((lived[rows, None] < lived) | ((lived[rows, None] == lived) & ~came))
        pairs += first.sum()
        right += (first & (risk[rows, None] > risk)).sum() + 0.5 * (first & (risk[rows, None] == risk)).sum()
    return float(right / pairs) if pairs else None


def calibration(outcome: Outcome, outputs: Floats, y: Floats, *, bins: int = BINS) -> list[dict[str, Any]]:
    """Return, for groups of like predictions and about equal size, the mean prediction and what came true.

    For several classes it is of the class that is thought likeliest, for times of the outcome by the last
    edge (observed by Kaplan and Meier's estimate, which counts those who were censored before it).
    """
    if not len(y):
        return []
    predicted = predictions(outcome, outputs)
    if outcome.task == "multiclass":
        came = (predicted.argmax(axis=1) == y).astype(np.float64)
        predicted = predicted.max(axis=1)
    elif outcome.task == "survival":
        predicted, came = 1.0 - predicted[:, -1], y
    else:
        came = in_unit(outcome, y) if outcome.task == "regression" else y
    if came.ndim == 2:
        return in_bins(predicted, lambda rows: _by_the_last_edge(came[rows], outputs.shape[1]), bins=bins)
    return in_bins(predicted, lambda rows: float(came[rows].mean()), bins=bins)


def in_bins(
    predicted: Floats, observed: Callable[[NDArray[np.int64]], float], *, bins: int = BINS
) -> list[dict[str, Any]]:
    """Return bins of like predictions: patients, their mean, and what was `observed` of their rows."""
    order = np.argsort(predicted, kind="stable")
    return [
        {
            "patients": len(chosen),
            "predicted": float(predicted[chosen].mean()),
            "observed": observed(chosen),
        }
        for chosen in np.array_split(order, max(1, min(bins, len(order) // FEWEST_IN_BIN)))
    ]


def _by_the_last_edge(y: Floats, intervals: int) -> float:
    lived, came = y[:, 0], y[:, 1] > 0.5
    free = 1.0
    for interval in range(intervals):
        events = int((came & (lived == interval)).sum())
        at_risk = int((lived > interval).sum()) + events
        free *= 1.0 - events / at_risk if at_risk else 1.0
    return 1.0 - free


def by_group(
    outcome: Outcome, outputs: Floats, y: Floats, groups: Sequence[tuple[str, Bools]]
) -> Iterator[dict[str, Any]]:
    """Yield the performance in each group that has patients."""
    for name, chosen in groups:
        if chosen.any():
            yield {"group": name} | performance(outcome, outputs[chosen], y[chosen])
