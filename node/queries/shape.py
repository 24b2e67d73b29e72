"""Questions of one shape share one compiled statement: concepts, units and values are bound, not compiled.

Ibis takes longer to compile a question than DuckDB to count it. Most questions differ in their concepts and
values only; so each of those is replaced by a stand-in before compiling, and the stand-ins in the SQL by
named parameters. Windows, ages and numbers of records stay part of the shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from protocols.cohort import Cohort, Criterion, EventCriterion, Range, SexCriterion

Parameters = dict[str, int | float]

# Stand-ins are valid where they stand: concept ids below 2^31, values below 1e15, ascending so that sorted
# sets and ranges keep their order. Nothing else in a shape is as large (ages, days and counts are small).
# There are 483,648 for concepts, more than two cohorts can have.
_FIRST_CONCEPT = 2_147_000_000
_FIRST_VALUE = 900_000_000_000_000
_IN_SQL = re.compile(r"\b(?:(2147[0-4]\d{5})|(900000000\d{6})(?:\.0)?)\b")


@dataclass(slots=True)
class StandIns:
    """The stand-ins of one statement, and what each stands for: `parameters`, by the name of its mark."""

    parameters: Parameters = field(default_factory=dict)

    def cohort(self, cohort: Cohort) -> Cohort:
        """Return `cohort` with stand-ins. Its criteria keep their places, by which `Attrition` names them.

        Sorting compares `at_least`, which stays, then concepts, whose stand-ins ascend in the order they had.
        """
        return Cohort(
            index=None if cohort.index is None else self._event(cohort.index),
            include=tuple(map(self._criterion, cohort.include)),
            exclude=tuple(map(self._criterion, cohort.exclude)),
        )

    def concept(self, concept_id: int) -> int:
        """Return a stand-in for one concept."""
        stand_in = _FIRST_CONCEPT + len(self.parameters)
        self.parameters[f"n{stand_in}"] = concept_id
        return stand_in

    def _value(self, number: float | None) -> float | None:
        if number is None:
            return None
        stand_in = _FIRST_VALUE + len(self.parameters)
        self.parameters[f"n{stand_in}"] = float(number)
        return float(stand_in)

    def _criterion(self, criterion: Criterion) -> Criterion:
        if isinstance(criterion, SexCriterion):
            return replace(criterion, concepts=tuple(map(self.concept, criterion.concepts)))
        return self._event(criterion) if isinstance(criterion, EventCriterion) else criterion

    def _event(self, criterion: EventCriterion) -> EventCriterion:
        value, unit = criterion.value, criterion.unit
        return replace(
            criterion,
            concepts=tuple(map(self.concept, criterion.concepts)),
            value_concepts=tuple(map(self.concept, criterion.value_concepts)),
            unit=None if unit is None else self.concept(unit),
            value=None if value is None else Range(self._value(value.minimum), self._value(value.maximum)),
        )


def shape_of(cohort: Cohort) -> tuple[Cohort, Parameters]:
    """Return `cohort` with stand-ins for its concepts and values, and what each stands for."""
    stand_ins = StandIns()
    return stand_ins.cohort(cohort), stand_ins.parameters


def with_marks(sql: str, parameters: Parameters) -> str:
    """Return `sql` with each stand-in as a named parameter.

    Raises: RuntimeError if what the SQL names is not exactly what there is to bind: never a wrong answer.
    """
    marked = _IN_SQL.sub(lambda found: f"$n{found[1] or found[2]}", sql)
    named = set(re.findall(r"\$(n\d+)", marked))
    if named != set(parameters):
        raise RuntimeError("the compiled statement does not name each parameter")
    return marked
