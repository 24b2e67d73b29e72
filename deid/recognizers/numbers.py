"""Telephone numbers, addresses of mail and pages, and numbers whose shape or check digits say what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deid.recognizers.page import Page
from deid.spans import Category, Span
from deid.tagger import ENGLISH_WORD, membership

EMAIL = re.compile(r"[\w.+%-]+\s?@\s?[A-Za-z0-9][\w-]*(?:\.[\w-]+)*\.[A-Za-z]{2,}|[\w.+%-]+@[\w-]+\b")
URL = re.compile(
    r"\b(?:https?|ftp|sftp)\s?:\s?//[^\s<>\"'|]+|\bwww\.[^\s<>\"'|]+"
    r"|(?<![\w@.])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|info|health|example)(?:/[^\s<>\"'|,;]*)?(?![\w@])",
    re.IGNORECASE,
)
IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)|(?<![\w:])(?=[\da-fA-F:]*:[\da-fA-F]*:)(?:[\da-fA-F]{0,4}:){2,7}[\da-fA-F]{1,4}(?![\w:])"
)
MAC = re.compile(r"\b(?:[\dA-Fa-f]{2}[:-]){5}[\dA-Fa-f]{2}\b")
SSN = re.compile(r"(?<![\w-])[\dXx*]{3}-[\dXx*]{2}-\d{4}(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.+/-])(?:"
    r"(?:(?:\+|00)?1[\s.-]?)?\(\d{3}\)[\s.-]?\d{3}[\s.-]\d{4}"
    r"|(?:(?:\+|00)?1[\s.-]?)?\d{3}([-. ])\d{3}\1\d{4}"
    r"|\d{3}/\d{3}-\d{4}"
    r"|\+1\d{10}"
    r"|\+\d{1,3}[\s.-]?(?:\(0?\d{1,4}\)[\s.-]?)?\d{1,4}(?:[\s.-]\d{2,4}){1,4}"
    r"|\+\d{10,13}"
    r")(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?(?![\w-]|\.\d)",
    re.IGNORECASE,
)
VIN = re.compile(r"\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-HJ-NPR-Z0-9]{17}\b")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}(?:\s?[A-Za-z0-9]{4}){2,7}(?:\s?[A-Za-z0-9]{1,3})?\b")
SPACED = re.compile(
    r"(?<![\w.,/-][ ])(?<![\w.,/-])\d{3} \d{2} \d{3,4}(?![\w%/-]|\.\d| \d)"
    r"|(?<![\d.,/-][ ])(?<![\w.,/-])\d{3} \d{3} \d{3}(?![\w%/-]|\.\d| \d)"
)
LONG = re.compile(r"(?<![\w.,/-])\d{9,19}(?![\w%/-]|\.\d)")
HANDLE = re.compile(r"(?<![\w.@/])@(?P<name>[A-Za-z][\w.]{2,29})(?![\w@])")  # of a social network
AUSTRALIAN = re.compile(r"(?<![\w./-])[2-9]\d{3}[ ]\d{5}[ ]\d(?:[ ]?/[ ]?\d)?(?![\w-])")  # a Medicare card
COORDINATES = re.compile(
    r"(?<![\w.-])-?\d{1,2}\.\d{3,8}\s?°?\s?[NS]?\s?[,/ ]\s?-?\d{1,3}\.\d{3,8}(?:\s?°?\s?[EW]\b)?(?!\w|\.\d)"
)
ISO_TIME = re.compile(r"\b\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?")

VIN_VALUES = dict(
    zip(
        "ABCDEFGHJKLMNPRSTUVWXYZ",
        (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9),
        strict=True,
    )
)
VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def shaped_numbers(page: Page) -> Iterator[Span]:
    """Yield what is an identifier by its shape, whatever stands beside it."""
    text = page.text
    if "@" in text:
        yield from (_span(m, Category.EMAIL, 0.99) for m in EMAIL.finditer(text))
    for match in URL.finditer(text):
        end = match.start() + len(match.group().rstrip(".,;:!?)]}'\""))
        if end > match.start() + 3:
            yield Span(match.start(), end, Category.URL, 0.98, "shape")
    for match in IP.finditer(text):
        parts = match.group().split(".")
        if len(match.group()) > 8 if ":" in match.group() else all(int(part) < 256 for part in parts):
            yield _span(match, Category.IP, 0.96)
    yield from (_span(m, Category.IP, 0.95) for m in MAC.finditer(text))
    yield from (_span(m, Category.SSN, 0.9) for m in SSN.finditer(text))
    yield from (
        _span(m, Category.PHONE, 0.85)
        for m in PHONE.finditer(text)
        if sum(c.isdigit() for c in m.group()) > 6
    )
    yield from (_span(m, Category.VEHICLE, 0.97) for m in VIN.finditer(text) if vin_holds(m.group()))
    for match in CARD.finditer(text):
        if luhn_holds(match.group()):
            yield _span(match, Category.ACCOUNT, 0.8)
    yield from (_span(m, Category.ACCOUNT, 0.97) for m in IBAN.finditer(text) if iban_holds(m.group()))
    yield from (_span(m, Category.ID, 0.6) for m in SPACED.finditer(text))
    yield from (
        _span(m, Category.ACCOUNT if len(m.group()) > 11 else Category.ID, 0.6) for m in LONG.finditer(text)
    )
    yield from (_span(m, Category.DATE, 0.97) for m in ISO_TIME.finditer(text))


def handles_and_coordinates(page: Page) -> Iterator[Span]:
    """Yield names on social networks, points on the map, and cards of Australia's Medicare."""
    text = page.text
    yield from (_span(m, Category.PLAN_ID, 0.8) for m in AUSTRALIAN.finditer(text))
    yield from (_span(m, Category.ADDRESS, 0.8) for m in COORDINATES.finditer(text))
    if "@" in text:
        lists = membership(page.language)
        for match in HANDLE.finditer(text):
            if not lists.get(match.group("name").lower(), 0) & ENGLISH_WORD:
                yield Span(match.start(), match.end(), Category.ID, 0.8, "handle")


def luhn_holds(number: str) -> bool:
    """Say whether the last digit checks the others, as on payment cards.

    >>> luhn_holds("4111 1111 1111 1111")
    True
    """
    digits = [int(c) for c in number if c.isdigit()][::-1]
    doubled = (d if n % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for n, d in enumerate(digits))
    return len(digits) > 11 and sum(doubled) % 10 == 0


def iban_holds(number: str) -> bool:
    """Say whether a bank account number's two check digits fit (ISO 13616).

    >>> iban_holds("GB82 WEST 1234 5698 7654 32")
    True
    """
    plain = number.replace(" ", "").upper()
    if not 15 <= len(plain) <= 34 or not plain.isascii() or not plain.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def vin_holds(number: str) -> bool:
    """Say whether a vehicle's number has the right check digit in ninth place (49 CFR 565.15).

    >>> vin_holds("1M8GDM9AXKP042788")
    True
    """
    total = sum(
        (int(c) if c.isdigit() else VIN_VALUES[c]) * w for c, w in zip(number, VIN_WEIGHTS, strict=True)
    )
    return number[8] == ("X" if total % 11 == 10 else str(total % 11))


def _span(match: re.Match[str], category: Category, score: float) -> Span:
    return Span(match.start(), match.end(), category, score, "shape")
