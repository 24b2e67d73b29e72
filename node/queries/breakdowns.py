"""How many patients a cohort has, and in which of disjoint cells each of them is.

Guarantee: a patient is in at most one cell (besides the total), whatever the tables hold: with two rows in
`person`, contrary to the CDM, the smaller value counts.
"""

from __future__ import annotations

import numpy as np
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.queries.grouped import Grouping, Members
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.statistic import FEMALE, MALE, Breakdown, By, Contingency

Cells = NDArray[np.int64]
UNKNOWN = -1_000_000  # no age, calendar year or concept


def size(cohort: Cohort | CirceCohort, grouping: Grouping) -> int:
    """Return the number of persons in the cohort."""
    members = grouping.members(cohort)
    found = grouping.rows(
        "count", members.shape, build=lambda: members.relation().aggregate(persons=_.count())
    )
    return int(found["persons"][0])


def breakdown(cohort: Cohort | CirceCohort, statistic: Breakdown, grouping: Grouping) -> Cells:
    """Return [total,] and one cell for each sex, band of age or calendar year of the index date.

    Someone of whom `person` does not give the year of birth is in no band of age and not in its total.
    """
    if statistic.by is By.SITE_COUNT_BAND:
        cells = np.zeros(len(statistic.edges) + 1, dtype=np.int64)
        cells[np.searchsorted(statistic.edges, size(cohort, grouping), side="right")] = 1
        return cells
    members = grouping.members(cohort)
    found = grouping.rows(
        "breakdown", statistic.by, members.shape, build=lambda: _split(members, statistic.by, grouping)
    )
    cells = _placed(found["key"], found["persons"], statistic)
    return np.concatenate(([cells.sum()], cells)) if statistic.total else cells


def contingency(cohort: Cohort | CirceCohort, statistic: Contingency, grouping: Grouping) -> Cells:
    """Return how many persons with an observation period are in both, in one, in the other, in neither."""
    ours, other = grouping.members(cohort), grouping.members(statistic.other)

    def build() -> Table:
        everyone = grouping.engine.table("observation_period").select("person_id").distinct()
        ours_only = ours.relation().select(ours_id=_.person_id)
        other_only = other.relation().select(other_id=_.person_id)
        marked = everyone.left_join(ours_only, everyone.person_id == ours_only.ours_id)
        marked = marked.left_join(other_only, marked.person_id == other_only.other_id)
        cell = marked.ours_id.isnull().ifelse(2, 0) + marked.other_id.isnull().ifelse(1, 0)
        return marked.group_by(cell=cell.cast("int64")).aggregate(persons=_.count())

    found = grouping.rows("contingency", ours.shape, other.shape, build=build)
    return spread(found["cell"], found["persons"], 4)


def spread(places: NDArray[np.int64], persons: NDArray[np.int64], length: int) -> Cells:
    """Return `length` cells with the sum of `persons` at each place. Whole numbers throughout."""
    cells = np.zeros(length, dtype=np.int64)
    np.add.at(cells, places.astype(np.int64), persons.astype(np.int64))
    return cells


def _split(members: Members, by: By, grouping: Grouping) -> Table:
    """(key, persons): the sex concept, the age in years or the calendar year; UNKNOWN where there is none."""
    relation = members.relation()
    if by is By.YEAR:
        keyed = relation.mutate(key=_.index_date.year().cast("int64"))
    else:
        column = "gender_concept_id" if by is By.SEX else "year_of_birth"
        person = grouping.engine.table("person")
        person = person.select(known_id=person.person_id, known=person[column])
        joined = relation.left_join(person, relation.person_id == person.known_id)
        joined = joined.group_by("person_id", "index_date").aggregate(known=_.known.min())
        age = joined.index_date.year().cast("int64") - joined.known
        keyed = joined.mutate(key=joined.known if by is By.SEX else age)
    return keyed.group_by(key=_.key.fill_null(UNKNOWN)).aggregate(persons=_.count())


def _placed(keys: NDArray[np.int64], persons: NDArray[np.int64], statistic: Breakdown) -> Cells:
    if statistic.by is By.SEX:
        places = np.select([keys == MALE, keys == FEMALE], [0, 1], default=2)
        return spread(places, persons, 3)
    if statistic.first_year is not None and statistic.last_year is not None:
        years = statistic.last_year - statistic.first_year + 1
        inside = (keys >= statistic.first_year) & (keys <= statistic.last_year)
        return spread(np.where(inside, keys - statistic.first_year, years), persons, years + 1)
    known = keys != UNKNOWN
    places = np.searchsorted(statistic.edges, keys[known], side="right")
    return spread(places, persons[known], len(statistic.edges) + 1)
