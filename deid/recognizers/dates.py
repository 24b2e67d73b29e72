"""Dates in the ways notes write them, and ages of ninety and above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from deid.lexicon.language import Language
from deid.recognizers.page import Page
from deid.spans import Category, Span

AGE_FROM = 90  # 45 CFR 164.514(b)(2)(i)(C): ages over 89

NUMERIC = re.compile(
    r"(?<![\w./-])(?:"
    r"(?:0?[1-9]|[12]\d|3[01])([/.-])(?:0?[1-9]|[12]\d|3[01])\1(?:(?:18|19|20)\d\d|\d\d)"
    r"|(?:18|19|20)\d\d([/.-])(?:0?[1-9]|1[0-2])\2(?:0?[1-9]|[12]\d|3[01])"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r")(?![\w/]|[.-]\d)"
)  # fmt: skip


@cache
def _written(language: Language) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    month = rf"(?:{language.either('months')}|(?:{language.either('months_short')})\b\.?)"
    weekday = language.either("weekdays")
    day = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|º|ª)?"
    of = language.either("of") or "of"
    year = r"(?:18|19|20)\d\d"
    full = re.compile(
        rf"(?<![\w-])(?:(?:{weekday})\.?,?\s+)?(?:"
        rf"{month}[\s./-]?\s?{day}(?:\s?,|\s|-|/|\.)\s?(?:{year}|'?\d\d(?![\w:/%.]|\s?(?:mg|ml|year|y)))"
        rf"|(?:the\s+)?{day}[\s.-]?(?:\s?(?:{of})\s)?\s?{month}(?:[\s,./-]{{1,2}}(?:(?:{of})\s)?(?:{year}|'?\d\d(?![\w:/%.]|\s?(?:mg|ml|year|y)|,?\s?\d{{4}}))|{year})"
        rf"|{month},?[\s./-](?:(?:{of})\s)?{year}"
        rf")(?!\w)",
        re.IGNORECASE,
    )
    short = re.compile(
        rf"(?<![\w-])(?:(?:{weekday})\.?,?\s+)?(?:{month}\s{day}(?![\w/%]|\s?(?:mg|ml))|(?:the\s+)?{day}\s(?:(?:{of})\s)?{month}(?!\w))",
        re.IGNORECASE,
    )
    holiday = re.compile(
        rf"(?<![\w-])(?:{language.either('holidays')})(?!\w)(?!\s+(?:disease|factor|tree))", re.IGNORECASE
    )
    return full, short, holiday


def dates(page: Page) -> Iterator[Span]:
    """Yield dates that hold a day or a month with a year, written days of a month, and holidays."""
    for match in NUMERIC.finditer(page.text):
        yield Span(match.start(), match.end(), Category.DATE, 0.9, "date")
    if not page.language.words("months"):
        return
    full, short, holiday = _written(page.language)
    for pattern, score in ((full, 0.95), (short, 0.8), (holiday, 0.7)):
        for match in pattern.finditer(page.text):
            if (
                pattern is short
                and re.match(r"(?:may|mar|sun|sat)\b", match.group(), re.IGNORECASE)
                and match.group()[0].islower()
            ):
                continue  # "may 2 tablets"
            yield Span(match.start(), match.end(), Category.DATE, score, "date")


@cache
def _ages(language: Language) -> re.Pattern[str]:
    words = language.either("ages_spoken") or "(?!)"
    limits = language.either("limits") or "(?!)"
    number = rf"(?:9\d|1[0-3]\d|{words})"
    after = language.either("age_after")
    before = language.either("age_before")
    return re.compile(
        rf"(?<![\w.,/-])(?:(?:{before})(?:\s(?!(?:{limits})\b)[^\W\d_]+){{0,5}}?\s?[:=/|—-]{{0,2}}\s*(?:is|was)?\s*(?P<late>{number})(?![\w%/.]|\s?(?:{language.either('measures')})\b)|(?P<early>{number})[\s-]?(?:{after})(?!\w))",
        re.IGNORECASE,
    )


def great_ages(page: Page) -> Iterator[Span]:
    """Yield ages of ninety and above that stand with a word for age."""
    for match in _ages(page.language).finditer(page.text):
        name = "late" if match.group("late") else "early"
        yield Span(match.start(name), match.end(name), Category.AGE, 0.9, "age")


def is_great(text: str, language: Language) -> bool:
    """Say whether the age in a text is ninety or more; one that is not understood counts as such.

    >>> from deid.lexicon.language import language
    >>> is_great("89-year-old", language("en")), is_great("ninety-one", language("en"))
    (False, True)
    """
    numbers = re.findall(r"\d+", text)
    if numbers:
        return int(numbers[0][:4]) >= AGE_FROM
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    return bool(words & set(language.words("ages_great")))
