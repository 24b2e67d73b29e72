"""A figure with its intervals, and how the figures that an answer holds become words.

Two intervals can be had. `low` to `high` holds the figure of the very patients that were asked about in 95 of
100 answers: the noise is all that is uncertain then. `population`, where a figure is read as that of a sample
from more patients like these, is wider by what another sample would have given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from privacy.moments import ratio_interval
from privacy.post_processing import CellNoise

Interval = tuple[float, float]

NEGLIGIBLE = 1e-6  # no figure that a person reads is told from 0 below it


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure. `value` is None where the noise hides it; an end of an interval may be infinite.

    Guarantee: low <= value <= high. The value is made consistent with the others of its answer (no count
    below 0, parts that add up), the interval is around what was measured; where the two part, the interval
    is stretched to hold the value.
    """

    name: str
    value: float | None
    low: float
    high: float
    population: Interval | None = None

    @classmethod
    def around(
        cls,
        name: str,
        value: float | None,
        interval: Interval,
        *,
        lowest: float = -math.inf,
        highest: float = math.inf,
        population: Interval | None = None,
    ) -> Estimate:
        """Return the figure with its interval cut to what can be, and stretched to hold the value."""
        low, high = (min(max(end, lowest), highest) for end in interval)
        if value is not None:
            low, high = min(low, value), max(high, value)
        return cls(name, value, low, high, population)

    @property
    def ci95(self) -> Interval:
        """The interval that the noise alone needs."""
        return self.low, self.high

    def to_json(self) -> dict[str, Any]:
        """Return the figure; an infinite end is null."""
        found: dict[str, Any] = {
            "value": self.value,
            "ci95": [finite(end) for end in self.ci95],
        }
        if self.population is not None:
            found["population_ci95"] = [finite(end) for end in self.population]
        return found

    def columns(self) -> dict[str, float | None]:
        """Return the figure as columns of a table."""
        found: dict[str, float | None] = {"estimate": self.value, "low": self.low, "high": self.high}
        if self.population is not None:
            found |= {"population_low": self.population[0], "population_high": self.population[1]}
        return found


def finite(number: float | None) -> float | None:
    """Return the number, or None for an infinite one: JSON has no infinity."""
    return None if number is None or math.isinf(number) else number


def odds_ratio(cells: tuple[float, float, float, float], *, noise: CellNoise) -> Estimate:
    """Return the odds ratio a·d/(b·c) of noisy cells a (both), b, c (one of the two), d (neither).

    Intervals of the four cells are combined on the logarithmic scale by recovering variances (MOVER; Zou,
    Donner 2008, "Construction of confidence limits about effect measures"): where a cell may be 0, the
    interval is open on that side. For the population a cell's own interval is the score interval of a Poisson
    count with the noise added: the n with (measured − n)² <= z²·(σ² + n). Where a cell is measured as 0 or
    less nothing is known of the ratio.
    """
    a, b, c, d = cells
    if min(cells) <= 0.0:
        return Estimate("odds ratio", None, 0.0, math.inf, (0.0, math.inf))
    z = noise.factor
    half = z * noise.deviation

    def score(cell: float) -> Interval:
        reach = z * math.sqrt(cell + z**2 / 4.0 + noise.deviation**2)
        return cell + z**2 / 2.0 - reach, cell + z**2 / 2.0 + reach

    value = a * d / (b * c)
    return Estimate.around(
        "odds ratio",
        value,
        _of_product((a, d), (b, c), [(cell - half, cell + half) for cell in (a, d, b, c)]),
        population=_of_product((a, d), (b, c), [score(cell) for cell in (a, d, b, c)]),
    )


def _of_product(above: tuple[float, ...], below: tuple[float, ...], limits: list[Interval]) -> Interval:
    """Return the interval of a quotient of products from those of its factors, `above` first."""
    down = up = 0.0
    for place, cell in enumerate((*above, *below)):
        low, high = limits[place]
        falls = math.log(cell / low) ** 2 if low > 0.0 else math.inf
        rises = math.log(high / cell) ** 2
        down, up = (down + falls, up + rises) if place < len(above) else (down + rises, up + falls)
    logarithm = sum(map(math.log, above)) - sum(map(math.log, below))
    return math.exp(logarithm - math.sqrt(down)), _exp(logarithm + math.sqrt(up))


def rate(
    name: str,
    events: float,
    time: float,
    *,
    events_deviation: float,
    time_deviation: float,
    factor: float,
    per: float,
) -> Estimate:
    """Return `per` · events/time of two noisy numbers, with Fieller's interval.

    For the population, events are a Poisson count: the interval is that of the score, the n with
    (measured − n)² <= z²·(σ² + n), over a time that is noisy too.
    """

    def interval(numerator: float, deviation: float) -> Interval:
        low, high = ratio_interval(
            numerator,
            time,
            numerator_deviation=deviation,
            denominator_deviation=time_deviation,
            factor=factor,
            lower=0.0,
            upper=math.inf,
        )
        return per * low, per * high

    counted = max(events, 0.0) + factor**2 / 4.0
    value = per * max(events, 0.0) / time if time > 0.0 else None
    low, high = interval(events, events_deviation)
    wide_low, wide_high = interval(events + factor**2 / 2.0, math.sqrt(events_deviation**2 + counted))
    return Estimate.around(name, value, (low, high), population=(min(low, wide_low), max(high, wide_high)))


def shown(number: float | None, *, whole: bool = False) -> str:
    """Return a figure as a person reads it: patients as whole numbers, others to three digits.

    >>> shown(1234.4, whole=True), shown(0.012345), shown(1234.4), shown(None), shown(float("inf"))
    ('1,234', '0.0123', '1,234', 'not known', 'no limit')
    """
    if number is None:
        return "not known"
    if math.isinf(number):
        return "no limit"
    if whole or abs(number) >= 1000:
        return f"{round(number):,}"
    return "0" if abs(number) < NEGLIGIBLE else f"{number:.3g}"


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 700.0 else math.inf
