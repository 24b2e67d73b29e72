"""multipart/related (RFC 2387) over the bytes of a file: the parts as places in it, nothing copied."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

MAX_BOUNDARY = 70  # RFC 2046
MAX_HEADERS = 8192  # bytes of the headers of one part
MAX_PARTS = 10_000


class MalformedParts(ValueError):
    """The body is not what its content type says."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` up to, not including, `end`; the media type in small letters, without parameters."""

    media_type: str
    start: int
    end: int


def boundary_of(content_type: str) -> tuple[str, bytes]:
    """Return the `type` parameter and the boundary of a multipart/related. Raises: MalformedParts."""
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/related":
        raise MalformedParts("not multipart/related")
    boundary = message.get_param("boundary")
    kind = message.get_param("type")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= MAX_BOUNDARY or not boundary.isascii():
        raise MalformedParts("no boundary")
    return (kind if isinstance(kind, str) else "").lower(), boundary.encode("ascii")


def parts(body: mmap.mmap | bytes, boundary: bytes) -> Iterator[Part]:
    """Yield the parts in order. Raises: MalformedParts, also if the last boundary is missing."""
    delimiter = b"--" + boundary
    place = body.find(delimiter)
    if place < 0 or (place > 0 and body[place - 2 : place] != b"\r\n"):
        raise MalformedParts("no boundary in the body")
    for _ in range(MAX_PARTS):
        place += len(delimiter)
        if body[place : place + 2] == b"--":
            return
        line_end = body.find(b"\r\n", place)
        if line_end < 0 or body[place:line_end].strip():
            raise MalformedParts("a boundary without a line's end")
        blank = body.find(b"\r\n\r\n", line_end, line_end + MAX_HEADERS)
        if blank < 0:
            raise MalformedParts("headers without an end")
        following = body.find(b"\r\n" + delimiter, blank + 2)
        if following < 0:
            raise MalformedParts("cut off")
        yield Part(_media_type(body[line_end + 2 : blank]), blank + 4, max(following, blank + 4))
        place = following + 2
    raise MalformedParts("too many parts")


def _media_type(headers: bytes) -> str:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.split(b";")[0].strip().lower().decode("latin-1")
    return ""
