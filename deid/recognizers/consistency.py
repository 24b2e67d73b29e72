"""A name, a place or a number found once in a text is found everywhere in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cache

from deid.lexicon.lists import read_list
from deid.recognizers.page import Page
from deid.spans import DIRECT, Category, Span

SURE = 0.75  # a finding less sure than this vouches for no other
MIN_LETTERS = 3
PLACED = frozenset((Category.ADDRESS, Category.HOSPITAL, Category.ORGANIZATION))
CODE_BEHIND = re.compile(r"[ ]?[-–,]?[ ]?[1-9]\d{2}[ ]?\d{3}(?![\w-])")  # of India
NUMBER_BEFORE = re.compile(
    r"(?<!\w)(?:H\.?[ ]?No|House No|Door No|D\.?[ ]?No|Plot(?: No)?|Flat(?: No)?|Apt|No)\.?[ ]?#?\Z"
)
WHOLE = DIRECT | {Category.HOSPITAL, Category.ADDRESS, Category.ORGANIZATION}


GAP_CHARACTERS = 45  # a line of an address
SMALL_WORDS = frozenset(
    [
        "de",
        "la",
        "del",
        "van",
        "von",
        "der",
        "den",
        "el",
        "al",
        "le",
        "les",
        "du",
        "di",
        "da",
        "do",
        "dos",
        "das",
        "y",
        "i",
        "og",
        "og",
        "nad",
        "pod",
        "am",
        "an",
        "im",
        "sur",
        "en",
        "bei",
        "st",
    ]
)


def address_gaps(page: Page, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield what stands between two parts of one address: words with capitals and numbers, a line at most."""
    places = [span for span in spans if span.category is Category.ADDRESS]
    for before, after in itertools.pairwise(places):
        between = page.text[before.end : after.start]
        if not 0 < len(between) <= GAP_CHARACTERS or re.search(r"[:;?!()\"“]|\n\s*\n", between):
            continue
        words = re.findall(r"[^\W_]+", between)
        if words and all(not word[0].islower() or word in SMALL_WORDS for word in words):
            yield Span(before.end, after.start, Category.ADDRESS, 0.7, "between")


def whole_places(page: Page, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the places of the list of which a part was found: "Stoke-on-Trent", "Truth or Consequences"; and the
    number of a house or a code of the post that an address begins or ends with."""
    text = page.text
    small = text.lower().replace("-", " ")
    for span in spans:
        if span.category not in PLACED:
            continue
        found = page.tokens(span.start, span.end)
        for place in range(max(found.start - 3, 0), found.stop):
            start = page.starts[place]
            for entry in _long_places().get(small[start : page.ends[place]], ()):
                end = start + len(entry)
                if (
                    end > span.start
                    and (start < span.start or end > span.end)
                    and small.startswith(entry, start)
                    and not text[end : end + 1].isalnum()
                ):
                    yield Span(start, end, span.category, 0.7, "between")
        if span.category is Category.ADDRESS:
            code, number = (
                CODE_BEHIND.match(text, span.end),
                NUMBER_BEFORE.search(text[max(span.start - 12, 0) : span.start]),
            )
            if code is not None and text[span.end - 1].isalpha():
                yield Span(span.end, code.end(), Category.ADDRESS, 0.7, "between")
            if number is not None and text[span.start].isdigit():
                yield Span(span.start - len(number.group()), span.start, Category.ADDRESS, 0.7, "between")


@cache
def _long_places() -> dict[str, tuple[str, ...]]:
    """Return places of more than one word by their first."""
    found: dict[str, list[str]] = {}
    for name in read_list("places"):
        small = name.lower().replace("-", " ")
        first = re.match(r"[^\W\d_]+", small)
        if first is not None and first.group() != small and len(small) == len(name):
            found.setdefault(first.group(), []).append(small)
    return {first: tuple(names) for first, names in found.items()}


def repeated(page: Page, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the other places of what was found: whole findings, and each word of a person's name."""
    text = page.text
    words, whole = _vouched(text, spans)
    covered = bytearray(len(text))
    for span in spans:
        covered[span.start : span.end] = b"\x01" * (span.end - span.start)
    for start, end in zip(page.starts, page.ends, strict=True):
        if covered[start] or end - start < MIN_LETTERS or not words:
            continue
        word = text[start:end]
        if word in words and not _ordinary(word, text, start):
            yield Span(start, end, Category.NAME, 0.8, "again")
    for piece, category in whole.items():
        for start in _places(text, piece):
            if not covered[start]:
                yield Span(start, start + len(piece), category, 0.8, "again")


def _vouched(text: str, spans: Sequence[Span]) -> tuple[set[str], dict[str, Category]]:
    """Return the words of names, and other findings as a whole, that were found for sure."""
    words: set[str] = set()
    whole: dict[str, Category] = {}
    for span in spans:
        piece = text[span.start : span.end].strip()
        if span.score < SURE or len(piece) < MIN_LETTERS:
            continue
        if span.category is Category.NAME:
            for part in re.findall(r"[^\W\d_]{3,}", piece):
                words |= {part, part.title() if part.isupper() or part.islower() else part.upper()}
        elif span.category in WHOLE and (any(c.isdigit() for c in piece) or piece[:1].isupper()):
            whole[piece] = span.category
    return words, whole


def _places(text: str, piece: str) -> Iterator[int]:
    """Yield where a piece stands by itself; none for a short one or an English word."""
    if len(piece) < 4 or (piece.isalpha() and piece.lower() in _english()):
        return
    at = text.find(piece)
    while at >= 0:
        end = at + len(piece)
        inside = (at and text[at - 1].isalnum() and piece[0].isalnum()) or text[end : end + 1].isalnum()
        if not inside:
            yield at
        at = text.find(piece, end)


def _ordinary(word: str, text: str, start: int) -> bool:
    """Say whether a word is rather the English one than the name: it is written small, or begins a sentence."""
    if word.lower() not in _english():
        return False
    if not word[0].isupper():
        return True
    before = text[max(start - 3, 0) : start].rstrip(" ")
    return not before or before[-1] in ".!?:\n-•*|" or word.isupper()


@cache
def _english() -> frozenset[str]:
    return frozenset(read_list("words"))
