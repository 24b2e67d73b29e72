"""Pictures of results, with matplotlib, which is an extra: `pip install 'fedtwin[plot]'`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from fedtwin.count_results import AttritionResult, CellsResult, CountResult, FeasibilityResult
from fedtwin.estimates import Estimate, Interval
from fedtwin.rate_results import ContingencyResult, MeanResult
from fedtwin.result import Result
from fedtwin.time_results import IncidenceResult, SurvivalResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 12  # labels beyond this number stand upright


class PlotNeedsMatplotlib(ValueError):
    """The extra `plot` is not installed."""

    def __init__(self) -> None:
        super().__init__("pictures need matplotlib: pip install 'fedtwin[plot]'")


def draw(result: Result, ax: Axes | None) -> Axes:
    """Draw `result` on `ax`, or on a figure of its own that no window shows. Return the axes.

    Raises: PlotNeedsMatplotlib.
    """
    if ax is None:
        ax = _new_axes()
    _fill(ax, result)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _fill(ax: Axes, result: Result) -> None:
    match result:
        case CountResult():
            _points(ax, result.patients, "patients")
        case CellsResult():
            _bars(ax, result.cells, result.what, result.split)
        case MeanResult():
            _points(ax, result.mean, "value")
        case ContingencyResult():
            _bars(ax, result.cells, "patients", "")
        case IncidenceResult():
            _rates(ax, result)
        case SurvivalResult():
            _curve(ax, result)
        case AttritionResult():
            _bars(ax, result.remaining, "patients left", "")
        case FeasibilityResult():
            _points(ax, result.hospitals, f"of {result.sites} hospitals")


def save(axes: Axes, file: Path) -> None:
    """Write the figure that `axes` stand on; the ending says as what."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that `draw` returned stand on one
    figure.savefig(file)


def must_have_matplotlib() -> None:
    """Raises: PlotNeedsMatplotlib."""
    try:
        import matplotlib.figure  # noqa: F401 (only to see whether it is there)
    except ModuleNotFoundError as error:
        raise PlotNeedsMatplotlib from error


def _new_axes() -> Axes:
    must_have_matplotlib()
    from matplotlib.figure import Figure

    axes: Axes = Figure(figsize=(7.0, 4.0), layout="constrained").subplots()
    return axes


def _bars(ax: Axes, cells: tuple[Estimate, ...], what: str, split: str) -> None:
    places = list(range(len(cells)))
    heights = [cell.value or 0.0 for cell in cells]
    ax.bar(places, heights, color="C0", alpha=0.55)
    ax.errorbar(places, heights, yerr=_errors(cells), fmt="none", ecolor="0.4", capsize=3)
    _name(ax, [cell.name for cell in cells])
    ax.set_xlabel(split)
    ax.set_ylabel(what)


def _points(ax: Axes, figure: Estimate, what: str) -> None:
    value = math.nan if figure.value is None else figure.value
    ax.errorbar([0], [value], yerr=_errors((figure,)), fmt="o", color="C0", ecolor="0.4", capsize=4)
    _name(ax, [figure.name])
    ax.set_ylabel(what)
    if value >= 0.0:
        ax.set_ylim(bottom=0.0)


def _rates(ax: Axes, result: IncidenceResult) -> None:
    rates = tuple(period.rate for period in result.periods)
    places = list(range(len(rates)))
    values = [math.nan if rate.value is None else rate.value for rate in rates]
    ax.errorbar(places, values, yerr=_errors(rates), fmt="o-", color="C0", ecolor="0.4", capsize=3)
    _name(ax, [period.name for period in result.periods])
    ax.set_ylabel("outcomes per 1,000 person-years")
    ax.set_ylim(bottom=0.0)


def _curve(ax: Axes, result: SurvivalResult) -> None:
    days = [0, *result.days]
    ax.step(days, [1.0, *(point.value or 0.0 for point in result.curve)], where="post", color="C0")
    bands: list[tuple[float, list[Interval]]] = [
        (0.3, [point.ci95 for point in result.curve]),
        (0.15, [point.population or point.ci95 for point in result.curve]),
    ]
    for alpha, band in bands:
        low, high = zip((1.0, 1.0), *band, strict=True)
        ax.fill_between(days, low, high, step="post", color="C0", alpha=alpha, linewidth=0)
    ax.set_xlabel("days after the index date")
    ax.set_ylabel("free of the outcome")
    ax.set_ylim(0.0, 1.02)
    ax.set_xlim(0, days[-1])


def _errors(figures: tuple[Estimate, ...]) -> list[list[float]]:
    """Return how far each interval reaches below and above; an open end is not drawn."""
    below, above = [], []
    for figure in figures:
        value = figure.value if figure.value is not None else 0.0
        below.append(value - figure.low if math.isfinite(figure.low) else 0.0)
        above.append(figure.high - value if math.isfinite(figure.high) else 0.0)
    return [below, above]


def _name(ax: Axes, names: list[str]) -> None:
    longest = max(map(len, names), default=0)
    crowded = len(names) > MANY or (len(names) > 3 and longest > 60 // len(names))
    ax.set_xticks(
        list(range(len(names))), names, rotation=60 if crowded else 0, ha="right" if crowded else "center"
    )
