"""`fedtwin node cohort`: the exact count of a cohort, for the hospital's own staff, never over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import EXISTING_FILE, Json
from fedtwin.screen import Exit, Stop, emit_fields, emit_json

_MORE_THAN_ANY_FILE = 64 * 1024 * 1024  # bytes; the parser has the real limit, this one spares the memory


def cohort(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="An ATLAS export (Circe JSON), or our own form.", **EXISTING_FILE
        ),
    ],
    store: Annotated[
        str,
        typer.Option(
            "--store", metavar="URL", help="A DuckDB file, duckdb:///PATH, postgresql://… or spark:MASTER."
        ),
    ],
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", metavar="NAME", help="Where the CDM lies. Default: cdm, else main (public)."
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.001, metavar="SECONDS", help="Stop after this long.")
    ] = 300.0,
    memory_limit: Annotated[
        str,
        typer.Option("--memory-limit", metavar="SIZE", help="For DuckDB, 512MB or 2GB."),
    ] = "2GB",
    json: Json = False,
) -> None:
    """Count the persons of a cohort on one store, exactly. For this hospital's eyes only."""
    import re

    from node.queries.exact_count import count
    from node.queries.limits import Limits
    from protocols.circe import parse_any

    if not re.fullmatch(r"[1-9][0-9]{0,5}(MB|GB)", memory_limit):
        raise Stop(Exit.USAGE, "a memory limit is a number and MB or GB, 2GB")
    if file.stat().st_size > _MORE_THAN_ANY_FILE:
        raise Stop(Exit.USAGE, "the file is too large for a cohort")
    question = parse_any(file.read_bytes())
    fields = {
        "persons": count(
            question, store, schema=schema, limits=Limits(time_s=time_limit, memory=memory_limit)
        )
    }
    if json:
        emit_json(fields)
    else:
        emit_fields(fields)
