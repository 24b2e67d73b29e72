"""Parquet files under a mapping, read in batches of rows. Columns that no record needs are never read.

The file brings its own names, so the mapping's `delimiter`, `encoding`, `header` and `columns` say nothing
of it. What a typed column means: node.ingest.typed_columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from node.ingest.errors import UnreadableSource
from node.ingest.mapping import Mapping
from node.ingest.typed_columns import mappable, not_text, refusal

SUFFIXES = (".parquet", ".pq")
DAMAGED = "damaged, or no Parquet file"
MAX_BATCH_BYTES = 1 << 30  # of one column's text in one batch: a small file can unpack to any size
_BUFFER_BYTES = 1 << 20  # a column is read page by page, so that a row group need not fit into memory
_MAX_NAMES_BYTES = 16 << 20  # what the footer may hold of names and counts: ten thousand columns


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet by its name."""
    return path.suffix.lower() in SUFFIXES


@dataclass(slots=True)
class ParquetTable:
    """An open file. Iterate `batches` once."""

    path: Path
    mapping: Mapping
    bytes_total: int
    unknown_columns: tuple[str, ...]
    wrong_width: list[int] = field(default_factory=list)  # no row of such a file has
    not_text: list[int] = field(default_factory=list)  # rows in which a used column is no text
    bytes_done: int = 0

    def batches(self, *, batch_rows: int) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the used columns as text and dates, and the number of each row in the file (from 1).

        Raises: UnreadableSource. Its text never quotes the file.
        """
        used = sorted(self.mapping.used_columns())
        done = 0
        try:
            with _opened(self.path, used) as file:
                rows = file.metadata.num_rows
                for read in file.iter_batches(batch_size=batch_rows, columns=used, use_threads=False):
                    numbers = np.arange(done + 1, done + read.num_rows + 1)
                    done += read.num_rows
                    self.bytes_done = int(self.bytes_total * min(1.0, done / max(rows, 1)))
                    yield self._usable(read, used, numbers)
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError):
            raise UnreadableSource(self.path.name, DAMAGED) from None  # Arrow's message may quote the file
        if done != rows:
            raise UnreadableSource(self.path.name, DAMAGED)

    def _usable(
        self, read: pa.RecordBatch, used: list[str], numbers: np.ndarray
    ) -> tuple[pa.RecordBatch, np.ndarray]:
        columns = [self._bounded(read.column(name)) for name in used]
        damaged = np.zeros(read.num_rows, dtype=bool)
        for column in columns:
            damaged |= not_text(column)
        if damaged.any():
            self.not_text += numbers[damaged].tolist()
            good = pa.array(~damaged)
            columns, numbers = [column.filter(good) for column in columns], numbers[~damaged]
        ready = [mappable(column, zone=self.mapping.zone) for column in columns]
        return pa.RecordBatch.from_arrays(ready, names=used), numbers

    def _bounded(self, column: pa.Array) -> pa.Array:
        """The column without its dictionary, unless that would take more memory than any true column."""
        if not pa.types.is_dictionary(column.type):
            return column
        words = column.dictionary
        if pa.types.is_string(words.type) or pa.types.is_large_string(words.type):
            size = pc.sum(pc.binary_length(words).take(column.indices)).as_py() or 0
            if size > MAX_BATCH_BYTES:
                raise UnreadableSource(self.path.name, "a column unpacks to more than any text in a table")
        return column.dictionary_decode()


def open_parquet(path: Path, mapping: Mapping) -> ParquetTable:
    """Open a file and check its columns against the mapping.

    Raises: UnreadableSource if a column that the mapping uses is not there, is nested or holds bytes, or a
        name stands twice.
    """
    try:
        with _opened(path, []) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError):
        raise UnreadableSource(path.name, DAMAGED) from None
    if len(set(schema.names)) != len(schema.names):
        raise UnreadableSource(path.name, "a column name stands twice")
    for name in sorted(mapping.used_columns()):
        if name not in schema.names:
            raise UnreadableSource(path.name, f"the mapping's column '{name}' is not in the file")
        why = refusal(schema.field(name).type)
        if why is not None:
            raise UnreadableSource(path.name, f"the mapping's column '{name}' is {why}")
    known = mapping.used_columns() | mapping.identifiers | mapping.ignored
    unknown = tuple(name for name in schema.names if name not in known)
    return ParquetTable(path, mapping, path.stat().st_size, unknown)


def _opened(path: Path, used: list[str]) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        read_dictionary=used,  # of text; others stay as they are
        memory_map=False,
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=_MAX_NAMES_BYTES,
        thrift_container_size_limit=_MAX_NAMES_BYTES,
    )
