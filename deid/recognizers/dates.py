"""Dates in the ways notes write them, and ages of ninety and above."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from deid.lexicon.language import Language
from deid.recognizers.page import Page
from deid.spans import Category, Span

AGE_FROM = 90  # 45 CFR 164.514(b)(2)(i)(C): ages over 89

NUMERIC = re.compile(
    r"(?:(?<![\w./-])|(?<=Date)|(?<=DATE)|(?<=DOB))(?:"
    r"(?:0?[1-9]|[12]\d|3[01])([/.-])(?:0?[1-9]|[12]\d|3[01])\1(?:(?:18|19|20)\d\d|\d\d)"
    r"|(?:18|19|20)\d\d([/.-])(?:0?[1-9]|1[0-2])\2(?:0?[1-9]|[12]\d|3[01])"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|\d{1,2}/0\d\d/(?:19|20)\d\d"
    r")(?:(?=(?:MRN|DOB|SSN|Age|Sex|Acct|Phone|Time))|(?![\w/]|[.-]\d))"
)  # fmt: skip


# a month and a day of which one is written with a zero: no score, no dose, no strength is
PADDED = re.compile(
    r"(?<![\w./,-])(?:0[1-9]/(?:0?[1-9]|[12]\d|3[01])|1[0-2]/0[1-9])(?![\w/%]|[.,-]\d|[ ]?(?:mg|ml|mcg|tab))"
)
# a month and a day above twelve that is nobody's full score: no strength, no pain, no dose has it
UNSCORED = re.compile(
    r"(?<![\w./,:+-])(?<!\d )(?:0?[1-9]|1[0-2])/(?:1[3-9]|2\d|3[01])(?![\w/%+-]|[.,]\d|[ ]?(?:mg|ml|mcg|mm|cm|in\b|inch|"
    r"nodes?|LNs?|lymph|cores?|fractions?|fx\b|positive|pos\b|items|points|correct|visits|sessions|hours|hrs|h\b|cycles?|"
    r"doses|levels|blocks|sections|weeks|wks|wk\b|days|[/]))",
    re.IGNORECASE,
)
DAY_OF_MONTH = r"(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])(?![\w/%-]|\.\d)"
YEARS = re.compile(r"(?<![\w./-])(?:19|20)\d\d[ ]?[-–][ ]?(?:19|20)\d\d(?![\w/-]|\.\d)")
AND_DAY = re.compile(rf"[ ]?(?:and|&|,|-|to|thru|through|or|then)[ ]?(?P<day>{DAY_OF_MONTH})", re.IGNORECASE)
DAY_AND = re.compile(
    rf"(?<![\w./-])(?P<day>{DAY_OF_MONTH})[ ]?(?:and|&|,|-|to|thru|through|or|then)[ ]?\Z", re.IGNORECASE
)


def paired_days(page: Page, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the day beside a found date: "8/18" in "8/18 and 11/7" where the other was found."""
    text = page.text
    for span in spans:
        if span.category is not Category.DATE or "/" not in text[span.start : span.end]:
            continue
        after = AND_DAY.match(text, span.end)
        if after is not None:
            yield Span(after.start("day"), after.end("day"), Category.DATE, 0.75, "date")
        low = max(span.start - 16, 0)
        before = DAY_AND.search(text[low : span.start])
        if before is not None:
            yield Span(low + before.start("day"), low + before.end("day"), Category.DATE, 0.75, "date")


@cache
def _written(language: Language) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    month = rf"(?:{language.either('months')}|(?:{language.either('months_short')})(?![^\W\d_])\.?)"
    weekday = language.either("weekdays")
    day = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|º|ª)?"
    months = "|".join(name for word in language.words("months") for name in (word.title(), word.upper()))
    of = language.either("of") or "of"
    year = r"(?:18|19|20)\d\d"
    full = re.compile(
        rf"(?<![\w-])(?:(?:{weekday})\.?,?\s+)?(?:"
        rf"{month}[\s./-]?\s?{day}(?:\s?,|\s|-|/|\.)\s?(?:{year}|'?\d\d(?![\w:/%.]|\s?(?:mg|ml|year|y)))"
        rf"|(?:the\s+)?{day}[\s.-]?(?:\s?(?:{of})\s)?\s?{month}(?:[\s,./-]{{1,2}}(?:(?:{of})\s)?(?:{year}|'?\d\d(?![\w:/%.]|\s?(?:mg|ml|year|y)|,?\s?\d{{4}}))|{year})"
        rf"|(?:{month}\s(?:y|e|and|to|a)\s)?{month},?[\s./-](?:(?:{of})\s)?{year}"
        rf")(?!\w)",
        re.IGNORECASE,
    )
    short = re.compile(
        rf"(?<![\w-])(?:(?:{weekday})\.?,?\s+)?(?:{month}\s{day}(?![\w/%]|\s?(?:mg|ml))|(?:the\s+)?{day}\s(?:(?:{of})\s)?{month}(?!\w))"
        rf"|(?<![\w-])(?:{weekday})\.?,?\s(?:the\s)?(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)(?!\w)"
        rf"|(?<=\b(?-i:(?:in|of|by))\s)(?-i:{months})(?!\w|[’']|\s\d)"
        rf"|(?<![\w-])(?:early|late|mid|since|until|last|next|this)[\s-](?P<month>(?-i:{months}))(?!\w)",
        re.IGNORECASE,
    )
    holiday = re.compile(
        rf"(?<![\w-])(?:{language.either('holidays')})(?!\w)(?!\s+(?:disease|factor|tree))", re.IGNORECASE
    )
    return full, short, holiday


@cache
def _led(language: Language) -> re.Pattern[str]:
    """Pattern for a day of a month or a year after a word that leads to a date: "LMP 4/2", "in 1996"."""
    day = r"(?:0?[1-9]|1[0-2])[/-](?:0?[1-9]|[12]\d|3[01])(?:[/-]\d\d)?(?![\w/%-]|\.\d|\s?(?:mg|ml|tab))"
    days, years = language.either("leads_to_day") or "(?!)", language.either("leads_to_year") or "(?!)"
    return re.compile(
        rf"(?<![\w-])(?:(?:{days})[ ]?[:=-]?[ ]?(?P<day>{day})|(?:{years})[ ](?P<year>(?:año[ ])?(?:19|20)\d\d)(?![\w/%]|[.:-]\d|[ ]?(?:mg|ml|kcal|hours|hrs|h\b)))"
        rf"|(?<=[\s(])['’](?P<short>\d\d)(?![\w%])"
        r"|\((?P<begun>(?:0?[1-9]|1[0-2])[/-](?:0?[1-9]|[12]\d|3[01]))[ ]?[-–][ ]?\)",
        re.IGNORECASE,
    )


def dates(page: Page) -> Iterator[Span]:
    """Yield dates that hold a day or a month with a year, written days of a month, and holidays."""
    for match in NUMERIC.finditer(page.text):
        yield Span(match.start(), match.end(), Category.DATE, 0.9, "date")
    if not page.language.words("months"):
        return
    full, short, holiday = _written(page.language)
    for match in _led(page.language).finditer(page.text):
        group = next(name for name in ("day", "year", "short", "begun") if match.group(name))
        yield Span(match.start(group), match.end(group), Category.DATE, 0.8, "date")
    for match in UNSCORED.finditer(page.text):
        yield Span(match.start(), match.end(), Category.DATE, 0.75, "date")
    for match in (*PADDED.finditer(page.text), *YEARS.finditer(page.text)):
        yield Span(match.start(), match.end(), Category.DATE, 0.8, "date")
    for pattern, score in ((full, 0.95), (short, 0.8), (holiday, 0.7)):
        for match in pattern.finditer(page.text):
            if (
                pattern is short
                and re.match(r"(?:may|mar|sun|sat)\b", match.group(), re.IGNORECASE)
                and match.group()[0].islower()
            ):
                continue  # "may 2 tablets"
            start, end = match.span("month" if match.groupdict().get("month") else 0)
            yield Span(start, end, Category.DATE, score, "date")


@cache
def _ages(language: Language) -> re.Pattern[str]:
    words = language.either("ages_spoken") or "(?!)"
    limits = language.either("limits") or "(?!)"
    number = rf"(?:9\d|1[0-3]\d|{words})"
    after = language.either("age_after")
    before = language.either("age_before")
    return re.compile(
        rf"(?<![\w.,/-])(?:(?:{before})(?:\s(?!(?:{limits})\b)[^\W\d_]+){{0,5}}?\s?[:=/|—-]{{0,2}}\s*(?:is|was)?\s*(?P<late>{number})(?![\w%/]|\.\d|\s?(?:{language.either('measures')})\b)|(?P<early>{number})[\s-]?(?:{after})(?!\w)|(?P<spoken>{words})[\s-]years?(?!\w))",
        re.IGNORECASE,
    )


def great_ages(page: Page) -> Iterator[Span]:
    """Yield ages of ninety and above that stand with a word for age."""
    for match in _ages(page.language).finditer(page.text):
        name = next(group for group in ("late", "early", "spoken") if match.group(group))
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
    if re.search(r"\b(?:two|three|four|five|six|seven|eight|nine)\s+hundred", text, re.IGNORECASE):
        return False  # a dose or a count
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    return bool(words & set(language.words("ages_great")))
