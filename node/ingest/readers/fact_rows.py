"""From facts that a reader collected, one tuple each, to a table of facts: what such readers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from node.ingest.facts import CODING, SCHEMA

Made = Callable[[pa.Field, Sequence[Any]], pa.Array]


def table_from(rows: Sequence[tuple[Any, ...]], names: Sequence[str], made: Made) -> pa.Table:
    """Return tuples as a table of facts. `names` are what stands in them; fields that are not, are null.

    Args: made: makes a column of a field that is not null throughout.
    """
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}

    def column(field: pa.Field) -> pa.Array:
        values = columns.get(field.name)
        if values is None or (values[0] is None and values.count(None) == len(rows)):
            return pa.nulls(len(rows), field.type)
        return made(field, values)

    return pa.Table.from_arrays([column(field) for field in SCHEMA], schema=SCHEMA)


def coding_lists(
    values: Sequence[Sequence[Any] | None], codings: Callable[[list[Any]], pa.Array]
) -> pa.Array:
    """Return a column of lists of codings; none is empty, null says that.

    Args: codings: makes a column of single ones.
    """
    lengths = np.array([len(some) if some else 0 for some in values], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    empty = np.append(lengths == 0, False)  # the last offset ends the last list, and is always there
    flat = list(chain.from_iterable([some for some in values if some]))
    return pa.ListArray.from_arrays(pa.array(offsets, mask=empty), codings(flat))


def coding_column(
    systems: list[str | None],
    codes: list[str | None],
    displays: list[str | None] | None,
    absent: list[bool] | None,
) -> pa.Array:
    """Return a column of single codings; null where `absent` says so."""
    parts = [
        pa.array(systems, pa.string()),
        pa.array(codes, pa.string()),
        pa.nulls(len(codes), pa.string()) if displays is None else pa.array(displays, pa.string()),
    ]
    mask = None if absent is None else pa.array(absent, pa.bool_())
    return pa.StructArray.from_arrays(parts, fields=list(CODING), mask=mask)
