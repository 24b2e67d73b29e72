"""TXA: documents. Their text stands in the OBX that follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.ingest.facts import Kind
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import NOTE, Record, Segment, details
from node.ingest.readers.hl7v2_results import FINAL, obx
from node.ingest.readers.hl7v2_times import Moment
from node.ingest.readers.hl7v2_types import Concept, concept, entity
from node.ingest.readers.hl7v2_values import BINARIES, LONG_TEXT, TEXT

WITH_TEXT = frozenset({"T02", "T04", "T06", "T08", "T10"})
CANCELLED = "T11"
REPLACED = frozenset({"T09", "T10"})
UNAVAILABLE = frozenset({"CA", "OB"})  # TXA-19, table 0273: deleted, obsolete


@dataclass(slots=True)
class Document:
    """A document whose lines are being read."""

    key: str
    place: str
    at: Moment | None
    what: Concept
    status: str
    lines: list[str] = field(default_factory=list)


class Documents:
    """The documents of one message."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._open: Document | None = None

    def txa(self, record: Record, segment: Segment) -> None:
        """Begin a document; one that is cancelled, deleted or replaced is taken back."""
        self.close()
        message = record.message
        what = concept(message, message.field(segment, 2), where="TXA-2", system="HL70270")
        number = entity(message, segment, 12) or entity(message, segment, 15) or entity(message, segment, 14)
        key = f"document {number or what.name + ' ' + message.first(segment, 4)}"
        place = f"TXA[{record.ordinal}]"
        if record.event == CANCELLED or message.first(segment, 19).upper() in UNAVAILABLE:
            record.retract(Kind.NOTE, place, key)
            return
        if record.event in REPLACED and (parent := entity(message, segment, 13)) and parent != number:
            record.retract(Kind.NOTE, f"{place}-13", f"document {parent}")
        at = record.time(segment, 4, "TXA-4") or record.time(segment, 6, "TXA-6")
        if record.event not in WITH_TEXT:
            record.turn_away("TXA", reasons.NO_CONTENT)
            return
        self._open = Document(
            key, place, at or record.happened or record.sent, what, message.first(segment, 17).upper()
        )

    def obx(self, record: Record, segment: Segment) -> None:
        """Add lines to the document; values that are not text are results as elsewhere."""
        message, document = record.message, self._open
        kind = message.first(segment, 2).upper()
        if document is None or kind not in TEXT | LONG_TEXT | BINARIES:
            obx(record, segment)
        elif kind in BINARIES:
            record.turn_away("OBX-5", reasons.BINARY)
        elif message.first(segment, 11).upper() not in FINAL:
            record.turn_away("OBX-11", reasons.NOT_FINAL)
        else:
            document.lines.extend(message.text(raw) for raw in message.repetitions(segment, 5))

    def close(self) -> None:
        """Give NOTE of the document that is open."""
        record, document = self._record, self._open
        self._open = None
        if document is None:
            return
        words = "\n".join(line.rstrip() for line in document.lines).strip("\n")
        if not words.strip():
            record.turn_away("OBX-5", reasons.NO_VALUE)
            return
        record.add(
            Kind.NOTE,
            document.place,
            document.key,
            start=document.at,
            type_concept_id=NOTE,
            status=document.status or None,
            details=details(title=document.what.text or document.what.name),
            codes=document.what.codings or None,
            text=words,
        )
