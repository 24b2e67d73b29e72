"""One number for each patient of a cohort, out of the records of a measurement, and its distribution.

Which number (`protocols.statistic.OneValue`, in terms of the CDM): of the rows of `measurement` whose
`measurement_concept_id` is the concept (or, with descendants, one below it in `concept_ancestor`), whose
`unit_concept_id` is the unit if one is asked for, whose `measurement_date` lies in the window around the
index date if there is one, and which have a `value_as_number` of at most 10^15 either side of zero,

    first, last   the value on the earliest or latest day; of several on that day the smallest for `first`
                  and the largest for `last`. Times of day do not count: `measurement_datetime` is optional,
                  and de-identified stores often lack it. Two records of one day with one value are the same
                  number, so `measurement_id` never decides.
    min, max      the smallest or largest of all
    mean          the mean of all, of values rounded to a millionth

Nothing is converted: without `unit`, records in mg/dL and mmol/L are taken as they stand.

Guarantee: a patient's number follows from that patient's own records and is the same in every run: means are
sums of decimals, which do not depend on the order, and what is summed over patients are whole numbers.
"""

from __future__ import annotations

import numpy as np
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.queries.breakdowns import Cells, spread
from node.queries.grouped import Grouping
from protocols.circe import CirceCohort
from protocols.cohort import MAX_MAGNITUDE, Cohort
from protocols.statistic import MEAN_UNIT, Histogram, Mean, OneValue, Which

_MILLIONTHS = "decimal(38, 6)"  # 10^15 in millionths has 22 digits: sums of 10^16 records fit


def histogram(cohort: Cohort | CirceCohort, statistic: Histogram, grouping: Grouping) -> Cells:
    """Return [below, bin 1, .., bin k, at or above the last edge, no value]."""
    values, persons = _values(cohort, statistic.value, grouping)
    known = ~np.isnan(values)
    places = np.searchsorted(np.array(statistic.edges), values[known], side="right")
    cells = spread(places, persons[known], len(statistic.edges) + 2)
    cells[-1] = persons[~known].sum()
    return cells


def mean(cohort: Cohort | CirceCohort, statistic: Mean, grouping: Grouping) -> Cells:
    """Return [Q, Q·x, Q·x²] summed over the patients with a value; x is in [-1, 1], Q is MEAN_UNIT.

    Each patient's three numbers are rounded to whole ones, at most Q either side of 0, before they are added.
    """
    values, persons = _values(cohort, statistic.value, grouping)
    known = ~np.isnan(values)
    clipped = np.clip(values[known], statistic.lower, statistic.upper)
    # the quotient is within [0, 1] in floating point too: both differences are rounded the same way
    x = 2.0 * ((clipped - statistic.lower) / (statistic.upper - statistic.lower)) - 1.0
    each = np.rint(MEAN_UNIT * np.stack([np.ones_like(x), x, x * x])).astype(np.int64)
    return np.asarray(each @ persons[known], dtype=np.int64)


def _values(
    cohort: Cohort | CirceCohort, value: OneValue, grouping: Grouping
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the values that occur, NaN for none, and how many persons have each."""
    members = grouping.members(cohort)
    concept = grouping.concept(value.concept)
    unit = None if value.unit is None else grouping.concept(value.unit)

    def build() -> Table:
        relation = members.relation()
        records = _records(value, concept, unit, grouping)
        joined = relation.left_join(records, relation.person_id == records.of_person)
        return _one_each(joined, value).group_by("value").aggregate(persons=_.count())

    shape = (value.descendants, value.which, value.window, concept, unit)
    found = grouping.rows("values", members.shape, *shape, build=build)
    return found["value"].astype(np.float64), found["persons"].astype(np.int64)


def _records(value: OneValue, concept: int, unit: int | None, grouping: Grouping) -> Table:
    """(of_person, day, value): the records that match, whenever they are."""
    table = grouping.engine.table("measurement")
    wanted = table.measurement_concept_id == concept
    if value.descendants and grouping.engine.has("concept_ancestor"):
        ancestors = grouping.engine.table("concept_ancestor")
        below = ancestors.filter(ancestors.ancestor_concept_id == concept)
        wanted = wanted | table.measurement_concept_id.isin(below.descendant_concept_id)
    conditions = [wanted, table.value_as_number.between(-MAX_MAGNITUDE, MAX_MAGNITUDE)]
    if unit is not None:
        conditions.append(table.unit_concept_id == unit)
    return table.filter(conditions).select(
        of_person=_.person_id, day=_.measurement_date, value=_.value_as_number
    )


def _one_each(joined: Table, asked: OneValue) -> Table:
    """(person_id, value), each member once; the value is null where no record is in the window."""
    if asked.window is not None:
        days = joined.day.delta(joined.index_date, unit="day")
        inside = days.between(asked.window.from_days, asked.window.to_days)
        joined = joined.mutate(value=inside.ifelse(joined.value, None), day=inside.ifelse(joined.day, None))
    grouped = joined.group_by("person_id")
    match asked.which:
        case Which.MIN:
            return grouped.aggregate(value=_.value.min())
        case Which.MAX:
            return grouped.aggregate(value=_.value.max())
        case Which.MEAN:
            summed = grouped.aggregate(total=_.value.cast(_MILLIONTHS).sum(), records=_.value.count())
            return summed.select("person_id", value=_.total.cast("float64") / _.records.cast("float64"))
        case Which.FIRST:
            days = joined.group_by("person_id", "day").aggregate(value=_.value.min())
            return days.group_by("person_id").aggregate(value=_.value.argmin(_.day))
        case Which.LAST:
            days = joined.group_by("person_id", "day").aggregate(value=_.value.max())
            return days.group_by("person_id").aggregate(value=_.value.argmax(_.day))
