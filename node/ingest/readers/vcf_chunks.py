"""The lines of a VCF below its header, plain or gzip, some megabytes of whole lines at a time."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

CHUNK = 1 << 22  # bytes of text: a million genotypes at most, and some 60 MB on the way into columns
MAX_LINE = 1 << 28  # bytes: half a million samples with all that callers write about each of them


class Endless(Exception):
    """A line that does not end."""


def chunks(path: Path) -> Iterator[bytes]:
    """Yield whole lines below the header, each chunk ended by a line's end.

    Raises: Endless for a line of more than MAX_LINE; OSError, EOFError, zlib.error for a damaged file.
    """
    with path.open("rb") as raw, _unpacked(raw) as file:
        rest = b""
        in_header = True
        while True:
            more = file.read(CHUNK)
            end = more.rfind(b"\n")
            if more and end < 0:
                rest += more
                if len(rest) > MAX_LINE:
                    raise Endless
                continue
            text = rest + more[: end + 1] if more else rest + b"\n" * bool(rest)
            rest = more[end + 1 :]
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n")
            if in_header:
                text = _below_header(text)
                in_header = not text
            if text:
                yield text
            if not more:
                return


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw


def _below_header(text: bytes) -> bytes:
    """Return what follows the lines with "#"."""
    begin = 0
    while text.startswith(b"#", begin):
        begin = text.find(b"\n", begin) + 1
    return text[begin:]
