"""The nine statistics in plain Python, person by person and day by day: what the SQL is held against.

Written from the definitions, not from the SQL: it shares no code with node.queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise

from protocols.cohort import AgeCriterion, Cohort, Criterion, EventCriterion, Kind, SexCriterion
from protocols.statistic import (
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Step,
    Survival,
    Which,
)
from tests.node.people import Human

Ancestors = Sequence[tuple[int, int]]


class Oracle:
    """What a statistic is on these people, with these (ancestor, descendant) pairs."""

    def __init__(self, people: Sequence[Human], ancestors: Ancestors) -> None:
        self.people = people
        self.ancestors = set(ancestors)

    def vector(self, cohort: Cohort, statistic: Statistic) -> list[int]:  # noqa: C901 (a case a kind)
        """The exact vector."""
        inside = [(human, self.index_date(human, cohort)) for human in self.people]
        members = [(human, day) for human, day in inside if day is not None]
        match statistic:
            case Count():
                return [len(members)]
            case Feasibility(at_least=least):
                return [1 if len(members) >= least else 0]
            case Breakdown(by=By.SITE_COUNT_BAND, edges=edges):
                return [int(low <= len(members) < high) for low, high in _bands(edges)]
            case Breakdown():
                return self._breakdown(members, statistic)
            case Histogram(value=value, edges=edges):
                found = [self.value(human, day, value) for human, day in members]
                cells = [sum(x is not None and a <= x < b for x in found) for a, b in _bands(edges)]
                return [*cells, sum(x is None for x in found)]
            case Mean(value=value, lower=lower, upper=upper):
                total = [0, 0, 0]
                for human, day in members:
                    x = self.value(human, day, value)
                    if x is not None:
                        low, high = Fraction(lower), Fraction(upper)
                        x = (2 * min(max(x, low), high) - low - high) / (high - low)
                        for cell, power in enumerate((Fraction(1), x, x * x)):
                            total[cell] += round(4096 * power)
                return total
            case Contingency(other=other):
                cells = [0] * 4
                for human in self.people:
                    if human.periods:
                        here = self.index_date(human, cohort) is None
                        there = self.index_date(human, other) is None
                        cells[2 * here + there] += 1
                return cells
            case Survival():
                return self._survival(members, statistic)
            case Incidence():
                return self._incidence(members, statistic)
            case Attrition(order=order):
                criteria = [(c, True) for c in cohort.include] + [(c, False) for c in cohort.exclude]
                cells = [0] * (len(criteria) + 1)
                for human in self.people:
                    day = self._entry(human, cohort)
                    if day is None:
                        continue
                    passed = 0
                    for place in order or range(len(criteria)):
                        criterion, wanted = criteria[place]
                        if self._fulfils(human, day, criterion) is not wanted:
                            break
                        passed += 1
                    cells[passed] += 1
                return cells

    # ---- cohorts ----

    def index_date(self, human: Human, cohort: Cohort) -> date | None:
        """The person's index date, or None if they are not in the cohort."""
        day = self._entry(human, cohort)
        if day is None:
            return None
        inside = all(self._fulfils(human, day, criterion) for criterion in cohort.include) and not any(
            self._fulfils(human, day, criterion) for criterion in cohort.exclude
        )
        return day if inside else None

    def _entry(self, human: Human, cohort: Cohort) -> date | None:
        if cohort.index is None:
            return min((first for first, _ in human.periods), default=None) if human.rows else None
        found = self._days(human, cohort.index)
        return min(found) if len(found) >= cohort.index.at_least else None

    def _fulfils(self, human: Human, day: date, criterion: Criterion) -> bool:
        if isinstance(criterion, SexCriterion):
            return any(sex in criterion.concepts for sex, _ in human.rows)
        if isinstance(criterion, AgeCriterion):
            low, high = criterion.years.minimum, criterion.years.maximum
            ages = [day.year - born for _, born in human.rows]
            return any((low is None or age >= low) and (high is None or age <= high) for age in ages)
        found = self._days(human, criterion)
        if criterion.window is not None:
            first, last = criterion.window.from_days, criterion.window.to_days
            found = [other for other in found if first <= (other - day).days <= last]
        return len(found) >= criterion.at_least

    def _days(self, human: Human, criterion: EventCriterion) -> list[date]:
        if criterion.kind is Kind.CONDITION:
            events = human.conditions
        elif criterion.kind is Kind.DRUG:
            events = human.drugs
        else:
            assert criterion.kind is Kind.MEASUREMENT
            events = tuple(
                (lab.concept, lab.day)
                for lab in human.labs
                if criterion.unit in (None, lab.unit) and _within(lab.value, criterion)
            )
        return [
            day for concept, day in events if self._is(concept, criterion.concepts, criterion.descendants)
        ]

    def _is(self, concept: int, wanted: Sequence[int], descendants: bool) -> bool:
        return concept in wanted or (
            descendants and any((above, concept) in self.ancestors for above in wanted)
        )

    # ---- statistics ----

    def _breakdown(self, members: list[tuple[Human, date]], statistic: Breakdown) -> list[int]:
        if statistic.by is By.SEX:
            sexes = [min((sex for sex, _ in human.rows), default=0) for human, _ in members]
            cells = [sexes.count(8507), sexes.count(8532)]
            cells.append(len(sexes) - sum(cells))
        elif statistic.by is By.YEAR:
            assert statistic.first_year is not None
            assert statistic.last_year is not None
            years = [day.year for _, day in members]
            cells = [years.count(year) for year in range(statistic.first_year, statistic.last_year + 1)]
            cells.append(len(years) - sum(cells))
        else:
            ages = [day.year - min(born for _, born in human.rows) for human, day in members if human.rows]
            cells = [sum(a <= age < b for age in ages) for a, b in _bands(statistic.edges)]
        return [sum(cells), *cells] if statistic.total else cells

    def value(self, human: Human, day: date, asked: OneValue) -> Fraction | None:
        """The person's one value."""
        found = []
        for lab in human.labs:
            if lab.value is None or math.isnan(lab.value) or abs(lab.value) > 1e15:
                continue
            if not self._is(lab.concept, [asked.concept], asked.descendants):
                continue
            if asked.unit is not None and lab.unit != asked.unit:
                continue
            after = (lab.day - day).days
            if asked.window and not asked.window.from_days <= after <= asked.window.to_days:
                continue
            found.append((lab.day, Fraction(lab.value)))
        if not found:
            return None
        if asked.which is Which.FIRST:
            return min(found)[1]
        if asked.which is Which.LAST:
            return max(found)[1]
        values = [value for _, value in found]
        return {
            Which.MIN: min(values),
            Which.MAX: max(values),
            Which.MEAN: sum(values, Fraction(0)) / len(values),
        }[asked.which]

    def _at_risk(self, human: Human, day: date, outcome: Cohort) -> tuple[list[date], date | None] | None:
        """The days at risk and the day of the event within them, or None for who is not followed."""
        ends = [last for first, last in human.periods if first <= day <= last]
        had = self.index_date(human, outcome)
        if not ends or (had is not None and had < day):
            return None
        risk = [day + timedelta(days=after) for after in range((max(ends) - day).days + 1)]
        if had in risk:
            return risk[: risk.index(had) + 1], had
        return risk, None

    def _survival(self, members: list[tuple[Human, date]], statistic: Survival) -> list[int]:
        count = -(-statistic.horizon_days // statistic.interval_days)
        cells = [0] * (2 * count + 1)
        for human, day in members:
            followed = self._at_risk(human, day, statistic.outcome)
            if followed is None:
                continue
            risk, event = followed
            after = (risk[-1] - day).days
            if after >= statistic.horizon_days:
                cells[-1] += 1
            else:
                cells[after // statistic.interval_days + (0 if event else count)] += 1
        return cells

    def _incidence(self, members: list[tuple[Human, date]], statistic: Incidence) -> list[int]:
        step = {Step.YEAR: 12, Step.QUARTER: 3, Step.MONTH: 1}[statistic.step]
        names = [
            (year, month // step)
            for year in range(statistic.first_year, statistic.last_year + 1)
            for month in range(0, 12, step)
        ]
        everyday = [
            date(statistic.first_year, 1, 1) + timedelta(days=n)
            for n in range((date(statistic.last_year + 1, 1, 1) - date(statistic.first_year, 1, 1)).days)
        ]
        length = {name: 0 for name in names}
        for day in everyday:
            length[day.year, (day.month - 1) // step] += 1
        weight = math.floor(1024 / math.sqrt(len(names)))
        events, time = {name: 0 for name in names}, {name: 0 for name in names}
        for human, index in members:
            followed = self._at_risk(human, index, statistic.outcome)
            if followed is None:
                continue
            risk, event = followed
            inside = [(day.year, (day.month - 1) // step) for day in risk]
            for name in names:
                time[name] += math.floor(Fraction(weight * inside.count(name), length[name]))
            if event is not None and (event.year, (event.month - 1) // step) in events:
                events[event.year, (event.month - 1) // step] += 1024
        return [*events.values(), *time.values()]


def _bands(edges: Sequence[float]) -> list[tuple[float, float]]:
    ends = [-math.inf, *edges, math.inf]
    return list(pairwise(ends))


def _within(value: float | None, criterion: EventCriterion) -> bool:
    if criterion.value is None:
        return True
    low, high = criterion.value.minimum, criterion.value.maximum
    if value is None:
        return False
    if math.isnan(value):  # the databases' order has it above every number
        return high is None
    return (low is None or value >= low) and (high is None or value <= high)
