"""Texts in which people have marked identity, in the forms that data sets come in.

Two forms: a JSON list of `{id, text, spans: [{start, end, label}], neutral: [{start, end}]}`, and i2b2 2014
XML (a `<deIdi2b2>` with `<TEXT>` and `<TAGS>`; a file, or a folder of them). Each set has labels of its own;
`gold_labels.csv` says which kind of identifier a label is, and whether it is identity at all here:

    identity  what a finder has to find
    age       identity where the age is 90 or above, else nobody's matter (45 CFR 164.514(b)(2)(i)(C))
    neutral   nobody's matter: found or not, it is not scored

A label that the table does not know counts as identity of the kind "id", and is named in the report: a set
is never scored as if its unknown marks were not there.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from deid.dates import OLDEST_AGE_YEARS
from deid.errors import MalformedGold
from deid.spans import Category

LARGEST_FILE_BYTES = 500_000_000  # read whole; the largest public set has some 20 MB
_NUMBER = re.compile(r"\d{1,3}")
_NINETY_IN_WORDS = re.compile(r"nonagenarian|centenarian|ninet|hundred|noventa|cien", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """Characters `start` up to, not including, `end` that people marked as identity."""

    start: int
    end: int
    category: Category
    label: str  # the set's own word


@dataclass(frozen=True, slots=True)
class GoldDocument:
    """One text with what is identity in it, and with what is nobody's matter. Prints without its text."""

    id: str
    text: str
    spans: tuple[GoldSpan, ...]
    neutral: tuple[tuple[int, int], ...] = ()
    unknown_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for start, end in (*((span.start, span.end) for span in self.spans), *self.neutral):
            if not 0 <= start < end <= len(self.text):
                raise MalformedGold(self.id, f"span {start} to {end} does not lie in the text")

    def __repr__(self) -> str:
        return f"GoldDocument({self.id!r}, <hidden>, {len(self.spans)} spans)"


@dataclass(frozen=True, slots=True)
class _Label:
    category: Category
    rule: str


def read(path: Path) -> list[GoldDocument]:
    """Return the documents of a JSON file, of an i2b2 XML file, or of a folder of i2b2 XML files.

    Raises: MalformedGold, which names the document and never quotes it; OSError.
    """
    if path.is_dir():
        files = sorted(path.glob("*.xml"))
        if not files:
            raise MalformedGold(path.name, "a folder without .xml files")
        return [_of_i2b2(file) for file in files]
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise MalformedGold(path.name, f"more than {LARGEST_FILE_BYTES} bytes")
    if path.suffix.lower() == ".xml":
        return [_of_i2b2(path)]
    documents = list(_of_json(path))
    if len({document.id for document in documents}) < len(documents):
        raise MalformedGold(path.name, "two documents have the same id")
    return documents


def is_dev(document_id: str) -> bool:
    """Return whether a document is in the half whose errors are looked at; figures come from the other half.

    >>> is_dev("a"), is_dev("c")
    (True, True)
    """
    return hashlib.sha256(document_id.encode()).digest()[0] % 2 == 0


@functools.cache
def labels() -> Mapping[str, _Label]:
    """Return the table of labels."""
    text = resources.files("deid").joinpath("gold_labels.csv").read_text(encoding="utf-8")
    return {
        row["label"]: _Label(Category(row["category"]), row["rule"])
        for row in csv.DictReader(text.splitlines())
    }


def document_of(
    document_id: str, text: str, marks: list[tuple[int, int, str]], neutral: list[tuple[int, int]]
) -> GoldDocument:
    """Return a document from marks with the labels of its set. Raises: MalformedGold."""
    spans: list[GoldSpan] = []
    beside = list(neutral)
    unknown: list[str] = []
    for start, end, label in sorted(marks):
        known = labels().get(label.upper().replace(" ", "_"))
        if known is None:
            unknown.append(label)
            known = _Label(Category.ID, "identity")
        if known.rule == "neutral" or (known.rule == "age" and not _of_ninety(text[start:end])):
            beside.append((start, end))
        else:
            spans.append(GoldSpan(start, end, known.category, label))
    return GoldDocument(document_id, text, tuple(spans), tuple(beside), tuple(dict.fromkeys(unknown)))


def _of_ninety(age: str) -> bool:
    """Return whether an age is 90 or above; one without a number that says nothing counts as younger."""
    number = _NUMBER.search(age)
    if number is None:
        return _NINETY_IN_WORDS.search(age) is not None
    return int(number.group()) >= OLDEST_AGE_YEARS


def _of_json(path: Path) -> Iterator[GoldDocument]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise MalformedGold(path.name, "is not JSON") from None
    if not isinstance(found, list):
        raise MalformedGold(path.name, "is not a list of documents")
    for place, one in enumerate(found):
        name = f"{path.name}[{place}]"
        if not isinstance(one, dict) or not isinstance(one.get("text"), str):
            raise MalformedGold(name, "a document has a text")
        marks = [
            (*_ends(span, name), _label(span, name)) for span in _listed(one.get("spans", []), name, "spans")
        ]
        neutral = [_ends(span, name) for span in _listed(one.get("neutral") or [], name, "neutral")]
        yield document_of(str(one.get("id", place)), one["text"], marks, neutral)


def _listed(value: Any, name: str, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedGold(name, f"{key} is a list")
    return value


def _ends(span: Any, name: str) -> tuple[int, int]:
    """Return where a span begins and ends, written as an object or as a pair."""
    pair = [span.get("start"), span.get("end")] if isinstance(span, dict) else span
    start, end = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    if type(start) is not int or type(end) is not int:
        raise MalformedGold(name, "a span has a start and an end in characters")
    return start, end


def _label(span: Any, name: str) -> str:
    label = span.get("label") if isinstance(span, dict) else None
    if not isinstance(label, str) or not label:
        raise MalformedGold(name, "a span has a label")
    return label


def _of_i2b2(path: Path) -> GoldDocument:
    """Read one document of the 2014 i2b2/UTHealth form."""
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise MalformedGold(path.name, "declares entities, which this form has none of")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 (no entities, as checked above)
    except ElementTree.ParseError:
        raise MalformedGold(path.name, "is not XML") from None
    text, tags = root.findtext("TEXT"), root.find("TAGS")
    if text is None or tags is None:
        raise MalformedGold(path.name, "has no TEXT or no TAGS")
    marks: list[tuple[int, int, str]] = []
    for tag in tags:
        try:
            start, end = int(tag.attrib["start"]), int(tag.attrib["end"])
        except (KeyError, ValueError):
            raise MalformedGold(path.name, "a tag without start and end") from None
        marks.append((start, end, tag.attrib.get("TYPE", tag.tag)))
    return document_of(path.stem, text, marks, [])
