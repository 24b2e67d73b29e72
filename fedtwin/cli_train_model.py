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


def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name; or a package, where there is no coordinator.")
    ],
    local: Annotated[
        Path | None,
        typer.Option(
            "--local",
            metavar="EVAL.json",
            exists=True,
            dir_okay=False,
            help="With what `fedtwin node evaluate` found at this hospital; then the page must stay there.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Default: RUN-report.html here.", show_default=False),
    ] = None,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Write a run's report as one page of HTML: plan, rounds, privacy spent, and what is not known."""
    from fedtwin import model_package, training_report
    from fedtwin.model_export import packaged
    from fedtwin.node_evaluation_file import read_evaluation
    from privacy import private_files
    from protocols.clock import SystemClock

    path = Path(run)
    if path.is_file() or (path / model_package.MANIFEST).is_file():
        package = model_package.read(path)
    else:
        package = model_package.opened(packaged(run, home=home, clock=SystemClock()))
    found = read_evaluation(local) if local else None
    page = training_report.report(package, local=found)
    target = to or Path(f"{path.stem}-report.html")
    private_files.write(target, page.encode())
    if json:
        emit_json({"report": str(target), "plan_hash": package.plan_hash, "stays_here": found is not None})
        return
    say(f"Wrote {target}.")
    if found is not None:
        say(
            "[bold]It holds exact figures of this hospital's patients: it must not leave the hospital.[/bold]"
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
