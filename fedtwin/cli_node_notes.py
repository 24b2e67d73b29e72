"""`fedtwin node notes`: what the stored notes name, as rows of OMOP's note_nlp."""

from __future__ import annotations

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import emit_fields, emit_json


def notes(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Find problems and drugs in the stored notes: negated or not, whose, when. Made anew each time."""
    from fedtwin.node_ingest import open_store
    from node.ingest.note_nlp import annotate
    from protocols.clock import SystemClock

    require_node(home)
    with open_store(home) as store:
        found = annotate(store, now=SystemClock().now())
        read = store.counts()["note"]
    fields = {"notes": read, "mentions": found}
    if json:
        emit_json(fields)
    else:
        emit_fields(fields)
