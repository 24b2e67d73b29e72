"""`fedtwin query preview`, `budget` and `validate`: what costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.cli_query_terms import CohortFile, Delta, Epsilon, Mechanism, Project, Sites, show
from fedtwin.options import Json, ProfileDir
from fedtwin.screen import Exit, Stop, emit_json, say

MAX_BYTES = 4 * 1024 * 1024  # of a statistic: the other cohort of a contingency may be a large definition


def preview(
    file: CohortFile,
    epsilon: Epsilon,
    project: Project = "default",
    statistic: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A statistic in its JSON form. Default: a count.",
            show_default=False,
        ),
    ] = None,
    delta: Delta = None,
    mechanism: Mechanism = "gaussian",
    max_sites_per_patient: Sites = 2,
    profile: ProfileDir = None,
    json: Json = False,
) -> None:
    """Say what a question would cost and how exact its answer would be. Asks no hospital, spends nothing.

    Each command takes --preview too, which says the same of its own statistic.
    """
    from fedtwin import connect

    with connect(profile) as client:
        found = client.preview(
            file,
            _statistic(statistic),
            epsilon=epsilon,
            project=project,
            delta=delta,
            mechanism=mechanism,
            max_sites_per_patient=max_sites_per_patient,
        )
    emit_json(found.to_json()) if json else show(found.view())


def budget(
    project: Project = "default",
    delta: Annotated[float, typer.Option(help="At which the releases are composed.")] = 1e-6,
    profile: ProfileDir = None,
    json: Json = False,
) -> None:
    """Show what a project has cost one patient so far, as the coordinator saw it."""
    from fedtwin import connect

    with connect(profile) as client:
        found = client.budget(project, delta=delta)
    emit_json(found.to_json()) if json else show(found.view())


def validate(file: CohortFile, json: Json = False) -> None:
    """Check a cohort file, our form or an ATLAS export, without asking anybody. Costs nothing."""
    from fedtwin import cohort_form
    from protocols.cohort import Cohort, MalformedCohort

    try:
        form = cohort_form.read(file)
    except MalformedCohort as error:
        if json:
            emit_json({"valid": False, "path": error.path, "reason": error.reason})
            raise typer.Exit(Exit.USAGE) from None
        raise Stop(Exit.USAGE, f"{file.name}: {error.path}: {error.reason}") from None
    ours = isinstance(form.cohort, Cohort)
    if json:
        kind = "fedtwin" if ours else "circe"
        emit_json({"valid": True, "form": kind, "rules": form.rules, "cohort": form.cohort.to_json()})
        return
    kind = "our form" if ours else "a Circe definition"
    say(f"{file.name}: valid, {kind} with {len(form.rules)} inclusion rules")
    for number, rule in enumerate(form.rules, start=1):
        say(f"  {number}. {rule}")


def _statistic(file: Path | None) -> dict[str, Any]:
    from protocols import canonical

    if file is None:
        return {"kind": "count"}
    value = canonical.decode(file.read_bytes(), max_bytes=MAX_BYTES)
    if not isinstance(value, dict):
        raise Stop(Exit.USAGE, f"{file.name}: a JSON object with a 'kind'")
    return value
