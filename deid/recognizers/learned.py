"""What the tagger found, put together to spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from deid.lexicon.language import Language
from deid.lexicon.lists import folded
from deid.recognizers.dates import is_great
from deid.recognizers.edges import without_strangers
from deid.recognizers.page import Page
from deid.spans import DIRECT, Category, Span
from deid.tagger import CATEGORIES

# a leak costs more than a word too many: a token stays only if the tagger is surer than this that it is none
OUTSIDE_AT_MOST = 0.90
BRIDGE = re.compile(
    r"[ \t]?[.,'’/&#:-]?[ \t]{0,2}\Z"
)  # what may stand between two parts of one name, number or address
ONE_WORD = frozenset((*DIRECT, Category.EMAIL, Category.URL, Category.IP)) - {Category.PHONE}
AGE_WORDS = re.compile(
    r"[^\W\d_]+(?:[\s-][^\W\d_]+)*?(?=[\s-]*(?:year|yr|yo\b|y/o|y\.o|años))", re.IGNORECASE
)
AGE_NUMBER = re.compile(r"[^\W\d_]{0,3}\s?\d{1,3}")
# a number goes on over a hyphen, a stroke or a point to the end of what is written together: "6182114-7"
MORE_OF_NUMBER = re.compile(r"(?:[-/.][^\W_]{1,12}){1,3}(?![\w/.-]|\.\d)")
LESS_OF_NUMBER = re.compile(r"(?<![\w/.-])(?:[^\W_]{1,12}[-/.]){1,3}\Z")
LONG_WORD = re.compile(r"[^\W\d_]{5}\Z")
NAMED = frozenset((Category.NAME, Category.ADDRESS, Category.HOSPITAL, Category.ORGANIZATION))
WITH_EDGES = NAMED | {Category.DATE}
FIRST_WORD = re.compile(r"(?P<word>[^\W\d_]+(?:/[^\W\d_]+)?)(?:[.:][ ]{0,2}|[ ]{1,2})(?=[\w(+#])")
LAST_WORD = re.compile(r"(?<=\w)[ ,.;/|]{1,3}(?P<word>[^\W\d_]+):?\Z")
AN_HOUR = re.compile(r"(?<=\d)@\d{1,2}:\d\d\Z")
LABEL_BEHIND = re.compile(r"[ ]?:")
EXTENSION = re.compile(r"(?<![^\W_])[xXp]?(?:\d-)?\Z")  # of a pager or a desk: "x4471", "p4-1177"
PREFIX_OF_NUMBER = re.compile(r"(?<![\w/-])[A-Z]{1,5}[-/_]\Z")
DEGREE_BEHIND = re.compile(
    r"(?:,?\s*(?:BM BCh|MBBS|MBBCh|MBChB|MRCP|MRCGP|FRCS|FRCPC|FRCP|FRCA|FRCR|CCFP|MRCPsych|FRACP|FACS|FACC|CST|CGC|MS|Esq|JD|CNM|OTR|RRT|RD|PharmD|LPN|APRN|CRNA|FNP(?:-C)?))+\.?\Z|,?\s*(?:M\.?D?|Ph\.?D?|PsyD|D\.?O?|RN|LPN|MSW|LCSW|NP|PA|PA-C|CNA|NPI|DPT)\.?\Z"
)
ADDRESS_BRIDGE = re.compile(r"[\s,.;|#/-]{0,6}\Z")


def tagged(page: Page, outside_at_most: float = OUTSIDE_AT_MOST) -> Iterator[Span]:
    """Yield runs of tokens that the tagger takes for one kind of identity."""
    scores = page.scores
    if scores is None or not len(scores):
        return
    inside = scores[:, 0] < outside_at_most
    if not inside.any():
        return
    by_category = scores[:, 1::2] + scores[:, 2::2]
    best = by_category.argmax(axis=1)
    text, starts, ends = page.text, page.starts, page.ends
    run: tuple[int, int, int, float] | None = None  # start, end, category, score
    for place in np.flatnonzero(inside):
        kind, start, end = int(best[place]), starts[place], ends[place]
        word = text[start:end]
        if word.isspace():
            continue
        sure = float(1.0 - scores[place, 0])
        if (
            run is not None
            and run[2] == kind
            and float(scores[place, 1 + 2 * kind]) < 0.6
            and _joined(text[run[1] : start], CATEGORIES[kind])
            and not _sentence_ends(text, run[1], start)
        ):
            run = (run[0], end, kind, max(run[3], sure))
            continue
        if run is not None:
            yield from _span(page, run)
        run = (start, end, kind, sure)
    if run is not None:
        yield from _span(page, run)


def _joined(between: str, category: Category) -> bool:
    pattern = ADDRESS_BRIDGE if category is Category.ADDRESS else BRIDGE
    return pattern.match(between) is not None


def _sentence_ends(text: str, end: int, start: int) -> bool:
    """Say whether a full stop ends a sentence there: not behind "St" or "Ave", but behind a longer word."""
    return (
        "." in text[end:start]
        and text[end:start] != "."
        and LONG_WORD.search(text[max(end - 5, 0) : end]) is not None
    )


def _span(page: Page, run: tuple[int, int, int, float]) -> Iterator[Span]:
    start, end, kind, score = run
    category, text = CATEGORIES[kind], page.text
    start, end = _bounds(page, start, end, category)
    piece = text[start:end]
    if not any(c.isalnum() for c in piece):
        return
    if category is Category.AGE:
        if not is_great(piece, page.language):
            return
        number = AGE_NUMBER.match(piece) or AGE_WORDS.match(piece)
        end = start + number.end() if number else end
    yield Span(start, end, category, round(min(score, 1.0), 4), "tagger")  # threads round otherwise


def _bounds(page: Page, start: int, end: int, category: Category) -> tuple[int, int]:
    """Return where what the tagger found begins and ends once what belongs to it is in and what does not is out."""
    text = page.text
    if category in ONE_WORD:
        start, end = _whole_number(text, start, end)
    while start < end and not text[start].isalnum() and text[start] not in "(+#":
        start += 1
    while end > start and not text[end - 1].isalnum() and text[end - 1] not in ".)":
        end -= 1
    if category in WITH_EDGES or category in DIRECT:
        start, end = _without_edges(page, start, end, category)
    if category in (Category.NAME, Category.ADDRESS):
        start, end = without_strangers(page, start, end, category)
    if category is Category.DATE:
        end -= len(hour.group()) if (hour := AN_HOUR.search(text, start, end)) else 0
    if category is Category.NAME:
        end = _without_degree(text, start, end)
    if category is Category.PHONE and (more := EXTENSION.search(text, max(start - 3, 0), start)):
        start = more.start()
    return start, end


def _whole_number(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where the number of which a part was found begins and ends."""
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    more = MORE_OF_NUMBER.match(text, end) if text[end - 1 : end].isalnum() else None
    if more is not None and any(c.isdigit() for c in more.group()):
        end = more.end()
    low = max(start - 30, 0)
    prefix = PREFIX_OF_NUMBER.search(text[max(start - 7, 0) : start]) if text[start].isdigit() else None
    if prefix is not None:
        return start - len(prefix.group()), end
    less = LESS_OF_NUMBER.search(text[low:start]) if text[start].isalnum() else None
    if less is not None and any(c.isdigit() for c in less.group()):
        start = low + less.start()
    return start, end


def _without_edges(page: Page, start: int, end: int, category: Category) -> tuple[int, int]:
    """Return where a name, place or date begins and ends, less words of the sentence and labels at its edges."""
    lead, tail, labels = _edges(page.language, category)
    while match := FIRST_WORD.match(page.text, start, end):
        if folded(match.group("word")) not in lead and not (
            match.group("word") in tail and match.group("word").islower()
        ):
            break
        start = match.end()
    while match := LAST_WORD.search(page.text, start, end):
        word = match.group("word")
        if not (
            word in tail
            or (category not in NAMED and (folded(word) in lead or (word.islower() and category in DIRECT)))
            or (LABEL_BEHIND.match(page.text, end) and folded(word) in labels)
        ):
            break
        end = match.start()
    return start, end


@cache
def _edges(language: Language, category: Category) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return words that never begin what is found, words that never end it, and those that do not before a colon."""
    lead = {"re"}
    if category is Category.NAME:
        lead |= {folded(word) for word in (*language.words("relations"), *language.words("lead_words"))}
    elif category not in NAMED:
        lead |= {folded(word) for word in language.words("edge_labels")}
    labels = {
        folded(word)
        for word in (*language.words("staff"), *language.words("label_name"), *language.words("edge_labels"))
    }
    return frozenset(lead), frozenset(language.words("tail_words")), frozenset(labels)


def _without_degree(text: str, start: int, end: int) -> int:
    """Return where a name ends, less the degree behind it."""
    degree = DEGREE_BEHIND.search(text, start, end)
    if degree is None or degree.start() <= start + 1 or degree.group()[:1] not in ", ":
        return end
    return degree.start() if text[end : end + 1] in ("", ".", ",", " ", "\n", ")", "/") else end
