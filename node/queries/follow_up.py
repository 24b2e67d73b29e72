"""What happens to the patients of a cohort after the index date: person-time at risk, outcomes, survival.

A patient is followed from the index date to the end of the observation period that holds it (the latest end,
if several do, contrary to the CDM); without such a period not at all. The outcome is the index date in the
other cohort, so the first one. Outcome before the index date: prevalent, neither at risk nor in a cell. An
outcome on the index day counts, as in OHDSI's CohortIncidence with a time at risk from day 0, and so does
the day of an outcome as a day at risk: every event has person-time in its own period. An outcome after the
end of follow-up is not seen.

Guarantee: a patient's part follows from that patient's own records: at most one event, and person-time in
each period rounded down to whole units for that patient alone.
"""

from __future__ import annotations

from datetime import date

import ibis
import numpy as np
from ibis import _
from ibis.expr.types import IntegerValue, Table
from numpy.typing import NDArray

from node.queries.breakdowns import Cells, spread
from node.queries.grouped import Columns, Grouping, Members
from privacy.sensitivity import person_time_unit
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.statistic import UNIT, Incidence, Step, Survival

_DAY_0 = date(1970, 1, 1)
# What a row of `_risk` counts: those at risk within one period only, from a day in it, to a day in it; events
_WITHIN, _FROM, _TO, _EVENT = range(4)


def survival(cohort: Cohort | CirceCohort, statistic: Survival, grouping: Grouping) -> Cells:
    """Return [event_1, .., event_K, censored_1, .., censored_K, beyond].

    Interval j holds days (j-1)·interval_days to j·interval_days - 1 after the index date; who has neither an
    event nor an end of follow-up before the horizon is beyond. Event and end on one day: an event.
    """
    members, outcome = grouping.members(cohort), grouping.members(statistic.outcome)

    def build() -> Table:
        followed = _followed(members, outcome, grouping)
        days = followed.last.delta(followed.index_date, unit="day").cast("int64")
        return followed.group_by(days=days, event=followed.event).aggregate(persons=_.count())

    found = grouping.rows("survival", members.shape, outcome.shape, build=build)
    count = statistic.intervals
    places = found["days"] // statistic.interval_days + np.where(found["event"] == 1, 0, count)
    places = np.where(found["days"] >= statistic.horizon_days, 2 * count, places)
    return spread(places, found["persons"], 2 * count + 1)


def incidence(cohort: Cohort | CirceCohort, statistic: Incidence, grouping: Grouping) -> Cells:
    """Return [events_1, .., events_P, person-time_1, .., person-time_P].

    An event counts UNIT in the period of its day; of each period a patient counts
    floor(w · days at risk / days of the period), w = UNIT / √P rounded down (privacy.sensitivity).
    """
    members, outcome = grouping.members(cohort), grouping.members(statistic.outcome)
    found = grouping.rows(
        "incidence",
        statistic.step,
        members.shape,
        outcome.shape,
        build=lambda: _risk(_followed(members, outcome, grouping), statistic.step),
    )
    return _periods(found, statistic)


def _followed(members: Members, outcome: Members, grouping: Grouping) -> Table:
    """(person_id, index_date, last, event): who is at risk, the last day of it, 1 if that has an outcome."""
    relation, outcomes = members.relation(), outcome.relation()
    periods = grouping.engine.table("observation_period").select(
        observed=_.person_id,
        first_day=_.observation_period_start_date,
        last_day=_.observation_period_end_date,
    )
    seen = relation.inner_join(
        periods,
        [
            relation.person_id == periods.observed,
            periods.first_day <= relation.index_date,
            relation.index_date <= periods.last_day,
        ],
    )
    seen = seen.group_by("person_id", "index_date").aggregate(last_day=_.last_day.max())
    outcomes = outcomes.select(had=_.person_id, outcome_date=_.index_date)
    joined = seen.left_join(outcomes, seen.person_id == outcomes.had)
    joined = joined.filter(joined.outcome_date.isnull() | (joined.outcome_date >= joined.index_date))
    event = (joined.outcome_date <= joined.last_day).fill_null(False)
    return joined.select(
        "person_id",
        "index_date",
        last=ibis.ifelse(event, joined.outcome_date, joined.last_day),
        event=event.ifelse(1, 0).cast("int64"),  # PostgreSQL casts no boolean to bigint
    )


def _risk(followed: Table, step: Step) -> Table:
    """(what, at, days, persons), all whole numbers; `at` is a period's number or a day since 1970."""

    def counted(rows: Table, what: int, at: IntegerValue, days: IntegerValue | int) -> Table:
        chosen = rows.select(what=ibis.literal(what, "int64"), at=at, days=ibis.literal(0, "int64") + days)
        return chosen.group_by("what", "at", "days").aggregate(persons=_.count())

    first, last = _number(followed.index_date, step), _number(followed.last, step)
    within, across = followed.filter(first == last), followed.filter(first != last)
    events = followed.filter(followed.event == 1)
    length = within.last.delta(within.index_date, unit="day").cast("int64") + 1
    return ibis.union(
        counted(within, _WITHIN, _number(within.index_date, step), length),
        counted(across, _FROM, _day(across.index_date), 0),
        counted(across, _TO, _day(across.last), 0),
        counted(events, _EVENT, _day(events.last), 0),
    )


def _number(day, step: Step) -> IntegerValue:  # type: ignore[no-untyped-def]
    """The number of the calendar period that holds a day, counted from year 0."""
    year = day.year().cast("int64")
    if step is Step.YEAR:
        return year
    if step is Step.QUARTER:
        return year * 4 + day.quarter().cast("int64") - 1
    return year * 12 + day.month().cast("int64") - 1


def _day(day) -> IntegerValue:  # type: ignore[no-untyped-def]
    return day.delta(ibis.literal(_DAY_0), unit="day").cast("int64")


def _periods(found: Columns, statistic: Incidence) -> Cells:
    """The vector, from what `_risk` counted."""
    starts = np.array([*statistic.periods, date(statistic.last_year + 1, 1, 1)], dtype="datetime64[D]")
    starts = starts.astype(np.int64)
    lengths = np.diff(starts)
    periods, unit = len(lengths), person_time_unit(statistic)

    def rows(what: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        chosen = found["what"] == what
        return found["at"][chosen], found["days"][chosen], found["persons"][chosen]

    def part(place: NDArray[np.int64], days: NDArray[np.int64], persons: NDArray[np.int64]) -> Cells:
        inside = (place >= 0) & (place < periods)
        place, days, persons = place[inside], days[inside], persons[inside]
        return spread(place, persons * (unit * days // lengths[place]), periods)

    numbers, days, persons = rows(_WITHIN)
    per_year = 12 // statistic.step.months
    time = part(numbers - statistic.first_year * per_year, days, persons)
    # whole periods lie between the one that someone enters in and the one that they leave in
    between = np.zeros(periods + 2, dtype=np.int64)
    at, _days, persons = rows(_FROM)
    place = np.searchsorted(starts, at, side="right") - 1
    time += part(place, starts[np.minimum(place + 1, periods)] - at, persons)
    np.add.at(between, np.minimum(place + 1, periods), persons)
    at, _days, persons = rows(_TO)
    place = np.searchsorted(starts, at, side="right") - 1
    time += part(place, at - starts[np.maximum(place, 0)] + 1, persons)
    np.subtract.at(between, np.clip(place, 0, periods), persons)
    time += unit * np.cumsum(between)[:periods]
    at, _days, persons = rows(_EVENT)
    place = np.searchsorted(starts, at, side="right") - 1
    inside = (place >= 0) & (place < periods)
    return np.concatenate((spread(place[inside], UNIT * persons[inside], periods), time))
