"""Fills the copy of all events that lies person by person (node.omop.event_copy)."""

from __future__ import annotations

from node.omop.store import OmopStore
from node.timeline_sql import ORDER_BY, from_tables


def copy_events(store: OmopStore) -> int:
    """Copy every event of the store and return their number. To be called when a load is done with.

    Readers see the copy once it is whole; until then, and after the next load, they read the CDM's tables.
    """
    return store.copy_events(f"{from_tables(store)} ORDER BY {ORDER_BY}")
