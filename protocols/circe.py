"""OHDSI Circe cohort definitions, as ATLAS exports them: checked in full before anything runs.

Guarantee: a definition that parses holds known keys only; every value is a number, a flag, a date of the
calendar, a word of a short list, or a text that must be bound as a parameter; and the query it becomes is of
bounded size. Names, captions and the order of keys and concepts carry no meaning and are left out, so
definitions that differ in these only are equal values.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from protocols import canonical
from protocols.circe_shapes import DEFINITION
from protocols.cohort import Cohort, MalformedCohort

MAX_BYTES = 4 * 1024 * 1024  # seven times the largest of 100 sampled from PhenotypeLibrary (593 kB)
MAX_DEPTH = 40  # brackets in brackets; the sample reaches 14
MAX_PARTS = 1_000  # criteria in the query, copies included: ~5 s to write as SQL; the sample reaches 144
MAX_CONCEPTS = 100_000  # in all concept sets together

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_OF_CIRCE = frozenset({"PrimaryCriteria", "ConceptSets", "cdmVersionRange"})  # never keys of our own form


@dataclass(frozen=True, slots=True)
class CirceCohort:
    """A checked definition; `form` is its canonical JSON without names, captions and nulls."""

    form: bytes

    @classmethod
    def parse(cls, data: bytes | str) -> Self:
        """Return the definition that `data` (JSON) holds.

        Raises: MalformedCohort, naming the path of the key that is wrong, never a value.
        """
        return cls._checked(decoded(data.encode() if isinstance(data, str) else data))

    @classmethod
    def _checked(cls, value: Any) -> Self:
        checked = DEFINITION(value, "$")
        sets = checked.get("ConceptSets", [])
        if len({entry["id"] for entry in sets}) != len(sets):
            raise MalformedCohort("ConceptSets", "two concept sets have one id")
        if sum(len(entry["expression"]["items"]) for entry in sets) > MAX_CONCEPTS:
            raise MalformedCohort("ConceptSets", f"at most {MAX_CONCEPTS} concepts in all")
        for entry in sets:
            items = {canonical.encode(item): item for item in entry["expression"]["items"]}
            entry["expression"]["items"] = [items[key] for key in sorted(items)]
        sets.sort(key=lambda entry: int(entry["id"]))
        if _parts(checked) > MAX_PARTS:
            raise MalformedCohort("$", f"the query would have more than {MAX_PARTS} parts")
        return cls(canonical.encode(checked))

    def to_json(self) -> dict[str, Any]:
        """Return the definition as a JSON value, the caller's own."""
        value: dict[str, Any] = json.loads(self.form)
        return value

    def canonical(self) -> bytes:
        """Return one encoding for all definitions that differ in names, comments or order of keys only."""
        return self.form


def parse_any(data: bytes) -> Cohort | CirceCohort:
    """Return what a cohort file holds: a Circe definition or our own form, told apart by their keys.

    Raises: MalformedCohort.
    """
    return cohort_from_json(decoded(data))


def cohort_from_json(value: Any) -> Cohort | CirceCohort:
    """Return what a JSON value of either form holds. Size and depth were bounded by whoever decoded it.

    Raises: MalformedCohort.
    """
    if isinstance(value, dict) and _OF_CIRCE & value.keys():
        return CirceCohort._checked(value)
    return Cohort.parse(value if isinstance(value, dict) else {"$": value})


def decoded(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the JSON value in `data` after bounding its size and depth, which is what parsing costs.

    Raises: MalformedCohort.
    """
    if len(data) > max_bytes:
        raise MalformedCohort("$", f"at most {max_bytes} bytes")
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_DEPTH:
            raise MalformedCohort("$", f"nested deeper than {MAX_DEPTH} levels")
    try:
        return canonical.decode(data, max_bytes=max_bytes)
    except canonical.MalformedJson as error:
        raise MalformedCohort("$", str(error)) from error


def _parts(definition: dict[str, Any]) -> int:
    """How many criteria the SQL holds. Circe repeats the events it filters for each criterion on them."""
    primary = sum(_criterion_parts(entry) for entry in definition["PrimaryCriteria"]["CriteriaList"])
    total = primary + sum(_criterion_parts(entry) for entry in definition.get("CensoringCriteria", []))
    if "AdditionalCriteria" in definition:
        total += _group_parts(definition["AdditionalCriteria"], events=primary)
    return total + sum(
        _group_parts(rule["expression"], events=1) for rule in definition.get("InclusionRules", [])
    )


def _criterion_parts(criterion: dict[str, Any]) -> int:
    ((_, fields),) = criterion.items()
    base = 1 + sum(_criterion_parts(entry) for entry in fields.get("CriteriaList", []))
    if "CorrelatedCriteria" not in fields:
        return base
    return base + _group_parts(fields["CorrelatedCriteria"], events=base)


def _group_parts(group: dict[str, Any], *, events: int) -> int:
    correlated = group.get("CriteriaList", [])
    members = len(correlated) + len(group.get("DemographicCriteriaList", []))
    return (
        events * (1 + members)
        + sum(_criterion_parts(entry["Criteria"]) for entry in correlated)
        + sum(_group_parts(inner, events=events) for inner in group.get("Groups", []))
    )
