"""The part of a training report that is about a study without noise: its coefficients, or its curve."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fedtwin import svg
from fedtwin.exact_view import RATIO
from fedtwin.model_package import ModelPackage
from fedtwin.svg import Axis, Series
from fedtwin.training_report_page import table
from privacy.descent import NotFinite
from privacy.exact_result import Coefficient, ExactResult, Point, result


def exact_part(package: ModelPackage) -> str:
    """Return the section; nothing for a study with noise."""
    if package.study.exact is None:
        return ""
    try:
        found = result(package.study, package.parameters)
    except NotFinite:
        return "<h2>Result</h2><p>The run has not come to a result.</p>"
    people = f"{found.people:,} people of {found.sites} hospitals"
    events = "" if found.model == "linear" else f", {found.events:,} events"
    return (
        f"<h2>Result</h2><p>{escape(found.verdict.words)} {people}{events}. Exact: as if all"
        f" records lay in one place.</p>{_coefficients(found)}{_curve(found)}"
    )


def _coefficients(found: ExactResult) -> str:
    if not found.coefficients:
        return ""
    ratio = RATIO.get(found.model, "")
    heads = (
        "Column",
        "Coefficient#",
        "Standard error#",
        "95 % from#",
        "to#",
        f"{ratio or 'Per unit'}#",
        "p#",
    )
    return table(heads, [_row(one) for one in found.coefficients])


def _row(one: Coefficient) -> tuple[str, ...]:
    last = "" if one.per_unit is None else f"{one.per_unit:.4g}"
    if one.ratio is not None:
        value, low, high = one.ratio
        last = f"{value:.3g} ({low:.3g} to {high:.3g})"
    figures = (f"{value:.4f}" for value in (one.estimate, one.standard_error, one.low, one.high))
    return (escape(one.name), *figures, last, f"{one.p_value:.3g}")


def _curve(found: ExactResult) -> str:
    if not found.curve:
        return ""
    ends = [
        Series(name, steps([(point.day, end) for point, end in pairs]), "three", dots=False)
        for name, pairs in (("95 %", _ends(found.curve, "low")), ("", _ends(found.curve, "high")))
    ]
    kept = steps([(point.day, point.survival) for point in found.curve])
    what = "all columns at 0" if found.model == "cox" else "free of the outcome"
    drawn = svg.lines(
        [Series(what, kept, dots=False), *ends],
        x=Axis("days after the index date", low=0.0),
        y=Axis(f"survival, {what}" if found.model == "cox" else what, 0.0, 1.0),
        title=what,
    )
    return f'<div class="charts">{drawn}</div>'


def _ends(curve: Sequence[Point], end: str) -> list[tuple[Point, float]]:
    return [(point, getattr(point, end)) for point in curve if getattr(point, end) is not None]


def steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a curve that starts at (0, 1) and holds each value until the next day."""
    corners, before = [(0.0, 1.0)], 1.0
    for day, value in points if points else ():
        corners += [(float(day), before), (float(day), value)]
        before = value
    return corners if points else []
