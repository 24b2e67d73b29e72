"""The node's own CDM copied to PostgreSQL, by a command of its own or when files have been taken in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fedtwin.node_ingest import open_store
from fedtwin.progress import bar
from node.omop.errors import UnknownStore
from node.store_url import StoreKind, StoreUrl


def named(url: str) -> StoreUrl:
    """Return where a copy may go. Raises: UnknownStore if it is no PostgreSQL; PasswordInUrl."""
    found = StoreUrl.parse(url)
    if found.kind is not StoreKind.POSTGRESQL:
        raise UnknownStore
    return found


def copy(home: Path, url: str, *, schema: str) -> dict[str, Any]:
    """Copy the store of `home` into `schema` at `url`, and say what came of it.

    Raises: UnknownStore, PasswordInUrl, and as node.omop.postgres_copy.copy_to.
    """
    where = named(url)
    from node.omop.postgres_copy import copy_to  # its driver is an extra

    began = time.monotonic()
    with bar("comparing", unit="rows") as line, open_store(home, read_only=True) as opened:

        def watch(table: str, done: int, total: int) -> None:
            line.describe(table)
            line.to(done, total=total)

        report = copy_to(opened, where.text, schema=schema, watch=watch)
    return {
        "schema": report.schema,
        "rows": {table: count for table, count in report.rows.items() if count},
        "digest": report.digest,
        "unchanged": report.unchanged,
        "seconds": round(time.monotonic() - began, 3),
    }


def words(fields: dict[str, Any]) -> str:
    """Return what came of a copy in a line."""
    what = "was there already, and is the same" if fields["unchanged"] else "was copied and compared"
    rows = sum(fields["rows"].values())
    return f"{rows} rows in the schema {fields['schema']}: the content {what} ({fields['digest'][:16]}…)"
