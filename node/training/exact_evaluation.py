"""How an exact study's result does on one hospital's own people. Exact figures of patients: they stay here.

`performance` says by the kind of result how well it fits these people, `calibration` holds predictions in
bins against what came, `curve` the survival of all hospitals against that of this one. A hospital whose
people were in the fit finds how well it describes them, not how well it predicts.

Expected events are those that the result expects of these people over the time that each was followed:
Σ over the grid of (events / at risk) of all hospitals times what was at risk here (Breslow 1975; without
covariates the one-sample log-rank test's). Over the hospitals of the fit they add up to the observed ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import evaluation, partial_likelihood
from node.training.exact_parts import on_grid
from privacy.exact_result import Point, product_limit, result
from privacy.exact_state import MAX_LOG_MEAN, State
from protocols.study import Study
from protocols.study_exact import Exact

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A result that converged, as it is applied to people."""

    study: Study
    exact: Exact
    coefficients: Floats  # the intercept, if there is one, is the last
    hazards: Floats  # of all hospitals, on the grid: events / at risk; empty without a grid

    @classmethod
    def of(cls, study: Study, params: Floats) -> Self:
        """Return what a state says. Raises: ValueError unless it is of an exact study that converged."""
        if study.exact is None or not (found := result(study, params)).converged:
            raise ValueError("not the result of an exact study that converged")
        hazards = [point.events / point.at_risk if point.at_risk > 0 else 0.0 for point in found.curve]
        return cls(study, study.exact, State.of(study, params).coefficients, np.array(hazards))

    def linear_predictor(self, rows: FeatureTable) -> Floats:
        """Return it for each person; 0 for a curve, which has none."""
        x = rows.x.astype(np.float64)
        if self.exact.model == "kaplan-meier":
            return np.zeros(len(x))
        found: Floats = x @ self.coefficients[: x.shape[1]]
        return found + self.coefficients[-1] if self.exact.intercept else found


def predictions(fitted: Fitted, rows: FeatureTable) -> Floats:
    """Return what is predicted of each person.

    [people] probabilities of a yes, amounts in the outcome's own unit, or expected counts; [people, days of
    the grid] probabilities to be free of the outcome by each. Raises: ValueError for a Cox model without one.
    """
    eta = fitted.linear_predictor(rows)
    if fitted.exact.intercept:
        return _means(fitted, eta)
    if not len(fitted.hazards):
        raise ValueError("the plan asked for no baseline: there are hazard ratios, and no probabilities")
    if fitted.exact.model == "kaplan-meier":
        return np.tile(np.cumprod(1.0 - fitted.hazards), (len(eta), 1))
    free: Floats = np.exp(-np.outer(np.exp(eta), np.cumsum(fitted.hazards)))
    return free


def performance(fitted: Fitted, rows: FeatureTable) -> dict[str, Any]:
    """Return the figures of the result's kind; None where they say nothing (no people, no events)."""
    if not len(rows):
        return {"patients": 0}
    if not fitted.exact.intercept:
        return {"patients": len(rows)} | _times(fitted, rows)
    eta, y = fitted.linear_predictor(rows), rows.y.astype(np.float64)
    if fitted.exact.model == "poisson":
        return {"patients": len(rows)} | _counts(_means(fitted, eta), y)
    found = evaluation.performance(fitted.study.outcome, eta[:, None], y)
    if fitted.exact.model == "linear":
        return found
    mean = np.full(len(y), y.mean())
    return found | _explained(_binary_deviance(_means(fitted, eta), y), _binary_deviance(mean, y))


def calibration(fitted: Fitted, rows: FeatureTable) -> list[dict[str, Any]]:
    """Return bins of like predictions, as `evaluation.calibration`; none for a curve, or without a baseline.

    Of a Cox model: the probability of the outcome by the grid's last day, against Kaplan and Meier's here.
    """
    if not len(rows) or fitted.exact.model == "kaplan-meier":
        return []
    if fitted.exact.intercept:
        predicted, y = predictions(fitted, rows), rows.y.astype(np.float64)
        if fitted.exact.model == "linear":
            y = evaluation.in_unit(fitted.study.outcome, y)
        return evaluation.in_bins(predicted, lambda chosen: float(y[chosen].mean()))
    if not len(fitted.hazards):
        return []
    predicted = 1.0 - predictions(fitted, rows)[:, -1]
    return evaluation.in_bins(predicted, lambda chosen: 1.0 - _local(fitted.exact, rows, chosen)[-1].survival)


def curve(fitted: Fitted, params: Floats, rows: FeatureTable) -> list[dict[str, Any]]:
    """Return, for each day of a Kaplan-Meier plan's grid, what is left at all hospitals, and here."""
    if fitted.exact.model != "kaplan-meier" or not len(rows):
        return []
    here = _local(fitted.exact, rows, np.arange(len(rows)))
    return [
        {
            "day": there.day,
            "all_hospitals": [there.survival, there.low, there.high],
            "here": [mine.survival, mine.low, mine.high],
            "events_here": int(mine.events),
            "at_risk_here": int(mine.at_risk),
        }
        for there, mine in zip(result(fitted.study, params).curve, here, strict=True)
    ]


def by_group(
    fitted: Fitted, rows: FeatureTable, groups: Sequence[tuple[str, Bools]]
) -> Iterator[dict[str, Any]]:
    """Yield the performance in each group that has people."""
    for name, chosen in groups:
        if chosen.any():
            yield {"group": name} | performance(fitted, rows.rows(chosen))


def _means(fitted: Fitted, eta: Floats) -> Floats:
    if fitted.exact.model == "poisson":
        return np.exp(np.minimum(eta, MAX_LOG_MEAN))
    return evaluation.predictions(fitted.study.outcome, eta[:, None])


def _counts(mean: Floats, y: Floats) -> dict[str, Any]:
    return {
        "mean_prediction": float(mean.mean()),
        "mean_observed": float(y.mean()),
        "mean_absolute_error": float(np.abs(mean - y).mean()),
    } | _explained(_count_deviance(mean, y), _count_deviance(np.full(len(y), y.mean()), y))


def _times(fitted: Fitted, rows: FeatureTable) -> dict[str, Any]:
    days, came = (rows.y[:, place].astype(np.float64) for place in (0, 1))
    found: dict[str, Any] = {"with_outcome": int(came.sum())}
    eta = fitted.linear_predictor(rows)
    if fitted.exact.model == "cox":
        found["concordance"] = evaluation.concordance(eta, days, came > 0.5)
        found["log_likelihood"], found["log_likelihood_at_zero"] = (
            _partial(fitted, rows, coefficients)
            for coefficients in (fitted.coefficients, np.zeros_like(fitted.coefficients))
        )
    if not len(fitted.hazards):
        return found
    events, at_risk = on_grid(fitted.exact, days, came, np.exp(eta))
    found |= _ratio(float(events.sum()), float(at_risk @ fitted.hazards))
    here = _local(fitted.exact, rows, np.arange(len(rows)))
    found["median_day"] = next((point.day for point in here if point.survival <= 0.5), None)
    found["free_at_end"] = here[-1].survival
    if fitted.exact.model == "kaplan-meier":
        apart = np.array([point.survival for point in here]) - np.cumprod(1.0 - fitted.hazards)
        place = int(np.abs(apart).argmax())
        found["largest_difference"] = float(apart[place])
        found["largest_difference_day"] = here[place].day
    return found


def _partial(fitted: Fitted, rows: FeatureTable, coefficients: Floats) -> float:
    x, y = rows.x.astype(np.float64), rows.y.astype(np.float64)
    return partial_likelihood.part(x, y[:, 0], y[:, 1], coefficients, ties=fitted.exact.ties).log_likelihood


def _ratio(observed: float, expected: float) -> dict[str, Any]:
    """Observed over expected events; the interval is that of a Poisson count's logarithm."""
    found = observed / expected if expected > 0.0 else None
    ends = None
    if found is not None and observed > 0.0:
        wide = math.exp(evaluation.Z95 / math.sqrt(observed))
        ends = [found / wide, found * wide]
    return {"expected_events": expected, "observed_to_expected": found, "observed_to_expected_ci95": ends}


def _local(exact: Exact, rows: FeatureTable, chosen: NDArray[np.int64]) -> tuple[Point, ...]:
    """Return these people's own curve on the plan's grid."""
    days, came = (rows.y[chosen, place].astype(np.float64) for place in (0, 1))
    return product_limit(exact.grid_days, *on_grid(exact, days, came, np.ones(len(days))))


def _explained(deviance: float, null: float) -> dict[str, float | None]:
    """The deviance, that of these people's own mean, and the share of it that the model explains."""
    return {
        "deviance": deviance,
        "null_deviance": null,
        "deviance_explained": 1.0 - deviance / null if null > 0.0 else None,
    }


def _binary_deviance(p: Floats, y: Floats) -> float:
    likelihood = np.clip(np.where(y > 0.5, p, 1.0 - p), evaluation.LOWEST, 1.0)
    return float(-2.0 * np.log(likelihood).sum())


def _count_deviance(mean: Floats, y: Floats) -> float:
    each = np.where(y > 0.0, y * np.log(np.where(y > 0.0, y, 1.0) / np.maximum(mean, evaluation.LOWEST)), 0.0)
    return float(2.0 * (each - (y - mean)).sum())
