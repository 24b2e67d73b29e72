"""Diseases, signs, devices, braces and media that are called after somebody, a place or a maker."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deid.lexicon.lists import folded
from deid.recognizers.terms import WORDS, Terms
from deid.spans import Category, Span
from deid.tagger import WELL_KNOWN_NAME

GRADED = re.compile(  # "Hawkins III", "Fisher 3", "Wagner 2B"
    r"[ ](?:(?-i:I{1,3}|IV|V)[ABab]?|[0-6][ABab]?)(?![\w/])(?![ ]?(?:mg|mcg|tab|x\b))"
)
SET_UP = re.compile(
    r"[ ](?:to (?:gravity|suction|bulb)|in (?:place|situ)|d/c|dc'?d\b|out\b|flush|drain|patent|care\b|secured|clamped|balloon)",
    re.IGNORECASE,
)
FOUND_SO = re.compile(r"(?:['’]s)?\)?:?[ ]")  # between the name and what was found: "Patrick) neg"
RULED_OUT = re.compile(
    r"(?:\br/o|\bh/o|\bw/o|\bhx(?: of)?|\bhistory of|\bc/w|\bs/p|\bknown)[ ]\Z", re.IGNORECASE
)
JOINED_BEFORE = re.compile(r"(?:[^\W\d_]+-){1,2}\Z")
JOINED_BEHIND = re.compile(r"(?:-[^\W\d_]+){0,2}")


def product(text: str, span: Span, words: Sequence[str], terms: Terms) -> bool:
    """Say whether a contrast medium or a maker of devices stands there."""
    return (
        (all(word in terms.products for word in words) and span.category is not Category.NAME)
        or (
            len(words) == 1
            and words[0] in terms.products
            and not terms.lists.get(words[0], 0) & WELL_KNOWN_NAME
        )
        or (" ".join(words) in ("st jude", "boston scientific"))
    )


def placed_term(text: str, span: Span, piece: str, words: Sequence[str], terms: Terms) -> bool:
    """Say whether a place stands there in the name of a brace, a scale, a germ: "Milwaukee brace"."""
    following = [folded(word) for word in WORDS.findall(text[span.end : span.end + 24])][:1]
    return (words[-1] in terms.place_heads and len(words) > 1) or (
        bool(following)
        and following[0] in terms.place_heads
        and text[span.end : span.end + 1] == " "
        and "," not in piece
    )


def eponym(text: str, span: Span, piece: str, words: Sequence[str], terms: Terms) -> bool:
    """Say whether a disease, sign or device stands there that has its name from somebody."""
    if "-" in text[max(span.start - 1, 0) : span.end + 1]:
        low = max(span.start - 30, 0)
        before, behind = JOINED_BEFORE.search(text, low, span.start), JOINED_BEHIND.match(text, span.end)
        whole = f"{before.group() if before else ''}{piece}{behind.group() if behind else ''}"
        if folded(whole) in terms.pairs:
            return True
    if words[-1] in terms.heads and all(word in terms.eponyms or word in terms.heads for word in words):
        return True
    if span.category is Category.HOSPITAL or not all(word in terms.eponyms for word in words):
        return False
    if len(words) > 1 and "-" in piece:
        return True  # Guillain-Barré: nobody is called after both
    after_history = RULED_OUT.search(text[max(span.start - 12, 0) : span.start])
    if after_history and text[span.end : span.end + 1] in ("'", "’"):
        return True
    return _headed(text, span, words, terms) or (
        len(words) == 1
        and not addressed(text, span.start)
        and (
            _graded(text, span, terms)
            or (span.found_by != "again" and not terms.lists.get(words[0], 0) & WELL_KNOWN_NAME)
        )
    )


def _headed(text: str, span: Span, words: Sequence[str], terms: Terms) -> bool:
    """Say whether the word behind makes an eponym of a name: "disease", "sign", the other half of a pair."""
    following = [folded(word) for word in WORDS.findall(text[span.end : span.end + 32]) if len(word) > 1]
    if not following:
        return False
    return (
        following[0] in terms.heads
        or f"{words[-1]}-{following[0]}" in terms.pairs
        or (following[0] in terms.eponyms and len(following) > 1 and following[1] in terms.heads)
    )


def _graded(text: str, span: Span, terms: Terms) -> bool:
    """Say whether a grade, a finding or what becomes of a device stands behind: "III", "neg", "to gravity"."""
    if GRADED.match(text, span.end) or SET_UP.match(text, span.end):
        return True
    found = FOUND_SO.match(text, span.end)
    finding = WORDS.match(text, found.end()) if found else None
    return text[span.end : span.end + 2] in (" +", " -") or (
        finding is not None and folded(finding.group()) in terms.grades
    )


def addressed(text: str, start: int) -> bool:
    """Say whether a title or a label stands before."""
    return (
        re.search(
            r"(?:\b(?:Mr|Mrs|Ms|Dr|Drs|Prof|Miss|Nurse)\.?|:|by)\s*\Z", text[max(start - 12, 0) : start]
        )
        is not None
    )
