"""What can go wrong with the store.

StoreError
├── NoSuchTable      the caller's mistake: a table that this store does not hold
├── NotAStore        a fault: the file is no DuckDB database, or of another format
├── StoreBusy        an outage: another process holds the file
└── AlreadyLoaded    a refusal: this source was loaded before with other content or another mapping
"""

from __future__ import annotations


class StoreError(Exception):
    """Anything about the node's OMOP store."""


class NoSuchTable(StoreError, ValueError):
    """A table that this store does not hold."""

    def __init__(self, table: str) -> None:
        super().__init__(f"this store has no table '{table}'")
        self.table = table


class NotAStore(StoreError):
    """The file cannot be opened as a DuckDB database."""


class StoreBusy(StoreError):
    """Another process has the file open; DuckDB allows one."""


class AlreadyLoaded(StoreError):
    """The source is in the store with other content or under another mapping.

    Loading it once more would count it twice; the caller says whether it replaces or adds.
    """

    def __init__(self, source: str) -> None:
        super().__init__(
            f"{source}: loaded before with other content or another mapping;"
            " say whether it replaces what was loaded or is added to it"
        )
        self.source = source
