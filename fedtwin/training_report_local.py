"""The part of a training report that is about one hospital's own held-out patients."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fedtwin import svg
from fedtwin.svg import Axis, Series
from fedtwin.training_report_page import table

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
}
PROBABILITY = ("binary", "multiclass", "survival")


OWN = "On this hospital’s held-out patients"


def local_part(local: Mapping[str, Any], *, title: str = OWN) -> str:
    """Return the section: discrimination, calibration, groups."""
    overall = local["overall"]
    own = " with this hospital’s own part," if local["own_part"] else ""
    interval = overall.get("auc_ci95")
    told = f" (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    figures = "".join(
        f"<div><b>{overall[name]:.3f}</b><span>{escape(word)}{told if name == 'auc' else ''}</span></div>"
        for name, word in WORDS.items()
        if overall.get(name) is not None
    )
    return (
        f"<h2>{escape(title)}</h2><p>{overall['patients']:,} patients,{own} none of whom the model was"
        f' trained on. Exact, without noise.</p><div class="figures">{figures}</div>'
        f'<div class="charts">{_calibration(local)}</div>{_groups(local)}'
    )


def _calibration(local: Mapping[str, Any]) -> str:
    rows = local["calibration"]
    if not rows:
        return ""
    probability = local["task"] in PROBABILITY
    ends = (0.0, 1.0) if probability else (None, None)
    points = [(row["predicted"], row["observed"]) for row in rows]
    low = 0.0 if probability else min(min(p) for p in points)
    high = 1.0 if probability else max(max(p) for p in points)
    errors = [
        1.96 * max(0.0, row["observed"] * (1.0 - row["observed"]) / row["patients"]) ** 0.5 for row in rows
    ]
    return svg.lines(
        [
            Series("this model", points, errors=errors if local["task"] in ("binary", "multiclass") else ()),
            Series("as predicted", [(low, low), (high, high)], "three", dots=False),
        ],
        x=Axis("predicted", *ends),
        y=Axis("observed", *ends),
        title="Calibration",
        key_left=True,
    )


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
