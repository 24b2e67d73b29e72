"""X12 as segments: the delimiters that an interchange announces in its ISA, and a stream of its segments."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

CHUNK_BYTES = 1 << 18
MAX_SEGMENT_CHARS = 1 << 20  # real ones have some hundred
ISA_CHARS = 200  # of 106 that the standard says: some writers do not pad
_BLANK = "\ufeff \t\r\n"


class MalformedInterchange(ValueError):
    """Not X12, or not as its own ISA announces it. The text never quotes it."""


@dataclass(frozen=True, slots=True)
class Delimiters:
    """What parts an interchange."""

    element: str
    component: str
    terminator: str


def delimiters(text: str) -> Delimiters:
    """Return the delimiters of an interchange that begins here.

    Raises: MalformedInterchange if it does not begin with a readable ISA.

    >>> delimiters("ISA*00*   *00*   *ZZ*A    *ZZ*B    *240102*0930*^*00501*000000001*0*T*:~GS")
    Delimiters(element='*', component=':', terminator='~')
    """
    element = text[3:4]
    parts = text[:ISA_CHARS].split(element, 16) if text.startswith("ISA") and element else []
    if len(parts) != 17 or len(parts[16]) < 2:
        raise MalformedInterchange("no ISA of sixteen elements")
    component, terminator = parts[16][0], parts[16][1]
    if parts[16][1:3] == "\r\n":
        terminator = "\n"
    marks = (element, component, terminator)
    if len(set(marks)) != 3 or any(mark.isalnum() or mark == " " for mark in marks):
        raise MalformedInterchange("its ISA announces no usable delimiters")
    return Delimiters(*marks)


@dataclass(slots=True)
class Segments:
    """The segments of a file, which may hold several interchanges. Iterate once."""

    raw: BinaryIO
    marks: Delimiters | None = None
    bytes_done: int = 0
    _text: str = ""
    _ended: bool = False
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def __iter__(self) -> Iterator[list[str]]:
        """Yield each segment as its elements; the first is its name.

        Raises: MalformedInterchange.
        """
        while self._announced():
            yield from self._interchange()

    def _announced(self) -> bool:
        """Read an ISA's delimiters; return False at the end of the file."""
        while True:
            self._text = self._text.lstrip(_BLANK)
            if len(self._text) >= ISA_CHARS or not self._more():
                break
        self._text = self._text.lstrip(_BLANK)
        if not self._text:
            return False
        self.marks = delimiters(self._text)
        return True

    def _interchange(self) -> Iterator[list[str]]:
        assert self.marks is not None
        element, terminator = self.marks.element, self.marks.terminator
        while True:
            pieces = self._text.split(terminator)
            self._text = pieces.pop()
            for place, piece in enumerate(pieces):
                elements = piece.lstrip(_BLANK).split(element)
                if elements[0]:
                    yield elements
                if elements[0] == "IEA":
                    self._text = terminator.join([*pieces[place + 1 :], self._text])
                    return
            if len(self._text) > MAX_SEGMENT_CHARS:
                raise MalformedInterchange("a segment without an end")
            if not self._more():
                if self._text.strip(_BLANK):
                    yield ["", ""]  # a segment cut off: whoever waits for its end never sees it
                self._text = ""
                return

    def _more(self) -> bool:
        if self._ended:
            return False
        chunk = self.raw.read(CHUNK_BYTES)
        self.bytes_done += len(chunk)
        self._ended = not chunk
        self._text += self._decoder.decode(chunk, final=self._ended)
        return not self._ended
