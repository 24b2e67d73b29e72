"""Fills the copy of all events that lies person by person (node.omop.event_copy)."""

from __future__ import annotations

from node.omop.store import OmopStore
from node.timeline import reading
from node.timeline_sql import ORDER_BY, filled, from_tables


def copy_events(store: OmopStore) -> int:
    """Copy every event of the store, unless the copy is there; return how many were copied.

    To be called when an ingest is done. Readers see the copy once it is whole; until then, and after the next
    load, they read the CDM's tables.
    """
    with reading(store) as cursor:
        if filled(store, cursor):
            return 0
    return store.copy_events(f"{from_tables(store)} ORDER BY {ORDER_BY}")
