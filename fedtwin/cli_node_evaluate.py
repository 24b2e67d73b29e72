"""`fedtwin node evaluate`: how a trained model does on this hospital's own held-out patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

SHOWN = ("auc", "concordance", "accuracy", "brier", "log_loss", "rmse", "mean_absolute_error", "r2")


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
    """Try a trained model on the patients that this hospital held out of training. For its own eyes only."""
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
    emit_fields({"study": found["study"], "plan": found["plan_hash"]} | _shown(found["overall"]))
    _groups(found)
    say(f"\nKept in {path}. [bold]{STAYS}[/bold]")


def _shown(figures: dict[str, Any]) -> dict[str, object]:
    shown: dict[str, object] = {"held-out patients": figures["patients"]}
    if "with_outcome" in figures:
        shown["with the outcome"] = figures["with_outcome"]
    for name in SHOWN:
        if name in figures:
            value = figures[name]
            shown[name.replace("_", " ")] = "-" if value is None else f"{value:.3f}"
    if figures.get("auc_ci95"):
        low, high = figures["auc_ci95"]
        shown["auc"] = f"{shown['auc']} (95 %: {low:.3f} to {high:.3f})"
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
