"""X12 interchanges: 837 claims and 834 enrolment. Everything else (835, 820, 270-278, ...) is no claim.

A record is a claim of an 837, a member of an 834, or any other transaction set as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from node.ingest.errors import UnreadableSource
from node.ingest.facts import FactBatch, TurnedAway
from node.ingest.readers.claims_rows import ClaimRows
from node.ingest.readers.x12_claims import Claims
from node.ingest.readers.x12_members import Members
from node.ingest.readers.x12_segments import ISA_CHARS, MalformedInterchange, Segments, delimiters

_BLANK = "\ufeff \t\r\n"


class X12:
    """The reader of X12 interchanges."""

    name = "x12"
    version = "3"
    apart: ClassVar[dict[str, str]] = {}
    marks_parts = True

    def reads(self, path: Path) -> bool:
        """Return whether the file begins with an ISA that announces its delimiters."""
        with path.open("rb") as raw:
            text = raw.read(2 * ISA_CHARS).decode("utf-8", errors="replace").lstrip(_BLANK)
        try:
            delimiters(text)
        except MalformedInterchange:
            return False
        return True

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield a file's facts in order.

        Raises: UnreadableSource if an interchange is not delimited as it announces.
        """
        with path.open("rb") as raw:
            try:
                yield from _File(Segments(raw)).batches(batch_records)
            except MalformedInterchange as error:
                raise UnreadableSource(path.name, str(error)) from None


class _File:
    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._rows = ClaimRows()
        self._turned_away: list[TurnedAway] = []
        self._record = 0
        self._guide = ""
        self._open: Claims | Members | None = None

    def batches(self, batch_records: int) -> Iterator[FactBatch]:
        """A batch ends between transactions or claims: an open claim belongs to the next one."""
        first = 0
        for parts in self._segments:
            name = parts[0]
            if name == "ST":
                self._close(truncated=True)
                self._begin(parts)
            elif name == "SE":
                self._close(truncated=False)
            elif name in ("ISA", "GS", "GE", "IEA"):
                self._close(truncated=True)
                self._guide = parts[8].strip() if name == "GS" and len(parts) > 8 else ""
            elif self._open is not None:
                self._open.segment(parts)
            if self._finished - first >= batch_records:
                yield self._batch(first)
                first = self._finished
        self._close(truncated=True)
        if self._record > first:
            yield self._batch(first)

    @property
    def _finished(self) -> int:
        return self._record - (1 if self._open is not None and self._open.pending else 0)

    def _batch(self, first: int) -> FactBatch:
        """What an open claim was refused so far stays for its own batch."""
        last = self._finished
        now = [away for away in self._turned_away if away.record <= last]
        self._turned_away[:] = [away for away in self._turned_away if away.record > last]
        return FactBatch(self._rows.take(), now, last - first, self._segments.bytes_done)

    def _begin(self, parts: list[str]) -> None:
        kind = parts[1].strip() if len(parts) > 1 else ""
        guide = parts[3].strip() if len(parts) > 3 and parts[3].strip() else self._guide
        assert self._segments.marks is not None
        if kind == "837":
            component = self._segments.marks.component
            self._open = Claims(self._rows, self._turned_away, self._next, guide, component)
        elif kind == "834":
            self._open = Members(self._rows, self._turned_away, self._next)
        else:
            self._turned_away.append(TurnedAway(self._next(), "", "not-a-claim", True))

    def _close(self, *, truncated: bool) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.end(truncated=truncated)

    def _next(self) -> int:
        self._record += 1
        return self._record
