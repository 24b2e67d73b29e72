"""Files of HL7 v2 messages, cut into records: one message or many, in batches, in MLLP frames, any line end.

Every byte that is not white space belongs to a record, to a frame or to a batch's envelope (FHS, BHS, BTS,
FTS). Memory is bounded by MAX_MESSAGE, not by the file. MAX_MESSAGE is for PDF documents in base64 and is
what the MLLP listener takes too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from node.ingest.readers import hl7v2_reasons as reasons

MAX_MESSAGE = 16 << 20
CHUNK = 1 << 20
START, END = b"\x0b", b"\x1c"  # MLLP: <VT> message <FS><CR>
BEGIN = re.compile(rb"[\r\n\x0b\x1c\xbf][ \t]*(?=MSH|FHS|BHS|BTS|FTS)")  # BF ends a byte order mark
EDGE = b"\x0b\x1c\r\n\t \xef\xbb\xbf"
LOOK_BACK = 8  # bytes that may belong to a begin which the next chunk completes
ENVELOPE = (b"FHS", b"BHS", b"FTS")
TAGS = (*ENVELOPE, b"BTS")
ENDED = re.compile(rb"[\r\n]\s*\S")  # an envelope is a line: what follows it there is no part of it
COUNT = re.compile(rb"BTS([^A-Za-z0-9\s])\s*([0-9]{1,9})\s*(?:\1|[\r\n]|\Z)")


@dataclass(frozen=True, slots=True)
class Piece:
    """One record as it stands in the file. `problem` is why it cannot be one; then `data` is empty."""

    data: bytes
    end: int
    problem: str = ""


def pieces(stream: BinaryIO, *, max_message: int = MAX_MESSAGE) -> Iterator[Piece]:
    """Yield the records of a file in order."""
    in_batch: int | None = None
    for data, end, whole in _cut(stream, max_message):
        if not whole:
            yield Piece(b"", end, reasons.TOO_LARGE)
            in_batch = None if in_batch is None else in_batch + 1
            continue
        message, _, rest = data.partition(END)
        message, rest = message.strip(EDGE), rest.strip(EDGE)
        name = message[:3]
        if name == b"MSH":
            in_batch = None if in_batch is None else in_batch + 1
            yield Piece(message, end)
        elif name == b"BTS":
            found = COUNT.match(message)
            if found and in_batch is not None and int(found[2]) != in_batch:
                yield Piece(b"", end, reasons.BATCH_COUNT)
            in_batch = None
        elif name == b"BHS":
            in_batch = 0
        elif message and name not in ENVELOPE:
            yield Piece(b"", end, reasons.NOT_A_MESSAGE)
        if rest or (name != b"MSH" and name in TAGS and ENDED.search(message)):
            yield Piece(b"", end, reasons.NOT_A_MESSAGE)


def _cut(stream: BinaryIO, max_message: int) -> Iterator[tuple[bytes, int, bool]]:
    """Yield what stands between two begins, its end in the file, and whether it is whole or was too long."""
    held, base, scanned, too_long = bytearray(), 0, 0, False
    while chunk := stream.read(CHUNK):
        held += chunk
        last = 0
        for found in BEGIN.finditer(held, max(scanned - LOOK_BACK, 0)):
            at = found.end()
            if too_long or at - last > max_message:
                yield b"", base + at, False
            elif (piece := bytes(held[last:at])).strip(EDGE):
                yield piece, base + at, True
            too_long = False
            last = at
        if last:
            del held[:last]
            base += last
        if len(held) > max_message:
            drop = len(held) - 2 * LOOK_BACK
            del held[:drop]
            base += drop
            too_long = True
        scanned = len(held)
    if too_long or len(held) > max_message:
        yield b"", base + len(held), False
    elif bytes(held).strip(EDGE):
        yield bytes(held), base + len(held), True
