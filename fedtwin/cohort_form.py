"""A cohort as a researcher has it: a file, JSON, a value; our own form or a Circe definition from ATLAS.

A record of {"id", "name", "expression": {…}}, as the web API of ATLAS returns it, is taken for its
expression. Names of inclusion rules and the written order of criteria mean nothing to a hospital; they are
kept here, to name the rows of an attrition table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.circe import CirceCohort, cohort_from_json, decoded
from protocols.cohort import AgeCriterion, Cohort, Criterion, MalformedCohort, Range, SexCriterion
from protocols.statistic import FEMALE, MALE, Attrition, Statistic

Given = Cohort | CirceCohort | dict[str, Any] | str | bytes | Path

_SEXES = {MALE: "male", FEMALE: "female"}


@dataclass(frozen=True, slots=True)
class CohortForm:
    """A checked cohort, its criteria in the order they were written in, and their names.

    Args:
        order: for our own form, what `Attrition.order` takes; empty for Circe.
        rules: what each inclusion rule is called, in that order; empty where nobody named them.
    """

    cohort: Cohort | CirceCohort
    order: tuple[int, ...] = ()
    rules: tuple[str, ...] = ()

    def asked_for(self, statistic: Statistic) -> Statistic:
        """Return the statistic, an attrition in the written order if it names none."""
        if isinstance(statistic, Attrition) and not statistic.order:
            return Attrition(self.order)
        return statistic

    def rules_of(self, statistic: Statistic) -> tuple[str, ...]:
        """Return the names of the rules in the order in which the statistic applies them."""
        if not isinstance(statistic, Attrition) or not isinstance(self.cohort, Cohort):
            return self.rules
        each = _words_of(self.cohort)
        return tuple(each[place] for place in statistic.order or range(len(each)))


def read(given: Given) -> CohortForm:
    """Return the cohort in a value, a JSON text, a path or a text that names one.

    Raises: MalformedCohort, naming the path of the key that is wrong; OSError for a file.

    >>> form = read({"include": [{"kind": "sex", "concepts": [8532]}, {"kind": "age", "min_years": 40}]})
    >>> form.rules
    ('sex female', 'age 40 or more')
    """
    if isinstance(given, Cohort):
        return CohortForm(given, (), _words_of(given))
    if isinstance(given, CirceCohort):
        return CohortForm(given)
    value = _without_record(_decoded(given))
    cohort = cohort_from_json(value)
    if isinstance(cohort, CirceCohort):
        return CohortForm(cohort, (), _named_rules(value))
    order = _written_order(cohort, value)
    each = _words_of(cohort)
    return CohortForm(cohort, order, tuple(each[place] for place in order))


def _decoded(given: dict[str, Any] | str | bytes | Path) -> Any:
    if isinstance(given, str):
        given = given.encode() if given.lstrip().startswith("{") else Path(given).expanduser()
    if isinstance(given, Path):
        given = given.read_bytes()
    if isinstance(given, dict):
        try:
            given = json.dumps(given, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise MalformedCohort("$", "not what JSON can say") from None
    return decoded(given)


def _without_record(value: Any) -> dict[str, Any]:
    """Return the expression inside a record of ATLAS's web API, where it may stand as a text of its own."""
    if not isinstance(value, dict):
        raise MalformedCohort("$", "a JSON object")
    if "expression" not in value or "PrimaryCriteria" in value:
        return value
    inner = value["expression"]
    found = decoded(inner.encode()) if isinstance(inner, str) else inner
    if not isinstance(found, dict):
        raise MalformedCohort("expression", "a JSON object")
    return found


def _named_rules(value: dict[str, Any]) -> tuple[str, ...]:
    rules = value.get("InclusionRules") or []
    return tuple(str(rule.get("name") or f"rule {number}") for number, rule in enumerate(rules, start=1))


def _written_order(cohort: Cohort, value: dict[str, Any]) -> tuple[int, ...]:
    """Return the places of the criteria in include + exclude, in the order of the written form."""
    offsets = {"include": 0, "exclude": len(cohort.include)}
    sets = {"include": cohort.include, "exclude": cohort.exclude}
    places: dict[int, None] = {}  # a criterion that stands twice is one rule
    for key in (key for key in value if key in offsets):
        for item in value[key]:
            (criterion,) = Cohort.parse({"include": [item]}).include
            places[offsets[key] + sets[key].index(criterion)] = None
    return tuple(places)


def _words_of(cohort: Cohort) -> tuple[str, ...]:
    return (
        *(words(criterion) for criterion in cohort.include),
        *(f"without {words(criterion)}" for criterion in cohort.exclude),
    )


def words(criterion: Criterion) -> str:
    """Return a criterion in words."""
    if isinstance(criterion, AgeCriterion):
        return f"age {_range(criterion.years)}"
    if isinstance(criterion, SexCriterion):
        return "sex " + " or ".join(_SEXES.get(concept, str(concept)) for concept in criterion.concepts)
    several = "" if len(criterion.concepts) == 1 else f" and {len(criterion.concepts) - 1} more"
    found = f"{criterion.kind.value} {criterion.concepts[0]}{several}"
    if criterion.at_least > 1:
        found += f", {criterion.at_least} times"
    if criterion.value is not None:
        found += f", {_range(criterion.value)}"
    if criterion.window is not None:
        found += f", day {criterion.window.from_days} to {criterion.window.to_days}"
    return found


def _range(limits: Range) -> str:
    low, high = limits.minimum, limits.maximum
    if low is None:
        return f"{high:g} or less"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
