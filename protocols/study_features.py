"""What a study reads of a person: which records, which features they become, what the outcome is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_flag,
    checked_float,
    checked_int,
    checked_list,
    checked_name,
    checked_text,
)

EVENT_TABLES = ("condition_occurrence", "drug_exposure", "measurement", "observation", "procedure_occurrence")
VALUE_TABLES = ("measurement", "observation")  # the two that carry a value and a unit
KINDS = ("value", "present", "category", "age", "sex")
PICKS = ("latest", "earliest", "mean", "minimum", "maximum")
MAX_CONCEPTS = 64  # per feature; larger sets are phenotypes and belong into the cohort
MAX_CONCEPT_ID = 2**31 - 1
MAX_WINDOW_DAYS = 36_525  # a century either side

SHORT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Window:
    """Days relative to the person's index date, both ends included."""

    from_days: int
    to_days: int

    @classmethod
    def parse(cls, value: Any, path: str) -> Self:
        """Return the window written as `[from, to]`."""
        ends = checked_list(value, path, at_most=2)
        if len(ends) != 2:
            raise MalformedStudy(path, "a window is [from_day, to_day]")
        first, last = (checked_int(end, path, low=-MAX_WINDOW_DAYS, high=MAX_WINDOW_DAYS) for end in ends)
        if first > last:
            raise MalformedStudy(path, "the window ends before it starts")
        return cls(first, last)


@dataclass(frozen=True, slots=True)
class Records:
    """Which records of a person are meant: one table, these concepts, this unit, this window."""

    table: str
    concept_ids: tuple[int, ...]
    unit_concept_id: int | None = None
    window: Window | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"table": self.table, "concept_id": list(self.concept_ids)}
        if self.unit_concept_id is not None:
            found["unit_concept_id"] = self.unit_concept_id
        if self.window is not None:
            found["window"] = [self.window.from_days, self.window.to_days]
        return found


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature. `value` and `age` are scaled by the public `range` to [-1, 1] and clipped.

    `present`, `category` and `sex` (1 for `concept_ids`) are 0 or 1; a category has one column for each of
    its `categories` (concepts in value_as_concept_id) or `codes` (numbers in value_as_number). Values outside
    `plausible` are not believed. A missing value takes `fill` (the midpoint of the range by default); with
    `missing_flag` a column says so. With `exclude_missing`, a person without it is not in the study.
    """

    name: str
    kind: str
    records: Records | None = None
    range: tuple[float, float] | None = None
    pick: str = "latest"
    fill: float | None = None
    missing_flag: bool = False
    exclude_missing: bool = False
    plausible: tuple[float, float] | None = None
    categories: tuple[int, ...] = ()
    codes: tuple[float, ...] = ()
    concept_ids: tuple[int, ...] = ()  # of `sex`: which gender concepts count as 1

    @property
    def levels(self) -> tuple[float, ...]:
        """The categories or codes, one column each."""
        return self.codes or tuple(float(concept) for concept in self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns it becomes."""
        if self.kind == "category":
            names = tuple(f"{self.name}={value:.15g}" for value in self.levels)
        else:
            names = (self.name,)
        return (*names, f"{self.name}:missing") if self.missing_flag else names

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.records is not None:
            found |= self.records.to_json()
        if self.range is not None:
            found["range"] = list(self.range)
            found["fill"] = self.fill
        if self.kind in ("value", "category"):
            found["pick"] = self.pick
        for key in ("plausible", "categories", "codes"):
            if getattr(self, key):
                found[key] = list(getattr(self, key))
        if self.concept_ids:
            found["concept_id"] = list(self.concept_ids)
        found |= {key: True for key in ("missing_flag", "exclude_missing") if getattr(self, key)}
        return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is predicted: whether there is such a record, or whether its value is at least `at_least`."""

    records: Records
    kind: str
    at_least: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found = {"kind": self.kind, **self.records.to_json()}
        return found if self.at_least is None else found | {"at_least": self.at_least}


def parse_outcome(fields: Fields) -> Outcome:
    """Return the outcome that a table describes. Raises: MalformedStudy."""
    kind = checked_name(*fields.take("kind"), ("present", "value"))
    records = _records(fields, with_value=kind == "value")
    at_least = checked_float(*fields.take("at_least")) if kind == "value" else None
    fields.done()
    return Outcome(records, kind, at_least)


def _records(fields: Fields, *, with_value: bool) -> Records:
    tables = VALUE_TABLES if with_value else EVENT_TABLES
    found = Records(
        table=checked_name(*fields.take("table"), tables),
        concept_ids=_concepts(*fields.take("concept_id")),
        unit_concept_id=_optional_concept(fields) if with_value else None,
        window=Window.parse(*fields.take("window")) if "window" in fields else None,
    )
    return found


def parse_feature(fields: Fields) -> Feature:
    """Return the feature that a table describes. Raises: MalformedStudy."""
    name = checked_text(*fields.take("name"), SHORT_NAME)
    kind = checked_name(*fields.take("kind"), KINDS)
    found: dict[str, Any] = {}
    if kind in ("value", "present", "category"):
        found["records"] = _records(fields, with_value=kind != "present")
    if kind in ("value", "category"):
        found["pick"] = checked_name(*fields.take("pick", "latest"), PICKS)
        found["missing_flag"] = checked_flag(*fields.take("missing_flag", False))
        found["exclude_missing"] = checked_flag(*fields.take("exclude_missing", False))
    if kind == "value" and "plausible" in fields:
        found["plausible"] = _range(*fields.take("plausible"))
    if kind in ("value", "age"):
        low, high = found["range"] = _range(*fields.take("range"))
        fill = fields.take("fill", (low + high) / 2)
        found["fill"] = checked_float(*fill, low=low, high=high)
    if kind == "category":
        if "codes" in fields:
            found["codes"] = _codes(*fields.take("codes"))
        else:
            found["categories"] = _concepts(*fields.take("categories"))
        if found["pick"] not in ("latest", "earliest"):
            raise MalformedStudy(f"{fields.path}.pick", "a category is the latest or the earliest one")
    if kind == "sex":
        found["concept_ids"] = _concepts(*fields.take("concept_id"))
    fields.done()
    return Feature(name, kind, **found)


def _range(value: Any, path: str) -> tuple[float, float]:
    ends = checked_list(value, path, at_most=2)
    if len(ends) != 2:
        raise MalformedStudy(path, "a range is [low, high]")
    low, high = (checked_float(end, path) for end in ends)
    if not low < high:
        raise MalformedStudy(path, "the range is empty")
    return low, high


def _codes(value: Any, path: str) -> tuple[float, ...]:
    codes = tuple(
        sorted({checked_float(one, path) for one in checked_list(value, path, at_most=MAX_CONCEPTS)})
    )
    if not codes:
        raise MalformedStudy(path, "needs at least one code")
    return codes


def _concepts(value: Any, path: str) -> tuple[int, ...]:
    several = [value] if isinstance(value, int) else checked_list(value, path, at_most=MAX_CONCEPTS)
    ids = tuple(sorted({checked_int(one, path, low=1, high=MAX_CONCEPT_ID) for one in several}))
    if not ids:
        raise MalformedStudy(path, "needs at least one concept id")
    return ids


def _optional_concept(fields: Fields) -> int | None:
    if "unit_concept_id" not in fields:
        return None
    return checked_int(*fields.take("unit_concept_id"), low=1, high=MAX_CONCEPT_ID)
