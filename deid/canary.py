"""Made-up people whose identity is looked for everywhere it must not be.

Their names are syllables that no word list holds, their numbers and days are drawn, and every form in which
any of it is usually written is looked for: in text, in raw bytes (UTF-8 and UTF-16), in numbers, in days. So
a find is a leak and no chance, and what is not found was not written in any of these forms; a compressed or
encrypted copy would not be seen, which is why a store is asked for its values and not only read as bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from privacy.rng import SecureBits

_ONSETS = ("z", "qu", "vr", "kl", "str", "th", "br", "dr", "gl", "pf")
_VOWELS = ("a", "e", "i", "o", "u", "ae", "io")
_CODAS = ("x", "nd", "lk", "rv", "mp", "st", "zz", "rg")
_EARLIEST = date(1931, 1, 1)
# years apart: a date that moves by at most a year meets no other canary's
_BIRTHS_APART, _VISITS_APART = timedelta(days=3 * 366), timedelta(days=3 * 366)
_FIRST_VISIT = date(1996, 1, 1)
MOST_PEOPLE = 9  # of whom the last is seen in 2022


@dataclass(frozen=True, slots=True)
class Canary:
    """One made-up person. Everything here is invented, so it may be printed."""

    number: int
    given: str
    family: str
    mrn: str
    ssn: str
    phone: str
    email: str
    street: str
    account: str
    born: date
    seen: date

    def forms(self) -> Iterator[tuple[str, str]]:
        """Yield what to look for: which identifier, and a form of it in small letters."""
        for name, value in (("given", self.given), ("family", self.family), ("street", self.street)):
            yield name, value.lower()
        yield "email", self.email.split("@")[0].lower()
        for name, number in (("mrn", self.mrn), ("account", self.account)):
            yield name, number.lower()
        for name, number in (("ssn", self.ssn), ("phone", self.phone)):
            yield name, number
            yield name, number.replace("-", "")
        for name, day in (("born", self.born), ("seen", self.seen)):
            yield name, day.isoformat()
            yield name, day.strftime("%Y%m%d")
            yield name, day.strftime("%m/%d/%Y")
            yield name, day.strftime("%d.%m.%Y")
            yield name, day.strftime("%B %-d, %Y").lower()


def canaries(count: int, *, bits: SecureBits) -> list[Canary]:
    """Return made-up people, none of whom shares anything with another. Raises: ValueError above nine."""
    if not 1 <= count <= MOST_PEOPLE:
        raise ValueError(f"1 to {MOST_PEOPLE} canaries")
    names: dict[str, None] = {}  # in the order they were drawn
    while len(names) < 3 * count:
        names[_word(bits)] = None
    words = iter(names)
    found = []
    for number in range(count):
        given, family, street = (next(words).title() for _ in range(3))
        found.append(
            Canary(
                number=number,
                given=given,
                family=family,
                mrn=f"8{number}{_digits(7, bits)}",
                ssn=f"9{_digits(2, bits)}-{_digits(2, bits)}-{_digits(4, bits)}",
                phone=f"{2 + bits.below(8)}{_digits(2, bits)}-{_digits(3, bits)}-{_digits(4, bits)}",
                email=f"{given.lower()}.{family.lower()}@{street.lower()}.example",
                street=street,
                account=f"ZQ{number}{_digits(8, bits)}",
                born=_EARLIEST + number * _BIRTHS_APART + timedelta(days=bits.below(300)),
                seen=_FIRST_VISIT + number * _VISITS_APART + timedelta(days=bits.below(300)),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Find:
    """An identity that came out: whose, which part of it, and where. Holds no value of a real person."""

    canary: int
    what: str
    where: str


class Watch:
    """Looks for canaries."""

    def __init__(self, people: Iterable[Canary]) -> None:
        self._people = list(people)
        self._forms = [(one.number, what, form) for one in self._people for what, form in one.forms()]
        self._bytes = [
            (number, what, form.encode(encoding))
            for number, what, form in self._forms
            for encoding in ("utf-8", "utf-16-le")
        ]
        self._numbers = {
            int(value.replace("-", "")): (one.number, what)
            for one in self._people
            for what, value in (("mrn", one.mrn), ("ssn", one.ssn), ("phone", one.phone))
        }
        self._days = {
            day: (one.number, what)
            for one in self._people
            for what, day in (("born", one.born), ("seen", one.seen))
        }

    def in_bytes(self, data: bytes, where: str) -> set[Find]:
        """Return what stands in a file or a stream."""
        small = data.lower()
        return {Find(number, what, where) for number, what, form in self._bytes if form in small}

    def in_values(self, values: Iterable[object], where: str) -> set[Find]:
        """Return what stands among values of any kind: texts, numbers, days, moments."""
        found: set[Find] = set()
        for value in values:
            if isinstance(value, str):
                small = value.lower()
                found.update(Find(number, what, where) for number, what, form in self._forms if form in small)
            elif isinstance(value, bytes):
                found |= self.in_bytes(value, where)
            elif isinstance(value, date):  # a moment is one, too
                day = date(value.year, value.month, value.day)
                if (one := self._days.get(day)) is not None:
                    found.add(Find(*one, where))
            elif isinstance(value, int | float) and (one := self._numbers.get(int(value))) is not None:
                found.add(Find(*one, where))
        return found


def _word(bits: SecureBits) -> str:
    """Two syllables that no language has, of six letters or more."""
    while True:
        syllables = [
            parts[bits.below(len(parts))] for parts in (_ONSETS, _VOWELS, _CODAS, _ONSETS, _VOWELS, _CODAS)
        ]
        word = "".join(syllables)
        if 7 <= len(word) <= 12:
            return word


def _digits(count: int, bits: SecureBits) -> str:
    return f"{bits.below(10**count):0{count}}"
