"""What a study predicts: a yes or no, one of several classes, an amount, or the time until something happens.

    kind = "present"  whether there is such a record                                    one logit
    kind = "value"    whether its value is at least `at_least`                          one logit
    kind = "class"    which of `categories` (value_as_concept_id) or `codes` it is      one logit per class
    kind = "amount"   its value, on the public `range` mapped to [-1, 1] and clipped    one number
    kind = "time"     days from the index date, in the intervals that end at `edges`    one hazard logit each
    kind = "count"    how many such records, at most `most`                             exact studies only
    kind = "days"     days from the index date, followed for `until_days` at most       exact studies only

Of "days", y is the day on which the outcome came or the person was last observed, and which of the two.
The intervals of "time" are [0, e1), [e1, e2), ...: a discrete-time survival model (Singer and Willett 1993).
A person whose first such record lies before the index date is not at risk and not in the study; one whose
observation ends earlier is censored there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_float,
    checked_int,
    checked_list,
    checked_name,
)
from protocols.study_records import (
    EVENT_TABLES,
    VALUE_TABLES,
    Records,
    parse_codes,
    parse_concepts,
    parse_range,
    parse_records,
)

KINDS = ("present", "value", "class", "amount", "time", "count", "days")
MAX_CLASSES = 32
MAX_EDGES = 64
MAX_EDGE_DAYS = 36_525  # a century
MAX_COUNT = 1_000  # of records of one person that count
DEATH = "death"  # a table of its own: a person is in it or not, whatever the cause


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is predicted. Which fields are set follows from `kind`, as above."""

    records: Records
    kind: str
    at_least: float | None = None
    categories: tuple[int, ...] = ()
    codes: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    edges: tuple[int, ...] = ()
    most: int = 0
    until_days: int = 0

    @property
    def task(self) -> str:
        """The loss that goes with it: binary, multiclass, regression, survival; or none: count, days."""
        named = {"class": "multiclass", "amount": "regression", "time": "survival"}
        return self.kind if self.kind in ("count", "days") else named.get(self.kind, "binary")

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for a person."""
        return len(self.levels) or len(self.edges) or 1

    @property
    def levels(self) -> tuple[float, ...]:
        """The classes, by concept or code, in the order of the model's outputs."""
        return self.codes or tuple(float(concept) for concept in self.categories)

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"kind": self.kind, **self.records.to_json()}
        if self.at_least is not None:
            found["at_least"] = self.at_least
        for key in ("categories", "codes", "range", "edges"):
            if getattr(self, key):
                found[key] = list(getattr(self, key))
        for key in ("most", "until_days"):
            if getattr(self, key):
                found[key] = getattr(self, key)
        return found


def parse_outcome(fields: Fields) -> Outcome:
    """Return the outcome that a table describes. Raises: MalformedStudy."""
    kind = checked_name(*fields.take("kind"), KINDS)
    found: dict[str, Any] = {}
    valued = kind in ("value", "class", "amount")
    records = parse_records(
        fields,
        with_value=valued,
        tables=VALUE_TABLES if valued else (*EVENT_TABLES, DEATH),
        any_concept=(DEATH,),
    )
    if records.table == DEATH and records.concept_ids:
        raise MalformedStudy(f"{fields.path}.concept_id", "whatever the cause: a death has no concept here")
    if kind == "value":
        found["at_least"] = checked_float(*fields.take("at_least"))
    if kind == "class":
        found |= _levels(fields)
    if kind == "amount":
        found["range"] = parse_range(*fields.take("range"))
    if kind == "count":
        found["most"] = checked_int(*fields.take("most"), low=1, high=MAX_COUNT)
    if kind == "days":
        found["until_days"] = checked_int(*fields.take("until_days"), low=1, high=MAX_EDGE_DAYS)
    if kind == "time":
        found["edges"] = _edges(*fields.take("edges"))
    if kind in ("time", "days") and records.window is not None:
        raise MalformedStudy(f"{fields.path}.window", "the edges, or until_days, say which days count")
    fields.done()
    return Outcome(records, kind, **found)


def _levels(fields: Fields) -> dict[str, tuple[float, ...]]:
    key = "codes" if "codes" in fields else "categories"
    levels = (parse_codes if key == "codes" else parse_concepts)(*fields.take(key))
    if not 2 <= len(levels) <= MAX_CLASSES:
        raise MalformedStudy(f"{fields.path}.{key}", f"needs 2 to {MAX_CLASSES} classes")
    return {key: levels}


def _edges(value: Any, path: str) -> tuple[int, ...]:
    edges = tuple(
        checked_int(edge, path, low=1, high=MAX_EDGE_DAYS)
        for edge in checked_list(value, path, at_most=MAX_EDGES)
    )
    if not edges or list(edges) != sorted(set(edges)):
        raise MalformedStudy(path, "needs days in ascending order")
    return edges
