"""`fedtwin train export|check|report`: a run's model as a package, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import COORDINATOR_HOME, CoordinatorHome, Json
from fedtwin.screen import emit_fields, emit_json, say


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, as `train list` shows it.")],
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="A new folder, or a file ending in .zip.")],
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Write a run's model so far as a package: weights, plan, card, and a manifest that the lead signs."""
    from fedtwin import model_package
    from fedtwin.model_export import packaged, summary
    from protocols.clock import SystemClock

    model_package.write(packaged(run, home=home, clock=SystemClock()), to)
    fields = {"package": str(to)} | summary(model_package.read(to))
    if json:
        emit_json(fields)
    else:
        emit_fields(
            {"package": to, "plan": fields["plan_hash"], "signed by": fields["signed_by"] or "nobody"}
        )


def check(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", exists=True, help="A folder, or a .zip.")],
    roster: Annotated[
        Path | None,
        typer.Option(
            "--roster",
            metavar="DIR",
            help="A coordinator's or a hospital's folder, whose roster says which keys leads have.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check a package: every file, the layers, the signature. Exit code 2 if anything is wrong."""
    from fedtwin import model_package
    from fedtwin.model_export import leads_at, summary
    from protocols.clock import SystemClock

    leads = leads_at(roster.expanduser(), clock=SystemClock()) if roster else None
    found = summary(model_package.read(package, leads=leads))
    if json:
        emit_json(found)
        return
    emit_fields({name.replace("_", " "): "-" if value is None else value for name, value in found.items()})
    if found["signed_by"] is None:
        say("[yellow]Nobody signed it[/yellow]: the files fit each other, and that is all that is known.")
    elif not found["in_roster"]:
        say("Whether that key is a lead's is not known: name a folder with the roster by --roster.")
