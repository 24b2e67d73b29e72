"""The hospital's data, opened when they are first needed: its own store, and the CDM that questions read.

They are the same unless node.toml names another database. Training and features read the node's own store
only; questions read the CDM that the configuration names.
"""

from __future__ import annotations

import threading

from node.home import NodeHome
from node.omop.errors import NoSuchTable, NotAStore, StoreBusy
from node.omop.store import OmopStore
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
        with self._lock:
            return self._opened()

    def warehouse(self) -> Warehouse:
        """Return the CDM that questions read.

        Raises: Refused(NO_DATA) if there is none, NOT_READY while its database is away or being written.
        """
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

    def _opened(self) -> OmopStore:
        if self._store is None:
            if not self._path.exists():
                raise Refused(RefusalCode.NO_DATA)
            try:
                memory = None if self._config.store else self._config.memory or None
                self._store = OmopStore.open(self._path, read_only=True, memory_limit=memory)
            except StoreBusy:
                raise Refused(RefusalCode.NOT_READY) from None
            except NotAStore:
                raise Refused(RefusalCode.NO_DATA) from None
        return self._store

    def _found(self) -> Warehouse:
        config = self._config
        if not config.store:
            return DuckDbWarehouse(self._opened(), data_version=config.data_version)
        try:
            return open_warehouse(
                config.store,
                schema=config.schema or None,
                limits=Limits(time_s=_OPENING_S, memory=config.memory or None),
                data_version=config.data_version,
            )
        except (NotAStore, StoreBusy):
            raise Refused(RefusalCode.NOT_READY) from None
        except NoSuchTable:
            raise Refused(RefusalCode.NO_DATA) from None
