"""One batch of facts in columns: what each asks for, which still count, and why others do not.

`Columns.good` says which facts still count; whoever turns facts away does it by `drop`, with a reason of the
list in node.ingest.harmonize.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from node.ingest.fact_rules import ENTERED_IN_ERROR
from node.ingest.facts import Action

DAY_US = 86_400_000_000
NULL = int(np.iinfo(np.int64).min)  # in columns of numbers that have no value for none


class Columns:
    """The facts of one batch."""

    def __init__(self, facts: pa.Table) -> None:
        facts = facts.combine_chunks()
        self.facts = facts
        self.size = facts.num_rows
        self.notes: list[tuple[int, str, str, bool]] = []  # record, field, reason, whole record
        self.record: np.ndarray = facts["record"].to_numpy()
        self.good = np.ones(self.size, dtype=bool)
        self.kind = self.words("kind")
        self.status = lower(facts["status"])
        action = self.words("action")
        self.retracts = (action == Action.RETRACT) | (self.status == ENTERED_IN_ERROR)
        self.withdraws = action == Action.WITHDRAW
        self.merges = action == Action.MERGE
        self.moves = action == Action.MOVE
        self.asserts = ~(self.retracts | self.withdraws | self.merges | self.moves)

    def words(self, name: str) -> np.ndarray:
        """Return a column of text as objects."""
        found: np.ndarray = self.facts[name].to_numpy(zero_copy_only=False)
        return found

    def moments(self, name: str) -> np.ndarray:
        """Return a column of times in microseconds since 1970, NULL where there is none."""
        found: np.ndarray = pc.fill_null(self.facts[name].cast(pa.int64()), NULL).to_numpy()
        return found

    def has(self, name: str) -> np.ndarray:
        """Return which facts have a value there."""
        found: np.ndarray = pc.is_valid(self.facts[name]).to_numpy(zero_copy_only=False)
        return found

    def spaces(self) -> pa.ChunkedArray:
        """Return whose ids the patients' are."""
        return pc.fill_null(self.facts["patient_namespace"], "patient")

    def detail(self, name: str) -> pa.Array:
        """Return one of the details, null where there is none."""
        return pc.map_lookup(self.facts["details"].combine_chunks(), name, "first")

    @property
    def detailed(self) -> bool:
        """Whether any fact has details."""
        return bool(self.facts["details"].null_count < self.size)

    def drop(self, mask: np.ndarray, name: str, reason: str) -> None:
        """Turn facts away that count so far."""
        mask = mask & self.good
        if mask.any():
            self.notes += [(record, name, reason, False) for record in self.record[mask].tolist()]
            self.good &= ~mask


def lower(texts: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return texts in lower case as objects."""
    found: np.ndarray = pc.utf8_lower(texts).to_numpy(zero_copy_only=False)
    return found


def encoded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return texts as places in a list of the different ones."""
    found = texts.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # of no chunk, or of more than one array holds
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], texts.type)
    return found.dictionary_encode()


def as_bytes(texts: pa.ChunkedArray | pa.Array) -> list[bytes]:
    """Return texts in UTF-8."""
    found: list[bytes] = texts.cast(pa.binary()).to_pylist()
    return found
