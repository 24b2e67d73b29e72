"""Which database a URL names: DuckDB file, PostgreSQL or Spark."""

from __future__ import annotations

from pathlib import Path

from node.omop.errors import UnknownStore
from node.queries.engine import Warehouse
from node.queries.limits import Limits


def open_warehouse(url: str, *, schema: str | None, limits: Limits) -> Warehouse:
    """Open the CDM at `url`: the path of a DuckDB file, `duckdb:///PATH` or `postgresql://…`.

    Args:
        schema: where the CDM's tables lie; None looks for `person` in the usual places.
        limits: memory and cores of a DuckDB database; the time is each question's.
    Raises: UnknownStore, NotAStore, StoreBusy; NoSuchTable if there is no `person`.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from node.queries.postgres_engine import PostgresWarehouse  # its driver is an extra

        return PostgresWarehouse.open(url, schema=schema)
    path = url.removeprefix("duckdb://")
    if "://" in path:
        raise UnknownStore
    from node.queries.duckdb_engine import DuckDbWarehouse

    return DuckDbWarehouse.open(Path(path), schema=schema, limits=limits)
