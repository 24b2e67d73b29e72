"""One batch of a source table while it is read: its columns, the rows still good, what was turned away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from node.ingest.columns import Column


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Rows in which one field was turned away for one reason."""

    field: str
    reason: str
    rows: np.ndarray
    whole_row: bool


class Batch:
    """The rows of one batch. `alive` says which of them can still give records."""

    def __init__(self, values: pa.RecordBatch, rows: np.ndarray, *, missing: tuple[str, ...]) -> None:
        self._values = values
        self._missing = missing
        self._columns: dict[str, Column] = {}
        self.rows = rows  # the number of each row in its file, from 1
        self.alive = np.ones(len(rows), dtype=bool)
        self.quarantined: list[Quarantined] = []

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> Column:
        """Return a column, parsed at most once."""
        if name not in self._columns:
            self._columns[name] = Column(self._values.column(name))
        return self._columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """Return a column's numbers by row, NaN where there is none."""
        column = self.column(name)
        return column.spread(column.numbers)

    def is_missing(self, name: str, extra: tuple[str, ...] = ()) -> np.ndarray:
        """Return the rows where a column is empty or holds a code for "no value"."""
        column = self.column(name)
        return column.spread(column.missing(("", *self._missing, *extra)))

    def turn_away(self, mask: np.ndarray, field: str, reason: str, *, whole_row: bool = False) -> None:
        """Note that `field` of the rows of `mask` cannot be used; of rows that are still good."""
        mask = mask & self.alive
        if mask.any():
            self.quarantined.append(Quarantined(field, reason, self.rows[mask], whole_row))

    def drop(self, mask: np.ndarray, field: str, reason: str) -> None:
        """Turn rows away as a whole."""
        self.turn_away(mask, field, reason, whole_row=True)
        self.alive &= ~mask
