"""HL7 v2.3 to 2.8: files with one message or many, batches (FHS, BHS), MLLP frames, listeners' inboxes."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from node.ingest.ahead import one_ahead
from node.ingest.errors import UnreadableSource
from node.ingest.facts import FactBatch, Told, TurnedAway
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_files import EDGE, pieces
from node.ingest.readers.hl7v2_messages import facts_of
from node.ingest.readers.hl7v2_record import Cells, Row, cells, table

HEADERS = (b"MSH", b"FHS", b"BHS")
PEEK = 4096
VERSION = "3"  # of what is made of a message
ROWS_AT_ONCE = 2048
REMEMBERED = 1 << 16  # messages that a repetition is looked for among


class Hl7v2Reader:
    """The Reader of HL7 v2 (node.ingest.facts). A record is a message, or what stands where one should.

    zone: the hospital's IANA zone, of times that say no offset where the message says none either.
    """

    name = "hl7v2"

    def __init__(self, *, zone: str = "") -> None:
        self._zone = zone
        self.apart = {"zone": zone}
        self.version = f"{VERSION} {zone}" if zone else VERSION

    def in_zone(self, zone: str) -> Hl7v2Reader:
        """Return the reader of a hospital in this zone."""
        return Hl7v2Reader(zone=zone)

    def reads(self, path: Path) -> bool:
        """Return whether the file begins with a header of HL7 v2, maybe in an MLLP frame."""
        with path.open("rb") as file:
            head = file.read(PEEK).lstrip(EDGE)
        return head[:3] in HEADERS and head[3:4] != b"" and not head[3:4].isalnum()

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield the messages' facts in order. Raises: UnreadableSource if it begins with no header."""
        if not self.reads(path):
            raise UnreadableSource(path.name, "does not begin with a header of HL7 v2")
        yield from one_ahead(self._batches(path, batch_records))

    def _batches(self, path: Path, batch_records: int) -> Iterator[FactBatch]:
        batch = _Batch()
        seen: dict[bytes, None] = {}
        with path.open("rb") as file:
            for number, piece in enumerate(pieces(file), 1):
                if piece.problem:
                    batch.add([], [TurnedAway(number, "file", piece.problem, True)], piece.end)
                elif _again(piece.data, seen):
                    batch.add([], [TurnedAway(number, "MSH-10", reasons.DUPLICATE, True)], piece.end)
                else:
                    batch.add(*facts_of(piece.data, number, zone=self._zone, told=batch.told), piece.end)
                if batch.records >= batch_records:
                    yield batch.made()
                    batch = _Batch()
        if batch.records:
            yield batch.made()


class _Batch:
    """Facts on their way into one FactBatch; into Arrow early, because Python's objects are large."""

    def __init__(self) -> None:
        self.records = 0
        self.told: list[Told] = []
        self._rows: list[Cells] = []
        self._tables: list[pa.Table] = []
        self._turned_away: list[TurnedAway] = []
        self._end = 0

    def add(self, rows: list[Row], turned_away: list[TurnedAway], end: int) -> None:
        """Add what came of one record."""
        self.records += 1
        self._rows += cells(rows)
        self._turned_away += turned_away
        self._end = end
        if len(self._rows) >= ROWS_AT_ONCE:
            self._tables.append(table(self._rows))
            self._rows = []

    def made(self) -> FactBatch:
        """Return the batch."""
        facts = pa.concat_tables([*self._tables, table(self._rows)])
        return FactBatch(facts, self._turned_away, self.records, self._end, told=self.told)


def _again(data: bytes, seen: dict[bytes, None]) -> bool:
    """Return whether the same bytes came before: sent twice. MSH-10 alone does not say so."""
    digest = blake2b(data, digest_size=16).digest()
    if digest in seen:
        return True
    seen[digest] = None
    if len(seen) > REMEMBERED:
        del seen[next(iter(seen))]
    return False
