"""Fills the copy of all events that lies person by person (node.omop.event_copy)."""

from __future__ import annotations

from node.omop.event_copy import EVENT_COPY, STALE
from node.omop.store import OmopStore
from node.timeline import reading
from node.timeline_sql import ORDER_BY, filled, from_tables

# Above this share of persons with new events the whole copy is made anew: nearly as fast, and in order again.
_ANEW_ABOVE = 0.2


def copy_events(store: OmopStore) -> int:
    """Copy the events of the store that the copy does not have; return how many were copied.

    To be called when an ingest is done. Readers see the copy once it is whole; until then they read the CDM's
    tables. After a load of facts only the events of its persons are copied.
    """
    with reading(store) as cursor:
        if filled(store, cursor):
            return 0
        row = cursor.execute(
            f"SELECT EXISTS (FROM {EVENT_COPY}), (SELECT count(*) FROM {STALE}),"  # noqa: S608 (our names)
            " (SELECT count(*) FROM person)"
        ).fetchone()
    assert row is not None, "a SELECT without a table gives one row"
    some, stale, persons = row
    if some and 0 < stale <= _ANEW_ABOVE * persons:
        named = "SELECT person_id FROM named_stale"
        return store.copy_events(f"{from_tables(store, named)} ORDER BY {ORDER_BY}", stale=True)
    return store.copy_events(f"{from_tables(store)} ORDER BY {ORDER_BY}")
