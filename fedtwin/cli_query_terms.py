"""What the commands of `fedtwin query` share: options, asking or previewing, showing what came back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import click
import typer

from fedtwin.options import Json, ProfileDir
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from fedtwin.view import View

Form = Callable[..., dict[str, Any]]  # makes a statistic's JSON form from options

PICTURES = (".png", ".svg", ".pdf")
MECHANISMS = ("gaussian", "laplace")

CohortFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", exists=True, dir_okay=False, help="A cohort: our JSON form, or an export from ATLAS."
    ),
]
Epsilon = Annotated[float, typer.Option(help="Privacy loss of this answer, for one patient.")]
Project = Annotated[str, typer.Option(help="Whose budget at each hospital pays.")]
Delta = Annotated[
    float | None,
    typer.Option(
        help="Probability with which epsilon may fail. Default: 1e-6; 0 for laplace.", show_default=False
    ),
]
Mechanism = Annotated[
    str,
    typer.Option(
        metavar="WORD",
        click_type=click.Choice(MECHANISMS),
        help="gaussian or laplace; --preview says which errs less here.",
    ),
]
Sites = Annotated[int, typer.Option(help="In how many of these hospitals one person may have records.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")]
Preview = Annotated[
    bool, typer.Option("--preview", help="Say what it would cost and how exact it would be; ask nobody.")
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a picture too: .png, .svg or .pdf.", show_default=False),
]


def shared(
    file: CohortFile,
    epsilon: Epsilon,
    project: Project = "default",
    delta: Delta = None,
    mechanism: Mechanism = "gaussian",
    max_sites_per_patient: Sites = 2,
    timeout_s: Timeout = 120.0,
    preview: Preview = False,
    plot: Plot = None,
    profile: ProfileDir = None,
    json: Json = False,
) -> None:
    """The options of every question; their names and defaults are read from here."""


def asks(form: Form) -> Callable[..., None]:
    """Return the command for a function that makes a statistic's JSON form from its own options.

    The command's signature is FILE, the function's options, then those of `shared`; Typer reads it.
    """
    own = list(_parameters(form))
    common = list(_parameters(shared))

    def command(**given: Any) -> None:
        statistic = form(**{parameter.name: given[parameter.name] for parameter in own})
        _run(statistic, **{parameter.name: given[parameter.name] for parameter in common})

    merged = [common[0], *own, *common[1:]]
    command.__name__ = form.__name__
    command.__doc__ = form.__doc__
    command.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]  # what inspect reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
    return command


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def _run(
    statistic: dict[str, Any],
    *,
    file: Path,
    epsilon: float,
    project: str,
    delta: float | None,
    mechanism: str,
    max_sites_per_patient: int,
    timeout_s: float,
    preview: bool,
    plot: Path | None,
    profile: Path | None,
    json: bool,
) -> None:
    """Ask or preview, and show it: data on stdout, words on stderr."""
    from fedtwin import connect
    from fedtwin.progress import bar

    _must_be_a_picture(plot)
    terms: dict[str, Any] = {
        "epsilon": epsilon,
        "project": project,
        "delta": delta,
        "mechanism": mechanism,
        "max_sites_per_patient": max_sites_per_patient,
    }
    with connect(profile) as client:
        if preview:
            found = client.preview(file, statistic, **terms)
            emit_json(found.to_json()) if json else show(found.view())
            return
        with bar("asking the hospitals") as line:
            result = client.ask(
                file,
                statistic,
                **terms,
                timeout_s=timeout_s,
                progress=lambda stage, sites: line.describe(f"{stage} ({sites} hospitals)"),
            )
    emit_json(result.to_json()) if json else show(result.view())
    if result.cached:
        say("The same question was answered before: nothing was charged.")
    if plot is not None:
        from fedtwin.plots import save

        save(result.plot(), plot)
        say(f"picture: {plot}")


def show(view: View) -> None:
    """Write a headline, a table and facts to stdout."""
    emit_table(view.columns, view.rows, title=view.headline)
    emit_fields(view.facts)


def _must_be_a_picture(plot: Path | None) -> None:
    """Refuse a file that no picture can be written to before anything is spent."""
    if plot is None:
        return
    from fedtwin.plots import must_have_matplotlib

    must_have_matplotlib()
    if plot.suffix.lower() not in PICTURES:
        raise Stop(Exit.USAGE, f"--plot {plot.name}: a name that ends with {', '.join(PICTURES)}")
    if not plot.absolute().parent.is_dir():
        raise Stop(Exit.USAGE, f"--plot {plot}: no such folder")
