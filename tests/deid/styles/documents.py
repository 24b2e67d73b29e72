"""Documents of many kinds with the places of identity in them, to measure a finder on what it has not learned from.

`styles.txt` beside this file says how each kind is laid out; it was written apart from `sim.notes`, whose notes trained
the tagger. In one document of three all names and towns are in no list that the finder knows, and are labelled so
(`NAME-NO-LIST`, `ADDRESS-NO-LIST`).

Guarantee: the same seed gives the same documents; a mark holds exactly what was filled in; nothing is of anyone.

`python -m tests.deid.styles.documents OUT.json` writes them as `fedtwin deid evaluate` reads them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np

from deid.gold_formats import GoldDocument, GoldSpan
from deid.spans import Category
from tests.deid.styles import facts
from tests.deid.styles.facts import digits, shaped
from tests.deid.styles.people import Person, Rng, pick, town

C = Category
SEED = 90_210
PER_STYLE = 60
UNLISTED = 3  # one document of so many
PEOPLE = ("pt", "rel", "rel2", "rel3", "dr", "dr2", "dr3", "rn", "sw", "frd")
HOSPITALS = ("{} General Hospital", "{} Medical Center", "St. {} Hospital", "{} Memorial", "{} Regional", "{} Health and Rehab", "{} Family Practice", "{} VA", "{} Community Hospital", "{} Urgent Care", "{} Dialysis", "{} Nursing Home", "University Hospital of {}")  # fmt: skip
COMPANIES = ("{} Foods", "{} Logistics", "{} Unified School District", "{} Bank", "{} Paper Mill", "{} Auto Body", "{} & Sons Roofing")  # fmt: skip
SCHOOLS = ("{} High School", "{} Elementary", "{} Middle School", "{} Community College", "{} Academy")
WARDS = ("{} 6", "{} 12 West", "{} Pavilion", "{} 4B", "{} Tower")
JOBS = ("teacher", "welder", "long-haul trucker", "cashier", "retired postal worker", "dental hygienist", "line cook", "roofer", "paralegal", "dairy farmer", "home health aide")  # fmt: skip
DRUGS = ("metoprolol", "Lasix", "vancomycin", "Zosyn", "levothyroxine", "Eliquis", "gabapentin", "lisinopril", "Seroquel", "propofol", "Ancef", "Tylenol", "heparin", "insulin glargine", "Keppra", "prednisone", "Zofran", "Dilaudid")  # fmt: skip
DOSES = ("40 mg", "12.5 mg BID", "1 g IV q12h", "500mg", "5-10 mg", "0.5 mcg/kg/min", "20 units", "75 mcg daily", "81mg", "2 tabs q6h", "100 mL/hr")  # fmt: skip
STATES = ("Ohio", "Massachusetts", "TX", "Georgia", "California", "New York", "Louisiana")
COUNTRIES = ("Mexico", "Vietnam", "Nigeria", "Poland", "Haiti", "India", "Ireland", "Guatemala")
_SLOT = re.compile(r"<([a-z]\w*)(?:\.([\w.]+))?>")
_PART = re.compile(r"<[a-z][\w.]*>|~[^~]+~|[{}|]|[^{}|<~]+|<")


@dataclass
class Writer:
    """One document as it grows."""

    rng: Rng
    unlisted: bool
    people: dict[str, Person]
    home: str
    near: date
    mrn: str
    text: str = ""
    marks: list[tuple[int, int, Category, str]] = field(default_factory=list)
    neutral: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: Rng, *, unlisted: bool) -> Writer:
        """Return an empty document about new people."""
        people = {who: Person.draw(rng, unlisted=unlisted) for who in PEOPLE}
        if rng.random() < 0.5:
            people["rel"] = Person.draw(rng, unlisted=unlisted, family=people["pt"].family)
        near = date(2009, 1, 1) + timedelta(days=int(rng.integers(0, 6200)))
        return cls(
            rng, unlisted, people, town(rng, unlisted=unlisted), near, shaped(rng, pick(rng, facts.MRNS))
        )

    def write(self, template: str) -> None:
        """Append a template with its choices made and its slots filled."""
        parts = _PART.findall(template)
        chosen, _ = _choose(parts, 0, self.rng)
        for part in chosen:
            match = _SLOT.fullmatch(part)
            if match is None:
                start = len(self.text)
                self.text += part.strip("~")
                if part[0] == "~":  # a firm, a pet: people disagree whether that is identity
                    self.neutral.append((start, len(self.text)))
            else:
                self._fill(match.group(1), match.group(2) or "")

    def _fill(self, slot: str, how: str) -> None:
        start = len(self.text)
        if slot in PEOPLE:
            self._mark(start, self.people[slot].form(how), C.NAME)
        elif slot == "d":
            self._mark(start, facts.a_date(self.rng, self.near, how), C.DATE)
        elif slot == "email":
            self._mark(start, facts.email(self.rng, self.people[how or "pt"]), C.EMAIL)
        elif slot in MARKED:
            category, value = MARKED[slot]
            self._mark(start, value(self), category)
        elif slot in NEUTRAL:
            self.text += NEUTRAL[slot](self.rng)
            self.neutral.append((start, len(self.text)))
        else:
            self.text += PLAIN[slot](self.rng)

    def _mark(self, start: int, value: str, category: Category) -> None:
        hard = self.unlisted and category in (C.NAME, C.ADDRESS)
        self.text += value
        self.marks.append((start, len(self.text), category, category.name + ("-NO-LIST" if hard else "")))


def _town(w: Writer) -> str:
    return town(w.rng, unlisted=w.unlisted)


def _called(w: Writer, forms: tuple[str, ...]) -> str:
    return pick(w.rng, forms).format(_town(w) if w.rng.random() < 0.6 else w.people["frd"].family)


MARKED: dict[str, tuple[Category, Callable[[Writer], str]]] = {
    "addr": (C.ADDRESS, lambda w: facts.address(w.rng, _town(w), unlisted=w.unlisted)),
    "street": (C.ADDRESS, lambda w: facts.street(w.rng, unlisted=w.unlisted)),
    "city": (C.ADDRESS, _town),
    "home": (C.ADDRESS, lambda w: w.home),
    "apo": (C.ADDRESS, lambda w: f"APO AE 09{digits(w.rng, 3)}"),
    "zip": (C.ADDRESS, lambda w: digits(w.rng, 5)),
    "hosp": (C.HOSPITAL, lambda w: _called(w, HOSPITALS)),
    "nward": (C.HOSPITAL, lambda w: _called(w, WARDS)),
    "org": (C.ORGANIZATION, lambda w: _called(w, COMPANIES)),
    "school": (C.ORGANIZATION, lambda w: _called(w, SCHOOLS)),
    "mrn": (C.MRN, lambda w: w.mrn),
    "acct": (C.ACCOUNT, lambda w: shaped(w.rng, pick(w.rng, facts.ACCOUNTS))),
    "plan": (C.PLAN_ID, lambda w: shaped(w.rng, pick(w.rng, facts.PLANS))),
    "lic": (C.LICENSE, lambda w: shaped(w.rng, pick(w.rng, facts.LICENSES))),
    "plate": (C.VEHICLE, lambda w: shaped(w.rng, pick(w.rng, facts.PLATES))),
    "vin": (C.VEHICLE, lambda w: facts.vin(w.rng)),
    "serial": (C.DEVICE, lambda w: shaped(w.rng, pick(w.rng, facts.SERIALS))),
    "udi": (C.DEVICE, lambda w: facts.udi(w.rng)),
    "ssn": (C.SSN, lambda w: shaped(w.rng, pick(w.rng, ("###-##-####", "###-##-####", "### ## ####", "XXX-XX-####", "#########")))),
    "id": (C.ID, lambda w: shaped(w.rng, pick(w.rng, facts.OTHERS))),
    "bio": (C.BIOMETRIC, lambda w: shaped(w.rng, "FP-########")),
    "ph": (C.PHONE, lambda w: shaped(w.rng, pick(w.rng, facts.PHONES))),
    "pager": (C.PHONE, lambda w: digits(w.rng, 5)),
    "ext": (C.PHONE, lambda w: digits(w.rng, 4)),
    "url": (C.URL, lambda w: facts.url(w.rng, w.people["pt"])),
    "ip": (C.IP, lambda w: facts.ip(w.rng)),
    "age9": (C.AGE, lambda w: str(int(w.rng.integers(90, 107)))),
}  # fmt: skip
NEUTRAL: dict[str, Callable[[Rng], str]] = {
    "age": lambda rng: str(int(rng.integers(19, 89))),
    "state": lambda rng: pick(rng, STATES),
    "country": lambda rng: pick(rng, COUNTRIES),
    "job": lambda rng: pick(rng, JOBS),
    "wkday": lambda rng: pick(rng, facts.DAYS),
    "unit": lambda rng: pick(rng, ("4 West", "MICU", "7B", "bed 12", "SICU bed 4", "Ward 4", "Room 512", "PACU")),
}  # fmt: skip
PLAIN: dict[str, Callable[[Rng], str]] = {
    "n1": lambda rng: str(int(rng.integers(1, 10))),
    "n2": lambda rng: str(int(rng.integers(10, 100))),
    "n3": lambda rng: str(int(rng.integers(100, 600))),
    "n4": lambda rng: str(int(rng.integers(1000, 4000))),
    "f1": lambda rng: f"{rng.uniform(0.4, 12):.1f}",
    "f2": lambda rng: f"{rng.uniform(0.01, 9):.2f}",
    "bp": lambda rng: f"{int(rng.integers(84, 196))}/{int(rng.integers(42, 104))}",
    "drug": lambda rng: pick(rng, DRUGS),
    "dose": lambda rng: pick(rng, DOSES),
    "time": lambda rng: pick(rng, (f"{int(rng.integers(0, 24)):02d}{int(rng.integers(0, 60)):02d}", f"{int(rng.integers(1, 13))}:{int(rng.integers(0, 60)):02d} {pick(rng, ('AM', 'pm', 'p.m.'))}", f"{int(rng.integers(0, 24)):02d}:{int(rng.integers(0, 60)):02d}")),
    "neg": lambda rng: pick(rng, styles()["negatives"][0].options),
}  # fmt: skip


def _choose(parts: list[str], at: int, rng: Rng) -> tuple[list[str], int]:
    options: list[list[str]] = [[]]
    while at < len(parts):
        part, at = parts[at], at + 1
        if part == "{":
            inner, at = _choose(parts, at, rng)
            options[-1] += inner
        elif part == "}":
            return pick(rng, options), at
        elif part == "|":
            options.append([])
        else:
            options[-1].append(part)
    return options[0], at


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a kind of document: options, of which so many are taken."""

    options: tuple[str, ...]
    least: int
    most: int
    between: str


@cache
def styles() -> dict[str, list[Block]]:
    """Return the kinds of documents and their blocks; `negatives` are no document but terms."""
    found: dict[str, list[Block]] = {}
    text = Path(__file__).with_name("styles.txt").read_text(encoding="utf-8")
    for chapter in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        name, _, body = chapter.partition("\n")
        blocks = found.setdefault(name.strip(), [])
        for part in re.split(r"^-- (?=one$|some )", body, flags=re.MULTILINE)[1:]:
            head, _, inner = part.partition("\n")
            kind, *rest = head.split()
            inner = inner.strip("\n")
            if kind == "one":
                blocks.append(Block(tuple(re.split(r"\n%\n", inner)), 1, 1, ""))
            else:
                least, most = (int(n) for n in rest[0].split("-"))
                blocks.append(
                    Block(
                        tuple(inner.split("\n")), least, most, {"nl": "\n", "sp": " ", "nn": "\n\n"}[rest[1]]
                    )
                )
    return found


def document(style: str, rng: Rng, name: str, *, unlisted: bool) -> GoldDocument:
    """Return a new document of a kind."""
    writer = Writer.draw(rng, unlisted=unlisted)
    for block in styles()[style]:
        count = min(int(rng.integers(block.least, block.most + 1)), len(block.options))
        for place, option in enumerate(rng.permutation(len(block.options))[:count]):
            writer.text += block.between if place else ""
            writer.write(block.options[int(option)])
        writer.text += "\n"
    text = writer.text
    if style.endswith("_upper") and len(text.upper()) == len(text):
        text = text.upper()
    if style.endswith("_lower") and len(text.lower()) == len(text):
        text = text.lower()
    spans = tuple(GoldSpan(*mark) for mark in writer.marks)
    return GoldDocument(name, text, spans, tuple(writer.neutral))


def documents(*, seed: int = SEED, per_style: int = PER_STYLE) -> Iterator[GoldDocument]:
    """Yield so many documents of each kind."""
    for style in styles():
        if style == "negatives":
            continue
        rng = np.random.default_rng([seed, *style.encode()])
        for place in range(per_style):
            yield document(style, rng, f"{style}-{seed}-{place}", unlisted=place % UNLISTED == 0)


def main() -> None:
    """Write the documents as JSON."""
    rows = [
        {
            "id": one.id,
            "text": one.text,
            "spans": [
                {"start": s.start, "end": s.end, "label": s.label.removesuffix("-NO-LIST")} for s in one.spans
            ],
            "neutral": [{"start": start, "end": end} for start, end in one.neutral],
        }
        for one in documents()
    ]
    Path(sys.argv[1]).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
