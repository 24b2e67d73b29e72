"""A count that runs in a thread and can be made to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import duckdb

from node.omop.errors import NoSuchTable
from node.omop.store import OmopStore
from node.queries import cohort as cohorts
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused


class RunningCount:
    """Call it in a thread to count; `interrupt` it from another. Used once."""

    def __init__(self, cohort: Cohort, store: Callable[[], OmopStore]) -> None:
        self._cohort = cohort
        self._store = store
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._stopped = False

    def __call__(self) -> int:
        """Return the exact number of persons. Raises: Refused(NO_DATA) without store or table; DEADLINE."""
        store = self._store()
        with self._lock:
            if self._stopped:
                raise Refused(RefusalCode.DEADLINE)
            self._connection = store.connection.con
        try:
            return cohorts.count(self._cohort, store)
        except NoSuchTable:
            raise Refused(RefusalCode.NO_DATA) from None
        except duckdb.InterruptException:
            raise Refused(RefusalCode.DEADLINE) from None
        finally:
            with self._lock:
                self._connection = None  # the thread's connection goes on to other counts

    def interrupt(self) -> None:
        """Make the count fail soon, or not begin."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()
