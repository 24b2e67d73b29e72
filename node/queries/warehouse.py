"""The warehouse that a URL names: a DuckDB file, PostgreSQL or Spark."""

from __future__ import annotations

from pathlib import Path

from node.queries.engine import Warehouse
from node.queries.limits import Limits
from node.store_url import StoreKind, StoreUrl


def open_warehouse(url: str, *, schema: str | None, limits: Limits, data_version: int = 0) -> Warehouse:
    """Open the CDM at `url`: the path of a DuckDB file, `duckdb:///PATH`, `postgresql://…`, `spark:MASTER`.

    Args:
        schema: where the CDM's tables lie; None looks for `person` in the usual places.
        limits: memory and cores of a DuckDB database; the time is each question's.
        data_version: part of the epoch, for changes of the data that the database does not show.
    Raises: UnknownStore, PasswordInUrl, NotAStore, StoreBusy; NoSuchTable if there is no `person`.
    """
    store = StoreUrl.parse(url)
    if store.kind is StoreKind.POSTGRESQL:
        from node.queries.postgres_engine import PostgresWarehouse  # its driver is an extra

        return PostgresWarehouse.open(store.text, schema=schema, data_version=data_version)
    if store.kind is StoreKind.SPARK:
        from node.queries.spark_engine import SparkWarehouse  # an extra as well

        return SparkWarehouse.open(store.text, schema=schema, data_version=data_version)
    from node.queries.duckdb_engine import DuckDbWarehouse

    return DuckDbWarehouse.open(Path(store.text), schema=schema, limits=limits, data_version=data_version)
