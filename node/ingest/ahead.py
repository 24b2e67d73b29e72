"""Read the next batch while this one is stored: the store waits for DuckDB, which lets Python go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from node.ingest.facts import FactBatch


def one_ahead(batches: Iterator[FactBatch]) -> Iterator[FactBatch]:
    """Yield the same batches in the same order; the next is made in a thread of its own meanwhile.

    Guarantee: at most one batch more is in memory; what `batches` raises is raised here; when the caller
    stops early, the thread is done before this generator is. For readers that touch nothing but their file.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch
