"""`fedtwin node pull-fhir`: a bulk export of a FHIR server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import EXISTING_FILE, NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, say


def pull_fhir(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's base address, by https.")],
    client_id: Annotated[
        str | None, typer.Option("--client-id", metavar="ID", help="Who this node is to the server.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Its private key: PEM, RSA or P-384.", **EXISTING_FILE),
    ] = None,
    key_id: Annotated[
        str | None, typer.Option("--key-id", metavar="KID", help="What the server calls the key.")
    ] = None,
    token_url: Annotated[
        str | None, typer.Option("--token-url", metavar="URL", help="Default: what the server itself says.")
    ] = None,
    scope: Annotated[str, typer.Option("--scope", metavar="SCOPES")] = "system/*.read",
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="ID", help="Patients of this group. Default: all patients."),
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Everything, not only what is a patient's.")
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="RESOURCE", help="Only these, as Observation; repeat for more."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="INSTANT", help="Default: the last pull that asked the same."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All, not only what is new since the last pull.")
    ] = False,
    authority: Annotated[
        Path | None,
        typer.Option(
            "--authority", metavar="FILE", help="PEM: the only authority to trust.", **EXISTING_FILE
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the files, which hold identity, until the next pull.")
    ] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Pull a bulk export from a FHIR server and load it; run again to go on after a fault."""
    from fedtwin.node_pull_fhir import Server
    from fedtwin.node_pull_fhir import pull_fhir as run
    from fedtwin.progress import bar
    from node.ingest.fhir_export import Wanted
    from node.ingest.fhir_export_http import BackendClient
    from protocols.clock import SystemClock

    require_node(home)
    if (client_id is None) != (key is None) or (client_id is None and (key_id or token_url)):
        raise Stop(Exit.USAGE, "--client-id and --key go together, and --key-id and --token-url with them")
    if full and since is not None:
        raise Stop(Exit.USAGE, "--full asks for all, --since for a part")
    if group is not None and system:
        raise Stop(Exit.USAGE, "--group asks for some patients, --system for everything")
    who = None
    if client_id is not None and key is not None:
        who = BackendClient(client_id, key, key_id=key_id, token_address=token_url, scope=scope)
    level = "group" if group is not None else "system" if system else "patient"
    wanted = Wanted(level=level, group=group, types=tuple(kind or ()), since=since)
    with bar("pulling", unit="bytes") as line:

        def watch(name: str, done: int) -> None:
            line.describe(name)
            line.to(done)

        server = Server(url, who, authority)
        told = run(home, server, wanted, full=full, keep=keep, clock=SystemClock(), watch=watch)
    if json:
        emit_json(told)
    else:
        records = f"{told['stored']} of {told['records_in']} stored, {told['quarantined']} turned away"
        emit_fields(
            {
                "files": f"{told['files']} ({told['bytes']} bytes), true at {told['true_at']}",
                "records": records,
            }
        )
    if told["error_files"]:
        say(f"[yellow]the server had errors[/yellow] of its own: {told['error_files']} files, not fetched")
    if told["not_loaded"]:
        raise Stop(Exit.FAULT, f"not loaded, and kept: {', '.join(told['not_loaded'])}")
