"""What an exact study found, from its final state: coefficients with their errors, or a survival curve.

Standard errors are the roots of the inverse information's diagonal; of a linear model times the residual
standard deviation, whose sum of squares is divided by people less coefficients. Intervals are Wald's, with
quantiles of the normal distribution (for linear models too). A curve's are Greenwood's on the scale of
log(-log S) (Kalbfleisch and Prentice 1980), its error is on the scale of S.

With a ridge, errors are those of the penalised information, and say nothing of the bias that it brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy import cholesky
from privacy.exact_state import State, Verdict
from protocols.study import Study
from protocols.study_exact import Exact
from protocols.study_features import Feature

Vector = NDArray[np.float64]

LEVEL = 0.95
INTERCEPT = "(intercept)"


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One row of a table of coefficients. `ratio` is e^estimate: of odds, rates or hazards; else None.

    On the plan's scale a range runs from -1 to 1; `per_unit` is the estimate for one unit of the feature (and
    of the outcome), None where a column has none.
    """

    name: str
    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float
    ratio: tuple[float, float, float] | None
    per_unit: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """One day of a curve. For a baseline hazard, `survival` is that of somebody with all columns at zero."""

    day: int
    events: float
    at_risk: float
    survival: float
    standard_error: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ExactResult:
    """What is reported. Without a verdict of convergence there are no coefficients and no curve."""

    model: str
    verdict: Verdict
    sites: int
    people: int
    events: int
    log_likelihood: float | None
    coefficients: tuple[Coefficient, ...]
    residual_standard_deviation: float | None
    curve: tuple[Point, ...]
    level: float = LEVEL

    @property
    def converged(self) -> bool:
        """Whether there is an answer at all."""
        return self.verdict is Verdict.CONVERGED

    @property
    def median_day(self) -> int | None:
        """The first day of the grid on which half of the people, or fewer, are left."""
        return next((point.day for point in self.curve if point.survival <= 0.5), None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read."""
        return {
            "model": self.model,
            "verdict": self.verdict.name.lower().replace("_", "-"),
            "sites": self.sites,
            "people": self.people,
            "events": self.events,
            "log_likelihood": self.log_likelihood,
            "residual_standard_deviation": self.residual_standard_deviation,
            "level": self.level,
            "coefficients": [_fields(one) for one in self.coefficients],
            "curve": [_fields(point) for point in self.curve],
            "median_day": self.median_day,
        }


def result(study: Study, params: Vector) -> ExactResult:
    """Return what the final state of an exact study says. Raises: NotFinite if it is none."""
    exact = study.exact
    if exact is None:
        raise ValueError("not an exact study")
    state = State.of(study, params)
    done = state.verdict is Verdict.CONVERGED
    modelled = done and exact.model != "kaplan-meier"
    deviation = None
    if done and exact.model == "linear":
        deviation = _residual_deviation(state)
    return ExactResult(
        model=exact.model,
        verdict=state.verdict,
        sites=round(state.sites),
        people=round(state.people),
        events=round(state.events),
        log_likelihood=_log_likelihood(exact, state) if modelled else None,
        coefficients=_coefficients(study, exact, state, deviation or 1.0) if modelled else (),
        residual_standard_deviation=deviation,
        curve=_curve(exact, state) if done else (),
    )


def _curve(exact: Exact, state: State) -> tuple[Point, ...]:
    if exact.model != "kaplan-meier":
        return _baseline(exact, state)
    return product_limit(exact.grid_days, state.grid_events, state.grid_risk)


def _coefficients(study: Study, exact: Exact, state: State, deviation: float) -> tuple[Coefficient, ...]:
    size = len(state.coefficients)
    shrunk = np.zeros(size)
    shrunk[: len(study.columns)] = exact.ridge
    lower = cholesky.factor(cholesky.square_matrix(state.information, size) + np.diag(shrunk))
    if lower is None:
        raise ValueError("a state of convergence has an information that can be inverted")
    errors = deviation * np.sqrt(np.diagonal(cholesky.inverse(lower)))
    names = (*study.columns, INTERCEPT)[:size]
    units = (*_units(study), 1.0 if exact.model != "linear" else None)[:size]
    wide = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    found = []
    for name, value, error, unit in zip(
        names, state.coefficients.tolist(), errors.tolist(), units, strict=True
    ):
        ends = (value - wide * error, value + wide * error)
        ratio = None if exact.model == "linear" else tuple(_exp(one) for one in (value, *ends))
        p_value = math.erfc(abs(value / error) / math.sqrt(2.0))
        found.append(
            Coefficient(
                name,
                value,
                error,
                *ends,
                p_value,
                ratio,  # type: ignore[arg-type]  # three of them
                None if unit is None or name == INTERCEPT else value * unit,
            )
        )
    return tuple(found)


def _units(study: Study) -> tuple[float | None, ...]:
    """Return by what a coefficient is multiplied to be that of one unit; None where a column has no unit."""
    amount = study.outcome.range
    outcome = 1.0 if amount is None else 0.5 * (amount[1] - amount[0])
    return tuple(
        None if inner is None else inner * outcome for f in study.features for inner in _of_columns(f)
    )


def _of_columns(feature: Feature) -> tuple[float | None, ...]:
    flag = (1.0,) if feature.missing_flag else ()
    count = len(feature.columns) - len(flag)
    if feature.range is not None:
        return (2.0 / (feature.range[1] - feature.range[0]), *flag)
    inner = 1.0 if feature.kind in ("present", "sex", "category") else None
    return (*(inner,) * count, *flag)


def _residual_deviation(state: State) -> float | None:
    free = state.people - len(state.coefficients)
    return math.sqrt(-2.0 * state.log_likelihood / free) if free > 0 else None


def _log_likelihood(exact: Exact, state: State) -> float:
    if exact.model != "linear":
        return state.log_likelihood
    variance = max(-2.0 * state.log_likelihood / state.people, 5e-324)  # the estimate of most likelihood
    return -0.5 * state.people * (math.log(2.0 * math.pi * variance) + 1.0)


def product_limit(grid_days: Sequence[int], grid_events: Vector, grid_risk: Vector) -> tuple[Point, ...]:
    """Return Kaplan and Meier's curve of the events and the people at risk at each day of a grid."""
    wide = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    survival, greenwood, found = 1.0, 0.0, []
    for day, events, risk in zip(grid_days, grid_events, grid_risk, strict=True):
        if events > 0:
            survival *= (risk - events) / risk
            greenwood += events / (risk * (risk - events)) if risk > events else math.inf
        ends = _log_log(survival, greenwood, wide)
        error = survival * math.sqrt(greenwood) if survival > 0.0 else 0.0
        found.append(Point(day, float(events), float(risk), survival, error, *ends))
    return tuple(found)


def _log_log(survival: float, greenwood: float, wide: float) -> tuple[float | None, float | None]:
    if not 0.0 < survival < 1.0:
        return (None, None)
    spread = wide * math.sqrt(greenwood) / abs(math.log(survival))
    return survival ** math.exp(spread), survival ** math.exp(-spread)


def _baseline(exact: Exact, state: State) -> tuple[Point, ...]:
    """Breslow's estimate on the grid, of all sites together: events / sum of hazard ratios at risk."""
    hazard, found = 0.0, []
    for day, events, risk in zip(exact.grid_days, state.grid_events, state.grid_risk, strict=True):
        hazard += events / risk if events > 0 else 0.0
        found.append(Point(day, float(events), float(risk), math.exp(-hazard), None, None, None))
    return tuple(found)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf


def _fields(found: Coefficient | Point) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in type(found).__slots__}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
