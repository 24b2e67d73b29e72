"""Claims as CMS writes them: DE-SynPUF and RIF files, delimited by commas or bars, recognised by the header.

Beneficiary files give PERSON, DEATH and COVERAGE; claims of any kind VISIT, CONDITION, PROCEDURE, DRUG and
COST; prescription files DRUG and COST. Files of one patient belong together by the beneficiary id. A record
is a line below the header.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

from node.ingest.errors import UnreadableSource
from node.ingest.facts import Action, FactBatch, TurnedAway
from node.ingest.readers.claims_beneficiaries import beneficiary, year_of
from node.ingest.readers.claims_columns import Columns, Form, columns_of
from node.ingest.readers.claims_lines import ClaimReader, drug
from node.ingest.readers.claims_rows import ClaimRows, Origin

MAX_LINE_BYTES = 1 << 20  # the widest file of CMS has some 400 columns
MAX_BATCH_FACTS = 200_000  # a row of DE-SynPUF can give a hundred
_BOM = b"\xef\xbb\xbf"


class ClaimsCsv:
    """The reader of CMS's delimited files."""

    name = "claims"
    version = "3"
    apart: ClassVar[dict[str, str]] = {}
    marks_parts = True

    def reads(self, path: Path) -> bool:
        """Return whether the first line is a header of CMS's."""
        try:
            with _opened(path) as raw:
                line = raw.readline(MAX_LINE_BYTES)
        except (OSError, EOFError, zlib.error):
            return False
        return _understood(line) is not None

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield a file's facts in order.

        Raises: UnreadableSource if the header is none of CMS's, or a compressed file is damaged.
        """
        with _opened(path) as raw:
            try:
                found = _understood(raw.readline(MAX_LINE_BYTES))
                if found is None:
                    raise UnreadableSource(path.name, "no header of a CMS claims file")
                yield from _File(path.name, raw, *found).batches(batch_records)
            except (OSError, EOFError, zlib.error):
                raise UnreadableSource(path.name, "the compressed file is damaged") from None


class _File:
    def __init__(self, name: str, raw: BinaryIO, delimiter: str, columns: Columns) -> None:
        self._raw = raw
        self._delimiter = delimiter
        self._columns = columns
        self._rows = ClaimRows()
        self._claims = ClaimReader(columns, self._rows) if columns.form is Form.CLAIMS else None
        self._year = year_of(name)
        self._dml = columns.at("DML_IND")
        self._final = columns.at("FINAL_ACTION")
        self._turned_away: list[TurnedAway] = []
        self._record = 0

    def batches(self, batch_records: int) -> Iterator[FactBatch]:
        first = 0
        for line in iter(lambda: self._raw.readline(MAX_LINE_BYTES + 1), b""):
            too_long = len(line) > MAX_LINE_BYTES
            while too_long and not line.endswith(b"\n"):
                line = self._raw.readline(MAX_LINE_BYTES)
                if not line:
                    break
            if not line.strip() and not too_long:
                continue
            self._record += 1
            before = len(self._rows)
            reason = "too-long" if too_long else self._one(line)
            if reason is not None:
                self._rows.forget(before)
                self._turned_away.append(TurnedAway(self._record, "", reason, True))
            if self._record - first >= batch_records or len(self._rows) >= MAX_BATCH_FACTS:
                yield self._batch(self._record - first)
                first = self._record
        if self._record > first:
            yield self._batch(self._record - first)

    def _batch(self, records: int) -> FactBatch:
        turned_away, self._turned_away = self._turned_away, []
        return FactBatch(self._rows.take(), turned_away, records, self._raw.tell())

    def _one(self, line: bytes) -> str | None:
        """Add a line's facts; return why there are none."""
        try:
            values = _fields(line.decode("utf-8"), self._delimiter)
        except UnicodeDecodeError:
            return "not-text"
        except csv.Error:
            return "bad-quotes"
        columns = self._columns
        if len(values) != len(columns.names):
            return "bad-width"
        patient = values[columns.patient].strip()
        if not patient:
            return "no-patient"
        if self._final >= 0 and values[self._final].strip() == "N":
            return "not-final"
        deleted = self._dml >= 0 and values[self._dml].strip().upper() == "DELETE"
        action = (Action.RETRACT if deleted else Action.ASSERT).value
        origin = Origin(self._record, patient, columns.namespace, action=action)
        if self._claims is not None:
            return self._claims.read(values, origin, self._refuse)
        if columns.form is Form.DRUGS:
            return drug(values, columns, origin, self._rows, self._refuse)
        beneficiary(values, columns, origin, self._rows, self._refuse, year=self._year)
        return None

    def _refuse(self, column: str, reason: str) -> None:
        self._turned_away.append(TurnedAway(self._record, column, reason, False))


def _fields(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter)
    rows = list(csv.reader([line], delimiter=delimiter, strict=True))
    return rows[0] if rows else []


def _understood(line: bytes) -> tuple[str, Columns] | None:
    if not line.endswith(b"\n") and len(line) >= MAX_LINE_BYTES:
        return None
    try:
        text = line.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        return None
    delimiter = "|" if text.count("|") > text.count(",") else ","
    try:
        columns = columns_of(_fields(text, delimiter))
    except csv.Error:
        return None
    return (delimiter, columns) if columns is not None else None


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, io.BufferedReader(gzip.open(path, "rb")))
    return path.open("rb")
