"""What `fedtwin train` shows of a study without noise: its verdict, a table of coefficients, or a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fedtwin.screen import Exit, Stop, emit_fields, emit_table
from privacy.exact_result import Coefficient, ExactResult, Point, result
from privacy.exact_state import Verdict
from protocols.study import Study

RATIO = {"logistic": "odds ratio", "poisson": "rate ratio", "cox": "hazard ratio"}
P = TypeVar("P")
MOST_POINTS = 40  # of a curve on a screen; --json has all of them


def of_run(study: Study, parameters: Sequence[float]) -> ExactResult | None:
    """Return the result of a run of an exact study; None for another study, or before the first sum."""
    import numpy as np

    if study.exact is None or not len(parameters):
        return None
    return result(study, np.array(parameters))


def show(found: ExactResult) -> None:
    """Write a result for a person."""
    fields: dict[str, object] = {
        "verdict": found.verdict.words,
        "people": f"{found.people}, {found.events} events, {found.sites} hospitals"
        if found.model != "linear"
        else f"{found.people}, {found.sites} hospitals",
    }
    if found.log_likelihood is not None:
        fields["log-likelihood"] = f"{found.log_likelihood:.4f}"
    if found.residual_standard_deviation is not None:
        fields["residual standard deviation"] = f"{found.residual_standard_deviation:.4g} of half the range"
    if found.model == "kaplan-meier" and found.curve:
        fields["median"] = "not reached" if found.median_day is None else f"day {found.median_day}"
    emit_fields(fields)
    if found.coefficients:
        ratio = RATIO.get(found.model, "")
        emit_table(
            ("column", "coefficient", "standard error", "95 % from", "to", ratio or "per unit", "p"),
            [_row(one, with_ratio=bool(ratio)) for one in found.coefficients],
        )
    if found.curve:
        emit_table(
            ("until day", "events", "at risk", "survival", "95 % from", "to"),
            [_point(point) for point in thinned(found.curve)],
            title="baseline, all columns at 0" if found.model == "cox" else None,
        )


def require_answer(found: ExactResult) -> None:
    """Raises: Stop (refused) for a run that ended without one, in words that say why."""
    if found.verdict is not Verdict.CONVERGED:
        raise Stop(Exit.REFUSED, f"no result: {found.verdict.words}")


def _row(one: Coefficient, *, with_ratio: bool) -> tuple[str, ...]:
    last = "" if one.per_unit is None else f"{one.per_unit:.4g}"
    if with_ratio and one.ratio is not None:
        value, low, high = one.ratio
        last = f"{value:.3g} ({low:.3g} to {high:.3g})"
    return (
        one.name,
        f"{one.estimate:.4f}",
        f"{one.standard_error:.4f}",
        f"{one.low:.4f}",
        f"{one.high:.4f}",
        last,
        f"{one.p_value:.3g}",
    )


def _point(point: Point) -> tuple[str, ...]:
    ends = ("" if end is None else f"{end:.4f}" for end in (point.low, point.high))
    return (str(point.day), f"{point.events:g}", f"{point.at_risk:.6g}", f"{point.survival:.4f}", *ends)


def thinned(curve: Sequence[P]) -> list[P]:
    """Return every n-th point and the last one, so that a curve of days fits a screen."""
    step = -(-len(curve) // MOST_POINTS)
    return [*curve[step - 1 :: step]] if len(curve) % step == 0 else [*curve[step - 1 :: step], curve[-1]]
