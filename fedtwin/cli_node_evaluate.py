"""`fedtwin node evaluate`: how a trained model does on this hospital's own held-out patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

SHOWN = (
    *("auc", "concordance", "accuracy", "brier", "log_loss", "rmse", "mean_absolute_error", "r2"),
    *("deviance_explained", "observed_to_expected", "free_at_end", "largest_difference"),
)
WITH_INTERVAL = ("auc", "observed_to_expected")
IN_FIT = (
    "The fit took these very patients: the figures say how well it describes them, not how well it predicts."
)


def evaluate(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", exists=True, help="A model package: a folder, or a .zip.")
    ],
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also a package that no lead of the consortium signed.")
    ] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Try a trained model on the patients that this hospital held out of training. For its own eyes only.

    An exact study's fit is held against this hospital's own patients: all of them if the fit took all.
    """
    from fedtwin import model_package
    from fedtwin.model_export import leads_at
    from fedtwin.node_evaluate import STAYS, keep
    from fedtwin.node_evaluate import evaluate as tried
    from fedtwin.node_ingest import open_store
    from fedtwin.node_staff import record
    from node.audit_events import AuditEvent
    from node.home import NodeHome as Home
    from protocols.clock import SystemClock

    leads = None if unsigned else leads_at(home, clock=SystemClock())
    model = model_package.read(package, leads=leads)
    if model.signer is None and not unsigned:
        raise Stop(Exit.REFUSED, "nobody signed this package; --unsigned tries it all the same")
    with open_store(home, read_only=True) as store:
        record(Home(home), AuditEvent.MODEL_EVALUATED, plan_hash=model.plan_hash)
        found = tried(model, home=home, store=store, clock=SystemClock())
    path = keep(found, home=home)
    if json:
        emit_json(found | {"file": str(path)})
        return
    emit_fields({"study": found["study"], "plan": found["plan_hash"]} | _shown(found))
    _groups(found)
    _curve(found)
    if _in_fit(found):
        say(f"\n{IN_FIT}")
    say(f"\nKept in {path}. [bold]{STAYS}[/bold]")


def _in_fit(found: dict[str, Any]) -> bool:
    return bool(found.get("exact", {}).get("in_fit"))


def _shown(found: dict[str, Any]) -> dict[str, object]:
    figures = found["overall"]
    shown: dict[str, object] = {
        "patients of the fit" if _in_fit(found) else "held-out patients": figures["patients"]
    }
    if "with_outcome" in figures:
        shown["with the outcome"] = figures["with_outcome"]
    for name in SHOWN:
        if name in figures:
            value = figures[name]
            shown[name.replace("_", " ")] = "-" if value is None else f"{value:.3f}"
    for name in WITH_INTERVAL:
        if figures.get(f"{name}_ci95"):
            low, high = figures[f"{name}_ci95"]
            label = name.replace("_", " ")
            shown[label] = f"{shown[label]} (95 %: {low:.3f} to {high:.3f})"
    if "expected_events" in figures:
        shown["expected events"] = f"{figures['expected_events']:.1f}"
    if "largest_difference_day" in figures:
        shown["largest difference"] = (
            f"{figures['largest_difference']:+.3f} on day {figures['largest_difference_day']}"
        )
    return shown


def _groups(found: dict[str, Any]) -> None:
    figures = [name for name in SHOWN if name in found["overall"]]
    rows = [
        (kind, row["group"], row["patients"], *("-" if row[f] is None else f"{row[f]:.3f}" for f in figures))
        for kind, groups in found["groups"].items()
        for row in groups
    ]
    emit_table(("", "group", "patients", *(name.replace("_", " ") for name in figures)), rows)
    if found["calibration"]:
        emit_table(
            ("patients", "predicted", "observed"),
            [
                (row["patients"], f"{row['predicted']:.3f}", f"{row['observed']:.3f}")
                for row in found["calibration"]
            ],
            title="Calibration",
        )


def _curve(found: dict[str, Any]) -> None:
    from fedtwin.exact_view import thinned

    points = found.get("exact", {}).get("curve", ())
    if points:
        emit_table(
            ("until day", "all hospitals", "95 %", "here", "95 %", "events here", "at risk here"),
            [
                (
                    p["day"],
                    *_survival(p["all_hospitals"]),
                    *_survival(p["here"]),
                    p["events_here"],
                    p["at_risk_here"],
                )
                for p in thinned(points)
            ],
            title="Free of the outcome",
        )


def _survival(point: list[float | None]) -> tuple[str, str]:
    value, low, high = point
    return f"{value:.4f}", "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
