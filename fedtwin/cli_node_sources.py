"""`fedtwin node sources`: the catalogue of what this node's data came by."""

from __future__ import annotations

from dataclasses import asdict

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import emit_fields, emit_json, say

SOURCES = "sources.toml"  # in the node's home: owner and refresh of each source (node.ingest.catalogue)


def sources(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """List each source: format, owner, refresh, last load, records in and stored, and how complete."""
    from fedtwin.node_ingest import open_store
    from node.ingest.catalogue import catalogue, read_about

    require_node(home)
    about = read_about(home / SOURCES)
    with open_store(home, read_only=True) as store:
        found = catalogue(store, about)
    if json:
        emit_json(
            {
                "sources": [
                    asdict(one)
                    | {"first_load": one.first_load.isoformat(), "last_load": one.last_load.isoformat()}
                    for one in found
                ],
                "not_loaded": sorted(about.keys() - {one.source for one in found}),
            }
        )
        return
    for one in found:
        emit_fields(
            {
                "source": f"{one.source} ({one.format}; {one.files} files)",
                "owner": one.owner or "-",
                "refresh": one.refresh or "-",
                "last load": f"{one.last_load:%Y-%m-%d %H:%M} UTC",
                "records": f"{one.records_in} in, {one.stored} stored, {one.quarantined} turned away",
                "complete": ", ".join(
                    f"{name} {share:.0%}"
                    for name, share in (
                        ("dated", one.dated),
                        ("mapped", one.mapped),
                        ("with value", one.valued),
                        ("with unit", one.with_unit),
                    )
                    if share is not None
                )
                or "-",
            }
        )
    if not found:
        say("Nothing was loaded yet: fedtwin node ingest PATH")
