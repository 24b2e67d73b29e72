"""Delimited text, read in batches of rows. Columns that no record needs are never parsed."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from node.ingest.errors import UnreadableSource
from node.ingest.mapping import Mapping
from node.ingest.mapping_parts import Kind

BLOCK_BYTES = 8 << 20  # some 100,000 rows at a time: bounds memory, keeps the per-batch cost small
DAMAGED = "damaged: cannot be unpacked"
REPLACED = "\N{REPLACEMENT CHARACTER}"
_HEADER_BYTES = 1 << 20  # a header line of ten thousand columns


@dataclass(slots=True)
class Delimited:
    """An open file. Iterate `batches` once."""

    path: Path
    mapping: Mapping
    bytes_total: int
    unknown_columns: tuple[str, ...]
    wrong_width: list[int] = field(default_factory=list)  # rows with too few or too many fields
    not_text: list[int] = field(default_factory=list)  # rows in which a used column is not of the encoding
    bytes_done: int = 0
    _names: tuple[str, ...] = ()

    def batches(self, *, batch_rows: int) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the used columns as text, and the number of each row in the file (from 1).

        Raises: UnreadableSource. Its text never quotes the file.
        """
        used = sorted(self.mapping.used_columns())
        with self.path.open("rb") as raw:
            packed = self.path.suffix == ".gz"
            source = gzip.GzipFile(fileobj=raw) if packed else raw
            try:
                text = _Utf8(source, self.mapping.encoding)
                reader = pyarrow.csv.open_csv(
                    pa.PythonFile(text, mode="r"),
                    read_options=pyarrow.csv.ReadOptions(
                        use_threads=False,  # rows keep their numbers
                        block_size=BLOCK_BYTES,
                        column_names=list(self._names),
                        skip_rows=1 if self.mapping.header else 0,
                    ),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=self.mapping.delimiter,
                        newlines_in_values=any(event.kind is Kind.TEXT for event in self.mapping.events),
                        invalid_row_handler=self._note_wrong_width,
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(used, pa.string()),
                        include_columns=used,
                        strings_can_be_null=False,
                    ),
                )
                yield from self._numbered(reader, raw, batch_rows)
            except StopIteration:
                return
            except (pa.ArrowInvalid, pa.ArrowKeyError, LookupError, UnicodeError):
                if self.bytes_total == 0 or self._only_header():
                    return
                raise UnreadableSource(
                    self.path.name, f"not {self.mapping.encoding} text delimited as the mapping says"
                ) from None  # Arrow's message quotes the row
            except (OSError, EOFError, zlib.error):
                raise UnreadableSource(self.path.name, DAMAGED) from None

    def _numbered(
        self, reader: pyarrow.csv.CSVStreamingReader, raw: io.BufferedReader, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Rows of the wrong width are not in the blocks, and may be known before their block is."""
        next_row = 1
        noted = 0
        for block in reader:
            numbers = np.arange(next_row, next_row + block.num_rows + len(self.wrong_width) - noted)
            numbers = numbers[~np.isin(numbers, self.wrong_width[noted:])]
            numbers = numbers[: block.num_rows]
            if len(numbers):
                next_row = int(numbers[-1]) + 1
                noted = int(np.searchsorted(self.wrong_width, next_row))
            self.bytes_done = min(raw.tell(), self.bytes_total)
            damaged = _damaged(block)
            if damaged.any():
                self.not_text += numbers[damaged].tolist()
                block, numbers = block.filter(pa.array(~damaged)), numbers[~damaged]
            for start in range(0, block.num_rows, batch_rows):
                yield block.slice(start, batch_rows), numbers[start : start + batch_rows]

    def _note_wrong_width(self, row: pyarrow.csv.InvalidRow) -> str:
        self.wrong_width.append(row.number - (1 if self.mapping.header else 0))
        return "skip"

    def _only_header(self) -> bool:
        try:
            with _opened(self.path) as raw:
                if self.mapping.header:
                    raw.readline()
                return not raw.read(_HEADER_BYTES).strip()
        except (OSError, EOFError, zlib.error):
            return False


class _Utf8:
    """A stream in another encoding, or a damaged one, as UTF-8: what is no text becomes REPLACED.

    Arrow would tell of such bytes on standard error where the row has too many fields as well.
    """

    closed = False

    def __init__(self, source: io.BufferedIOBase, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._left = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._left) < size and not self._ended:
            chunk = self._source.read(size)
            self._ended = not chunk
            self._left += self._decoder.decode(chunk, final=self._ended).encode(errors="replace")
        found, self._left = self._left[:size], self._left[size:]
        return found

    def close(self) -> None:
        self.closed = True


def _damaged(block: pa.RecordBatch) -> np.ndarray:
    """The rows in which something is REPLACED."""
    found = np.zeros(block.num_rows, dtype=bool)
    for column in block.columns:
        found |= pc.match_substring(column, REPLACED).to_numpy(zero_copy_only=False)
    return found


def open_delimited(path: Path, mapping: Mapping) -> Delimited:
    """Open a file and check its columns against the mapping.

    Raises: UnreadableSource if a column that the mapping uses is not there, or a name stands twice.
    """
    names = mapping.columns
    size = path.stat().st_size
    if mapping.header and size:
        names = _header(path, mapping)
        if len(set(names)) != len(names):
            raise UnreadableSource(path.name, "a column name stands twice in the header")
        for name in sorted(mapping.used_columns() - set(names)):
            raise UnreadableSource(path.name, f"the mapping's column '{name}' is not in the header")
    known = mapping.used_columns() | mapping.identifiers | mapping.ignored
    unknown = tuple(name for name in names if name not in known)
    return Delimited(path, mapping, size, unknown, _names=names)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _header(path: Path, mapping: Mapping) -> tuple[str, ...]:
    try:
        with _opened(path) as raw:
            line = raw.readline(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        raise UnreadableSource(path.name, DAMAGED) from None
    try:
        encoding = "utf-8-sig" if codecs.lookup(mapping.encoding).name == "utf-8" else mapping.encoding
        text = line.decode(encoding)
    except (LookupError, UnicodeError):
        raise UnreadableSource(path.name, f"the header is not {mapping.encoding} text") from None
    try:
        rows = list(csv.reader([text], delimiter=mapping.delimiter))
    except csv.Error:  # its message quotes nothing, but is of Python and not of the file
        raise UnreadableSource(path.name, "the header is no line of names") from None
    return tuple(name.strip() for name in rows[0]) if rows else ()


def _opened(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")
