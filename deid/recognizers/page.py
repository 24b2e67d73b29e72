"""A text as recognizers read it: its characters, its tokens, and what the tagger thinks of each token."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

from presidio_analyzer.nlp_engine import NlpArtifacts

from deid.lexicon.language import Language
from deid.tagger import Floats


@dataclass
class Page:
    """One text. `scores` has a row for each token and a column for each class of the tagger; None without a tagger."""

    text: str
    language: Language
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    scores: Floats | None = None

    def __repr__(self) -> str:
        return f"Page(<{len(self.text)} characters>)"

    def word(self, place: int) -> str:
        """Return a token; beyond the ends an empty one."""
        return self.text[self.starts[place] : self.ends[place]] if 0 <= place < len(self.starts) else ""

    def tokens(self, start: int, end: int) -> range:
        """Return the places of the tokens that lie in part or whole between two characters."""
        return range(bisect_right(self.ends, start), bisect_left(self.starts, end))


class Reading(NlpArtifacts):
    """What Presidio hands to its recognizers beside the text: here the page."""

    def __init__(self, page: Page) -> None:
        nothing: Any = []  # no recognizer of ours asks for spaCy's tokens
        super().__init__([], nothing, page.starts, [], None, page.language.code)
        self.page = page
