"""What the rules that let terms go ask of a language, made ready once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded, read_list
from deid.tagger import membership

PARTS_OF_HOLIDAYS = frozenset(
    ("day", "eve", "new", "year", "years", "good", "super", "bowl", "the", "box", "ash")
)
WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Terms:
    """What the rules ask of a language."""

    eponyms: frozenset[str]
    heads: frozenset[str]
    pairs: frozenset[str]
    drugs: frozenset[str]
    never: frozenset[str]
    labels: frozenset[str]
    short: frozenset[str]
    shorthand: frozenset[str]
    grades: frozenset[str]
    kinds_of_place: frozenset[str]
    clinical: frozenset[str]
    calendar: frozenset[str]
    lists: dict[str, int]
    safe: re.Pattern[str]
    published: re.Pattern[str]
    units: re.Pattern[str]
    scores: re.Pattern[str]
    products: frozenset[str]
    place_heads: frozenset[str]


@cache
def terms_of(language: Language) -> Terms:
    def words(*tables: str) -> frozenset[str]:
        return frozenset(folded(word) for table in tables for word in language.words(table))

    after = r"(?:[\s-]*(?:code|number|no\.?|id|version|lot|index|rev(?:ision)?))?[\s:#.=-]{0,3}\Z"
    units = language.either("measures") or "(?!)"
    return Terms(
        eponyms=words("eponyms"),
        heads=words("eponym_heads"),
        pairs=words("eponym_pairs"),
        drugs=words("drugs"),
        never=words("never_names"),
        labels=words("not_names", "staff", "lead_words"),
        short=frozenset(language.words("abbreviations")),
        shorthand=frozenset(language.words("shorthand")),
        grades=words("grades"),
        kinds_of_place=words("kinds_of_place"),
        clinical=words("clinical_words") | frozenset(read_list("terms") if language.code == "en" else ()),
        calendar=frozenset(
            part
            for phrase in words("months", "months_short", "weekdays", "holidays")
            for part in (phrase, *re.split(r"[ ']+", phrase))
            if len(part) > 2 and part not in PARTS_OF_HOLIDAYS
        ),
        lists=membership(language),
        safe=re.compile(
            rf"(?<![\w-])(?:{language.either('safe_number_labels') or '(?!)'}){after}", re.IGNORECASE
        ),
        published=re.compile(rf"(?<!\w)(?:{language.either('published') or '(?!)'})(?!\w)", re.IGNORECASE),
        units=re.compile(rf"[ ]?(?:{units}|/(?:min|hr|hpf|day|{units}))(?!\w|/[ow]\b)", re.IGNORECASE),
        scores=re.compile(rf"(?<!\w)(?:{language.either('scores') or '(?!)'})(?!\w)", re.IGNORECASE),
        products=frozenset(
            part for phrase in words("products") for part in WORDS.findall(phrase) if len(part) > 1
        ),
        place_heads=words("place_heads"),
    )
