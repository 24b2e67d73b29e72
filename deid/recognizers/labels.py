"""What a label names: "MRN: 12-345", "Pt name = DOE, JANE", "Acct # 4411"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from deid.lexicon.language import Language
from deid.recognizers.dates import NUMERIC
from deid.recognizers.page import Page
from deid.spans import Category, Span

# one run with a digit in it; a space only inside digits, or after a few capitals ("AB 123456")
VALUE = r"[#(]?(?:(?-i:[A-Z]{1,3}[ ](?=\d{4}))|[A-Za-z]{2,3}[ ](?=\d{3}[ ]\d{3}))?(?=[A-Za-z0-9*./:_-]*\d)[A-Za-z0-9*](?:[A-Za-z0-9*]|[-/.:_](?=[A-Za-z0-9*])|(?<=\d)[ ](?=\d{2,}(?:[ ]\d{2,})*(?![\w%/-]|\.\d)))*"
GLUED = re.compile(
    r"(?<=\d)(?:D\.?O\.?B|MRN|SSN|Phone|PHONE|Tel|Fax|Date|DATE|Age|AGE|Sex|SEX|Acct|Name|NAME)\Z"
)
NO_NUMBER = re.compile(r"\d{1,2}/\d{1,2}|\d+(?:\.\d+)?\s?(?:mg|ml|%)|\d{1,2}:\d\d")  # a date, a dose, a time
SMALL_NUMBER = re.compile(r"\d{1,2}\.\d{1,2}")
JOIN = (
    r"[)\].]*\s?(?:[:=#|>\-–—→]{1,3}|\bis\b|\bwas\b|\bof\b|\bno\.?|\bnum(?:ber)?\b|\bas\b)?\s?[:#=]?\s{0,3}"
)


PLACE = r"(?P<value>(?:[A-ZÀ-Þ]|\d|(?:calle|avenida|avda|plaza|paseo|c/)\b)[^\n;|]{1,90}?)(?=[ .]*(?:\n|;|\||\Z|[ ]{2}|(?<!\W\w)(?<!\W\w\w)(?<!\W\w\w\w)SHORT_STREETS\.[ ]|[ ]\w+:))"  # a full stop after three letters or fewer ends a short form


SHORT_STREETS = "".join(rf"(?<!{word})" for word in ("Avda", "Ctra", "Plza", "Glta", "Urbz", "avda", "ctra"))


@cache
def _placed(language: Language) -> re.Pattern[str] | None:
    words = language.either("label_place")
    return (
        re.compile(
            rf"(?<![\w-])(?i:{words})[ ]?(?:::?|=|#)[ \t]{{0,4}}{PLACE.replace('SHORT_STREETS', SHORT_STREETS)}"
        )
        if words
        else None
    )


def labelled_places(page: Page) -> Iterator[Span]:
    """Yield what stands after a label of an address or a part of one, to the end of the line or field."""
    pattern = _placed(page.language)
    if pattern is not None:
        for match in pattern.finditer(page.text):
            yield Span(match.start("value"), match.end("value"), Category.ADDRESS, 0.85, "label")


@cache
def _labelled(language: Language) -> tuple[re.Pattern[str], dict[str, Category]]:
    kinds: dict[str, Category] = {}
    groups = []
    for place, category in enumerate(
        (
            Category.MRN,
            Category.SSN,
            Category.ACCOUNT,
            Category.PLAN_ID,
            Category.LICENSE,
            Category.VEHICLE,
            Category.DEVICE,
            Category.BIOMETRIC,
            Category.PHONE,
            Category.ID,
        )
    ):
        words = language.either(f"label_{category.value}")
        if words:
            kinds[f"g{place}"] = category
            groups.append(rf"(?P<g{place}>{words})")
    return re.compile(
        rf"(?<![\w-])(?:{'|'.join(groups)})(?![^\W_]){JOIN}(?P<value>{VALUE})(?!\w)", re.IGNORECASE
    ), kinds


BADGE = re.compile(
    r"\b(?:Officer|Ofc|Deputy|PD|Trooper|Sgt|Det|Detective|Sheriff|Sergeant|Constable|PC)\b\.?[ ][^\n,;:#]{2,40}?[ ]?#[ ]?(?P<value>[A-Z]?\d{3,6})\b"
)


def labelled_numbers(page: Page) -> Iterator[Span]:
    """Yield the number after a label. A value has a digit and four characters or more (a telephone's: three)."""
    for match in BADGE.finditer(page.text):
        yield Span(match.start("value"), match.end("value"), Category.ID, 0.8, "label")
    pattern, kinds = _labelled(page.language)
    for match in pattern.finditer(page.text):
        category = next(kind for name, kind in kinds.items() if match.group(name))
        value = GLUED.sub("", match.group("value"))
        digits = sum(c.isdigit() for c in value)
        if (
            digits < (3 if category is Category.PHONE else 2)
            or len(value.strip("#(")) < 4
            or "\n" in page.text[match.start() : match.start("value")].strip()
        ):
            continue
        if category is Category.PHONE and digits < len(value.strip()) / 2:
            continue
        if NO_NUMBER.fullmatch(value) or NUMERIC.fullmatch(value):
            continue
        if category is Category.PHONE and SMALL_NUMBER.fullmatch(value):
            continue  # "pH 7.31"
        if category is Category.LICENSE and page.text[match.start() - 1 : match.start()] == "/":
            continue  # "mg/dL 0.57-1.00"
        begin = match.start("value")
        yield Span(begin, begin + len(value), category, 0.9, "label")
