"""How far along the inclusion rules of a cohort each patient comes."""

from __future__ import annotations

import ibis
from ibis import _
from ibis.expr.types import Table

from node.queries.breakdowns import Cells, spread
from node.queries.cohort import index_events, satisfying
from node.queries.grouped import Grouping
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.statistic import Attrition, rules


def attrition(cohort: Cohort | CirceCohort, statistic: Attrition, grouping: Grouping) -> Cells:
    """Return how many patients passed exactly the first 0, 1, .., R rules. Who passed all are the cohort.

    Patients without index event are in no cell. With Circe, a patient counts with the event that passes most,
    and censor windows play no part.
    """
    count = rules(cohort)
    if isinstance(cohort, CirceCohort):
        passed = grouping.passed_rules(cohort)
        found = grouping.rows(
            "attrition",
            passed.shape,
            build=lambda: passed.relation().group_by("rules").aggregate(persons=_.count()),
        )
    else:
        shape = grouping.own_form(cohort)
        order = statistic.order or tuple(range(count))
        found = grouping.rows("attrition", shape, order, build=lambda: _passed(shape, order, grouping))
    return spread(found["rules"], found["persons"], count + 1)


def _passed(cohort: Cohort, order: tuple[int, ...], grouping: Grouping) -> Table:
    """(rules, persons): each person at the first rule that they fail, or at the number of rules."""
    indexed = index_events(cohort.index, grouping.engine)
    indexed = indexed.mutate(person_id=_.person_id.cast("int64"))  # of one type with what is joined to it
    criteria = [*cohort.include, *cohort.exclude]
    stops = [indexed.select("person_id", rules=ibis.literal(len(order), "int64"))]
    for place, number in enumerate(order):
        fulfilled = satisfying(criteria[number], indexed, grouping.engine)
        wanted = number < len(cohort.include)
        failing = (indexed.anti_join if wanted else indexed.semi_join)(fulfilled, "person_id")
        stops.append(failing.select("person_id", rules=ibis.literal(place, "int64")))
    furthest = (ibis.union(*stops) if len(stops) > 1 else stops[0]).group_by("person_id")
    return furthest.aggregate(rules=_.rules.min()).group_by("rules").aggregate(persons=_.count())
