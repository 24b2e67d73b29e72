"""`fedtwin node vocabulary`: the OHDSI vocabulary of this node's own store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, say

vocabulary = typer.Typer(
    name="vocabulary", help="The vocabulary that concept sets resolve with.", no_args_is_help=True
)


@vocabulary.command("load")
def load(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="An unpacked download of athena.ohdsi.org."
        ),
    ],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Load an Athena download into this node's store, in place of the vocabulary that was there."""
    from fedtwin.node_ingest import open_store
    from fedtwin.progress import bar
    from node.omop.vocabulary import load as load_vocabulary
    from protocols.clock import SystemClock

    require_node(home)
    with bar("reading", unit="bytes") as line, open_store(home) as store:

        def watch(file: str, done: int, total: int) -> None:
            line.describe(file)
            line.to(done, total=total)

        report = load_vocabulary(folder, store, now=SystemClock().now(), watch=watch)
    fields = {
        "version": report.version,
        "unchanged": report.unchanged,
        "rows": report.rows,
        "quarantined": report.quarantined,
    }
    if json:
        emit_json(fields)
        return
    if report.unchanged:
        say("The store holds this very download already; nothing was changed.")
    shown = {table.replace("_", " "): f"{count} rows" for table, count in report.rows.items()}
    turned_away = sum(report.quarantined.values())
    emit_fields({"version": report.version, **shown, "quarantined": f"{turned_away} lines"})
    if turned_away:
        say("What was turned away, and why: fedtwin node quarantine")


@vocabulary.command("starter")
def starter(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Put the small vocabulary that ships with fedtwin into this node's store, if it has none."""
    from fedtwin.node_ingest import open_store
    from node.omop import starter as small
    from node.omop.vocabulary import loaded
    from protocols.clock import SystemClock

    require_node(home)
    with open_store(home) as store:
        changed = small.install(store, now=SystemClock().now())
        found = loaded(store)
    assert found is not None, "it was installed"
    fields = {"version": found.version, "concepts": found.concepts, "unchanged": not changed}
    if json:
        emit_json(fields)
        return
    emit_fields(fields)
    say("Common codes, no hierarchy. A download of Athena takes its place: fedtwin node vocabulary load")


@vocabulary.command("show")
def show(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Show which vocabulary this node's store holds."""
    from fedtwin.node_ingest import open_store
    from node.omop.vocabulary import loaded

    require_node(home)
    with open_store(home, read_only=True) as store:
        found = loaded(store)
    if found is None:
        raise Stop(Exit.USAGE, "no vocabulary was loaded: fedtwin node vocabulary load FOLDER")
    fields = {
        "version": found.version,
        "concepts": found.concepts,
        "loaded_at": found.loaded_at.isoformat(),
        "source_sha256": found.source_sha256,
    }
    if json:
        emit_json(fields)
    else:
        emit_fields({name.replace("_", " "): value for name, value in fields.items()})
