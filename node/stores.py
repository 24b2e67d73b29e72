"""The hospital's data, opened when they are first needed: its own store, and the CDM that questions read.

They are the same unless node.toml names another database. Training and features read the node's own store
only; questions read the CDM that the configuration names.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from node.home import NodeHome
from node.omop.errors import NoSuchTable, NotAStore, StoreBusy
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.engine import Warehouse
from node.queries.limits import Limits
from node.queries.warehouse import open_warehouse
from protocols.refusal import RefusalCode, Refused

_OPENING_S = 60.0  # to find the CDM; each question has a limit of its own


class Stores:
    """Opens what is there, and again if it was not. May be shared by threads."""

    def __init__(self, home: NodeHome) -> None:
        """Nothing is opened yet. Raises: MalformedConfig."""
        self._path = home.store
        self._config = home.config()
        self._lock = threading.Lock()
        self._store: OmopStore | None = None
        self._warehouse: Warehouse | None = None

    def store(self) -> OmopStore:
        """Return this node's own store. Raises: Refused(NO_DATA) without one, NOT_READY during an ingest."""
        with self._lock, _as_codes(away=RefusalCode.NO_DATA):
            return self._own()

    def warehouse(self) -> Warehouse:
        """Return the CDM that questions read.

        Raises: Refused(NO_DATA) if there is none, NOT_READY while its database is away or being written.
        """
        # a server may come back; a file of ours that is not there, or is none, will not
        away = RefusalCode.NOT_READY if self._config.store else RefusalCode.NO_DATA
        with _as_codes(away=away):
            return self.open()

    def open(self) -> Warehouse:
        """Return the same, for the hospital's own eyes. Raises: NotAStore, StoreBusy, NoSuchTable."""
        with self._lock:
            if self._warehouse is None:
                self._warehouse = self._found()
            return self._warehouse

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            if self._warehouse is not None:
                self._warehouse.close()
            if self._store is not None:
                self._store.close()

    def _own(self) -> OmopStore:
        if self._store is None:
            memory = None if self._config.store else self._config.memory or None
            self._store = OmopStore.open(self._path, read_only=True, memory_limit=memory)
        return self._store

    def _found(self) -> Warehouse:
        config = self._config
        if not config.store:
            return DuckDbWarehouse(self._own(), data_version=config.data_version)
        return open_warehouse(
            config.store,
            schema=config.schema or None,
            limits=Limits(time_s=_OPENING_S, memory=config.memory or None),
            data_version=config.data_version,
        )


@contextmanager
def _as_codes(*, away: RefusalCode) -> Iterator[None]:
    try:
        yield
    except NoSuchTable:
        raise Refused(RefusalCode.NO_DATA) from None
    except NotAStore:
        raise Refused(away) from None
    except StoreBusy:
        raise Refused(RefusalCode.NOT_READY) from None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a CDM found. For the hospital's own eyes."""

    persons: int
    concepts: bool  # whether the vocabulary is loaded, without which no Circe definition can be answered
    missing: tuple[str, ...]  # tables that our own form of cohort reads and that are not there


def look(warehouse: Warehouse, *, time_s: float) -> Seen:
    """Look at a CDM. Raises: NoSuchTable without `person`; NotTheCdm; Refused(DEADLINE)."""
    with closing(warehouse.engine(Limits(time_s=time_s))) as engine:
        persons = engine.table("person").select("person_id").count().as_table()
        needed = ("observation_period", *EVENT_TABLES)
        return Seen(
            persons=int(engine.rows(persons)[0][0].as_py()),
            concepts=engine.has_vocabulary(),
            missing=tuple(name for name in needed if not engine.has(name)),
        )
