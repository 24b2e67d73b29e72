"""Texts whose accents stand apart, read as if they were one with their letters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from deid.spans import Span

CLUSTER = re.compile(r"[^\W_][̀-ͯ]+")  # a letter and the marks on it


class Composed:
    """A text with each letter and its marks as one character, and the way back to the places of the original.

    >>> whole = Composed("Zoe\\u0308 came")
    >>> whole.text, whole.original(Span(0, 3, "name"))
    ('Zoë came', Span(start=0, end=4, category='name', score=1.0, found_by=''))
    """

    def __init__(self, text: str) -> None:
        self._places: list[int] | None = None
        self.text = text
        if unicodedata.is_normalized("NFC", text):
            return
        pieces: list[str] = []
        places: list[int] = []
        done = 0
        for match in CLUSTER.finditer(text):
            pieces.append(text[done : match.start()])
            places.extend(range(done, match.start()))
            one = unicodedata.normalize("NFC", match.group())
            pieces.append(one)
            # marks that no letter carries stay apart, each where it stood
            places.extend(min(match.start() + n, match.end() - 1) for n in range(len(one)))
            done = match.end()
        pieces.append(text[done:])
        places.extend(range(done, len(text) + 1))
        self.text = "".join(pieces)
        self._places = places

    def original(self, span: Span) -> Span:
        """Return a span of the composed text as one of the original."""
        if self._places is None:
            return span
        return replace(span, start=self._places[span.start], end=self._places[span.end])
