"""Addresses below the state: streets with a number, towns before a state and a ZIP code, boxes, military post."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from deid.lexicon.language import Language
from deid.recognizers.names import CAP
from deid.recognizers.page import Page
from deid.spans import Category, Span


@cache
def _patterns(language: Language) -> tuple[tuple[re.Pattern[str], float], ...]:
    def cased(words: list[str]) -> str:
        return "|".join(
            sorted(
                {re.escape(form) for w in words for form in (w.title(), w.upper(), w.capitalize())},
                key=len,
                reverse=True,
            )
        )

    ways = cased(
        [
            w
            for w in language.words("streets")
            if w
            not in (
                "run",
                "rise",
                "view",
                "pass",
                "point",
                "hill",
                "close",
                "heights",
                "bend",
                "green",
                "spur",
            )
        ]
    )
    heads, tails = (
        cased(language.words("street_heads")),
        "|".join(re.escape(w) for w in language.words("street_tails") if len(w) > 3),
    )
    states = "|".join(sorted({re.escape(s) for s in language.words("states")}, key=len, reverse=True))
    short_states = "|".join(s for s in language.words("states") if s.isupper())
    flat = r"(?:,?\s{1,3}(?:Apt|Apartment|Suite|Ste|Unit|Flat|Rm|Floor|Bldg|#|apt|suite|unit|APT|SUITE|UNIT)\.?\s?#?\w{1,6})?"
    code = r"(?:\d{5}(?:-\d{4})?|[A-Z]\d[A-Z]\s?\d[A-Z]\d|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})"
    heading = r"(?:[NSEW]{1,2}\.?\s|(?:North|South|East|West)\s)?"
    town = rf"(?:,?\s{{1,3}}{CAP}(?:[ ]{CAP}){{0,3}},?\s(?:{states}|[A-Z]{{2}})\.?(?:,?\s{{1,3}}{code})?)?"
    return (
        (
            re.compile(
                rf"(?<![\w./-])\d{{1,6}}[A-Za-z]?\s{heading}(?:{CAP}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,4}}(?:{ways})\b\.?{flat}{town}"
            ),
            0.9,
        ),
        (
            re.compile(
                rf"(?<![\w./-])(?:\d{{1,5}},?\s)?(?:{heads})\.?\s(?:[^\W\d_]+[ .-]){{0,4}}{CAP},?\s(?:nº\s?|n\.º\s?|no\.?\s?)?\d{{1,5}}\b"
            ),
            0.85,
        ),
        (re.compile(rf"(?<![\w-])[^\W\d_]+(?:{tails})\s\d{{1,5}}(?:\s?[a-zA-Z])?\b", re.IGNORECASE), 0.85),
        (
            re.compile(
                rf"(?<![\w-]){CAP}(?:[ ]{CAP}){{0,3}},\s(?:{short_states}|{states})\.?,?\s{{1,3}}{code}\b"
            ),
            0.95,
        ),
        (re.compile(rf"\b(?:{short_states})\s\d{{5}}(?:-\d{{4}})?\b"), 0.9),
        (re.compile(r"(?<!\w)(?:P\.?\s?O\.?\s?Box|Post(?:al)?\s?Box)\s#?\d{1,6}\b", re.IGNORECASE), 0.9),
        (
            re.compile(
                r"\b(?:PSC|CMR|Unit)\s\d{1,5},?\sBox\s\d{1,5}\s{1,3}(?:[APFDO]{3}\s(?:AA|AE|AP)\s\d{5})?|\b[AFD]PO,?\s(?:AA|AE|AP)\s\d{5}",
                re.IGNORECASE,
            ),
            0.95,
        ),
        (
            re.compile(
                r"(?<!\w)(?:zip|postal|post)\s?-?(?:code)?\s?(?::|=|is|#)\s?(?P<part>[A-Z]?\d[\w-]{2,8}(?:\s\d[A-Z]{2})?)(?!\w)",
                re.IGNORECASE,
            ),
            0.85,
        ),
        (
            re.compile(
                rf"(?<![\w./-])\d{{1,6}}[A-Za-z]?\s(?:{CAP}\s?|[a-z]{{2,3}}\s){{1,5}}{flat},\s{{1,3}}{CAP}(?:[ ]{CAP}){{0,3}},?\s(?:{short_states}|{states})\.?,?\s{{1,3}}{code}\b"
            ),
            0.95,
        ),
        (
            re.compile(
                rf"\b(?:in|from|of|to|near|at)\s(?P<part>{CAP}(?:[ ]{CAP}){{0,2}},\s(?:{states}))\b(?!\.?\d)"
            ),
            0.8,
        ),
    )


def addresses(page: Page) -> Iterator[Span]:
    """Yield addresses and parts of them."""
    for pattern, score in _patterns(page.language):
        for match in pattern.finditer(page.text):
            group = "part" if "part" in pattern.groupindex else 0
            start = match.start(group)
            yield Span(
                start, start + len(match.group(group).rstrip(" ,")), Category.ADDRESS, score, "address"
            )
