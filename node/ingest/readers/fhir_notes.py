"""Attachments as text: decoded within limits, or turned away with a reason. The text may hold identity."""

from __future__ import annotations

import binascii
import re
from codecs import lookup
from html import unescape

from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import Attachment

MAX_BYTES = 4 << 20  # a note of 4 MiB is 700,000 words; more is not a note
TEXT_ENCODINGS = {"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16"}  # of clinical systems
SPACES = re.compile(r"[ \t\r\n]+", re.ASCII)
NAME = re.compile(r"/?[a-z][a-z0-9]*", re.IGNORECASE | re.ASCII)
BLANK_LINES = re.compile(r"\n[ \t\r]*(?:\n[ \t\r]*)+")
LINE_BREAKING = {"p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol"}


class BadAttachment(Exception):
    """An attachment that gives no text; `reason` is one of fhir_reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def text_of(attachment: Attachment) -> str:
    """Return an attachment's text. Plain text stays as it is, HTML loses its tags.

    Raises: BadAttachment.
    """
    if not attachment.data:
        raise BadAttachment(reasons.ATTACHMENT_ELSEWHERE if attachment.url else reasons.NO_CONTENT)
    kind, _, parameters = (attachment.contentType or "text/plain").lower().partition(";")
    kind = kind.strip()
    if kind not in ("text/plain", "text/html", "text/markdown"):
        raise BadAttachment(reasons.ATTACHMENT_TYPE)
    if len(attachment.data) > MAX_BYTES // 3 * 4 + 1024:
        raise BadAttachment(reasons.TOO_LARGE)
    try:
        data = binascii.a2b_base64(SPACES.sub("", attachment.data).encode("ascii"), strict_mode=True)
        text = data.decode(_encoding(parameters))
    except ValueError:  # also binascii.Error and UnicodeError, whose words would hold content
        raise BadAttachment(reasons.BAD_ATTACHMENT) from None
    text = text.removeprefix("\ufeff").replace("\0", "")
    text = without_tags(text) if kind == "text/html" else text
    if not text.strip():
        raise BadAttachment(reasons.NO_CONTENT)
    return text


def _encoding(parameters: str) -> str:
    """Return the encoding that a content type names. Raises: ValueError for one that notes do not have."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            try:
                found = lookup(value.strip().strip('"')).name
            except LookupError:
                raise ValueError("encoding") from None
            if found not in TEXT_ENCODINGS:
                raise ValueError("encoding")
            return found
    return "utf-8"


def without_tags(text: str) -> str:
    """Return what a reader of the page sees, blocks on lines of their own.

    One pass that knows nothing of HTML's grammar: no page, however broken, takes more than linear time.
    """
    first, *rest = text.split("<")
    parts, hidden = [first], False
    for piece in rest:
        tag, closed, words = piece.partition(">")
        name = (NAME.match(tag) or [""])[0].lower()
        if not closed or not name:  # "a < b", or a comment
            words = words if tag.startswith("!--") else f"<{piece}"
        elif name.lstrip("/") in ("script", "style"):
            hidden = not name.startswith("/")
        elif name.lstrip("/") in LINE_BREAKING:
            parts.append("\n")
        if not hidden:
            parts.append(words)
    return BLANK_LINES.sub("\n\n", unescape("".join(parts))).strip()
