"""`fedtwin train`: what a consortium lead does with a study, on the coordinator's host."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtwin.cli_train_model import check, export, report
from fedtwin.options import COORDINATOR_HOME, CoordinatorHome, Json
from fedtwin.screen import emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from fedtwin.training_run import FinishedRun
    from protocols.study import Study

train = typer.Typer(
    name="train",
    help="Train a model across hospitals, one private gradient sum at a time.",
    no_args_is_help=True,
)
train.command("export")(export)
train.command("check")(check)
train.command("report")(report)
StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY", exists=True, dir_okay=False, help="A study as TOML.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, as `train list` shows it.")]


@train.command("propose")
def propose_study(study: StudyFile, home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """Sign a study and send it to the hospitals, for them to approve."""
    from fedtwin.study_file import read_study
    from fedtwin.training_run import propose

    plan = read_study(study)
    approved, pending = propose(plan, home=home)
    fields = {"plan_hash": plan.plan_hash().hex(), "approved": approved, "pending": pending}
    if json:
        emit_json(fields)
    else:
        emit_fields({"plan": fields["plan_hash"], "hospitals that approve": approved, "undecided": pending})


@train.command("run")
def run(
    study: StudyFile,
    home: CoordinatorHome = COORDINATOR_HOME,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on from this run's last finished round.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a study to its end across the hospitals that approved it.

    Ctrl-C ends the run after its step; what it has learned is kept, and it may be resumed.
    """
    from fedtwin.study_file import read_study

    _run(read_study(study), home=home, run=resume, json=json)


@train.command("resume")
def resume_run(run: RunName, home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """Go on with a run that was stopped, or that broke off, from its last finished round."""
    from fedtwin.training_run import folder_of

    _run(folder_of(run, home=home).study(), home=home, run=run, json=json)


def _run(plan: Study, *, home: Path, run: str | None, json: bool) -> None:
    from fedtwin.model_export import keep_package
    from fedtwin.training_progress import shown
    from fedtwin.training_run import run_study
    from protocols.clock import SystemClock

    with shown(plan.training.rounds, clock=time.monotonic) as watch:
        found = run_study(plan, home=home, watch=watch, run=run)
    package = keep_package(found.run, home=home, clock=SystemClock()) if found.parameters else None
    if plan.exact is not None:
        _exact(plan, found, package=package, json=json)
        return
    if json:
        emit_json(found.to_json() | {"package": package and str(package)})
        return
    emit_fields(_fields(found) | {"package": package or "none yet"})


def _exact(plan: Study, found: FinishedRun, *, package: Path | None, json: bool) -> None:
    """Show what a study without noise found. Raises: Stop if it has no answer."""
    from fedtwin import exact_view

    answer = exact_view.of_run(plan, found.parameters)
    if json:
        emit_json(
            found.to_json() | {"package": package and str(package), "result": answer and answer.to_json()}
        )
    else:
        emit_fields(_fields(found) | {"package": package or "none yet"})
        if answer is not None:
            exact_view.show(answer)
    if answer is not None:
        exact_view.require_answer(answer)


def _fields(found: FinishedRun) -> dict[str, object]:
    return {
        "run": found.run,
        "state": found.state,
        "plan": found.plan_hash,
        "spent": f"epsilon {found.epsilon:.3f}, delta {found.delta:g}, for one patient"
        if math.isfinite(found.epsilon)
        else "no noise was added: no epsilon covers it",
        "rounds": f"{found.rounds} ({found.steps} steps, {found.seconds_per_round:.1f} s a round)",
        "hospitals": found.sites,
        "parameters": len(found.parameters),
    }


def _shown(fields: dict[str, Any]) -> dict[str, object]:
    """Return what there is to say of a run, for a person: nothing empty, no long lists."""
    shown = {
        name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else value
        for name, value in fields.items()
        if name not in ("parameters", "columns", "metrics") and value not in (None, {}, [], (), False)
    }
    for metric in fields["metrics"]:  # the latest of each name stays
        shown[metric["name"]] = f"{metric['value']:.4g} ± {metric['noise_sd']:.2g} (round {metric['round']})"
    return shown


@train.command("stop")
def stop(
    run: RunName,
    now: Annotated[
        bool, typer.Option("--now", help="After the step at hand: the rest of its round is not taken.")
    ] = False,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """End a run after its current round. The model so far is kept; `train resume` goes on from there."""
    from coordinator.flower.run_folder import AFTER_ROUND, AFTER_STEP
    from fedtwin.training_progress import shown
    from fedtwin.training_run import folder_of, stop_run

    plan = folder_of(run, home=home).study()
    with shown(plan.training.rounds, clock=time.monotonic) as watch:
        status = stop_run(run, home=home, after=AFTER_STEP if now else AFTER_ROUND, watch=watch)
    if json:
        emit_json(status.to_json() | {"run": run})
        return
    emit_fields({"run": run, "state": status.state, "round": f"{status.round} of {status.rounds}"})
    if status.round < status.rounds:
        say(f"Go on with: fedtwin train resume {run}")


@train.command("list")
def list_runs(home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """List the training runs of this coordinator, the earliest first."""
    from fedtwin.training_run import listed

    rows = listed(home)
    if json:
        emit_json({"runs": rows})
    else:
        emit_table(
            ("run", "study", "state", "round", "started"),
            [
                (r["run"], r["study"], r["state"], f"{r['round']}/{r['rounds']}", _minute(r["started_at"]))
                for r in rows
            ],
        )


def _minute(moment: str | None) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC" if moment else "-"


@train.command("show")
def show(run: RunName, home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """Show one run: where it stands, what it cost, the model so far."""
    from dataclasses import asdict

    from fedtwin import exact_view
    from fedtwin.training_run import UnknownRun, finished, folder_of

    folder = folder_of(run, home=home)
    status = folder.status()
    if status is None:
        raise UnknownRun(run)
    study = folder.study()
    fields: dict[str, Any] = {"run": run} | status.to_json()
    if folder.checkpoint(study) is not None:
        fields |= finished(study, folder, name=run, status=status).to_json()
    answer = exact_view.of_run(study, fields.get("parameters", ()))
    if answer is not None:
        fields["result"] = answer.to_json()
    if json:
        emit_json(fields | {"history": [asdict(record) for record in folder.rounds()]})
        return
    fields.pop("result", None)
    emit_fields(_shown(fields))
    if answer is not None:
        exact_view.show(answer)
    elif folder.rounds():
        emit_table(
            ("round", "steps", "hospitals", "seconds", "norm of sums", "of noise alone"),
            [
                (r.round, r.steps, r.sites, f"{r.seconds:.1f}", f"{r.sum_norm:.3g}", f"{r.noise_norm:.3g}")
                for r in folder.rounds()
            ],
        )
