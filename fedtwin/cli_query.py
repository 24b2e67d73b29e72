"""`fedtwin query`: what a researcher asks. One command for each statistic, with the same terms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer

from fedtwin.cli_query_plan import budget, preview, validate
from fedtwin.cli_query_terms import Form, asks

BYS = ("sex", "age_band", "year", "site_count_band")
WHICH = ("first", "last", "min", "max", "mean")
STEPS = ("year", "quarter", "month")

query = typer.Typer(
    name="query", help="Ask questions across hospitals, out of a privacy budget.", no_args_is_help=True
)

Edges = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…", help="Ascending bounds, with commas between them: 18,40,65.", show_default=False
    ),
]
Concept = Annotated[int, typer.Option(help="OMOP concept of the measurement.")]
Descendants = Annotated[bool, typer.Option(help="Whether concepts below it count too.")]
Unit = Annotated[int | None, typer.Option(help="OMOP concept of the unit. Default: any.", show_default=False)]
WhichOne = Annotated[
    str,
    typer.Option(
        "--which",
        metavar="WORD",
        click_type=click.Choice(WHICH),
        help=f"Which record of a patient: {', '.join(WHICH)}.",
    ),
]
Window = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="FROM TO", help="Days around the index date. Default: all.", show_default=False),
]
OtherFile = Annotated[Path, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Another cohort.")]
OutcomeFile = Annotated[
    Path, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The outcome, as a cohort.")
]


def count() -> dict[str, Any]:
    """Count the patients of a cohort across all connected hospitals."""
    return {"kind": "count"}


def breakdown(
    by: Annotated[str, typer.Option(metavar="WORD", click_type=click.Choice(BYS), help=f"{', '.join(BYS)}.")],
    edges: Edges = None,
    first_year: Annotated[int | None, typer.Option(help="By year: the first.", show_default=False)] = None,
    last_year: Annotated[int | None, typer.Option(help="By year: the last.", show_default=False)] = None,
    total: Annotated[bool, typer.Option("--total", help="Measure the total too, for more noise.")] = False,
) -> dict[str, Any]:
    """Split a cohort by sex, age or year; or the hospitals by how many patients of it they have."""
    form: dict[str, Any] = {"kind": "breakdown", "by": by, "total": total}
    if edges is not None:
        form["edges"] = [int(edge) for edge in _numbers(edges, whole=True)]
    given = {"first_year": first_year, "last_year": last_year}
    return form | {name: year for name, year in given.items() if year is not None}


def histogram(
    concept: Concept,
    edges: Annotated[str, typer.Option(metavar="A,B,…", help="Ascending bounds of the bins: 4,6,8,10.")],
    descendants: Descendants = True,
    unit: Unit = None,
    which: WhichOne = "last",
    window: Window = None,
) -> dict[str, Any]:
    """Show how a measurement is distributed in a cohort, with one value per patient."""
    value = _value(concept, descendants=descendants, unit=unit, which=which, window=window)
    return {"kind": "histogram", **value, "edges": _numbers(edges)}


def mean(
    concept: Concept,
    lower: Annotated[float, typer.Option(help="Values below are taken as this.")],
    upper: Annotated[float, typer.Option(help="Values above are taken as this.")],
    descendants: Descendants = True,
    unit: Unit = None,
    which: WhichOne = "last",
    window: Window = None,
) -> dict[str, Any]:
    """Find mean and variance of a measurement in a cohort, with one value per patient."""
    value = _value(concept, descendants=descendants, unit=unit, which=which, window=window)
    return {"kind": "mean", **value, "lower": lower, "upper": upper}


def contingency(other: OtherFile) -> dict[str, Any]:
    """Cross two cohorts: who is in both, in one, in neither; with the odds ratio."""
    return {"kind": "contingency", "other": _cohort(other)}


def incidence(
    outcome: OutcomeFile,
    first_year: Annotated[int, typer.Option(help="The first calendar year.")],
    last_year: Annotated[int, typer.Option(help="The last.")],
    step: Annotated[
        str,
        typer.Option(
            metavar="WORD", click_type=click.Choice(STEPS), help=f"Of a period: {', '.join(STEPS)}."
        ),
    ] = "year",
) -> dict[str, Any]:
    """Find new outcomes per 1,000 person-years at risk, by calendar period."""
    years = {"first_year": first_year, "last_year": last_year}
    return {"kind": "incidence", "outcome": _cohort(outcome), **years, "step": step}


def survival(
    outcome: OutcomeFile,
    horizon_days: Annotated[int, typer.Option(help="How far the curve goes.")],
    interval_days: Annotated[int, typer.Option(help="The length of one step.")],
) -> dict[str, Any]:
    """Draw a Kaplan-Meier curve from the index date to an outcome."""
    days = {"horizon_days": horizon_days, "interval_days": interval_days}
    return {"kind": "survival", "outcome": _cohort(outcome), **days}


def attrition() -> dict[str, Any]:
    """Count who is left after each inclusion rule, in the order in which the file has them."""
    return {"kind": "attrition"}


def feasibility(
    at_least: Annotated[int, typer.Option(help="Patients that a hospital must have.")],
) -> dict[str, Any]:
    """Count the hospitals that have at least so many patients of a cohort."""
    return {"kind": "feasibility", "at_least": at_least}


TERMS = "--epsilon 0.2 --project stroke"
EXAMPLES: dict[Form, str] = {
    count: f"count cohort.json {TERMS}",
    breakdown: f"breakdown cohort.json --by age_band --edges 18,40,65 {TERMS}",
    histogram: f"histogram cohort.json --concept 3004410 --unit 8554 --edges 5,6,7,8,9 {TERMS}",
    mean: f"mean cohort.json --concept 3004410 --unit 8554 --lower 4 --upper 14 {TERMS}",
    contingency: f"contingency cohort.json --other other.json {TERMS}",
    incidence: f"incidence cohort.json --outcome outcome.json --first-year 2018 --last-year 2022 {TERMS}",
    survival: "survival cohort.json --outcome outcome.json --horizon-days 365 --interval-days 30"
    f" --plot curve.svg {TERMS}",
    attrition: f"attrition atlas.json {TERMS} --preview",
    feasibility: f"feasibility cohort.json --at-least 20 --mechanism laplace {TERMS}",
}
for form, example in EXAMPLES.items():
    query.command(example.split()[0], epilog=f"Example: fedtwin query {example}")(asks(form))
query.command("preview", epilog=f"Example: fedtwin query preview cohort.json {TERMS}")(preview)
query.command("budget", epilog="Example: fedtwin query budget --project stroke")(budget)
query.command("validate", epilog="Example: fedtwin query validate atlas.json")(validate)


def _value(
    concept: int, *, descendants: bool, unit: int | None, which: str, window: tuple[int, int] | None
) -> dict[str, Any]:
    form: dict[str, Any] = {"concept": concept, "descendants": descendants, "which": which}
    if unit is not None:
        form["unit"] = unit
    if window is not None:
        form["window"] = {"from_days": window[0], "to_days": window[1]}
    return form


def _numbers(text: str, *, whole: bool = False) -> list[float]:
    try:
        return [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise click.BadParameter(f"{kind} with commas between them", param_hint="--edges") from None


def _cohort(file: Path) -> dict[str, Any]:
    """Return the cohort in a file in the form that a question holds. Raises: MalformedCohort."""
    from fedtwin import cohort_form

    return cohort_form.read(file).cohort.to_json()
