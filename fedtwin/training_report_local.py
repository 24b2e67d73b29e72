"""The part of a training report that is about one hospital's own held-out patients."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fedtwin import svg
from fedtwin.svg import Axis, Series
from fedtwin.training_report_exact import steps
from fedtwin.training_report_page import table

Z95 = 1.959964  # of a normal distribution, two-sided
FEW = 30  # patients: figures of smaller groups are mostly chance
WORDS = {
    "auc": "AUC",
    "concordance": "C-index",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "log_loss": "log loss",
    "rmse": "root mean square error",
    "mean_absolute_error": "mean absolute error",
    "r2": "R²",
    "deviance_explained": "deviance explained",
    "observed_to_expected": "observed / expected events",
    "free_at_end": "free of the outcome at the end",
    "largest_difference": "largest difference from all hospitals",
}
WITH_INTERVAL = ("auc", "observed_to_expected")
PROBABILITY = ("binary", "multiclass", "survival")


OWN = "On this hospital’s held-out patients"


def local_part(local: Mapping[str, Any], *, title: str = OWN) -> str:
    """Return the section: discrimination, calibration, groups."""
    overall = local["overall"]
    own = " with this hospital’s own part," if local["own_part"] else ""
    in_fit = local.get("exact", {}).get("in_fit", False)
    if in_fit and title == OWN:
        title = "On this hospital’s own patients"
    who = (
        " all of whom the fit took: the figures say how well it describes them, not how well it predicts."
        if in_fit
        else " none of whom the model was trained on."
    )
    figures = "".join(
        f"<div><b>{overall[name]:.3f}</b><span>{escape(word)}{_interval(overall, name)}</span></div>"
        for name, word in WORDS.items()
        if overall.get(name) is not None
    )
    return (
        f"<h2>{escape(title)}</h2><p>{overall['patients']:,} patients,{own}{who} Exact, without noise.</p>"
        f'<div class="figures">{figures}</div>'
        f'<div class="charts">{_curve(local)}{_calibration(local)}</div>{_groups(local)}'
    )


def _interval(overall: Mapping[str, Any], name: str) -> str:
    ends = overall.get(f"{name}_ci95") if name in WITH_INTERVAL else None
    return f" (95 %: {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""


def _curve(local: Mapping[str, Any]) -> str:
    """This hospital's survival curve beside that of all hospitals, of a study that has one."""
    points = local.get("exact", {}).get("curve", ())
    here, everywhere = (
        steps([(point["day"], point[where][0]) for point in points]) for where in ("here", "all_hospitals")
    )
    return svg.lines(
        [Series("here", here, dots=False), Series("all hospitals", everywhere, "two", dots=False)],
        x=Axis("days after the index date", low=0.0),
        y=Axis("free of the outcome", 0.0, 1.0),
        title="Free of the outcome",
    )


def _calibration(local: Mapping[str, Any]) -> str:
    rows = local["calibration"]
    if not rows:
        return ""
    probability = local["task"] in PROBABILITY or local["task"] == "days"
    ends = (0.0, 1.0) if probability else (None, None)
    points = [(row["predicted"], row["observed"]) for row in rows]
    low = 0.0 if probability else min(min(p) for p in points)
    high = 1.0 if probability else max(max(p) for p in points)
    shares = local["task"] in ("binary", "multiclass")
    errors = [_wilson(row["observed"], row["patients"]) for row in rows] if shares else ()
    return svg.lines(
        [
            Series("this model", points, errors=errors),
            Series("as predicted", [(low, low), (high, high)], "three", dots=False),
        ],
        x=Axis("predicted", *ends),
        y=Axis("observed", *ends),
        title="Calibration",
        key_left=True,
    )


def _wilson(share: float, patients: int) -> tuple[float, float]:
    """Return how far a 95 % interval of a share reaches below and above it, never past 0 and 1 (Wilson 1927).

    A bin in which nobody, or everybody, had the outcome has an interval too.
    """
    square = Z95**2 / patients
    centre = (share + square / 2.0) / (1.0 + square)
    half = (share * (1.0 - share) * square + square**2 / 4.0) ** 0.5 / (1.0 + square)
    return max(0.0, share - centre + half), max(0.0, centre + half - share)


def _groups(local: Mapping[str, Any]) -> str:
    figures = [name for name in WORDS if name in local["overall"]]
    rows = []
    for kind, groups in local["groups"].items():
        for row in groups:
            few = " <small>(few)</small>" if row["patients"] < FEW else ""
            cells = ("–" if row.get(name) is None else f"{row[name]:.3f}" for name in figures)
            rows.append((escape(kind), f"{escape(row['group'])}{few}", f"{row['patients']:,}", *cells))
    heads = ("", "Group", "Patients#", *(f"{WORDS[name]}#" for name in figures))
    return f"<h3>By group</h3>{table(heads, rows)}" if rows else ""
