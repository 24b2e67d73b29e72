"""`fedtwin deid report`: how far persons can be singled out in a table or a store, and what would help."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtwin.cli_deid_table import readable
from fedtwin.options import Json
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from deid.risk import Plan, Risk


def report(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="CSV or Parquet, one record per person; else --home."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="Look at the persons of this node's store.")
    ] = None,
    quasi: Annotated[
        list[str] | None,
        typer.Option(
            "--quasi",
            metavar="COLUMN",
            help="What others may know of a person (again for each). Of a store:"
            " sex, race, ethnicity, birth_year, zip3, state, death_year, first_visit_year, visits,"
            " days_first_to_last, or condition:CONCEPT.",
        ),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option("--sensitive", metavar="COLUMN", help="What they would learn: for l-diversity."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=2, help="Records that each class should have.")] = 11,
    suppress: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of records that may be left out to reach k.")
    ] = 0.05,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the table (CSV) so generalized that it has k."),
    ] = None,
    json: Json = False,
) -> None:
    """Report k-anonymity, l-diversity, uniqueness, small cells and the risk, and what reaches k."""
    from deid.risk import plan, risk
    from deid.risk_columns import USUAL, hierarchy_of

    if (source is None) is (home is None):
        raise Stop(Exit.USAGE, "name a file, or a node's store by --home")
    chosen = list(quasi or (USUAL if home else ()))
    if not chosen:
        raise Stop(Exit.USAGE, "name with --quasi what others may know of a person")
    columns = _of_store(home, chosen) if home else _of_file(source)
    found = risk(columns, quasi=chosen, sensitive=sensitive or (), small_cell=k)
    ways = {name: hierarchy_of(name, columns[name]) for name in chosen}
    made = plan(columns, ways, k=k, most_suppressed=suppress)
    if out is not None:
        if made is None:
            raise Stop(Exit.REFUSED, f"no generalization reaches k = {k} with {suppress:g} left out")
        _write(out, columns, made)
        say(f"Wrote {out}.")
    plain = found.as_json() | {"to_reach_k": _plan(made, k)}
    if json:
        emit_json(plain)
    else:
        _show(found, plain)


def _plan(made: Plan | None, k: int) -> dict[str, Any] | None:
    if made is None:
        return None
    left_out = int(made.suppressed.sum())
    return {"k": k, "levels": dict(made.levels), "left_out": left_out, "loss": round(made.loss, 4)}


def _show(found: Risk, plain: dict[str, Any]) -> None:
    reached = plain["to_reach_k"]
    emit_fields(
        {
            "records": found.records,
            "classes": found.classes,
            "k (smallest class)": found.k,
            "alone in their class": f"{found.unique} ({plain['unique_share']:.4f})",
            f"in classes below {found.small_cell}": found.in_small_cells,
            "risk of a record, highest": f"{found.highest:.4f}",
            "risk of a record, mean": f"{found.mean:.4f}",
        }
        | {f"l of {name}": fewest for name, fewest in found.diversity.items()}
    )
    emit_table(("class size", "records"), list(plain["records_by_class_size"].items()))
    if reached is None:
        say("No generalization reaches that k; fewer quasi-identifiers or a larger --suppress may.")
    else:
        say(f"k = {reached['k']} is reached with {reached['left_out']} records left out, and:")
        emit_table(("column", "becomes"), list(reached["levels"].items()))


def _of_store(home: Path, quasi: list[str]) -> dict[str, list[Any]]:
    from deid.risk_columns import of_store
    from fedtwin.node_ingest import open_store

    conditions = [name.partition(":")[2] for name in quasi if name.startswith("condition:")]
    if not all(concept.isdigit() for concept in conditions):
        raise Stop(Exit.USAGE, "condition: and the number of a concept")
    plain = [name for name in quasi if not name.startswith("condition:")]
    with open_store(home.expanduser(), read_only=True) as store:
        return of_store(store.cursor(), quasi=plain, conditions=[int(concept) for concept in conditions])


def _of_file(source: Path | None) -> dict[str, list[Any]]:
    if source is None or source.suffix.lower() not in (".csv", ".parquet"):
        raise Stop(Exit.USAGE, "a table is .csv or .parquet")
    if source.suffix.lower() == ".csv":
        with readable(source), source.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
        try:
            header, *rows = lines
            return {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
        except ValueError:
            raise Stop(Exit.USAGE, f"{source.name}: rows of different lengths, or none") from None
    import pyarrow.parquet as pq

    with readable(source):
        found = pq.read_table(source)
    return {name: found[name].to_pylist() for name in found.column_names}


def _write(out: Path, columns: dict[str, list[Any]], made: Plan) -> None:
    """Write the records that stay, with their quasi-identifiers as generalized."""
    from deid.structured_tables import created

    table = {name: made.columns.get(name, values) for name, values in columns.items()}
    with created(out) as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for at, gone in enumerate(made.suppressed.tolist()):
            if not gone:
                writer.writerow([values[at] for values in table.values()])
