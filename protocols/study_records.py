"""Which records of a person a study means: one table, some concepts, a unit, a window of days.

Some records have no standard concept anywhere: a polygenic score, a wearable's day, a feature of an image.
What a node itself writes of these is named by its code instead (`source_value = "PGS000001"`), which is the
same at every hospital.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_float,
    checked_int,
    checked_list,
    checked_name,
)

EVENT_TABLES = ("condition_occurrence", "drug_exposure", "measurement", "observation", "procedure_occurrence")
UTILIZATION_TABLES = ("visit_occurrence", "device_exposure")  # may be counted, whatever their concepts
NOTE_TABLES = ("note_nlp",)  # concepts found in notes; those the text denies do not count
COUNTED_TABLES = EVENT_TABLES + UTILIZATION_TABLES + NOTE_TABLES
VALUE_TABLES = ("measurement", "observation")  # the two that carry a value and a unit
MAX_CONCEPTS = 64  # per feature; larger sets are phenotypes and belong into the cohort
SOURCE_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,49}")  # 50 characters are what OMOP keeps of one
MAX_CONCEPT_ID = 2**31 - 1
MAX_WINDOW_DAYS = 36_525  # a century either side


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
    source_values: tuple[str, ...] = ()  # in place of concepts

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"table": self.table}
        if self.concept_ids:
            found["concept_id"] = list(self.concept_ids)
        if self.source_values:
            found["source_value"] = list(self.source_values)
        if self.unit_concept_id is not None:
            found["unit_concept_id"] = self.unit_concept_id
        if self.window is not None:
            found["window"] = [self.window.from_days, self.window.to_days]
        return found


def parse_records(
    fields: Fields,
    *,
    with_value: bool,
    tables: tuple[str, ...] | None = None,
    any_concept: tuple[str, ...] = (),
    by_source: bool = False,
) -> Records:
    """Return the records that a table's keys name.

    Args:
        tables: which may be named; by default those with values, or all events.
        any_concept: of which no concepts need be named: then every record counts.
        by_source: whether codes of the source may stand in place of concepts.
    Raises: MalformedStudy.
    """
    table = checked_name(*fields.take("table"), tables or (VALUE_TABLES if with_value else EVENT_TABLES))
    sources = _sources(fields, table) if by_source and "source_value" in fields else ()
    named = "concept_id" in fields or (table not in any_concept and not sources)
    return Records(
        table=table,
        concept_ids=parse_concepts(*fields.take("concept_id")) if named else (),
        unit_concept_id=_optional_concept(fields) if with_value else None,
        window=Window.parse(*fields.take("window")) if "window" in fields else None,
        source_values=sources,
    )


def parse_range(value: Any, path: str) -> tuple[float, float]:
    """Return the interval written as `[low, high]`. Raises: MalformedStudy."""
    ends = checked_list(value, path, at_most=2)
    if len(ends) != 2:
        raise MalformedStudy(path, "a range is [low, high]")
    low, high = (checked_float(end, path) for end in ends)
    if not low < high:
        raise MalformedStudy(path, "the range is empty")
    return low, high


def parse_codes(value: Any, path: str) -> tuple[float, ...]:
    """Return numbers in ascending order, each once. Raises: MalformedStudy."""
    codes = tuple(
        sorted({checked_float(one, path) for one in checked_list(value, path, at_most=MAX_CONCEPTS)})
    )
    if not codes:
        raise MalformedStudy(path, "needs at least one code")
    return codes


def parse_concepts(value: Any, path: str) -> tuple[int, ...]:
    """Return concept ids in ascending order, each once. Raises: MalformedStudy."""
    several = [value] if isinstance(value, int) else checked_list(value, path, at_most=MAX_CONCEPTS)
    ids = tuple(sorted({checked_int(one, path, low=1, high=MAX_CONCEPT_ID) for one in several}))
    if not ids:
        raise MalformedStudy(path, "needs at least one concept id")
    return ids


def _sources(fields: Fields, table: str) -> tuple[str, ...]:
    """Return codes of the source in ascending order, each once."""
    value, path = fields.take("source_value")
    if table not in EVENT_TABLES or "concept_id" in fields:
        raise MalformedStudy(path, "in place of concepts, in " + ", ".join(EVENT_TABLES))
    several = [value] if isinstance(value, str) else checked_list(value, path, at_most=MAX_CONCEPTS)
    if not several or not all(isinstance(one, str) and SOURCE_VALUE.fullmatch(one) for one in several):
        raise MalformedStudy(path, "needs codes, of letters, digits, '.', '_', ':', '/' or '-', at most 50")
    return tuple(sorted(set(several)))


def _optional_concept(fields: Fields) -> int | None:
    if "unit_concept_id" not in fields:
        return None
    return checked_int(*fields.take("unit_concept_id"), low=1, high=MAX_CONCEPT_ID)
