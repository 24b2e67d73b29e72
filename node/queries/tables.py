"""Which tables of the CDM the answer to a question is read from: what a hospital's policy allows or refuses.

Known from the question alone, before anything is read. Tables of the vocabulary (`concept_ancestor` and the
like) are named as well where they are read: they say nothing of patients, and a policy leaves them out of
what it has to allow (node.policy.VOCABULARY).
"""

from __future__ import annotations

from node.queries import circe
from node.queries import cohort as cohorts
from protocols.circe import CirceCohort
from protocols.cohort import Cohort, EventCriterion
from protocols.question import Question
from protocols.statistic import (
    Breakdown,
    By,
    Contingency,
    Histogram,
    Incidence,
    Mean,
    Statistic,
    Survival,
)
from protocols.statistic import cohorts as cohorts_of

_ANCESTORS = "concept_ancestor"


def tables(question: Question) -> frozenset[str]:
    """Return every table that answering reads, in lower case.

    Raises: MalformedCohort if Circe has no meaning for a definition.
    """
    found = _of_statistic(question.statistic)
    for cohort in cohorts_of(question.cohort, question.statistic):
        found |= of_cohort(cohort)
    return found


def of_cohort(cohort: Cohort | CirceCohort) -> frozenset[str]:
    """Return the tables that finding the members of a cohort reads. Raises: MalformedCohort."""
    if isinstance(cohort, CirceCohort):
        return circe.tables(cohort)
    events = (cohort.index, *cohort.include, *cohort.exclude)
    wide = any(isinstance(event, EventCriterion) and event.descendants for event in events)
    return cohorts.tables(cohort) | ({_ANCESTORS} if wide else set())


def _of_statistic(statistic: Statistic) -> frozenset[str]:
    match statistic:
        case Breakdown(by=By.SEX | By.AGE_BAND):
            return frozenset({"person"})
        case Histogram(value=value) | Mean(value=value):
            return frozenset({"measurement", *([_ANCESTORS] if value.descendants else [])})
        case Contingency() | Incidence() | Survival():
            return frozenset({"observation_period"})
        case _:
            return frozenset()
