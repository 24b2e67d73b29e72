"""What looks like identity and is none is let go: terms of medicine, numbers of no person, everyday words that the
tagger took for a name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deid.lexicon.lists import folded
from deid.recognizers.eponyms import addressed, eponym, placed_term, product
from deid.recognizers.page import Page
from deid.recognizers.terms import WORDS, Terms, terms_of
from deid.recognizers.values import HOUR, numbered_term
from deid.spans import DIRECT, Category, Span
from deid.tagger import ENGLISH_WORD, GIVEN_NAME, NAME_OR_PLACE, WELL_KNOWN_NAME

NAMED = frozenset((Category.NAME, Category.HOSPITAL, Category.ORGANIZATION, Category.ADDRESS))
NUMBERED = frozenset((*DIRECT, Category.DATE, Category.AGE))
FOUND_BY_LIKENESS = frozenset(("tagger", "again", "list", "degree", "shape", "date", "label", "address"))
SHORT_WORD = 5  # letters of what in capitals is rather a short form than a name
OF_THE_CALENDAR = re.compile(  # "the last Sunday before Labor Day": of every year
    r"\b(?:first|second|third|fourth|last) \w+day (?:before|after|of|in) \Z", re.IGNORECASE
)
NTH = re.compile(r"\b(?:first|second|third|fourth|last) \Z", re.IGNORECASE)
OF_A_DAY = re.compile(r" (?:before|after|of|in) ", re.IGNORECASE)
ON_A_DAY = re.compile(
    r"\b(?:on|here|this|next|last|by|until|til|since|every|coming|seen)[ ]\Z", re.IGNORECASE
)
IN_A_PLACE = re.compile(r"\b(?:in|from|to|near|of|at)[ ]\Z|,[ ]\Z")
SEX_AND_AGE = re.compile(r"\d{1,3}\s?[MFmf]")
SPACED = re.compile(r"[^\W\d_](?: [^\W\d_])+")
SURE_OF_PLACE = 0.9  # of the tagger, that an English word after "in" is a place
HARDLY_SURE = 0.8  # up to here a word that is somebody's family name, too, is the word
LESS_SURE = 0.97  # up to here an ordinary word that the tagger takes for a name is taken for the word
PERSON_BEFORE = re.compile(
    r"(?:\b(?:dr|drs|mr|mrs|ms|miss|nurse|name|wife|husband|hubby|dtr|dtrs|daughter|son|mom|dad|mum|mother|father|sister|"
    r"brother|niece|nephew|aunt|uncle|cousin|friend|neighbor|gf|bf|girlfriend|boyfriend|partner|rn|by|per|w|with|call|tell|ask)"
    r"\.?|[:&@])[ ]?\Z",
    re.IGNORECASE,
)
TITLE_OR_LABEL = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Drs|Prof|Miss|Nurse)\.?|:)\s*\Z")


def without_terms(page: Page, spans: Sequence[Span]) -> list[Span]:
    """Return the spans less those that are terms of medicine or numbers of no person. Never drops what is known."""
    return [span for span in spans if span.found_by not in FOUND_BY_LIKENESS or not _term(page, span)]


def _term(page: Page, span: Span) -> bool:
    tables = terms_of(page.language)
    piece = page.text[span.start : span.end]
    if span.found_by == "tagger" and _misshapen(span.category, piece):
        return True
    if span.category in NAMED:
        return _named_term(page.text, span, piece, tables)
    if (
        span.category is Category.DATE
        and span.found_by in ("tagger", "again", "date")
        and not any(c.isdigit() for c in piece)
    ):
        words = [folded(word) for word in WORDS.findall(piece)]
        if OF_THE_CALENDAR.search(page.text[max(span.start - 30, 0) : span.start]) or (
            NTH.search(page.text[max(span.start - 12, 0) : span.start])
            and OF_A_DAY.match(page.text, span.end)
        ):
            return True
        if span.found_by == "date":
            return False
        if piece in ("sun", "sat") and ON_A_DAY.search(page.text[max(span.start - 10, 0) : span.start]):
            return False
        return not any(word in tables.calendar for word in words) or piece in (
            "may",
            "mar",
            "sun",
            "sat",
            "May I",
            "fall",
        )
    if span.category in NUMBERED:
        return numbered_term(page.text, span, piece, tables)
    return False


def _misshapen(category: Category, piece: str) -> bool:
    """Say whether a piece cannot be what the tagger takes it for."""
    digits = sum(c.isdigit() for c in piece)
    if category is Category.EMAIL:
        return "@" not in piece and "." not in piece
    if category in (Category.URL, Category.IP):
        return ("." not in piece and ":" not in piece) or (
            category is Category.IP and piece.count(".") < 2 and piece.count(":") < 2
        )
    if category is Category.NAME:
        return digits > 0 and not any(c.isalpha() for c in piece)
    if category is Category.PHONE:
        return digits < 4
    if category is Category.DATE:
        return piece.isdecimal() and len(piece) < 3
    return category in DIRECT and (digits == 0 or len(piece) < 3 or SEX_AND_AGE.fullmatch(piece) is not None)


def _named_term(text: str, span: Span, piece: str, tables: Terms) -> bool:
    written = [word for word in WORDS.findall(piece) if len(word) > 1]
    words = [folded(word) for word in written]
    if not words:
        return _wordless_term(span, piece)
    if all(word in tables.drugs or word in tables.never for word in words):
        return True
    if span.found_by == "tagger" and all(word in tables.labels for word in words):
        return not addressed(text, span.start)
    if span.found_by == "tagger" and (
        product(text, span, words, tables) or placed_term(text, span, piece, words, tables)
    ):
        return True
    short = _short_form(text, span, written, tables)
    if short is not None:
        return short
    if all(word in tables.clinical and not tables.lists.get(word, 0) & WELL_KNOWN_NAME for word in words):
        return True
    if eponym(text, span, piece, words, tables):
        return True
    return (
        span.found_by == "tagger"
        and not any(c.isdigit() for c in piece)
        and _ordinary(text, span, written, words, tables)
    )


def _wordless_term(span: Span, piece: str) -> bool:
    """Say whether a name without a word is none: "N A M E:", an hour taken for the number of a house."""
    if span.found_by == "tagger" and (
        SPACED.fullmatch(piece) or (span.category is Category.ADDRESS and HOUR.fullmatch(piece.strip()))
    ):
        return True
    return len(piece) < 3 and (span.category is not Category.ADDRESS or span.found_by == "tagger")


def _short_form(text: str, span: Span, written: Sequence[str], tables: Terms) -> bool | None:
    """Say whether short forms or kinds of places stand there that are nobody, None if other words do."""
    if (
        span.category is Category.HOSPITAL
        and span.found_by == "tagger"
        and all(folded(word) in tables.kinds_of_place for word in written)
    ):
        return True  # "outpt clinic": any
    if span.found_by == "tagger" and all(word in tables.short for word in written):
        return TITLE_OR_LABEL.search(text[max(span.start - 12, 0) : span.start]) is None
    if (
        span.found_by in ("tagger", "again")
        and all(word in tables.shorthand for word in written)
        and not _beside_person(text, span.start)
    ):
        return True
    return None


def _ordinary(text: str, span: Span, written: Sequence[str], words: Sequence[str], tables: Terms) -> bool:
    """Say whether the tagger took everyday words for a name: small letters in a line that has capitals, or one
    English word that hardly anyone is called, found without certainty."""
    if all(word.islower() for word in written):
        if any(tables.lists.get(word, 0) & ENGLISH_WORD for word in words) or not any(
            tables.lists.get(word, 0) & NAME_OR_PLACE for word in words
        ):
            if _beside_person(text, span.start):
                return False
            start = text.rfind("\n", 0, span.start) + 1
            end = text.find("\n", span.end)
            return not text[start : end if end >= 0 else len(text)].islower() or all(
                tables.lists.get(word, 0) & ENGLISH_WORD and not tables.lists.get(word, 0) & NAME_OR_PLACE
                for word in words
            )
        return span.score < LESS_SURE and not text[: span.end + 200].islower()
    if (
        len(words) == 1
        and tables.lists.get(words[0], 0) & ENGLISH_WORD
        and not tables.lists.get(words[0], 0) & NAME_OR_PLACE
        and text[max(span.start - 2, 0) : span.start] in (". ", "; ")
    ):
        return True  # it has its capital from the sentence that it begins
    if len(words) > 1 or span.score > LESS_SURE or addressed(text, span.start):
        return False
    if (
        written[0].isupper()
        and len(written[0]) <= SHORT_WORD
        and not tables.lists.get(words[0], 0) & NAME_OR_PLACE
        and not _in_capitals(text, span)
    ):
        return True
    if (
        span.category is Category.ADDRESS
        and span.score > SURE_OF_PLACE
        and tables.lists.get(words[0], 0) & NAME_OR_PLACE
        and written[0][0].isupper()
        and IN_A_PLACE.search(text[max(span.start - 6, 0) : span.start])
    ):
        return False
    lists = tables.lists.get(words[0], 0)
    if not lists & ENGLISH_WORD:
        return False
    if not lists & WELL_KNOWN_NAME:
        return True
    # a family name that is a word stands alone after a title; a given name may elsewhere
    return span.category is Category.NAME and not lists & GIVEN_NAME and span.score < HARDLY_SURE


def _in_capitals(text: str, span: Span) -> bool:
    """Say whether the line is all in capitals."""
    start = text.rfind("\n", 0, span.start) + 1
    end = text.find("\n", span.end)
    return text[start : end if end >= 0 else len(text)].isupper()


def _beside_person(text: str, start: int) -> bool:
    """Say whether a word stands before that names follow in small letters, too."""
    return PERSON_BEFORE.search(text[max(start - 14, 0) : start]) is not None
