"""Identifiers that the hospital holds of the patient, wherever and however a text writes them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache, lru_cache

from deid.lexicon.language import Language
from deid.lexicon.lists import read_list
from deid.spans import Category, Known, Span

MIN_PART = 2  # letters of a part of a name that is looked for by itself
GAP = r"[\s./()_-]{0,3}"  # what writers put between the parts of a number


def known_spans(text: str, known: Iterable[Known], language: Language) -> Iterator[Span]:
    """Yield where a text holds what is known: case, accents and separators do not matter; names also in parts,
    dates and telephone numbers also written otherwise."""
    plain = _plain(text)
    for item in known:
        for pattern in _patterns(item, language):
            for match in pattern.finditer(plain):
                if match.end() > match.start():
                    yield Span(match.start(), match.end(), item.category, 1.0, "known")


@lru_cache(maxsize=512)
def _patterns(item: Known, language: Language) -> tuple[re.Pattern[str], ...]:
    value = _plain(item.value.strip())
    if not any(c.isalnum() for c in value):
        return ()
    found = [re.escape(value)]
    if item.category is Category.NAME:
        found += _name_parts(value)
    elif item.category is Category.DATE:
        found += _dates(value, language)
    elif item.category is Category.PHONE:
        digits = re.sub(r"\D", "", value)
        found += [_spaced(digits[-size:]) for size in (10, 7) if len(digits) >= size]
    elif item.category is Category.ADDRESS:
        parts = [part.strip() for part in re.split(r"[,;\n]", value)]
        found += [_spaced(part) for part in parts if sum(c.isalnum() for c in part) > 3]
    elif sum(c.isalnum() for c in value) > 3:
        found.append(_spaced(value))
    return tuple(
        re.compile(pattern, 0 if pattern.startswith("(?-i:") else re.IGNORECASE)
        for pattern in dict.fromkeys(found)
    )


def _name_parts(value: str) -> list[str]:
    """Return patterns for each part of a name; of one that is an English word or short, only with a capital."""
    patterns = []
    for part in re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", value):
        for piece in {part, *re.split(r"['’-]", part)}:
            if len(piece) < MIN_PART:
                continue
            if len(piece) < 3 or piece.lower() in _english():
                forms = "|".join(
                    sorted(
                        {
                            re.escape(piece.title()),
                            re.escape(piece.upper()),
                            re.escape(piece[:1].upper() + piece[1:]),
                        }
                    )
                )
                patterns.append(rf"(?-i:(?<![^\W_])(?:{forms})(?![^\W_]))")
            else:
                patterns.append(rf"(?<![^\W_]){re.escape(piece)}(?![^\W_])")
    return patterns


def _dates(value: str, language: Language) -> list[str]:
    day = _date(value)
    if day is None:
        return []
    y, m, d = str(day.year), rf"0?{day.month}", rf"0?{day.day}"
    year = rf"(?:{y}|'?{y[2:]})"
    months = [words[day.month - 1] for words in (language.words("months"),) if len(words) == 12]
    names = "|".join({form for month in months for form in (re.escape(month), re.escape(month[:3]))})
    gap = r"[\s./,-]{1,2}"
    ends = r"(?<!\d)", r"(?!\d)"
    found = [rf"{a}{gap}{b}{gap}{c}" for a, b, c in ((m, d, year), (d, m, year), (y, m, d))]
    found.append(rf"{y}{day.month:02d}{day.day:02d}")
    if names:
        of = rf"(?:st|nd|rd|th)?[\s.,-]*(?:{language.either('of')})?[\s.,-]*"
        found += [rf"(?:{names})[a-z]*\.?[\s-]*{d}{of}{year}", rf"{d}{of}(?:{names})[a-z]*{of}{year}"]
    return [ends[0] + pattern + ends[1] for pattern in found]


def _date(value: str) -> date | None:
    numbers = [int(n) for n in re.findall(r"\d+", value)]
    if len(numbers) == 1 and len(re.sub(r"\D", "", value)) == 8:
        text = re.sub(r"\D", "", value)
        numbers = [int(text[:4]), int(text[4:6]), int(text[6:])]
    if len(numbers) < 3:
        return None
    y, m, d = numbers[:3] if numbers[0] > 31 else (numbers[2], numbers[0], numbers[1])
    try:
        return date(y, m, d)
    except ValueError:
        return None


def _spaced(value: str) -> str:
    letters = re.findall(r"[^\W_]+", value)
    runs = [run if not run.isdigit() else GAP.join(run) for run in (re.escape(r) for r in letters)]
    return r"(?<![^\W_])" + r"[\s\W_]{0,4}".join(runs) + r"(?![^\W_])"


@cache
def _english() -> frozenset[str]:
    return frozenset(read_list("words"))


def _plain(text: str) -> str:
    """Return the text without accents, each character in its place."""
    if text.isascii():
        return text
    return "".join(_plain_character(c) for c in text)


@lru_cache(maxsize=4096)
def _plain_character(c: str) -> str:
    if c == "’":
        return "'"
    base = unicodedata.normalize("NFKD", c)[:1]
    return base if base.isalpha() else c
