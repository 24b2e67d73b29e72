"""Names beside other words that tell of people: after "his sister", "probation officer", "login"; the other half of a
name of which one half was found; initials under a dictation.

Where such a word stands before it, less suspicion of the tagger is enough; a word of a list of names needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded, read_list
from deid.recognizers.page import Page
from deid.spans import Category, Span
from deid.tagger import ENGLISH_WORD, GIVEN_NAME, NAME_OR_PLACE, WELL_KNOWN_NAME, membership

SURE = 0.75  # a finding less sure than this is not made longer
SUSPICION = 0.02  # of the tagger, that an unknown word beside a name or a relation is one
SUSPICION_OF_WORDS = (
    0.10  # the same for an English word that is a well-known name too, all in capitals or small
)
WORDS_MORE = 3  # of a name, beside what was found
NAME_WORD = r"[^\W\d_][^\W\d_'’]*(?:['’-][^\W\d_]+)*"
SMALL = r"(?:(?:de|la|las|los|del|van|von|der|den|ter|al|el|bin|ben|abu|ibn|da|dos|di|du|le|st\.?|o)[ ]){0,2}"
NEXT = re.compile(rf"[ ]{SMALL}(?P<word>{NAME_WORD})|-(?P<rest>{NAME_WORD})", re.IGNORECASE)
BEFORE = re.compile(rf"(?<![\w'’-])(?P<word>{NAME_WORD})(?:(?P<dot>\.)?[ ]|-)\Z")
CONTRACTED = re.compile(r"['’](?:m|s|re|ve|ll|d|t)\Z", re.IGNORECASE)
INITIAL_BEHIND = re.compile(r"[ ][A-Z](?:\.|(?=\s*(?:\n|\Z|[ ]{2}|,|\d|[ ]\()|[ ]\d))")  # "Vu, Marek M"
REACH = 40  # characters before a name in which the word before it begins


@dataclass(frozen=True)
class _Words:
    lists: dict[str, int]
    never: frozenset[str]
    after: re.Pattern[str]
    logins: re.Pattern[str]


@cache
def _words(language: Language) -> _Words:
    never = {
        folded(word)
        for table in (
            "not_names", "never_names", "staff", "credentials", "titles", "drugs", "clinical_words", "months",
            "months_short", "weekdays", "relations", "before_names", "eponym_heads", "hospitals", "measures",
            "abbreviations", "modals",
        )
        for word in language.words(table)
    }  # fmt: skip
    if language.code == "en":
        never |= set(read_list("terms"))
    first = language.either("before_names", "relations") or "(?!)"
    logins = language.either("label_user") or "(?!)"
    return _Words(
        membership(language),
        frozenset(never - {""}),
        re.compile(
            rf"(?<![\w-])(?:{first})(?:[ ]in[ ]law)?[.,:(]?[ ]?(?:[ ]|(?<=[(,:]))(?:(?:is|named|called)[ ])?(?P<word>{NAME_WORD})(?![\w'’])",
            re.IGNORECASE,
        ),
        re.compile(
            rf"(?<![\w-])(?:{logins})[ ]?[:=]?[ ]?(?P<word>[a-z][a-z.-]{{3,24}}\d{{0,4}})(?![\w@])",
            re.IGNORECASE,
        ),
    )


def people_beside(page: Page) -> Iterator[Span]:
    """Yield the word after a relation or a role if it can be a name, and the name after the word for a login."""
    words = _words(page.language)
    for match in words.after.finditer(page.text):
        if _can_be_name(page, match.start("word"), match.end("word"), told=True):
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.8, "beside")
    for match in (*words.logins.finditer(page.text), *BY_AND_WHEN.finditer(page.text)):
        word = match.group("word")
        if not words.lists.get(folded(word), 0) & ENGLISH_WORD and folded(word) not in words.never:
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.75, "login")


def longer_names(page: Page, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the words directly before and after a found name that can be more of it."""
    for span in spans:
        if span.category is not Category.NAME or span.score < SURE:
            continue
        end = _longer_behind(page, span)
        if end > span.end:
            yield Span(span.end, end, Category.NAME, 0.75, "beside")
        start = _longer_before(page, span)
        if start < span.start:
            yield Span(start, span.start, Category.NAME, 0.75, "beside")


def _longer_behind(page: Page, span: Span) -> int:
    text, end = page.text, span.end
    lists = _words(page.language).lists
    for _ in range(WORDS_MORE):
        match = NEXT.match(text, end)
        group = "rest" if match and match.group("rest") else "word"
        if match is None or not _can_be_name(page, match.start(group), match.end(group)):
            break
        if _only_words(page, span) and lists.get(folded(match.group(group)), 0) & ENGLISH_WORD:
            break
        end = match.end()
    last = INITIAL_BEHIND.match(text, end)
    return last.end() if last is not None and "," in text[span.start : end] else end


def _only_words(page: Page, span: Span) -> bool:
    """Say whether what was found are English words of which the first is nobody's given name."""
    lists = _words(page.language).lists
    parts = [folded(part) for part in re.findall(r"[^\W\d_]+", page.text[span.start : span.end])]
    return (
        bool(parts)
        and not lists.get(parts[0], 0) & GIVEN_NAME
        and all(lists.get(part, 0) & ENGLISH_WORD for part in parts)
    )


def _longer_before(page: Page, span: Span) -> int:
    text, start = page.text, span.start
    small = text[span.start : span.end].islower()
    for _ in range(WORDS_MORE - 1):
        low = max(start - REACH, 0)
        match = BEFORE.search(text[low:start])
        if match is None:
            break
        word, at = match.group("word"), low + match.start()
        if not (len(word) == 1 and word.isupper() and match.group("dot")) and (
            match.group("dot")
            or CONTRACTED.search(word)
            or (not word[0].isupper() and not small)
            or not _can_be_name(page, at, at + len(word))
        ):
            break
        start = at
    return start


def _can_be_name(page: Page, start: int, end: int, *, told: bool = False) -> bool:
    """Say whether a word that stands where a name may stand is one; `told` if a word for people stands before it."""
    words, text = _words(page.language), page.text
    word = text[start:end]
    plain = folded(word)
    if max(len(part) for part in re.split(r"['’-]", word)) < 2:
        return False
    if plain in words.never or plain.removesuffix("'s") in words.never:
        return False
    places = page.tokens(start, end)
    suspicion = (
        1 - float(page.scores[places.start : places.stop, 0].min())
        if page.scores is not None and places
        else 0.0
    )
    lists = words.lists.get(plain, 0)
    upright = word[0].isupper() and not word.isupper()
    if not lists & ENGLISH_WORD:
        if lists & NAME_OR_PLACE:
            return upright or (len(word) > 2 and (told or suspicion > SUSPICION / 4))
        return len(word) > 2 and suspicion > (SUSPICION / 4 if told and len(word) > 4 else SUSPICION)
    return bool(lists & WELL_KNOWN_NAME) and suspicion > (SUSPICION if upright else SUSPICION_OF_WORDS)


BY_AND_WHEN = re.compile(r"\bby[ ](?P<word>[a-z][a-z.-]{3,24}\d{0,4})(?=[ ]\d{4}-\d\d-\d\d[T ]\d)")
DEGREE = r"(?:M\.?D\.?|D\.?O\.?|PA-?C?|N\.?P\.?|Ph\.?D\.?|FAC[CSP])"
INITIALS = (
    re.compile(r"(?<![\w/])(?P<a>[A-Z]{2,3})[/:](?P<b>[a-z]{2,3})(?=\d{0,4}(?:[ \t]*(?:\n|\Z)|[ \t]+(?:D[DT]?|T|Job|JOB|DOC)\b))"),
    re.compile(r"(?m)^[ \t]*(?P<a>[A-Za-z]{2,3})[/:](?P<b>[A-Za-z]{2,3})(?=\d{0,5}[ \t]*$)"),
    re.compile(r"(?:\b(?:DT|TD|T|DD|D):[ ]?[\d/.-]{6,10}[ \t\n]+)(?P<a>[A-Z]{2,3})[/:](?P<b>[A-Za-z]{2,3})\b"),
    re.compile(r"(?m)^[ \t]*[/-]{1,2}[ ]?(?P<a>[a-z]{2,3})[ \t]*$"),
    re.compile(rf"{DEGREE}[ \t]{{1,4}}(?P<a>[A-Z]{{2,3}}\d{{1,4}})(?=[ \t]*(?:\n|\Z))"),
    re.compile(r"(?i:\b(?:tech|technologist|initials|transcribed[^\n]{0,14} by|typed[^\n]{0,14} by|transcriptionist|grossed by|gross description by|prosected by|cut by|screened by|keyed by|entered by))[ ]?:?[ ](?P<a>[A-Z]{2,3}|[a-z]{2,3}(?=[ ]*(?:\n|\Z)))(?![\w'’])"),
    re.compile(r"(?:\d[/-]\d{1,2}|\d\d:?\d\d(?:[ ]?[AaPp][Mm])?)[ ](?:by|BY)[ ](?P<a>[A-Z]{2,3})(?=[ ]*(?:\n|\Z|[.;,]))"),
    re.compile(r"(?i:\b(?:best|thanks|thx|regards|cheers))[,.!]?[ \n](?P<a>[A-Z]{2,3})(?=[ ]*(?:\n|\Z))"),
    re.compile(r"(?i:\bre:?[ ]pt[ ])(?P<a>[A-Z]{2,3})(?=,)"),
)  # fmt: skip


def initials(page: Page) -> Iterator[Span]:
    """Yield the initials of who dictated, wrote or signed: "JS/bd", "T: 3/4/2019 JS:bd", "Tech: XRD"."""
    titles = {folded(word) for table in ("titles", "credentials") for word in page.language.words(table)}
    for pattern in INITIALS:
        for match in pattern.finditer(page.text):
            for group in ("a", "b"):
                if group not in pattern.groupindex or not match.group(group):
                    continue
                if (
                    folded(match.group(group)) not in titles
                    or page.text[match.end(group) : match.end(group) + 1] != "."
                ):
                    yield Span(match.start(group), match.end(group), Category.NAME, 0.7, "initials")
