"""Numbers and dates as people say them to a recorder: "five five five, oh one two three", "the third of May"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from deid.lexicon.language import Language
from deid.recognizers.page import Page
from deid.spans import Category, Span

LEAST_DIGITS = 6  # in a row: fewer are counts, doses and spellings
LEAST_AFTER_LABEL = 4
TELEPHONE = (7, 10, 11)  # digits that a telephone number has
REACH = 60  # characters before a number in which its label stands


@dataclass(frozen=True)
class _Spoken:
    digit: re.Pattern[str]
    number: re.Pattern[str]
    label: re.Pattern[str]
    date: re.Pattern[str]


@cache
def _patterns(language: Language) -> _Spoken | None:
    if not language.words("spoken_digits"):
        return None
    digit, teen, ten = (language.either(f"spoken_{name}") for name in ("digits", "teens", "tens"))
    again = language.either("spoken_repeats") or "(?!)"
    one = rf"(?:(?:{again})\s)?(?:{digit})\b"
    gap = r"(?:[\s,.-]{1,3}|\s(?:dash|hyphen|space)\s)"
    month = language.either("months")
    ordinal = rf"(?:{language.either('spoken_ordinals')})\b"
    cardinal = rf"(?:(?:{ten})[\s-](?:{digit})|{ten}|{teen}|{digit})\b"
    counts = language.either("spoken_counts") or "(?!)"
    of, century = language.either("of") or "(?!)", language.either("spoken_centuries")
    year = rf"(?:(?:{century})(?:\s(?:and\s)?(?:{cardinal})){{0,2}}|(?:18|19|20)\d\d)"
    after = rf"(?:,?\s(?:(?:{of})\s)?{year})?"
    return _Spoken(
        re.compile(rf"\b(?:(?P<again>{again})\s)?(?:{digit})\b", re.IGNORECASE),
        re.compile(rf"(?<![\w-]){one}(?:{gap}{one}){{{LEAST_AFTER_LABEL - 1},15}}(?![\w-])", re.IGNORECASE),
        re.compile(
            rf"\b(?:{language.either('label_mrn', 'label_phone', 'label_id', 'label_account', 'label_ssn')})\b",
            re.IGNORECASE,
        ),
        re.compile(
            rf"(?<![\w-])(?:(?:the\s)?{ordinal}\s(?:day\s)?(?:(?:{of})\s)?(?:{month})\b{after}"
            rf"|(?:{month})\s(?:the\s)?{ordinal}{after}"
            rf"|(?:{month})\s{cardinal},?\s{year}"
            rf"|{cardinal}\s(?:slash|stroke)\s{cardinal}(?:\s(?:slash|stroke)\s(?:{year}|{cardinal}(?:\s{cardinal})?))?"
            rf"|(?<=\bin\s)(?:(?:{century})(?:\s(?:and\s)?(?:{cardinal})){{1,2}})\b(?!\s(?:{counts})\b))",
            re.IGNORECASE,
        ),
    )


def spoken(page: Page) -> Iterator[Span]:
    """Yield digits said one by one that make a number of a person, and dates said in words."""
    patterns = _patterns(page.language)
    if patterns is None:
        return
    for match in patterns.date.finditer(page.text):
        if not match.group().isdecimal():
            yield Span(match.start(), match.end(), Category.DATE, 0.85, "spoken")
    for match in patterns.number.finditer(page.text):
        digits = sum(2 if one.group("again") else 1 for one in patterns.digit.finditer(match.group()))
        labels = list(patterns.label.finditer(page.text, max(match.start() - REACH, 0), match.start()))
        if digits >= LEAST_DIGITS or labels:
            kind = Category.PHONE if digits in TELEPHONE and not labels else Category.ID
            yield Span(match.start(), match.end(), kind, 0.85, "spoken")
