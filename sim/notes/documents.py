"""Generated notes with the places of every identity in them, to train and to test finders of identity.

The text comes from `phrases.toml`, the identities from `sim.notes.identities`; nothing in it is of anyone.

Guarantee: the same seed gives the same notes, and each span of a note holds exactly what was filled in.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from deid.lexicon.lists import read_list
from deid.spans import Category
from sim.notes import identities as make
from sim.notes.identities import Person, Rng, digits, pick

C = Category
NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass
class Note:
    """A text and where identity stands in it."""

    text: str = ""
    spans: list[tuple[int, int, Category]] = field(default_factory=list)

    def add(self, text: str, category: Category | None = None) -> None:
        """Append `text`; with a category it is identity."""
        if category is not None and text:
            self.spans.append((len(self.text), len(self.text) + len(text), category))
        self.text += text


@dataclass
class Case:
    """Who and what one note is about."""

    rng: Rng
    patient: Person
    relative: Person
    doctors: tuple[Person, Person]
    home: str
    hospital: str
    admitted: date
    born: date
    age: int
    forms: dict[str, str] = field(default_factory=dict)  # how this note writes a person, mostly the same way

    @classmethod
    def draw(cls, rng: Rng) -> Case:
        """Return a new case."""
        patient = Person.draw(rng)
        relative = Person(
            make.first_name(rng),
            make.first_name(rng),
            patient.last if rng.random() < 0.5 else make.last_name(rng),
        )
        home = make.town(rng)
        admitted = date(int(rng.integers(1985, 2027)), int(rng.integers(1, 13)), int(rng.integers(1, 29)))
        age = int(rng.integers(90, 112)) if rng.random() < 0.4 else int(rng.integers(0, 90))
        born = date(max(admitted.year - age, 1900), int(rng.integers(1, 13)), int(rng.integers(1, 29)))
        return cls(
            rng,
            patient,
            relative,
            (Person.draw(rng), Person.draw(rng)),
            home,
            make.hospital(rng, home),
            admitted,
            born,
            age,
        )

    def written(self, who: str, person: Person) -> str:
        """Return a person's name, two times in three as before in this note."""
        if who not in self.forms or self.rng.random() < 0.33:
            self.forms[who] = person.written(self.rng)
        return self.forms[who]


@cache
def phrases() -> dict[str, Any]:
    """Return the phrases and terms of all files."""
    folder = resources.files("sim.notes")
    book, *more = (
        tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
        for name in ("phrases", "phrases_wider", "phrases_dense")
    )
    for wider in more:
        for name in ("clinical", "clinical_who", "everyday", "everyday_who"):
            book[name] += wider[name]
        book["terms"] |= wider["terms"]
    return book


@cache
def _words() -> tuple[str, ...]:
    return tuple(read_list("words"))


def in_words(n: int) -> str:
    """Return a number below 200 in words."""
    if n < 20:
        return NUMBER_WORDS[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{NUMBER_WORDS[n % 10]}" if n % 10 else "")
    return "one hundred" + (f" and {in_words(n % 100)}" if n % 100 else "")


def _age(case: Case) -> str:
    rng, n = case.rng, case.age
    if rng.random() < 0.08:
        return f"{in_words(n)}{pick(rng, ('-year-old', ' year old', ' years old', '-year-old'))}"
    return f"{n}{pick(rng, (' year old', '-year-old', ' y/o', 'yo', ' yo', 'y', ' y.o.', '-yr-old', ' years old', ' year-old', '-year old', ' YO', 'yr', 'y/o', ' yrs', ' years'))}"


def _sex_age(case: Case) -> str:
    return f"{case.age}{pick(case.rng, ('M', 'F', 'yoM', 'yo F', ' M', 'F', 'y M', 'y/o female', ' F'))}"


def _vehicle(rng: Rng) -> str:
    if rng.random() < 0.5:
        return "".join(pick(rng, "ABCDEFGHJKLMNPRSTUVWXYZ0123456789") for _ in range(11)) + digits(rng, 6)
    return make.shaped(
        rng, pick(rng, ("AAA-9999", "9AAA999", "AAA 999", "AA99 AAA", "999-AAA", "AA-999-AA", "AAA9999"))
    )


def _device(rng: Rng) -> str:
    return (
        make.shaped(
            rng,
            pick(
                rng,
                (
                    "AAA999999A",
                    "SN-99999999",
                    "A99999999",
                    "9999-999-999",
                    "AA-99999",
                    "(01)99999999999999(21)A99999",
                    "99A999999",
                    "AAAA99999",
                    "SN999999",
                    "99999999",
                    "AAA-AAA-9999",
                ),
            ),
        )
        if rng.random() < 0.8
        else make.number(rng)
    )


def _licence(rng: Rng) -> str:
    return (
        make.shaped(
            rng,
            pick(
                rng,
                (
                    "AA9999999",
                    "9999999999",
                    "A999-9999-9999",
                    "A9999999",
                    "AA-999999",
                    "999999999",
                    "MD-99999",
                    "A99 999 999",
                    "99AA99999",
                ),
            ),
        )
        if rng.random() < 0.7
        else make.number(rng)
    )


def _plan(rng: Rng) -> str:
    return (
        make.shaped(
            rng,
            pick(
                rng,
                (
                    "AAA999999999",
                    "9AA9AA9AA99",
                    "999-99-9999A",
                    "A99999999",
                    "AAA-99999999",
                    "99999999999",
                    "9AA9-AA9-AA99",
                ),
            ),
        )
        if rng.random() < 0.6
        else make.number(rng)
    )


def _card(rng: Rng) -> str:
    size = pick(rng, (16, 16, 15, 13, 12, 14))
    text = str(rng.integers(2, 7)) + digits(rng, int(size) - 1)
    return (
        text
        if rng.random() < 0.7
        else pick(rng, ("-", " ")).join(text[i : i + 4] for i in range(0, len(text), 4))
    )


def _iban(rng: Rng) -> str:
    text = make.shaped(
        rng,
        pick(
            rng,
            (
                "GB99AAAA99999999999999",
                "DE99999999999999999999",
                "FR9999999999999999999999999",
                "ES9999999999999999999999",
                "NL99AAAA9999999999",
            ),
        ),
    )
    return text.lower() if rng.random() < 0.05 else text


def _initials(case: Case) -> str:
    d = case.doctors[0]
    text = d.first[0] + d.last[0]
    three = d.first[0] + d.middle[0] + d.last[0]
    return pick(case.rng, (text.lower(), text.upper(), three.lower(), three.upper()))


def _user(case: Case) -> str:
    """Return the name by which a member of staff logs in."""
    first, last = (
        "".join(c for c in name.lower() if c.isalpha())
        for name in (case.doctors[0].first, case.doctors[0].last)
    )
    return pick(
        case.rng,
        (
            first[:1] + last,
            last + first[:1],
            f"{first}.{last}",
            f"{first[:2]}{last}{digits(case.rng, 1)}",
            f"{last}{digits(case.rng, 2)}",
        ),
    )


def _unlike(rng: Rng) -> str:
    """Return initials of someone who is not in the note."""
    return "".join(pick(rng, "abcdefghjklmnprstw") for _ in range(int(rng.integers(2, 4))))


def _weekday(rng: Rng) -> str:
    day = pick(rng, make.WEEKDAYS)
    return pick(
        rng, (day, day[:3], day[:3], day.lower(), day[:3].lower(), "Thurs" if day == "Thursday" else day[:4])
    )


WHO: dict[str, tuple[Category, Callable[[Case], str]]] = {
    # slot -> what it is, how it is filled
    "pt": (C.NAME, lambda c: c.written("pt", c.patient)),
    "pt.first": (C.NAME, lambda c: c.patient.first),
    "pt.last": (C.NAME, lambda c: c.patient.last),
    "doc": (C.NAME, lambda c: c.written("doc", c.doctors[0])),
    "doc.last": (C.NAME, lambda c: c.doctors[0].last),
    "doc2": (C.NAME, lambda c: c.written("doc2", c.doctors[1])),
    "doc2.last": (C.NAME, lambda c: c.doctors[1].last),
    "rel": (C.NAME, lambda c: c.written("rel", c.relative)),
    "rel.first": (C.NAME, lambda c: c.relative.first),
    "person": (C.NAME, lambda c: Person.draw(c.rng).written(c.rng, form="full" if c.rng.random() < 0.6 else "")),
    "first": (C.NAME, lambda c: make.first_name(c.rng)),
    "last": (C.NAME, lambda c: make.last_name(c.rng)),
    "initials": (C.NAME, _initials),
    "user": (C.NAME, _user),
    "date": (C.DATE, lambda c: make.written_date(c.rng, make.day(c.rng, c.admitted, 500))),
    "dob": (C.DATE, lambda c: make.written_date(c.rng, c.born, partial=False)),
    "year": (C.DATE, lambda c: str(int(c.rng.integers(1950, 2027)))),
    "md": (C.DATE, lambda c: pick(c.rng, (f"{c.rng.integers(1, 13)}/{c.rng.integers(1, 32)}", f"{c.rng.integers(1, 13)}/{c.rng.integers(1, 32)}", f"{pick(c.rng, make.MONTHS)[:3]} {c.rng.integers(1, 32)}", f"{c.rng.integers(1, 13)}/{c.rng.integers(1, 32)}/{c.rng.integers(10, 99)}", f"{c.rng.integers(1, 13)}/{c.rng.integers(1990, 2026)}"))),
    "wkday": (C.DATE, lambda c: _weekday(c.rng)),
    "care": (C.HOSPITAL, lambda c: _care(c)),
    "monthonly": (C.DATE, lambda c: pick(c.rng, make.MONTHS) if c.rng.random() < 0.6 else pick(c.rng, make.MONTHS)[:3]),
    "shortday": (C.DATE, lambda c: _short_day(c)),
    "yy": (C.DATE, lambda c: f"{c.rng.integers(60, 125) % 100:02d}"),
    "weekday": (C.DATE, lambda c: pick(c.rng, make.WEEKDAYS)),
    "age": (C.AGE, _age),
    "age89": (C.AGE, lambda c: str(int(c.rng.integers(0, 90)))),
    "agenum": (C.AGE, lambda c: str(c.age) if c.rng.random() < 0.8 else in_words(c.age)),
    "sexage": (C.AGE, _sex_age),
    "addr": (C.ADDRESS, lambda c: make.address(c.rng)),
    "street": (C.ADDRESS, lambda c: make.street(c.rng)),
    "city": (C.ADDRESS, lambda c: c.home if c.rng.random() < 0.4 else make.town(c.rng)),
    "home": (C.ADDRESS, lambda c: c.home),
    "state": (C.ADDRESS, lambda c: pick(c.rng, tuple(make.STATES)) if c.rng.random() < 0.6 else pick(c.rng, tuple(make.STATES.values()))),
    "zip": (C.ADDRESS, lambda c: make.zip_code(c.rng)),
    "country": (C.ADDRESS, lambda c: make.country(c.rng)),
    "hosp": (C.HOSPITAL, lambda c: c.hospital if c.rng.random() < 0.5 else make.hospital(c.rng, c.home)),
    "ward": (C.HOSPITAL, lambda c: pick(c.rng, phrases()["terms"]["ward"])),
    "org": (C.ORGANIZATION, lambda c: make.company(c.rng)),
    "prof": (C.PROFESSION, lambda c: pick(c.rng, make.PROFESSIONS)),
    "phone": (C.PHONE, lambda c: make.phone(c.rng)),
    "pager": (C.PHONE, lambda c: digits(c.rng, int(c.rng.integers(4, 6)))),
    "email": (C.EMAIL, lambda c: make.email(c.rng, c.patient if c.rng.random() < 0.6 else c.doctors[0])),
    "url": (C.URL, lambda c: make.url(c.rng)),
    "ip": (C.IP, lambda c: make.ip(c.rng)),
    "ssn": (C.SSN, lambda c: make.ssn(c.rng)),
    "mrn": (C.MRN, lambda c: make.number(c.rng)),
    "acct": (C.ACCOUNT, lambda c: make.number(c.rng)),
    "card": (C.ACCOUNT, lambda c: _card(c.rng)),
    "iban": (C.ACCOUNT, lambda c: _iban(c.rng)),
    "plan": (C.PLAN_ID, lambda c: _plan(c.rng)),
    "lic": (C.LICENSE, lambda c: _licence(c.rng)),
    "vehicle": (C.VEHICLE, lambda c: _vehicle(c.rng)),
    "dev": (C.DEVICE, lambda c: _device(c.rng)),
    "bio": (C.BIOMETRIC, lambda c: make.number(c.rng)),
    "gps": (C.ADDRESS, lambda c: f"{c.rng.uniform(-60, 70):.{c.rng.integers(3, 7)}f}{pick(c.rng, (', ', ',', ' / '))}{c.rng.uniform(-170, 170):.{c.rng.integers(3, 7)}f}"),
    "mac": (C.DEVICE, lambda c: pick(c.rng, (":", "-")).join(make.shaped(c.rng, "xx") for _ in range(6))),
    "id": (C.ID, lambda c: make.number(c.rng)),
}  # fmt: skip


def _n(low: int, high: int) -> Callable[[Rng], str]:
    return lambda rng: str(int(rng.integers(low, high)))


def _value(rng: Rng) -> str:
    return pick(
        rng,
        (
            f"{rng.uniform(0.1, 20):.1f}",
            f"{rng.uniform(0.1, 9):.2f}",
            str(rng.integers(2, 400)),
            f"<{rng.uniform(0, 1):.2f}",
            f"{rng.integers(10, 400)}",
        ),
    )


WHAT: dict[str, Callable[[Rng], str]] = {
    # slot -> how it is filled; none of it is identity
    "n": _n(10, 120), "n1": _n(1, 10), "n2": _n(10, 100), "n3": _n(100, 600), "n4": _n(1000, 5000), "n5": _n(10000, 99999), "n6": _n(100000, 999999), "n8": _n(10_000_000, 39_999_999),
    "f1": lambda rng: f"{rng.uniform(0.4, 15):.1f}",
    "lo": _n(1, 100), "hi": _n(100, 400),
    "pct": lambda rng: f"{rng.integers(5, 101)}%",
    "bp": lambda rng: f"{rng.integers(85, 200)}/{rng.integers(40, 110)}",
    "temp": lambda rng: pick(rng, (f"{rng.uniform(35.5, 39.9):.1f}", f"{rng.uniform(96, 103):.1f}F", f"{rng.uniform(35.5, 39.9):.1f} °C", f"{rng.uniform(35.5, 39.9):.1f} C")),
    "dose": lambda rng: pick(rng, (f"{pick(rng, (1, 2, 2.5, 5, 10, 12.5, 20, 25, 40, 50, 81, 90, 100, 250, 325, 500, 1000))} {pick(rng, ('mg', 'mg', 'mcg', 'units', 'mL', 'g', 'puffs', 'tabs', 'mEq', 'IU'))}", f"{rng.integers(1, 500)}mg", f"{rng.integers(1, 10)}/{rng.integers(100, 900)} mg", f"{rng.integers(1, 4)} {pick(rng, ('tablet', 'tablets', 'capsule', 'drops', 'sprays'))}")),
    "dur": lambda rng: f"{pick(rng, (str(rng.integers(1, 31)), str(rng.integers(1, 13)), f'{rng.integers(2, 4)}-{rng.integers(4, 8)}', in_words(int(rng.integers(1, 120)))))} {pick(rng, ('days', 'weeks', 'months', 'years', 'day', 'hours', 'wks', 'd', 'yrs'))}",
    "time": lambda rng: pick(rng, (f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}", f"{rng.integers(1, 13)}:{rng.integers(0, 60):02d} {pick(rng, ('AM', 'PM', 'am', 'p.m.'))}", f"{rng.integers(0, 24):02d}{rng.integers(0, 60):02d}", f"{rng.integers(1, 13)}{pick(rng, ('am', 'pm'))}", "noon")),
    "labval": _value,
    "icd": lambda rng: make.shaped(rng, pick(rng, ("A99.9", "A99", "A99.99", "999.99", "A99.9A"))),
    "ndc": lambda rng: make.shaped(rng, pick(rng, ("99999-999-99", "9999-9999-99", "99999-9999-9"))),
    "lot": lambda rng: make.shaped(rng, pick(rng, ("MED-999999", "A999999", "AA9999", "99A99A", "LOT-99999"))),
    "yr": _n(1955, 2026),
    "wk": lambda rng: pick(rng, (pick(rng, make.WEEKDAYS), "MWF", "TTS", "Mon/Wed/Fri", "Tuesdays", "weekends", "Tues/Thurs/Sat")),
    "med": lambda rng: _medical(rng), "cmed": lambda rng: _medical(rng).capitalize(),
    "acr": lambda rng: make.letters(rng, int(rng.integers(2, 5))) + (digits(rng, 1) if rng.random() < 0.15 else ""),
    "drug": lambda rng: pick(rng, phrases()["terms"]["drug"]) if rng.random() < 0.55 else _made_up_drug(rng),
    "agetxt": lambda rng: pick(rng, ("elderly", "middle-aged", "young", "pleasant", "well-appearing", "frail", "otherwise healthy", "well-developed")),
    "epo": lambda rng: _after_somebody(rng),
    "typo": lambda rng: misspelled(_some_word(rng), rng), "ctypo": lambda rng: misspelled(_some_word(rng), rng).capitalize(),
    "ocr": lambda rng: misread(_some_word(rng), rng), "octx": lambda rng: misread(_some_word(rng).capitalize() if rng.random() < 0.6 else _some_word(rng).upper(), rng),
    "word": lambda rng: make.common(rng, _words(), 1.0), "cword": lambda rng: make.common(rng, _words(), 1.0).capitalize(), "upword": lambda rng: make.common(rng, _words(), 1.0).upper(),
}  # fmt: skip


def _some_word(rng: Rng) -> str:
    """Return a word of a dictionary or of medicine, commoner ones more often."""
    if rng.random() < 0.3:
        return _medical(rng)
    return make.common(rng, _words(), 2.0)


def _after_somebody(rng: Rng) -> str:
    """Return a family name as signs and instruments have them: mostly one word, and any that there is."""
    name = make.last_name(rng)
    return name if " " not in name else make.syllables(rng, 2).capitalize()


def misspelled(word: str, rng: Rng) -> str:
    """Return a word with a letter lost, doubled, swapped or struck wrongly."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    r = rng.random()
    if r < 0.35:
        return word[:at] + word[at + 1 :]
    if r < 0.6:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if r < 0.8:
        return word[: at + 1] + word[at:]
    return word[:at] + pick(rng, "aeiounrstlmc") + word[at + 1 :]


MISREAD = {"l": "1I|", "i": "1l!", "o": "0", "O": "0Q", "I": "l1|", "s": "5", "S": "5", "e": "c", "g": "9", "B": "8", "0": "O", "1": "lI", "5": "S"}  # fmt: skip


def misread(text: str, rng: Rng, share: float = 0.4) -> str:
    """Return a text as a scanner reads it: letters and figures that look alike changed, none lost.

    >>> import numpy as np
    >>> misread("Oil 10", np.random.default_rng(1), share=1.0)
    'Q!1 lO'
    """
    return "".join(pick(rng, MISREAD[c]) if c in MISREAD and rng.random() < share else c for c in text)


HOMES = ("Terrace", "Commons", "Knoll", "Manor", "Court", "Place", "Gardens", "Village", "Lodge", "House", "Glen", "Oaks", "Pines", "Ridge", "Grove", "Meadows", "Point", "Landing", "Springs", "Crossing", "Haven", "Hall", "View", "Park", "Acres", "Rest")  # fmt: skip


def _care(case: Case) -> str:
    """Return what a house for the old or the ill is called, mostly without a word for what it is."""
    rng = case.rng
    own = pick(rng, make.NATURE) if rng.random() < 0.6 else make.last_name(rng)
    name = f"{own} {pick(rng, HOMES)}"
    r = rng.random()
    return f"The {name}" if r < 0.1 else f"The {own}s of {case.home}" if r < 0.2 else name


def _short_day(case: Case) -> str:
    """Return a day without its year, as charts have it."""
    rng = case.rng
    month, day = int(rng.integers(1, 13)), int(rng.integers(1, 32))
    return pick(
        rng,
        (f"{month}/{day}", f"{month}/{day}", f"{month}/{day}", f"{month}-{day}", f"{month:02d}/{day:02d}"),
    )


MED_HEADS = ("cardio", "neuro", "gastro", "hepato", "nephro", "osteo", "arthro", "dermato", "hemato", "myo", "pneumo", "broncho", "cysto", "entero", "encephalo", "angio", "adeno", "cholecyst", "colo", "cranio", "laryngo", "oto", "rhino", "spondylo", "thoraco", "thrombo", "uro", "vaso", "lympho", "musculo", "poly", "hyper", "hypo", "peri", "endo", "intra", "extra", "retro", "sub", "supra", "post", "pre", "anti", "brady", "tachy", "dys", "micro", "macro", "para", "trans", "infra", "mid", "lipo", "fibro", "litho", "radio", "sono", "echo", "electro", "phlebo", "pyelo", "sclero", "ureter", "vertebro", "hemi", "bi", "non")  # fmt: skip
MED_TAILS = ("itis", "ectomy", "scopy", "pathy", "algia", "osis", "emia", "uria", "plasty", "graphy", "megaly", "tomy", "stomy", "tripsy", "lysis", "plegia", "paresis", "phasia", "phagia", "dipsia", "pnea", "rrhea", "rrhagia", "trophy", "plasia", "oma", "genic", "gram", "graph", "meter", "ic", "al", "ary", "ous", "cytes", "cyte", "penia", "cytosis", "vascular", "skeletal", "muscular", "articular", "esophageal", "intestinal", "abdominal", "cranial", "thoracic", "lumbar", "sacral", "cutaneous", "ocular", "tympanic", "nuclear", "genital", "mucosal", "pharyngeal", "spinal", "stenosis", "sclerosis", "ptosis", "malacia", "philia", "phobia", "toxin", "blast", "therapy", "vesical")  # fmt: skip
DRUG_TAILS = ("ol", "olol", "pril", "sartan", "statin", "mab", "nib", "ine", "azole", "cillin", "mycin", "floxacin", "cycline", "prazole", "tidine", "triptan", "setron", "dipine", "zosin", "gliptin", "gliflozin", "tide", "parin", "xaban", "vir", "one", "sone", "ide", "amide", "zepam", "barbital", "caine", "curium", "fen", "profen", "oxib", "ate", "ax", "ex", "ra", "or", "in", "cet", "il", "ia", "tro", "xa", "ane", "ast", "lukast", "phylline", "terol")  # fmt: skip


def _medical(rng: Rng) -> str:
    """Return a word of medicine's making, often one that no dictionary has."""
    return pick(rng, MED_HEADS) + (pick(rng, MED_HEADS) if rng.random() < 0.12 else "") + pick(rng, MED_TAILS)


def _made_up_drug(rng: Rng) -> str:
    name = make.syllables(rng, int(rng.integers(1, 3))).lower() + pick(rng, DRUG_TAILS)
    name = "".join(c for c in name if c.isascii())
    return name.capitalize() if rng.random() < 0.6 else name


_PART = re.compile(r"\[|\]|\||\{[\w.]+\}|[^\[\]|{]+|\{")


def expand(template: str, rng: Rng) -> list[str]:
    """Return the pieces of a template once one of each choice is taken: plain texts and slots."""
    parts = _PART.findall(template)
    pieces, at = _sequence(parts, 0, rng, top=True)
    if at != len(parts):
        raise ValueError("a bracket of a phrase closes that was not opened")
    return pieces


def _sequence(parts: list[str], at: int, rng: Rng, *, top: bool = False) -> tuple[list[str], int]:
    choices: list[list[str]] = [[]]
    while at < len(parts):
        part = parts[at]
        at += 1
        if part == "[":
            inner, at = _sequence(parts, at, rng)
            choices[-1].extend(inner)
        elif part == "]" and not top:
            return choices[int(rng.integers(len(choices)))], at
        elif part == "|" and not top:
            choices.append([])
        else:
            choices[-1].append(part)
    if not top:
        raise ValueError("a bracket of a phrase is not closed")
    return choices[0], at


def write(note: Note, template: str, case: Case) -> None:
    """Append a filled template to a note."""
    rng = case.rng
    for piece in expand(template, rng):
        slot = piece[1:-1] if piece[:1] == "{" and piece[-1:] == "}" else ""
        if slot in WHO:
            category, value = WHO[slot]
            note.add(value(case), category)
        elif slot in WHAT:
            note.add(WHAT[slot](rng))
        elif slot:
            note.add(pick(rng, phrases()["terms"][slot]))
        else:
            note.add(piece)


CONNECT = (": ", ":", " - ", " = ", " :: ", " | ", " >> ", " is ", " was recorded as ", " was entered as ", " is recorded as ", "\t", ", as supplied at the visit, is ", " → ", " — ", "; ", " = ", " (verified): ", " [reviewed]: ", ", ", " / ", " #", "= ", "\n", " ...... ", " on file: ", " given as ", " for this person: ", " attached to this record was supplied as ", " reads ")  # fmt: skip
LEADS = ("The patient's ", "The ", "Their ", "For this individual, the ", "Recorded ", "Her ", "His ", "The person's ", "Registered ", "Verified ", "Personal ", "The individual's ", "Our ", "Patient ", "Intake lists the ", "The form gives the ")  # fmt: skip
AFTER = (
    "",
    "",
    "",
    "",
    ".",
    ".",
    ";",
    " (checked)",
    " after intake verification.",
    " for this individual.",
    " at registration.",
    ",",
    " |",
)
BEFORE = ("{value} is the {label}", "{value} was given as {label}", "{value} [{label}]", "{value} ({label})", "Intake associates the patient with {value}, their {label}", "Under {label}, the form lists {value}", "The field for {label} was populated with {value} after verification", "{value} serves as {label}", "The patient presented {value} as their {label}", "Registration entered {value} under {label}", "With {value} as {label}, the person was registered", "use {value} for {label}")  # fmt: skip


def labelled(note: Note, case: Case, style: str) -> None:
    """Append one line that names an identifier and gives it."""
    rng = case.rng
    labels = phrases()["labels"]
    slot = pick(rng, tuple(labels))
    label = pick(rng, labels[slot])
    category, value = WHO[slot]
    r = rng.random()
    label = (
        label.upper()
        if r < 0.2
        else label.title()
        if r < 0.4
        else label[0].upper() + label[1:]
        if r < 0.6
        else label
    )
    if rng.random() < 0.06:
        label = noisy(label, rng)
    filled = value(case)
    if rng.random() < 0.25:
        for part in re.split(r"(\{value\}|\{label\})", pick(rng, BEFORE)):
            if part == "{value}":
                note.add(filled, category)
            else:
                note.add(label if part == "{label}" else part)
    else:
        if rng.random() < 0.3:
            note.add(pick(rng, LEADS))
        note.add(label + (style if rng.random() < 0.6 else pick(rng, CONNECT)))
        note.add(filled, category)
    note.add(pick(rng, AFTER))


def noisy(text: str, rng: Rng) -> str:
    """Return a label as a scanner misreads it, or spaced out."""
    r = rng.random()
    if r < 0.4:
        return text.replace("I", "l").replace("O", "0").replace("o", "0", 1)
    if r < 0.7:
        cut = int(rng.integers(1, max(len(text), 2)))
        return f"{text[:cut]} {text[cut:]}"
    return " ".join(text) if len(text) < 8 else text.replace("i", "1", 1).replace("e", "c", 1)


TIGHT = 0.05  # of the notes
SCANNED = 0.04
LOOSE = re.compile(r"(?<=[:;,.])(?P<gap> )(?=\w)")
BULLETS = ("", "", "", "- ", "* ", "• ", "#", "> ", "| ", "  ")


def note_of(rng: Rng) -> Note:
    """Return a new note: a clinical one, a form, a message, a table, or a few everyday sentences."""
    case, note, book = Case.draw(rng), Note(), phrases()
    r = rng.random()
    if r < 0.06:
        _table(note, case)
        return note
    everyday = r < 0.30
    lists = ("everyday", "everyday_who") if everyday else ("clinical", "clinical_who")
    who = 0.65 if everyday else float(pick(rng, (0.25, 0.45, 0.6, 0.75)))
    forms = 0.02 if everyday else float(pick(rng, (0.0, 0.1, 0.5)))
    size = int(rng.integers(1, 4)) if everyday or rng.random() < 0.2 else int(rng.integers(4, 22))
    gap = pick(rng, (" ", " ", "\n", "\n", "\n", "\n\n", "  "))
    bullet = pick(rng, BULLETS) if gap != " " else ""
    numbered = "\n" in gap and rng.random() < 0.1
    style = pick(rng, CONNECT)
    if not everyday and rng.random() < 0.6:
        heading = pick(rng, book["headings"])
        note.add(heading.upper() if rng.random() < 0.3 else heading)
        note.add("\n" if rng.random() < 0.85 else " ")
    for place in range(size):
        note.add(f"{place + 1}. " if numbered else bullet)
        q = rng.random()
        if q < forms:
            labelled(note, case, style)
        elif q < forms + (1 - forms) * who:
            write(note, pick(rng, book[lists[1]]), case)
        else:
            write(note, pick(rng, book[lists[0]]), case)
        if not everyday and rng.random() < 0.08:
            note.add("\n" + pick(rng, book["headings"]) + "\n")
        else:
            note.add(gap)
    return _cased(note, rng)


def _table(note: Note, case: Case) -> None:
    """Append rows of a small table: a heading line, and lines of fields."""
    rng = case.rng
    labels = phrases()["labels"]
    slots = [pick(rng, tuple(labels)) for _ in range(int(rng.integers(3, 8)))]
    bar = pick(rng, (",", "|", "\t", ";", " | ", ", "))
    quote = pick(rng, ("", '"', ""))
    note.add(bar.join(pick(rng, labels[slot]).replace(" ", "_") for slot in slots) + "\n")
    for _ in range(int(rng.integers(1, 5))):
        for place, slot in enumerate(slots):
            category, value = WHO[slot]
            note.add(bar if place else "")
            note.add(quote)
            note.add(value(case), category)
            note.add(quote)
        note.add("\n")
        case = Case.draw(rng)


def _cased(note: Note, rng: Rng) -> Note:
    """Return a note mostly as it is; now and then all in capitals or all in small letters."""
    r = rng.random()
    changed = note.text.upper() if r < 0.08 else note.text.lower() if r < 0.2 else note.text
    whole = Note(changed if len(changed) == len(note.text) else note.text, note.spans)
    if rng.random() < SCANNED:
        whole = Note(misread(whole.text, rng, share=float(pick(rng, (0.03, 0.08, 0.15)))), whole.spans)
    return _tight(whole, rng) if rng.random() < TIGHT else whole


def _tight(note: Note, rng: Rng) -> Note:
    """Return a note without some of the spaces behind stops and colons and before labels, as forms lose them."""
    held = {place for start, end, _ in note.spans for place in range(start, end)}
    cut = {
        match.start("gap")
        for match in LOOSE.finditer(note.text)
        if match.start("gap") not in held and rng.random() < 0.35
    }
    if not cut:
        return note
    moved = np.cumsum([place in cut for place in range(len(note.text) + 1)])
    text = "".join(c for place, c in enumerate(note.text) if place not in cut)
    return Note(text, [(s - int(moved[s]), e - int(moved[e]), kind) for s, e, kind in note.spans])


def notes(seed: int, count: int) -> Iterator[Note]:
    """Yield so many notes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield note_of(rng)
