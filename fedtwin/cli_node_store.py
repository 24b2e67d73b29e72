"""`fedtwin node store`: which database this node's questions read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import emit_fields, emit_json, say

if TYPE_CHECKING:
    from node.home import NodeConfig
    from node.queries.engine import Warehouse

LOOK_S = 60.0  # to count the patients of a warehouse
store = typer.Typer(name="store", help="Which database questions read.", no_args_is_help=True)


@store.command("set")
def set_store(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="A DuckDB file, duckdb:///PATH, postgresql://… without a password, or spark:MASTER.",
        ),
    ],
    schema: Annotated[
        str,
        typer.Option(
            "--schema", metavar="NAME", help="Where the CDM lies. Default: cdm, else main (public)."
        ),
    ] = "",
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="What DuckDB may use: 8GB. Default: 80 %.")
    ] = "",
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Answer questions from another CDM than this node's own, after a look at it. Training keeps its own."""
    from node.home import NodeHome as Home
    from node.queries.limits import Limits
    from node.queries.warehouse import open_warehouse
    from node.store_url import StoreKind, StoreUrl

    require_node(home)
    named = StoreUrl.parse(url)
    if named.kind is StoreKind.DUCKDB:
        url = str(Path(named.text).expanduser().absolute())
    config = replace(Home(home).config(), store=url, schema=schema, memory=memory)
    limits = Limits(time_s=LOOK_S, memory=memory or None)
    _report(open_warehouse(url, schema=schema or None, limits=limits), json=json, store=url, schema=schema)
    _write(home, config)


@store.command("own")
def own(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Answer questions from this node's own store again, the one that `ingest` fills."""
    from node.home import NodeHome as Home

    require_node(home)
    _write(home, replace(Home(home).config(), store="", schema=""))
    if json:
        emit_json({"store": str(Home(home).store), "schema": None})


@store.command("show")
def show(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Show which database questions read, and what a look at it finds."""
    from node.home import NodeHome as Home
    from node.stores import Stores

    require_node(home)
    config = Home(home).config()
    _report(
        Stores(Home(home)).open(),
        json=json,
        store=config.store or str(Home(home).store),
        schema=config.schema,
        data_version=config.data_version,
    )


@store.command("copy")
def copy(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="postgresql://… without a password: see docs/warehouse.md.")
    ],
    schema: Annotated[
        str, typer.Option("--schema", metavar="NAME", help="Where the copy lies; nothing else may be there.")
    ] = "cdm",
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Copy this node's own CDM into a schema of PostgreSQL, in place of the copy that was there."""
    from fedtwin import node_store_copy

    require_node(home)
    fields = node_store_copy.copy(home, url, schema=schema)
    if json:
        emit_json(fields)
    else:
        say(node_store_copy.words(fields))


@store.command("changed")
def changed(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Say that the data have changed, where the database does not show it (docs/warehouse.md)."""
    from node.home import NodeHome as Home

    require_node(home)
    config = Home(home).config()
    config = replace(config, data_version=config.data_version + 1)
    _write(home, config)
    if json:
        emit_json({"data_version": config.data_version})


def _report(warehouse: Warehouse, *, json: bool, store: str, schema: str, **more: object) -> None:
    from contextlib import closing

    from node.stores import look

    with closing(warehouse) as opened:
        seen = look(opened, time_s=LOOK_S)
    fields: dict[str, object] = {
        "store": store,
        "schema": schema or None,
        "patients": seen.persons,
        "vocabulary": seen.concepts,
        "missing_tables": list(seen.missing),
        **more,
    }
    if json:
        emit_json(fields)
    else:
        emit_fields({name.replace("_", " "): value for name, value in fields.items()})
    if not seen.concepts:
        say("[yellow]no vocabulary[/yellow]: no Circe cohort can be answered from it (docs/warehouse.md)")


def _write(home: Path, config: NodeConfig) -> None:
    from node.home import NodeHome as Home
    from privacy import private_files

    private_files.write(Home(home).config_file, config.to_toml().encode())
    say("Written. A node that serves goes on as it was until it is restarted.")
