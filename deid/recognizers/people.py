"""Names beside other words that tell of people: after "his sister", "probation officer", "login"; the other half of a
name of which one half was found.

Where such a word stands before it, less suspicion of the tagger is enough; a word of a list of names needs none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded, read_list
from deid.recognizers.page import Page
from deid.spans import Category, Span
from deid.tagger import ANY_GIVEN_NAME, ENGLISH_WORD, GIVEN_NAME, NAME_OR_PLACE, WELL_KNOWN_NAME, membership

SURE = 0.75  # a finding less sure than this is not made longer
SUSPICION = 0.02  # of the tagger, that an unknown word beside a name or a relation is one
SUSPICION_OF_WORDS = (
    0.10  # the same for an English word that is a well-known name too, all in capitals or small
)
SUSPICION_OF_FIRST = 0.5  # the same for an unknown word that begins a sentence: mostly one misspelled
WORDS_MORE = 3  # of a name, beside what was found
NAME_WORD = r"[^\W\d_][^\W\d_'’]*(?:['’-][^\W\d_]+)*"
SMALL = r"(?:(?:de|la|las|los|del|van|von|der|den|ter|al|el|bin|ben|abu|ibn|da|dos|di|du|le|st\.?|o)[ ]){0,2}"
NEXT = re.compile(rf"[ ]{SMALL}(?P<word>{NAME_WORD})|-(?P<rest>{NAME_WORD})", re.IGNORECASE)
CARETS = re.compile(rf"(?:\^{NAME_WORD}(?:[ ]{NAME_WORD})?){{1,3}}(?=[|~&^\n])")  # as HL7 writes names
INITIAL_OF_FAMILY = re.compile(r"[ ][A-ZÀ-Þ](?:\.|(?=[ \t]*(?:\n|\Z|[,;)])))")  # "Travis C."
BEFORE = re.compile(rf"(?<![\w'’-])(?P<word>{NAME_WORD})(?:(?P<dot>\.)?[ ]|-)\Z")
CONTRACTED = re.compile(r"['’](?:m|s|re|ve|ll|d|t)\Z", re.IGNORECASE)
INITIAL_BEHIND = re.compile(r"[ ][A-Z](?:\.|(?=\s*(?:\n|\Z|[ ]{2}|,|\d|[ ]\()|[ ]\d))")  # "Vu, Marek M"
SPEAKER = re.compile(
    r"(?m)^(?P<time>[\[(]?\d{1,2}:\d\d(?::\d\d)?(?:[ ]?[AaPp][Mm])?[\])]?[ ]{1,3}(?:-[ ])?)?"
    r"(?P<word>[^\W\d_][\w'’.-]{1,20}(?:[ ][A-ZÀ-Þ][\w'’-]{1,20})?)(?:[ ]\([^)\n]{1,20}\))?:[ ]"
)
END_OF_NAME = re.compile(r"[ ]?(?:[,;)(\n/]|[ ]|\Z)")
GIVEN_BEHIND = re.compile(
    rf",[ ]?(?P<word>{NAME_WORD})(?=[ ]{{2}}|[ ]*(?:\n|\Z|[(;|])|[ ][A-Z]\b|\t|[ ]#?\d)"
)
INITIAL_AND_AGE = re.compile(
    r",[ ][A-Z]\.?(?=[ ]+\d{1,3}[ ]?(?:yo|y/o|y)?[ ]?[MFmf]\b|[ ]*(?:\n|\Z|[|;)]|[ ]{2}))"
)  # "Pike, E 45F"
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
            "abbreviations", "modals", "shorthand",
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
    yield from _speakers(page)
    for match in (*AWARE.finditer(page.text), *FAMILY.finditer(page.text)):
        if _can_be_name(page, match.start("word"), match.end("word")):
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.8, "beside")
    for match in FIELD_LOGIN.finditer(page.text):
        plain = match.group("word")
        if words.lists.get(match.group("family"), 0) & WELL_KNOWN_NAME and not (
            words.lists.get(plain, 0) & ENGLISH_WORD or plain in words.never
        ):
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.75, "login")
    for match in (
        *words.logins.finditer(page.text),
        *BY_AND_WHEN.finditer(page.text),
        *WHEN_AND_BY.finditer(page.text),
    ):
        word = match.group("word")
        if not words.lists.get(folded(word), 0) & ENGLISH_WORD and folded(word) not in words.never:
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.75, "login")


def _speakers(page: Page) -> Iterator[Span]:
    """Yield who speaks in a chat: given names before a colon that begin two lines or more."""
    said = [match for match in SPEAKER.finditer(page.text)]
    lists = _words(page.language).lists
    times = Counter(match.group("word") for match in said)
    # lines with the hour before who speaks, or little else than what two say by turns
    talk = sum(bool(match.group("time")) for match in said) > 1 or (
        len(said) > 2 and 2 * len(said) >= page.text.strip().count("\n") + 1 and len(times) < len(said) / 1.4
    )
    for match in said:
        word = folded(match.group("word").split(" ")[0].split("-")[0])
        known = lists.get(word, 0)
        if (
            times[match.group("word")] > 1
            and word not in _words(page.language).never
            and (
                known & (GIVEN_NAME if match.group("word").islower() else ANY_GIVEN_NAME | WELL_KNOWN_NAME)
                or (talk and not known & ENGLISH_WORD)
            )
        ):
            yield Span(match.start("word"), match.end("word"), Category.NAME, 0.8, "beside")


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
    given = GIVEN_BEHIND.match(text, end)
    if (
        given is not None
        and " " not in text[span.start : end]
        and _can_be_name(page, given.start("word"), given.end("word"), told=True)
    ):
        return given.end()
    initial = INITIAL_AND_AGE.match(text, end)
    if initial is not None and " " not in text[span.start : end]:
        return initial.end()
    carets = CARETS.match(text, end)
    if carets is not None:
        return carets.end()
    if (
        INITIAL_OF_FAMILY.match(text, end)
        and " " not in text[span.start : end]
        and text[span.start].isupper()
    ):
        return end + 2 + (text[end + 2 : end + 3] == ".")
    for _ in range(WORDS_MORE):
        match = NEXT.match(text, end)
        group = "rest" if match and match.group("rest") else "word"
        if match is None:
            break
        if _family_at_end(page, span, match.start(group), match.end(group)):
            end = match.end()
            break
        if not _can_be_name(page, match.start(group), match.end(group)):
            break
        if _only_words(page, span) and lists.get(folded(match.group(group)), 0) & ENGLISH_WORD:
            break
        end = match.end()
    last = INITIAL_BEHIND.match(text, end)
    return last.end() if last is not None and "," in text[span.start : end] else end


def _begins_sentence(text: str, at: int) -> bool:
    before = text[max(at - 3, 0) : at].rstrip(" \t")
    return not before or before[-1] in ".!?:\n-•*|;"


def _given_before(page: Page, span: Span, word: str, at: int) -> bool:
    """Say whether a given name that is a word stands amid a sentence before a family name that is none: "Beryl"."""
    lists = _words(page.language).lists
    family = folded(page.text[span.start : span.end])
    return (
        bool(lists.get(folded(word), 0) & ANY_GIVEN_NAME)
        and word[0].isupper()
        and not word.isupper()
        and not lists.get(family, 0) & ENGLISH_WORD
        and folded(word) not in _words(page.language).never
        and not _begins_sentence(page.text, at)
    )


def _family_at_end(page: Page, span: Span, start: int, end: int) -> bool:
    """Say whether a small word with a capital is the family name of a given name: "Li Hua He," "Jun Ma (friend)"."""
    text, lists = page.text, _words(page.language).lists
    word, given = text[start:end], re.findall(r"[^\W\d_]+", text[span.start : span.end])
    return (
        word[0].isupper()
        and 1 < len(word) < 5
        and word.isupper() == text[span.start : span.end].isupper()
        and bool(lists.get(folded(word), 0) & NAME_OR_PLACE)
        and bool(given)
        and all(lists.get(folded(part), 0) & NAME_OR_PLACE for part in given)
        and END_OF_NAME.match(text, end) is not None
    )


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
            or not (
                _can_be_name(page, at, at + len(word), alone=_begins_sentence(text, at))
                or _given_before(page, span, word, at)
            )
        ):
            break
        start = at
    return start


def _can_be_name(page: Page, start: int, end: int, *, told: bool = False, alone: bool = False) -> bool:
    """Say whether a word that stands where a name may stand is one; `told` if a word for people stands before it,
    `alone` if it has its capital from the sentence that it begins."""
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
    if page.scores is None and told and upright and page.language.code != "en":
        return True  # there is no tagger to ask
    if told and upright and lists & ANY_GIVEN_NAME:
        return True
    if not lists & ENGLISH_WORD:
        if lists & NAME_OR_PLACE:
            return upright or (len(word) > 2 and (told or suspicion > SUSPICION / 4))
        if alone:
            return len(word) > 2 and suspicion > SUSPICION_OF_FIRST
        return len(word) > 2 and suspicion > (SUSPICION / 4 if told and len(word) > 4 else SUSPICION)
    return bool(lists & WELL_KNOWN_NAME) and suspicion > (SUSPICION if upright else SUSPICION_OF_WORDS)


# between the marks of an export: an initial and a family name
FIELD_LOGIN = re.compile(r"(?<=[;|,\t])(?P<word>[a-z](?P<family>[a-z]{3,14}))(?=[;|,\t\n])")
WHEN_AND_BY = re.compile(
    r"(?:\d{1,2}:\d\d(?::\d\d(?:\.\d{1,6})?)?Z?(?:[ ]?[AaPp][Mm])?|\d[/.-]\d{2,4})[ ]by[ ](?P<word>[^\W\d_]\w{2,24})(?=[ \t]*(?:\n|\Z|[.,;)]))"
)
BY_AND_WHEN = re.compile(
    r"\bby[ ](?P<word>[a-z][a-z.-]{2,24}\d{0,4})(?=,?[ ](?:on[ ]|at[ ]|@[ ]?)?\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}(?!\d))"
)
AWARE = re.compile(
    r"(?<![\w'’-])(?P<word>(?-i:[^\W\d_a-zß-öø-ÿ])[^\W\d_]{1,24})[ ](?:is[ ]|was[ ]|made[ ])?(?:aware|notified|paged|updated|informed|at[ ]bedside|in[ ]to[ ]see)\b",
    re.IGNORECASE,
)
FAMILY = re.compile(
    r"\b[Tt]he[ ](?P<word>[A-ZÀ-Þ][^\W\d_]+(?:['’-][^\W\d_]+)*)[ ](?:family|household|residence|home|children|kids|brothers|sisters|twins)\b"
)
