"""Results over time: rates of new outcomes by calendar period, and survival after the index date."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from fedtwin.count_results import patients
from fedtwin.estimates import Estimate, rate
from fedtwin.result import Result, Row, interval_text, json_rows
from privacy import post_processing, sensitivity, survival
from privacy.reading import Answer
from protocols.statistic import UNIT as EVENT
from protocols.statistic import Incidence, Survival

DAYS_PER_YEAR = 365.25
PER = 1000.0  # person-years of a rate


@dataclass(frozen=True)
class Period:
    """One calendar period: new outcomes, person-years at risk, outcomes per 1,000 person-years."""

    name: str
    events: Estimate
    person_years: Estimate
    rate: Estimate


@dataclass(frozen=True, repr=False)
class IncidenceResult(Result):
    """New outcomes per 1,000 person-years at risk in each calendar period, and over all of them."""

    WHOLE: ClassVar[frozenset[str]] = frozenset({"events", "person-years"})
    UNIT: ClassVar[int] = EVENT
    COUNTED: ClassVar[str] = "events in each period"

    periods: tuple[Period, ...]
    overall: Period

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Incidence`."""
        statistic = answer.question.statistic
        assert isinstance(statistic, Incidence)
        count, noise = len(statistic.periods), answer.noise
        whole = sensitivity.person_time_unit(statistic)
        cells = np.array(answer.estimates)
        events, years = cells[:count] / EVENT, np.array(years_of(statistic))
        time = cells[count:] / whole * years
        of_events, of_time = noise.deviation / EVENT, noise.deviation / whole * years
        names = [label.removeprefix("events ") for label in answer.labels[:count]]
        rows = [
            _period(name, *numbers, factor=noise.factor)
            for name, *numbers in zip(
                names, events.tolist(), time.tolist(), [of_events] * count, of_time.tolist(), strict=True
            )
        ]
        overall = _period(
            "all",
            float(events.sum()),
            float(time.sum()),
            of_events * math.sqrt(count),
            float(np.sqrt(np.sum(of_time**2))),
            factor=noise.factor,
        )
        return cls(answer, tuple(rows), overall)

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.overall.rate, "new outcomes per 1,000 person-years")

    def table(self) -> list[Row]:
        """Return one row for each period, and one for all."""
        return [
            {
                "period": period.name,
                "events": period.events.value,
                "person-years": period.person_years.value,
                "rate": period.rate.value,
                "low": period.rate.low,
                "high": period.rate.high,
                "population_low": (period.rate.population or period.rate.ci95)[0],
                "population_high": (period.rate.population or period.rate.ci95)[1],
            }
            for period in (*self.periods, self.overall)
        ]

    def figures(self) -> dict[str, Any]:
        """Return events, person-years and rates."""
        return {
            "rate_per_1000_person_years": self.overall.rate.to_json(),
            "periods": [
                {
                    "period": period.name,
                    "events": period.events.to_json(),
                    "person_years": period.person_years.to_json(),
                    "rate_per_1000_person_years": period.rate.to_json(),
                }
                for period in self.periods
            ],
        }


@dataclass(frozen=True, repr=False)
class SurvivalResult(Result):
    """A Kaplan-Meier curve from the index date to the outcome: falling, from 1, with intervals.

    `curve` holds the survival at the end of each interval of days. From the interval on where the noise hides
    how many patients are left, lower limits are 0 (`resolved` intervals stand before it).
    """

    WHOLE: ClassVar[frozenset[str]] = frozenset({"at risk", "events"})

    days: tuple[int, ...]
    curve: tuple[Estimate, ...]
    at_risk: tuple[float, ...]
    events: tuple[float, ...]
    resolved: int

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Survival`."""
        statistic = answer.question.statistic
        assert isinstance(statistic, Survival)
        found = survival.survival_curve(np.array(answer.estimates), noise=answer.noise)
        step, last = statistic.interval_days, statistic.horizon_days
        days = tuple(min((j + 1) * step, last) for j in range(statistic.intervals))
        points = zip(
            days,
            found.survival.tolist(),
            found.lower.tolist(),
            found.upper.tolist(),
            found.population_lower.tolist(),
            found.population_upper.tolist(),
            strict=True,
        )
        curve = tuple(
            Estimate.around(
                f"day {day}", value, (low, high), population=(min(wide_low, value), max(wide_high, value))
            )
            for day, value, low, high, wide_low, wide_high in points
        )
        at_risk = post_processing.monotone(post_processing.non_negative(found.at_risk))
        events = post_processing.non_negative(found.events)
        return cls(answer, days, curve, tuple(at_risk.tolist()), tuple(events.tolist()), found.resolved)

    @property
    def median_days(self) -> int | None:
        """The end of the first interval after which half or fewer are free of the outcome; None if none."""
        falls = (day for day, point in zip(self.days, self.curve, strict=True) if (point.value or 0.0) <= 0.5)
        return next(falls, None)

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.curve[-1], f"free of the outcome after {self.days[-1]} days")

    def table(self) -> list[Row]:
        """Return one row for each interval."""
        return [
            {
                "until day": f"{day}",
                "at risk": at_risk,
                "events": events,
                "survival": point.value,
                "low": point.low,
                "high": point.high,
                "population_low": (point.population or point.ci95)[0],
                "population_high": (point.population or point.ci95)[1],
            }
            for day, at_risk, events, point in zip(
                self.days, self.at_risk, self.events, self.curve, strict=True
            )
        ]

    def figures(self) -> dict[str, Any]:
        """Return the curve."""
        return {
            "curve": json_rows(self.table()),
            "median_days": self.median_days,
            "resolved_intervals": self.resolved,
        }


def _period(
    name: str, events: float, time: float, of_events: float, of_time: float, *, factor: float
) -> Period:
    """Return one period's figures from noisy events and person-years and their standard deviations."""
    return Period(
        name,
        patients("events", events, (events - factor * of_events, events + factor * of_events)),
        patients("person-years", time, (time - factor * of_time, time + factor * of_time)),
        rate(
            "rate",
            events,
            time,
            events_deviation=of_events,
            time_deviation=of_time,
            factor=factor,
            per=PER,
        ),
    )


def years_of(statistic: Incidence) -> list[float]:
    """Return the length of each period in years."""
    firsts = [*statistic.periods, date(statistic.last_year + 1, 1, 1)]
    return [(after - first).days / DAYS_PER_YEAR for first, after in pairwise(firsts)]
