"""Words that the tagger took in at the edges of a name or a place and that are none of it."""

from __future__ import annotations

import re
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded
from deid.recognizers.page import Page
from deid.spans import Category
from deid.tagger import ENGLISH_WORD, NAME_OR_PLACE, membership

LAST = re.compile(r"(?P<gap>[\s,.;:/|()-]{1,5})(?P<word>[^\W_]+)[:.]?\Z")
FIRST = re.compile(r"(?P<word>[^\W_]+)(?P<gap>[\s.;:/|]{1,4})(?=\w)")
NUMBERED_SELF = frozenset(("II", "III", "IV", "JR", "SR"))
LONGEST_SHORT_FORM = 6


@cache
def _never(language: Language) -> tuple[frozenset[str], frozenset[str]]:
    """Return short forms in capitals that are no part of a name, and those in small letters."""
    capitals = {word.upper() for word in (*language.words("abbreviations"), *language.words("credentials"))}
    return frozenset(capitals - NUMBERED_SELF), frozenset(language.words("shorthand"))


def without_strangers(page: Page, start: int, end: int, category: Category) -> tuple[int, int]:
    """Return where a name or a place begins and ends, less short forms in capitals where it has small letters, short
    forms and everyday words in small letters, and words of the sentence before or behind."""
    text = page.text
    while (match := LAST.search(text, start, end)) is not None:
        rest = text[start : match.start()]
        if not _stranger(page, match.group("word"), match.group("gap"), rest, category, behind=True):
            break
        end = match.start()
    while (match := FIRST.match(text, start, end)) is not None:
        rest = text[match.end() : end]
        if not _stranger(page, match.group("word"), match.group("gap"), rest, category, behind=False):
            break
        start = match.end()
    return start, end


def _stranger(page: Page, word: str, gap: str, rest: str, category: Category, *, behind: bool) -> bool:
    if not any(len(part) > 2 for part in re.findall(r"[^\W\d_]+", rest)):
        return False  # the rest would be no name
    capitals, small = _never(page.language)
    lists = membership(page.language).get(folded(word), 0)
    english = bool(lists & ENGLISH_WORD) and not lists & NAME_OR_PLACE
    if len(word) == 1:
        return word.isalpha() and ord(word) > 0x24F  # a lone letter of another script: a text read wrongly
    if category is not Category.NAME:
        return ("." in gap and behind and english and word.istitle() and len(word) > 3) or (
            word.islower() and behind and word in small
        )
    if word in NUMBERED_SELF or not word.isalpha():
        return False
    if word.isupper():
        return (
            _mixed(rest)
            and len(word) <= LONGEST_SHORT_FORM
            and "," not in gap
            and (word in capitals or not lists & NAME_OR_PLACE)
        )
    if word.islower():
        return word in small or (english and behind and (rest[:1].isupper() or len(word) > 3))
    return "." in gap and english and (not behind or len(rest.split()[-1].strip(".,")) > 2)


def _mixed(text: str) -> bool:
    """Say whether a text has capitals and small letters."""
    return not text.isupper() and not text.islower()
