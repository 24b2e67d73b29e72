"""Addresses below the state: streets with a number, towns before a state and a ZIP code, boxes, military post."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded
from deid.recognizers.names import CAP
from deid.recognizers.page import Page
from deid.spans import Category, Span
from deid.tagger import A_PLACE, ENGLISH_WORD, NAME_OR_PLACE, membership


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

    ways = (
        cased(
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
        or "(?!)"
    )
    heads, tails = (
        cased(language.words("street_heads")) or "(?!)",
        "|".join(re.escape(w) for w in language.words("street_tails") if len(w) > 3) or "(?!)",
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
                rf"(?<![\w./-])\d{{1,6}}[A-Za-z]?\s{heading}(?:{CAP}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,4}}(?:{ways})\b\.?(?:(?<=Hwy|HWY|Rte)\s\d{{1,3}}\b)?{flat}{town}"
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
        (
            re.compile(
                r"(?<!\w)(?:the\s)?(?:corner|intersection)\sof\s[^\n,;:!?]{3,60}?\sand\s[^\W_][^\n,;:!?]{1,40}?(?=[.]?\s*(?:\n|\Z)|[,;:!?]|\.\s|\s(?:in|on|at|for|near|is|was)\s)",
                re.IGNORECASE,
            ),
            0.85,
        ),
        (
            re.compile(
                rf"(?<![\w./-])\d{{1,6}}\s(?:[^\W\d_][\w.'’]*\s){{1,5}}\d{{1,5}}[A-Za-z]?\.?,?\s(?:apt|suite|ste)\.?\s?\d{{1,4}}(?:[,\s]{{1,3}}{CAP}(?:\s{CAP}){{0,3}},?\s(?:{short_states})\s\d{{5}})?",
                re.IGNORECASE,
            ),
            0.85,
        ),
        (re.compile(r"(?<!\w)(?:Apt|Apartment|Suite|Ste|Appartement)\.?\s?#?\d{1,4}[A-Z]?\b"), 0.8),
        (
            re.compile(
                r"(?<![\w-])(?:[A-Z]{1,2}\d[A-Z\d]?[ ]\d[ABD-HJLNP-UW-Z]{2}|[ABCEGHJ-NPRSTVXY]\d[A-Z][ ]\d[A-Z]\d)(?![\w-])"
            ),
            0.8,
        ),  # codes of the post, British and Canadian
        (re.compile(rf"\b(?:{short_states})\s\d{{5}}(?:-\d{{4}})?\b"), 0.9),
        (re.compile(r"(?<!\w)(?:P\.?\s?O\.?\s?Box|Post(?:al)?\s?Box)\s#?\d{1,6}\b", re.IGNORECASE), 0.9),
        (
            re.compile(
                rf"(?<!\w)(?:RR|R\.R\.|RFD|HC|Rural\s(?:Route|Rte)|Star\sRoute)\s?#?\d{{1,3}},?\s(?:Box\s#?\d{{1,5}}[A-Z]?)?(?:,?\s{CAP}(?:[ ]{CAP}){{0,2}},?\s(?:{short_states}|{states})\b(?:,?\s\d{{5}})?)?",
                re.IGNORECASE,
            ),
            0.9,
        ),
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


@cache
def _institutions(language: Language) -> tuple[re.Pattern[str], tuple[re.Pattern[str], ...]]:
    """Patterns for languages that name the kind of an institution first, and the postal code before the town."""
    kinds = language.either("institution_heads")
    codes = "|".join(language.words("postal_codes"))
    small = language.either("particles") or "(?!)"
    stop = "|".join(word.title() for word in language.words("not_names") if word.isalpha()) or "(?!)"
    more = rf"(?:[ ](?:\d{{1,2}}[ ])?[\"“«]?(?:(?:{small})[ ]){{0,2}}(?!(?:{stop})\b){CAP}[\"”»]?){{1,5}}"
    kind = re.compile(rf"(?<![\w-])(?i:{kinds}){more}") if kinds else re.compile("(?!)")
    town = rf"{CAP}(?:[ ](?:(?:{small})[ ]){{0,2}}{CAP}){{0,3}}"
    others = _streets_by_head(language, codes, small, town) if language.words("house_none") else ()
    code = re.compile(rf"(?<![\w-])(?:{codes})(?:[ ,.-]{{1,3}}{town})?") if codes else re.compile("(?!)")
    return kind, (code, *others)


def _streets_by_head(language: Language, codes: str, small: str, town: str) -> tuple[re.Pattern[str], ...]:
    """Patterns for streets whose kind comes first and whose number comes last, or is none ("s/n"); and provinces."""
    small_heads = frozenset(language.words("street_heads_small"))  # "vía oral 20" is no street
    heads = "|".join(
        re.escape(form)
        for head in sorted(language.words("street_heads"), key=len, reverse=True)
        if len(head) > 1
        for form in dict.fromkeys(
            (head.title(), head.upper(), head.capitalize(), head if head in small_heads else head.title())
        )
    )
    parts, none = language.either("house_parts"), "|".join(re.escape(w) for w in language.words("house_none"))
    number = rf"(?:(?:nº|n\.º|núm\.?|número|no\.?|[Kk]m\.?)[ ]?)?(?:\d{{1,5}}(?:[.,]\d{{3}})?(?![\d/])|(?:{none})(?!\w))"
    tail = rf"(?:[,.]?[ ]?-?[ ]?(?:(?i:{parts})\b\.?[ ]?\w{{0,4}}|\d{{1,2}}[ ]?[ºª°]?[ ]?[A-Za-z]?[ºª°]?(?![\w/])))*"
    words = r"(?:(?:[^\W\d_]+\.?|-)[ -]{1,3}){0,6}?[^\W\d_]+\.?"
    return (
        re.compile(rf"(?<![\w-])(?:{heads})\.?[ ]{{0,2}}{words},?[ ]?{number}{tail}"),
        re.compile(rf"(?<![\w-]){town},[ ](?:{number}{tail})(?=[ .,-]{{1,4}}(?:{codes}))"),
        re.compile(rf"(?<=[,.][ ]){town}(?=,[ ](?:{codes}))"),
        re.compile(rf"(?<!\w)(?i:{language.either('before_towns') or '(?!)'})[ ](?P<part>{town})"),
        re.compile(rf"(?m)^(?P<part>{town})(?=,[ ](?:a[ ])?\d{{1,2}}(?:[/.-]\d|[ ]de[ ]))"),
        re.compile(r"(?<!\w)(?:Apartado|Apdo\.?)(?:[ ]de)?(?:[ ][Cc]orreos)?[ ](?:nº[ ]?)?\d{2,6}\b"),
        re.compile(
            rf"(?<![\w-])(?:{'|'.join(re.escape(word) for word in sorted(language.words('provinces'), key=len, reverse=True)) or '(?!)'})(?!\w)"
        ),
    )


@cache
def _named_tails(language: Language) -> tuple[re.Pattern[str], frozenset[str]]:
    """Pattern for names that end with the kind of an institution, and the words that name none."""
    tails = "|".join(
        re.escape(form)
        for tail in sorted(language.words("institution_tails"), key=len, reverse=True)
        for form in (tail.title().replace("'S", "'s"), tail.upper())
    )
    pattern = re.compile(
        rf"(?<![\w-])(?P<name>{CAP}\.?(?:[ ](?:of[ ])?{CAP}){{0,3}})[ ](?:{tails or '(?!)'})(?![\w])"
    )
    return pattern, frozenset(language.words("institution_generic"))


def institutions(page: Page) -> Iterator[Span]:
    """Yield names of hospitals and practices that a word of their own and the kind at the end give away."""
    pattern, generic = _named_tails(page.language)
    kinds = frozenset(page.language.words("kinds_of_place"))
    titles = frozenset(page.language.words("titles"))
    lists = membership(page.language)
    for match in pattern.finditer(page.text):
        start = match.start()
        words = match.group("name").split(" ")
        while len(words) > 1 and _ends_sentence(words[0]):  # "Seen by Hale. Salina Clinic called"
            start += len(words.pop(0)) + 1
        if "of" in words[1:] and folded(words[0].strip(".")) in titles:  # "Dr. Volkov of Salina Clinic"
            cut = words.index("of") + 1
            start += sum(len(word) + 1 for word in words[:cut])
            words = words[cut:]
        while words and folded(words[0].strip(".")) in generic:
            start += len(words.pop(0)) + 1
        own = [folded(word.strip(".").removesuffix("'s")) for word in words]
        if not _ends_sentence(" ".join(words)) and any(
            word not in generic
            and word not in kinds
            and (lists.get(word, 0) & NAME_OR_PLACE or not lists.get(word, 0) & ENGLISH_WORD)
            for word in own
        ):
            yield Span(start, match.end(), Category.HOSPITAL, 0.8, "institution")


def _ends_sentence(word: str) -> bool:
    """Say whether a full stop behind a word ends a sentence: not behind "St." or an initial."""
    return word.endswith(".") and len(word) > 4


@cache
def _organized(language: Language) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns for firms and schools by how their names end, and for hospitals by the place behind."""
    tails = "|".join(
        re.escape(form)
        for tail in sorted(language.words("company_tails"), key=len, reverse=True)
        for form in dict.fromkeys((tail.title().replace(" And ", " and "), tail.upper(), tail))
    )
    name = rf"(?:{CAP}\.?(?:[ ](?:of[ ])?{CAP}){{0,3}})"
    return (
        re.compile(rf"(?<![\w-])(?P<name>{name})[ ](?:{tails or '(?!)'})(?:(?<=[Ss]ons)[ ]{CAP})?(?![\w])"),
        re.compile(
            rf"(?<![\w-])(?:(?:University|Children's|General|Memorial|Royal|VA)[ ](?:Hospitals?|Clinics?|Medical Center|Infirmary)[ ]of[ ]|University[ ]Hospitals?[ ](?:of[ ])?)(?:the[ ])?{CAP}(?:[ ]{CAP}){{0,2}}"
        ),
    )


def organizations(page: Page) -> Iterator[Span]:
    """Yield firms and schools that the end of their name gives away, and hospitals of a place."""
    firms, hospitals = _organized(page.language)
    lists = membership(page.language)
    generic = frozenset(page.language.words("institution_generic")) | frozenset(
        page.language.words("not_names")
    )
    for match in firms.finditer(page.text):
        words = match.group("name").split(" ")
        start = match.start()
        while words and folded(words[0].strip(".")) in generic:
            start += len(words.pop(0)) + 1
        own = [folded(word.strip(".").removesuffix("'s")) for word in words]
        if any(lists.get(word, 0) & NAME_OR_PLACE or not lists.get(word, 0) & ENGLISH_WORD for word in own):
            yield Span(start, match.end(), Category.ORGANIZATION, 0.8, "institution")
    for match in hospitals.finditer(page.text):
        yield Span(match.start(), match.end(), Category.HOSPITAL, 0.8, "institution")


def addresses(page: Page) -> Iterator[Span]:
    """Yield addresses and parts of them, and institutions named by their kind first."""
    institutions, codes = _institutions(page.language)
    for match in institutions.finditer(page.text):
        yield Span(match.start(), match.end(), Category.HOSPITAL, 0.85, "address")
    for match in (match for code in codes for match in code.finditer(page.text)):
        group = "part" if "part" in match.re.groupindex else 0
        yield Span(match.start(group), match.end(group), Category.ADDRESS, 0.85, "address")
    lists = membership(page.language)
    for pattern, score in _patterns(page.language):
        for match in pattern.finditer(page.text):
            group = "part" if "part" in pattern.groupindex else 0
            start = match.start(group)
            if (
                match.group(group).endswith((", MD", ", PA"))
                and not lists.get(folded(match.group(group).split(" ")[0].strip(",")), 0) & A_PLACE
            ):
                continue  # "to Ada Lovelace, MD"
            yield Span(
                start, start + len(match.group(group).rstrip(" ,")), Category.ADDRESS, score, "address"
            )
