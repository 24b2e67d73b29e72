"""Short free text of a field without identity: what a hospital's tables hold as comments and reasons.

The same finder as for notes reads it (`deid.notes`), and a field is held to more: any run of five digits or
more goes, for such a text has no room to say what the number is of.

Guarantee: fails closed. A text that cannot be analysed raises NotRedacted and is not stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from deid.errors import NotRedacted
from deid.lexicon.language import language
from deid.recognizers.known import known_spans
from deid.spans import Category, Known, Span, merged

if TYPE_CHECKING:
    from deid.notes import NoteFinder

LANGUAGE = "en"
MAX_CHARACTERS = 200_000  # a hundred pages: what is longer is no field and no note of one visit

_LONG_NUMBER = re.compile(r"(?<![\d.])\d{5,}(?![.\d])")  # clinical values have fewer digits in a row


class Redactor:
    """The finder with tags in place of what it finds. It opens at the first text, in about three seconds."""

    @cached_property
    def _finder(self) -> NoteFinder:
        from deid.notes import NoteFinder  # loads Presidio and torch, which tables without texts do not need

        return NoteFinder.open(LANGUAGE)

    def redact(self, text: str, known: Sequence[Known] = ()) -> str:
        """Return `text` with each finding replaced by its kind: `[PHONE]`; `known` is of whom it speaks.

        Raises: NotRedacted if it is too long or the analysis fails; the text is in no message.
        """
        if len(text) > MAX_CHARACTERS:
            raise NotRedacted(f"a text field has at most {MAX_CHARACTERS} characters")
        (found,) = self._finder.find([text], known=[known])
        numbers = (Span(m.start(), m.end(), Category.ID, 0.5, "length") for m in _LONG_NUMBER.finditer(text))
        return tagged_text(text, merged([*found, *numbers]))

    def holds(self, text: str, known: Sequence[Known]) -> bool:
        """Return whether anything of what is known of somebody stands in a text."""
        return any(True for _ in known_spans(text, known, language(LANGUAGE)))

    def redact_note(self, text: str, known: Sequence[Known] = ()) -> str:
        """Return a note with each finding replaced by its kind; `known` is what is known of its patient.

        Raises: NotRedacted if it is too long or the analysis fails; the text is in no message.
        """
        (found,) = self._finder.find([text], known=[known])
        return tagged_text(text, found)


def tagged_text(text: str, spans: Sequence[Span]) -> str:
    """Return `text` with each span replaced by its kind.

    >>> tagged_text("call 555-0100", [Span(5, 13, Category.PHONE)])
    'call [PHONE]'
    """
    pieces: list[str] = []
    done = 0
    for span in spans:
        pieces += [text[done : span.start], f"[{span.category.name}]"]
        done = span.end
    return "".join(pieces) + text[done:]
