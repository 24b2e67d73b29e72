"""Where in a text identity stands: spans with the kind of identifier, and what every finder promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Category(StrEnum):
    """Kinds of identifiers: the eighteen of Safe Harbor (45 CFR 164.514(b)(2)(i)), some of them split."""

    NAME = "name"
    DATE = "date"
    AGE = "age"  # of 90 and above only; younger ages stay
    ADDRESS = "address"  # geographic units below the state, street to ZIP
    HOSPITAL = "hospital"  # names of hospitals, clinics and units
    ORGANIZATION = "organization"  # employers, schools, insurers
    PHONE = "phone"  # also fax and pager
    EMAIL = "email"
    URL = "url"
    IP = "ip"
    SSN = "ssn"
    MRN = "mrn"
    PLAN_ID = "plan_id"  # health plan beneficiary numbers
    ACCOUNT = "account"
    LICENSE = "license"
    VEHICLE = "vehicle"
    DEVICE = "device"
    BIOMETRIC = "biometric"
    ID = "id"  # any other unique number or code
    PROFESSION = "profession"


DIRECT = frozenset(  # what names one person or opens one record by itself
    (
        Category.PHONE, Category.EMAIL, Category.SSN, Category.MRN, Category.PLAN_ID, Category.ACCOUNT,
        Category.LICENSE, Category.VEHICLE, Category.DEVICE, Category.BIOMETRIC, Category.ID,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` up to, not including, `end` of a text. Never holds the text."""

    start: int
    end: int
    category: Category
    score: float = 1.0  # 0 to 1: how sure the finder is
    found_by: str = ""  # the recognizer's name, for review

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span begins at 0 or later and holds a character: {self.start} to {self.end}")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError("a score lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Known:
    """An identifier that the hospital's own records hold of the patient of a text: the surest thing to find.

    Prints as hidden.
    """

    category: Category
    value: str

    def __repr__(self) -> str:
        return f"Known({self.category.value}, <hidden>)"


class Finder(Protocol):
    """Finds identity in texts. `deid.notes.NoteFinder` is ours; others are what it is measured against."""

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        """Return the spans of each text, in order, none overlapping another.

        Args: known: per text, what is known of its patient; empty where nothing is.
        Raises: NotRedacted if a text cannot be analysed; the text is in no message.
        """
        ...


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return non-overlapping spans that cover what `spans` cover; of overlapping ones the surest, then the
    longest, gives its category.

    >>> [(s.start, s.end) for s in merged([Span(0, 4, Category.NAME), Span(3, 9, Category.ID, 0.5)])]
    [(0, 9)]
    """
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if result and span.start < result[-1].end:
            before = result[-1]
            best = max(before, span, key=lambda s: (s.score, s.end - s.start))
            result[-1] = Span(
                before.start, max(before.end, span.end), best.category, best.score, best.found_by
            )
        else:
            result.append(span)
    return result
