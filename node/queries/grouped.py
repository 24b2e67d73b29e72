"""One statement for each vector: the rows of a grouped relation, compiled once for questions of one shape.

A statistic over our own cohort form differs from the next in concepts and values mostly; those are bound to
the kept statement (node.queries.shape). A Circe definition has filled a temporary table by then, and the
statement over it is kept by that table's name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ibis.expr.types import Table
from numpy.typing import NDArray

from node.queries.cohort import indexed_persons
from node.queries.engine import CdmEngine
from node.queries.shape import StandIns
from protocols.circe import CirceCohort
from protocols.cohort import Cohort

Columns = dict[str, NDArray[Any]]  # whole numbers as int64; a float64 column has NaN for what is absent


@dataclass(frozen=True, slots=True)
class Members:
    """A cohort within one statement: what it is called there, and how it becomes a relation.

    `relation()` has `person_id` and `index_date`, each person once.
    """

    shape: Hashable
    relation: Callable[[], Table]


class Grouping:
    """One statement in the making: cohorts and concepts are put in, `rows` runs it. Used once and closed."""

    def __init__(self, engine: CdmEngine) -> None:
        self.engine = engine
        self._stand_ins = StandIns()
        self._open = ExitStack()

    def __enter__(self) -> Grouping:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def own_form(self, cohort: Cohort) -> Cohort:
        """Return the cohort with stand-ins."""
        return self._stand_ins.cohort(cohort)

    def concept(self, concept_id: int) -> int:
        """Return a stand-in for one concept."""
        return self._stand_ins.concept(concept_id)

    def members(self, cohort: Cohort | CirceCohort) -> Members:
        """Put a cohort in. Circe's is counted now, ours with the statement. Raises: as CdmEngine.members."""
        if isinstance(cohort, CirceCohort):
            made = self._open.enter_context(self.engine.members(cohort))
            return Members(made.op(), lambda: made)
        shape = self.own_form(cohort)
        return Members(shape, lambda: indexed_persons(shape, self.engine))

    def passed_rules(self, cohort: CirceCohort) -> Members:
        """Put in (person_id, rules) of a definition. Raises: as CdmEngine.passed_rules."""
        made = self._open.enter_context(self.engine.passed_rules(cohort))
        return Members(made.op(), lambda: made)

    def rows(self, *shape: Hashable, build: Callable[[], Table]) -> Columns:
        """Return the columns of `build()`; `shape` says all that it depends on, the stand-ins aside."""
        found = self.engine.rows_of_shape(shape, build, self._stand_ins.parameters)
        return {name: found[name].to_numpy() for name in found.column_names}
