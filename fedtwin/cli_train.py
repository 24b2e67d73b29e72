"""`fedtwin train`: what a consortium lead does with a study, on the coordinator's host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import COORDINATOR_HOME, CoordinatorHome, Json
from fedtwin.screen import emit_fields, emit_json, emit_table

train = typer.Typer(
    name="train",
    help="Train a model across hospitals, one private gradient sum at a time.",
    no_args_is_help=True,
)
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
    """Run a study to its end across the hospitals that approved it."""
    from fedtwin.progress import bar
    from fedtwin.study_file import read_study
    from fedtwin.training_run import run_study

    plan = read_study(study)
    with bar("starting", total=plan.training.rounds, unit="rounds") as line:

        def watch(done: int, of: int) -> None:
            line.describe("training")
            line.to(done, total=of)

        found = run_study(plan, home=home, watch=watch, run=resume)
    if json:
        emit_json(found.to_json())
        return
    emit_fields(
        {
            "run": found.run,
            "plan": found.plan_hash,
            "spent": f"epsilon {found.epsilon:.3f}, delta {found.delta:g}, for one patient",
            "rounds": f"{found.rounds} ({found.steps} steps, {found.seconds_per_round:.1f} s a round)",
            "hospitals": found.sites,
            "parameters": len(found.parameters),
        }
    )


@train.command("list")
def list_runs(home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """List the training runs of this coordinator."""
    from coordinator.flower.run_folder import RunFolder

    folder = home / "runs"
    rows = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        kept = RunFolder(home, path.name)
        status = kept.status()
        rows.append(
            {
                "run": path.name,
                "study": kept.study().name,
                "plan_hash": kept.study().plan_hash().hex(),
                "state": status.state if status else "starting",
                "round": status.round if status else 0,
                "rounds": kept.study().training.rounds,
            }
        )
    if json:
        emit_json({"runs": rows})
    else:
        emit_table(
            ("run", "study", "state", "round"),
            [(r["run"], r["study"], r["state"], f"{r['round']}/{r['rounds']}") for r in rows],
        )


@train.command("show")
def show(run: RunName, home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """Show one run: where it stands, what it cost, the model so far."""
    from coordinator.flower.run_folder import RunFolder
    from fedtwin.screen import Exit, Stop
    from fedtwin.training_run import finished

    folder = RunFolder(home, run)
    status = folder.status() if folder.path.is_dir() else None
    if status is None:
        raise Stop(Exit.USAGE, f"no run {run} that has begun; see `fedtwin train list`")
    fields = status.to_json()
    study = folder.study()
    if folder.checkpoint(study) is not None:
        fields |= finished(study, folder, name=run, status=status).to_json() | {"state": status.state}
    if json:
        emit_json(fields)
    else:
        emit_fields({name: value for name, value in fields.items() if name != "parameters"})
