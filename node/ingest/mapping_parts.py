"""What a mapping is made of: where a date, a code, a person, a visit and an event stand in a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class Kind(StrEnum):
    """What a value becomes."""

    NUMBER = "number"
    CATEGORY = "category"
    PRESENT = "present"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a database: of a table ("schema.name") or a SELECT, in the order of a unique `key`."""

    table: str | None
    query: str | None
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Codes:
    """A column of codes and the concept id each stands for."""

    column: str
    map: dict[str, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a date stands, or one date for all rows."""

    column: str | None
    format: str
    constant: date | None = None

    @property
    def with_time(self) -> bool:
        """Whether the time of day is kept."""
        return "%H" in self.format or "%I" in self.format


@dataclass(frozen=True, slots=True)
class Person:
    """Where a person's description stands."""

    age: str | None
    year_of_birth: str | None
    birth_date: Moment | None
    sex: Codes | None
    race: Codes | None
    ethnicity: Codes | None


@dataclass(frozen=True, slots=True)
class Visit:
    """Which visit a row belongs to, and whether the row makes it."""

    column: str | None
    concept_id: int | None
    end: Moment | None


@dataclass(frozen=True, slots=True)
class When:
    """Only rows whose `column` holds one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One record per row. See the module's text."""

    table: str
    column: str
    kind: Kind
    concept_id: int | None
    concept: Codes | None
    name: str
    unit_concept_id: int | None
    unit: Codes | None
    scale: float
    range: tuple[float, float] | None
    whole_row: bool
    values: dict[str, float]
    value_concepts: dict[str, int]
    present: tuple[str, ...]
    above: float | None
    missing: tuple[str, ...]
    date: Moment | None
    end: Moment | None
    when: When | None
