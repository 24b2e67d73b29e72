"""The elements of an Apple Health export that count, in the order of the file.

A stretch that holds nothing but whole `Record` elements, written as phones write them, is taken apart by one
pattern; everything else goes through expat, whose word it is whether the file is XML. The pattern is the
stricter of the two: what it takes, expat would take for the same records. A `<` inside XML begins a tag
unless it stands in a comment, a CDATA section or a processing instruction: where one of these has begun,
expat reads all of the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.parsers import expat

from node.ingest.errors import UnreadableSource

CHUNK = 1 << 20  # bytes fed at once
MAX_TOKEN = 1 << 22  # bytes without one complete element: 4 MiB is hundreds of times what a phone writes
# What stands where a record does and holds no sample of ours.
_OTHER = frozenset(
    ("Workout", "ActivitySummary", "ClinicalRecord", "Audiogram", "VisionPrescription", "Correlation")
)
Record = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""type, source name, device, unit, recorded, start, end, value, as XML writes them (see `said`); empty
where there is none, and a blank for an empty value."""
_NO_RECORD: Record = (b"", b"", b"", b"", b"", b"", b"", b"")
_BEGIN = b"<Record "
_PLAIN = rb'[^"<&\x00-\x1f]*'
_WORD = _PLAIN + rb"(?:&(?:lt|gt|amp|quot|apos);" + _PLAIN + rb")*"
_BLANK = rb"[ \t\r\n]*"
_RECORD = re.compile(
    b'<Record type="(PLAIN)" sourceName="(WORD)"(?: sourceVersion="WORD")?(?: device="(WORD)")?'
    b'(?: unit="(WORD)")?(?: creationDate="(PLAIN)")? startDate="(PLAIN)" endDate="(PLAIN)"'
    b'(?: value="((?!")PLAIN)")?'
    b'(?:/>|>BLANK(?:<MetadataEntry key="WORD" value="WORD"/>BLANK)*</Record>)BLANK(?=<Record |\\Z)'.replace(
        b"WORD", _WORD
    )
    .replace(b"PLAIN", _PLAIN)
    .replace(b"BLANK", _BLANK)
)
_NO_CHARACTERS = (b"\xef\xbf\xbe", b"\xef\xbf\xbf")  # U+FFFE and U+FFFF are UTF-8 and not XML
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
_BY_HAND = "HKWasUserEntered"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was found since the last time: `numbers` are those of `records`, all numbers count elements."""

    numbers: list[int]
    records: list[Record]
    manual: set[int]
    beats: list[tuple[int, str, str, Record]]  # number, rate, time of day, and in which record
    others: list[int]
    count: int


# what expat says of damage, and Python of the name of an encoding that expat asks it for
_NOT_XML = (expat.ExpatError, LookupError, ValueError)


class Elements:
    """Reads an export that is fed in pieces, without its document type."""

    def __init__(self, name: str) -> None:
        self._name = name
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._refuse
        parser.ExternalEntityRefHandler = self._refuse
        parser.buffer_text = False
        self._parser = parser
        self._fed = 0
        self._position = 0  # of the last element that began
        self._rest = b""
        self._depth = 0
        self._plain = True  # no comment, CDATA section or instruction has begun
        self._tail = b""
        self._open = False  # whether the last record may have children yet
        self._number = 0
        self._covered = 0
        self._start_anew()

    def _start_anew(self) -> None:
        self._numbers: list[int] = []
        self._records: list[Record] = []
        self._beats: list[tuple[int, str, str, Record]] = []
        self._others: list[int] = []
        self._manual: set[int] = set()

    @property
    def found(self) -> int:
        """How many elements wait to be taken."""
        return len(self._records) + len(self._beats) + len(self._others)

    def feed(self, chunk: bytes) -> None:
        """Take in a piece. Raises: UnreadableSource."""
        whole = self._rest + chunk
        last = whole.rfind(_BEGIN)
        if last < 0 or len(whole) - last > CHUNK:  # what follows the last record, or no record at all
            last = len(whole)
        self._rest = whole[last:]
        first = whole.find(_BEGIN, 0, last)
        self._parse(whole[: last if first < 0 else first])
        if first >= 0:
            self._read(whole[first:last])

    def close(self) -> None:
        """Take in the end. Raises: UnreadableSource if it is in the middle of something."""
        self._parse(self._rest)
        self._rest = b""
        try:
            self._parser.Parse(b"", True)
        except _NOT_XML:
            raise UnreadableSource(self._name, f"ends in the middle, after record {self._number}") from None

    def take(self) -> Taken:
        """Return what was found; a record that is still open waits for its children."""
        numbers, records, manual, beats, others = (
            self._numbers, self._records, self._manual, self._beats, self._others
        )  # fmt: skip
        self._start_anew()
        last = self._number
        if self._open:
            last = numbers[-1] - 1
            self._numbers, self._records = [numbers.pop()], [records.pop()]
            self._manual = {number for number in manual if number > last}
            self._beats = [beat for beat in beats if beat[0] > last]
            manual, beats = manual - self._manual, [beat for beat in beats if beat[0] <= last]
        count, self._covered = last - self._covered, last
        return Taken(numbers, records, manual, beats, others, count)

    def _read(self, stretch: bytes) -> None:
        """Take in what begins with a record and ends before another one."""
        may_be_plain = self._plain and self._depth > 0 and not self._open
        records = _whole_records(stretch) if may_be_plain else None
        if records is None:
            self._parse(stretch)
            return
        self._numbers += range(self._number + 1, self._number + len(records) + 1)
        self._number += len(records)
        self._records += records

    def _parse(self, part: bytes) -> None:
        for begin in range(0, len(part), CHUNK):
            piece = part[begin : begin + CHUNK]
            try:
                self._parser.Parse(piece, False)
            except _NOT_XML:
                raise UnreadableSource(self._name, f"not XML after record {self._number}") from None
            self._fed += len(piece)
            self._position = max(self._position, self._parser.CurrentByteIndex)
            if self._fed - self._position > MAX_TOKEN:
                raise UnreadableSource(self._name, "an element without an end")
        looked_at = self._tail + part
        if self._fed == len(part):  # the beginning, with its <?xml
            looked_at = part[max(0, part.find(b"<HealthData")) :]
        self._tail = part[-1:] or self._tail
        self._plain = self._plain and b"<!" not in looked_at and b"<?" not in looked_at

    def _refuse(self, *_: object) -> int:
        raise UnreadableSource(self._name, "declares XML entities, as no phone does: refused")

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if element == "Record":
            self._number += 1
            self._open = True
            self._numbers.append(self._number)
            self._records.append(_record(attributes))
        elif element == "MetadataEntry":
            if attributes.get("key") == _BY_HAND and attributes.get("value") == "1":
                self._manual.add(self._number)
        elif element == "InstantaneousBeatsPerMinute":
            self._number += 1
            of = self._records[-1] if self._open else _NO_RECORD
            self._beats.append((self._number, attributes.get("bpm", ""), attributes.get("time", ""), of))
        elif element in _OTHER:
            self._number += 1
            self._others.append(self._number)

    def _end(self, element: str) -> None:
        self._depth -= 1
        if element == "Record":
            self._open = False


def _record(attributes: dict[str, str]) -> Record:
    def written(name: str) -> bytes:
        return attributes.get(name, "").replace("&", "&amp;").encode()

    value = written("value")
    return (
        written("type"),
        written("sourceName"),
        written("device"),
        written("unit"),
        written("creationDate"),
        written("startDate"),
        written("endDate"),
        value if value or "value" not in attributes else b" ",
    )


def _whole_records(stretch: bytes) -> list[Record] | None:
    """Return the records of a stretch that holds nothing else; None if it may hold anything else."""
    if _BY_HAND.encode() in stretch or any(sign in stretch for sign in _NO_CHARACTERS):
        return None
    if not stretch.isascii():
        try:
            stretch.decode()
        except UnicodeDecodeError:
            return None
    found: list[Record] = _RECORD.findall(stretch)
    # A match ends where a record begins, or at the end: as many as begin are all there is.
    return found if len(found) == stretch.count(_BEGIN) else None


def said(text: str) -> str:
    """Return a text with its entities resolved.

    >>> said("mmol&lt;180.1558800000541&gt;/L")
    'mmol<180.1558800000541>/L'
    """
    for entity, sign in _ENTITIES.items():  # "&amp;" last
        text = text.replace(entity, sign)
    return text
