"""A cohort question as a small JSON form: who has an index event, and what must and must not go with it.

    {"index":   {"kind": "condition", "concepts": [317576], "descendants": true},
     "include": [{"kind": "measurement", "concepts": [3004249], "unit": 8876, "value": {"min": 140},
                  "window": {"from_days": -365, "to_days": 0}, "at_least": 2},
                 {"kind": "age", "min_years": 40, "max_years": 75},
                 {"kind": "sex", "concepts": [8532]}],
     "exclude": [{"kind": "drug", "concepts": [1118084]}]}

A person is in the cohort if they have the index event (its date is that of the first matching record),
all of `include` and none of `exclude`. Without `index`, the index date is the start of the person's first
observation period. Whether a person is in depends on that person's own records only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar

from protocols import canonical

MAX_BYTES = 65_536  # a form of thousands of concepts still fits; parsing stays under a millisecond or two
MAX_CRITERIA = 64  # joins in one statement: more is a phenotype, which belongs into a Circe file
MAX_CONCEPTS = 1_000  # per criterion; larger sets are named by their ancestor
MAX_WINDOW_DAYS = 36_525  # a century either side
MAX_OCCURRENCES = 1_000
MAX_AGE_YEARS = 150
MAX_CONCEPT_ID = 2**31 - 1  # OMOP concept ids are 32-bit, local ones start above two billion
MAX_MAGNITUDE = 1e15  # values beyond it cannot be compared exactly as floats

T = TypeVar("T")

_SAFE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


class MalformedCohort(ValueError):
    """The form breaks a rule. `path` names the key (`include[2].window.to_days`), never a value."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Kind(StrEnum):
    """The OMOP domain whose records a criterion counts."""

    CONDITION = "condition"
    DRUG = "drug"
    PROCEDURE = "procedure"
    MEASUREMENT = "measurement"
    OBSERVATION = "observation"


WITH_VALUES = frozenset({Kind.MEASUREMENT, Kind.OBSERVATION})  # the two domains that carry a value and a unit


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval; an absent end is open. At least one end is given."""

    minimum: float | None
    maximum: float | None

    def __post_init__(self) -> None:
        ends = [end for end in (self.minimum, self.maximum) if end is not None]
        if not ends:
            raise ValueError("a range needs 'min', 'max' or both")
        if any(not math.isfinite(end) or abs(end) > MAX_MAGNITUDE for end in ends):
            raise ValueError(f"the ends are finite numbers up to {MAX_MAGNITUDE:g}")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise ValueError("'min' is above 'max'")


@dataclass(frozen=True, slots=True)
class Window:
    """Days relative to the index date, both ends included: -365 to 0 is the year up to the index day."""

    from_days: int
    to_days: int

    def __post_init__(self) -> None:
        if max(abs(self.from_days), abs(self.to_days)) > MAX_WINDOW_DAYS:
            raise ValueError(f"at most {MAX_WINDOW_DAYS} days either side")
        if self.from_days > self.to_days:
            raise ValueError("'from_days' is after 'to_days'")


@dataclass(frozen=True, slots=True)
class EventCriterion:
    """At least `at_least` records of one domain with one of `concepts` (or, if asked, their descendants)."""

    kind: Kind
    concepts: tuple[int, ...]
    descendants: bool = False
    value: Range | None = None
    value_concepts: tuple[int, ...] = ()
    unit: int | None = None
    window: Window | None = None
    at_least: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", _concept_set(self.concepts))
        if not self.concepts:
            raise ValueError("'concepts' is empty")
        if self.value_concepts:
            object.__setattr__(self, "value_concepts", _concept_set(self.value_concepts))
        if self.unit is not None:
            _concept_set((self.unit,))
        if self.kind not in WITH_VALUES and (self.value or self.value_concepts or self.unit is not None):
            raise ValueError("only a measurement or an observation has 'value', 'value_concepts' and 'unit'")
        if not 1 <= self.at_least <= MAX_OCCURRENCES:
            raise ValueError(f"'at_least' is 1 to {MAX_OCCURRENCES}")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        found: dict[str, Any] = {"kind": self.kind.value, "concepts": list(self.concepts)}
        if self.descendants:
            found["descendants"] = True
        if self.value:
            found["value"] = _range_json(self.value, "min", "max")
        if self.value_concepts:
            found["value_concepts"] = list(self.value_concepts)
        if self.unit is not None:
            found["unit"] = self.unit
        if self.window:
            found["window"] = {"from_days": self.window.from_days, "to_days": self.window.to_days}
        if self.at_least != 1:
            found["at_least"] = self.at_least
        return found


@dataclass(frozen=True, slots=True)
class AgeCriterion:
    """Age at the index date in years: calendar year of the index date minus year of birth.

    Nodes keep the year of birth only, and report ages above 89 as 90.
    """

    years: Range

    def __post_init__(self) -> None:
        for end in (self.years.minimum, self.years.maximum):
            if end is not None and not (float(end).is_integer() and 0 <= end <= MAX_AGE_YEARS):
                raise ValueError(f"ages are whole years, 0 to {MAX_AGE_YEARS}")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        return {"kind": "age", **_range_json(self.years, "min_years", "max_years")}


@dataclass(frozen=True, slots=True)
class SexCriterion:
    """`person.gender_concept_id` is one of `concepts` (8507 male, 8532 female)."""

    concepts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", _concept_set(self.concepts))
        if not self.concepts:
            raise ValueError("'concepts' is empty")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        return {"kind": "sex", "concepts": list(self.concepts)}


Criterion = EventCriterion | AgeCriterion | SexCriterion


@dataclass(frozen=True, slots=True)
class Cohort:
    """A validated cohort question. Equal questions are equal values: criteria are a sorted set."""

    index: EventCriterion | None = None
    include: tuple[Criterion, ...] = ()
    exclude: tuple[Criterion, ...] = ()

    def __post_init__(self) -> None:
        if self.index is not None and self.index.window is not None:
            raise MalformedCohort(
                "index.window", "the index event has no window, it is what windows refer to"
            )
        for name in ("include", "exclude"):
            unique = {canonical.encode(criterion.to_json()): criterion for criterion in getattr(self, name)}
            object.__setattr__(self, name, tuple(unique[key] for key in sorted(unique)))
        if len(self.include) + len(self.exclude) > MAX_CRITERIA:
            raise MalformedCohort("include", f"at most {MAX_CRITERIA} criteria in all")
        if self.index is None and not self.include and not self.exclude:
            raise MalformedCohort("index", "a cohort needs an index event or a criterion")

    @classmethod
    def parse(cls, form: bytes | str | dict[str, Any]) -> Self:
        """Return the cohort that `form` (JSON bytes, JSON text or its value) describes.

        >>> Cohort.parse({"index": {"kind": "drug", "concepts": [1118084]}}).index.kind.value
        'drug'

        Raises: MalformedCohort, naming the path of the key that is wrong.
        """
        value: Any = form
        if isinstance(form, bytes | str):
            data = form.encode() if isinstance(form, str) else form
            try:
                value = canonical.decode(data, max_bytes=MAX_BYTES)
            except canonical.MalformedJson as error:
                raise MalformedCohort("$", str(error)) from error
        fields = _object(value, "$", allowed={"index", "include", "exclude"})
        index = _event(fields["index"], "index") if "index" in fields else None
        include = tuple(
            _criterion(item, f"include[{place}]")
            for place, item in enumerate(_list(fields.get("include", []), "include", at_most=MAX_CRITERIA))
        )
        exclude = tuple(
            _criterion(item, f"exclude[{place}]")
            for place, item in enumerate(_list(fields.get("exclude", []), "exclude", at_most=MAX_CRITERIA))
        )
        return cls(index=index, include=include, exclude=exclude)

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out and every set in order."""
        found: dict[str, Any] = {}
        if self.index is not None:
            found["index"] = self.index.to_json()
        if self.include:
            found["include"] = [criterion.to_json() for criterion in self.include]
        if self.exclude:
            found["exclude"] = [criterion.to_json() for criterion in self.exclude]
        return found

    def canonical(self) -> bytes:
        """Return one encoding per meaning: the same for any order of keys, criteria or concepts."""
        return canonical.encode(self.to_json())


def _criterion(value: Any, path: str) -> Criterion:
    kind = _object(value, path, allowed=None).get("kind")
    if kind == "age":
        fields = _object(value, path, allowed={"kind", "min_years", "max_years"})
        ends = {
            key: _number(fields[key], f"{path}.{key}") for key in ("min_years", "max_years") if key in fields
        }
        return _built(path, lambda: AgeCriterion(Range(ends.get("min_years"), ends.get("max_years"))))
    if kind == "sex":
        fields = _object(value, path, allowed={"kind", "concepts"}, required={"concepts"})
        concepts = _concepts(fields["concepts"], f"{path}.concepts")
        return _built(path, lambda: SexCriterion(concepts))
    return _event(value, path)


_EVENT_KEYS = {"kind", "concepts", "descendants", "at_least"}
_VALUE_KEYS = {"value", "value_concepts", "unit"}


def _event(value: Any, path: str) -> EventCriterion:
    name = _object(value, path, allowed=None).get("kind")
    if not isinstance(name, str) or name not in set(Kind):
        raise MalformedCohort(f"{path}.kind", f"must be one of {', '.join(Kind)}" + _people_kinds(path))
    kind = Kind(name)
    allowed = _EVENT_KEYS | (_VALUE_KEYS if kind in WITH_VALUES else set())
    allowed |= {"window"} if path != "index" else set()
    fields = _object(value, path, allowed=allowed, required={"concepts"})
    concepts = _concepts(fields["concepts"], f"{path}.concepts")
    values = (
        _concepts(fields["value_concepts"], f"{path}.value_concepts") if "value_concepts" in fields else ()
    )
    return _built(
        path,
        lambda: EventCriterion(
            kind=kind,
            concepts=concepts,
            descendants=_flag(fields.get("descendants", False), f"{path}.descendants"),
            value=_range(fields["value"], f"{path}.value") if "value" in fields else None,
            value_concepts=values,
            unit=_integer(fields["unit"], f"{path}.unit") if "unit" in fields else None,
            window=_window(fields["window"], f"{path}.window") if "window" in fields else None,
            at_least=_integer(fields.get("at_least", 1), f"{path}.at_least"),
        ),
    )


def _people_kinds(path: str) -> str:
    return "" if path == "index" else ", age, sex"


def _built(path: str, build: Callable[[], T]) -> T:
    try:
        return build()
    except MalformedCohort:
        raise
    except ValueError as error:  # raised by our own constructors: rules, never values
        raise MalformedCohort(path, str(error)) from error


def _object(
    value: Any, path: str, *, allowed: set[str] | None, required: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedCohort(path, "must be an object")
    for key in value:
        if allowed is not None and key not in allowed:
            shown = key if isinstance(key, str) and _SAFE_KEY.fullmatch(key) else "<key>"
            raise MalformedCohort(shown if path == "$" else f"{path}.{shown}", "unknown key")
    for key in sorted((required or set()) - set(value)):
        raise MalformedCohort(f"{path}.{key}", "is missing")
    return value


def _list(value: Any, path: str, *, at_most: int) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedCohort(path, "must be a list")
    if len(value) > at_most:
        raise MalformedCohort(path, f"at most {at_most} entries")
    return value


def _concepts(value: Any, path: str) -> tuple[int, ...]:
    items = _list(value, path, at_most=MAX_CONCEPTS)
    ids = tuple(_integer(item, f"{path}[{place}]") for place, item in enumerate(items))
    return _built(path, lambda: _concept_set(ids))


def _concept_set(ids: tuple[int, ...]) -> tuple[int, ...]:
    if any(not 0 < concept <= MAX_CONCEPT_ID for concept in ids):
        raise ValueError(f"concept ids are 1 to {MAX_CONCEPT_ID}")
    return tuple(sorted(set(ids)))


def _range(value: Any, path: str) -> Range:
    fields = _object(value, path, allowed={"min", "max"})
    ends = {key: _number(fields[key], f"{path}.{key}") for key in ("min", "max") if key in fields}
    return _built(path, lambda: Range(ends.get("min"), ends.get("max")))


def _window(value: Any, path: str) -> Window:
    fields = _object(value, path, allowed={"from_days", "to_days"}, required={"from_days", "to_days"})
    first = _integer(fields["from_days"], f"{path}.from_days")
    last = _integer(fields["to_days"], f"{path}.to_days")
    return _built(path, lambda: Window(first, last))


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise MalformedCohort(path, "must be true or false")
    return value


def _integer(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedCohort(path, "must be a whole number")
    return value


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedCohort(path, "must be a number")
    if abs(value) > MAX_MAGNITUDE:  # before float(): a long integer would overflow it
        raise MalformedCohort(path, f"at most {MAX_MAGNITUDE:g}")
    return float(value)


def _range_json(value: Range, low: str, high: str) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for key, end in ((low, value.minimum), (high, value.maximum)):
        if end is not None:
            found[key] = int(end) if float(end).is_integer() else end  # 140 and 140.0 mean the same
    return found
