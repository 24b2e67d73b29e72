"""Names for names: of the same kind and sex, in the same form and order, the same for each mention.

Every word is replaced by itself alone, whatever stands beside it: so "Ann Lee", "LEE, ANN", "Mrs. Lee's" and
"A. Lee" of one patient stay one person. Given names keep the sex that the US census of 1990 knows them by;
an initial becomes the initial of what the names that begin with it become. Titles and particles stay.

Source of the lists: given names and surnames of the US Census Bureau, 1990 (public domain).
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from importlib import resources

from deid.surrogates_draw import Draw
from deid.surrogates_words import words

TITLES = words("titles")
PARTICLES = words("particles")
DEGREES = words("degrees")
_PIECE = re.compile(
    r"(?!(?<=['’])[sS]\b)[^\W\d_]+(?:['’](?!s\b|S\b)[^\W\d_]+)*"
)  # O'Connor is one word, Lee's is Lee
_FEWEST_PER_LETTER = 12  # an initial moves to letters that enough names begin with
_COMMONEST = {"female": 60, "male": 40, "surname": 150}  # of a letter: rarer ones read oddly


def name_like(value: str, draw: Draw) -> str:
    """Return a name in the form of `value`. Raises: NothingFits."""
    return _PIECE.sub(lambda match: _word(match.group(), draw), value)


def surname_like(word: str, draw: Draw) -> str:
    """Return the surname that stands for `word`, in its capitals."""
    return cased(word, _drawn(word, "surname", draw))


def cased(model: str, word: str) -> str:
    """Return `word` in the capitals of `model`.

    >>> cased("LEE", "Walsh"), cased("Lee", "Walsh"), cased("lee", "Walsh")
    ('WALSH', 'Walsh', 'walsh')
    """
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word.lower() if model.islower() else word


@functools.cache
def lists() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return the names by kind ("female", "male", "surname") and first letter, commonest first."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, kind in _rows():
        found.setdefault(kind, {}).setdefault(name[0], []).append(name)
    return {
        kind: {
            letter: tuple(names[: _COMMONEST[kind]])
            for letter, names in by.items()
            if len(names) >= _FEWEST_PER_LETTER
        }
        for kind, by in found.items()
    }


@functools.cache
def _kinds() -> Mapping[str, str]:
    return {name.casefold(): kind for name, kind in _rows()}


def _rows() -> list[tuple[str, str]]:
    text = resources.files("deid").joinpath("surrogates_names.csv").read_text(encoding="utf-8")
    return [(row["name"], row["kind"]) for row in csv.DictReader(text.splitlines())]


def _word(word: str, draw: Draw) -> str:
    folded = word.casefold()
    if len(word) == 1:
        letter = _letter(folded, draw)
        return letter if word.isupper() else letter.lower()
    if folded in TITLES or word in PARTICLES or word in DEGREES:
        return word
    if len(word) == 2 and word.isupper() and not set(word) & set("AEIOUY"):  # initials written together
        return "".join(_word(letter, draw) for letter in word)
    return cased(word, _drawn(word, _kinds().get(folded, "surname"), draw))


def _drawn(word: str, kind: str, draw: Draw) -> str:
    """A name of the kind that begins with what this patient's initial becomes."""
    folded = word.casefold()
    by_letter = lists()[kind]
    options = by_letter.get(_letter(folded[0], draw), by_letter["M"])
    return draw.choice(kind, folded, options)


def _letter(initial: str, draw: Draw) -> str:
    """What an initial becomes: a letter that names of every kind begin with, never itself."""
    return draw.choice("initial", initial, [letter for letter in _initials() if letter.casefold() != initial])


@functools.cache
def _initials() -> tuple[str, ...]:
    return tuple(sorted(set.intersection(*(set(by) for by in lists().values()))))


@functools.cache
def surnames() -> tuple[str, ...]:
    """Return all surnames, commonest first within a letter."""
    return tuple(name for names in lists()["surname"].values() for name in names)
