"""`fedtwin query`: what a researcher asks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import Json, ProfileDir
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, say

query = typer.Typer(
    name="query", help="Ask questions across hospitals, out of a privacy budget.", no_args_is_help=True
)
Question = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A cohort as JSON.")
]


@query.command("count")
def count(
    file: Question,
    epsilon: Annotated[float, typer.Option(help="Privacy loss of this answer, for one patient.")],
    project: Annotated[str, typer.Option(help="Whose budget at each hospital pays.")] = "default",
    delta: Annotated[float, typer.Option(help="Probability with which epsilon may fail.")] = 1e-6,
    max_sites_per_patient: Annotated[
        int, typer.Option(help="In how many of these hospitals one person may have records.")
    ] = 2,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")] = 120.0,
    profile: ProfileDir = None,
    json: Json = False,
) -> None:
    """Count the patients of a cohort across all connected hospitals, with noise and its error bar."""
    from fedtwin import connect
    from fedtwin.progress import bar

    with connect(profile) as client, bar("asking the hospitals") as line:
        answer = client.count(
            file.read_bytes(),
            epsilon=epsilon,
            delta=delta,
            project=project,
            max_sites_per_patient=max_sites_per_patient,
            timeout_s=timeout_s,
            progress=lambda stage, sites: line.describe(f"{stage} ({sites} hospitals)"),
        )
    if json:
        emit_json(answer.to_json())
        return
    low, high = answer.ci95
    emit_fields(
        {
            "estimate": f"{answer.estimate:.1f}",
            "95 % interval": f"{low:.1f} to {high:.1f}",
            "charged": f"epsilon {answer.epsilon:g}, delta {answer.delta:g}, {answer.releases} release(s)",
            "protects": answer.unit_of_privacy,
            "hospitals": f"{answer.contributors} of {answer.participants}",
            "mechanism": answer.mechanism,
        }
    )


@query.command("validate")
def validate(file: Question, json: Json = False) -> None:
    """Check a cohort file without asking anybody. Costs nothing."""
    from protocols.cohort import Cohort, MalformedCohort

    try:
        cohort = Cohort.parse(file.read_bytes())
    except MalformedCohort as error:
        if json:
            emit_json({"valid": False, "path": error.path, "reason": error.reason})
            raise typer.Exit(Exit.USAGE) from None
        raise Stop(Exit.USAGE, f"{file.name}: {error.path}: {error.reason}") from None
    if json:
        emit_json({"valid": True, "cohort": cohort.to_json()})
    else:
        say(f"{file.name}: valid, {len(cohort.include)} to include, {len(cohort.exclude)} to exclude")
