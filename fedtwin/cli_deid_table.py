"""`fedtwin deid table`: raw exports (CSV, Parquet, FHIR NDJSON, HL7 v2) without identity, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtwin.cli_deid_evaluate import FinderName, open_finder
from fedtwin.cli_deid_text import KeyFile, Project, StyleName, VaultHome
from fedtwin.options import EXISTING_FILE, Json
from fedtwin.progress import bar
from fedtwin.screen import Exit, Stop, emit_json, emit_table, say

if TYPE_CHECKING:
    from deid.structured import TableRules
    from deid.structured_values import Cleaner, Tally

_FORMATS = {
    ".csv": "csv", ".parquet": "parquet", ".ndjson": "fhir", ".jsonl": "fhir",
    ".hl7": "hl7v2", ".er7": "hl7v2",
}  # fmt: skip


class Names(StrEnum):
    """Whose names the columns of a table have."""

    TABLE = "table"
    OMOP = "omop"  # table.column
    CLAIMS = "claims"  # CMS's


class Practice(StrEnum):
    """How dates are kept."""

    SHIFTED = "shifted"
    YEAR_ONLY = "year-only"


def table(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV, Parquet, FHIR NDJSON (.ndjson) or HL7 v2 (.hl7).",
            **EXISTING_FILE,
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where the result goes (0600, not there yet).")
    ],
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            help="TOML: `patient` names the column of ids, \\[columns] an action for each column.",
            **EXISTING_FILE,
        ),
    ] = None,
    names: Annotated[Names, typer.Option(help="Whose names the columns have.")] = Names.TABLE,
    practice: Annotated[Practice, typer.Option(help="How dates are kept.")] = Practice.SHIFTED,
    style: Annotated[
        StyleName, typer.Option(help="What stands for identity in texts.")
    ] = StyleName.SURROGATE,
    language: Annotated[str, typer.Option(metavar="LANG", help="Language of the texts: en or es.")] = "en",
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Drop texts instead of looking into them.")
    ] = False,
    project: Project = "",
    key: KeyFile = None,
    home: VaultHome = None,
    json: Json = False,
) -> None:
    """Clean a raw export by the table of fields; what nobody named does not pass and is reported."""
    from deid.dates import DatePractice
    from deid.structured import NO_RULES, TableRules
    from deid.structured_tables import report_of
    from deid.structured_values import Cleaner
    from deid.surrogates import Style
    from fedtwin.deid_vault import opened
    from protocols.clock import SystemClock

    form = _FORMATS.get(source.suffix.lower())
    if form is None:
        raise Stop(Exit.USAGE, f"{source.name}: one of {', '.join(_FORMATS)}")
    if target.exists():
        raise Stop(Exit.USAGE, f"{target} is there already")
    own = TableRules.load(rules) if rules is not None else NO_RULES
    with opened(key, home) as vault, bar("cleaning", unit="records") as progress:
        cleaner = Cleaner(
            vault,
            SystemClock().now().date(),
            project=project,
            practice=DatePractice(practice),
            style=Style(style),
            finder=None if no_text else open_finder(FinderName.OURS, language),
        )
        try:
            with readable(source):
                tally = _clean(form, source, target, own, names, cleaner, lambda done: progress.to(done))
        except BaseException:
            target.unlink(missing_ok=True)  # half an export is none
            raise
    _show(report_of(tally), json=json)
    say(f"Wrote {target}.")


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """Say of a file that is not what its name says that it is not, and nothing of what stands in it."""
    import csv

    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise Stop(Exit.USAGE, f"{source.name} is not text in UTF-8") from None
    except csv.Error:
        raise Stop(Exit.USAGE, f"{source.name} is no CSV") from None
    except pa.ArrowInvalid:
        raise Stop(Exit.USAGE, f"{source.name} is no whole Parquet file") from None


def _clean(
    form: str,
    source: Path,
    target: Path,
    rules: TableRules,
    names: Names,
    cleaner: Cleaner,
    done: Callable[[int], None],
) -> Tally:
    from deid.structured import Source
    from deid.structured_records import clean_fhir, clean_hl7v2
    from deid.structured_tables import clean_csv, clean_parquet

    if form == "fhir":
        return clean_fhir(source, target, cleaner, done=done)
    if form == "hl7v2":
        return clean_hl7v2(source, target, cleaner, done=done)
    clean = clean_csv if form == "csv" else clean_parquet
    return clean(source, target, rules, cleaner, named=Source(names), done=done)


def _show(report: dict[str, Any], *, json: bool) -> None:
    if json:
        emit_json(report)
        return
    fields = sorted({*report["passed"], *report["dropped"], *report["unknown"]})
    emit_table(
        ("field", "passed", "dropped", "unknown"),
        [
            (
                name,
                report["passed"].get(name, 0),
                ", ".join(f"{count} {reason}" for reason, count in report["dropped"].get(name, {}).items())
                or "0",
                report["unknown"].get(name, 0),
            )
            for name in fields
        ],
    )
