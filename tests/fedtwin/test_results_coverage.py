"""95 % intervals of results hold the truth 95 times in 100: under both mechanisms, and for samples of more.

Answers are made of real shares of noise from repeated bits, so nothing here fails by chance twice. With 1,000
answers the share that covers is known to ± 2.8 % (four standard errors): an interval a fifth too narrow or a
third too wide is noticed, and one test shows that.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from fedtwin.estimates import Estimate
from fedtwin.results import read
from protocols.question import Mechanism
from protocols.statistic import (
    MEAN_UNIT,
    UNIT,
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Survival,
)
from tests.fedtwin.answers import OUTCOME, answered, question

REPEATS = 1_000
BAND = (0.922, 0.978)
HBA1C = OneValue(3004410)
WIDTH = 10.0  # of Mean's range, 4 to 14


def mean_cells(patients: int, x: float, x_squared: float) -> list[int]:
    return [MEAN_UNIT * patients, round(MEAN_UNIT * patients * x), round(MEAN_UNIT * patients * x_squared)]


TABLE = [400, 300, 200]  # of attrition: passed none, one, both
EVENTS, CENSORED, BEYOND = [50, 40, 30], [20, 10, 30], 700
SURVIVAL = (1 - 50 / 880) * (1 - 40 / 810) * (1 - 30 / 760)
PERIODS = 3
PERSON_TIME = math.isqrt(UNIT**2 // PERIODS)
INCIDENCE = [UNIT * events for events in (50, 60, 70)] + [PERSON_TIME * 2000] * PERIODS
YEARS = 365 / 365.25

Figure = Callable[[Any], Estimate]
CASES: dict[str, tuple[Statistic, Sequence[int], Figure, float]] = {
    "count": (Count(), [300], lambda r: r.patients, 300),
    "cell": (Breakdown(By.SEX), [150, 120, 30], lambda r: r.cells[1], 120),
    "sum of cells": (Breakdown(By.SEX), [150, 120, 30], lambda r: r.total, 300),
    "reconciled cell": (Breakdown(By.SEX, total=True), [300, 150, 120, 30], lambda r: r.cells[0], 150),
    "measured total": (Breakdown(By.SEX, total=True), [300, 150, 120, 30], lambda r: r.total, 300),
    "bin": (Histogram(HBA1C, (5.0, 7.0)), [40, 90, 60, 300], lambda r: r.cells[2], 60),
    "mean of few": (Mean(HBA1C, 4, 14), mean_cells(60, -0.4, 0.3), lambda r: r.mean, 9 - 0.4 * 5),
    "mean of many": (Mean(HBA1C, 4, 14), mean_cells(5000, 0.5, 0.3), lambda r: r.mean, 9 + 0.5 * 5),
    "variance": (
        Mean(HBA1C, 4, 14),
        mean_cells(800, -0.4, 0.3),
        lambda r: r.variance,
        25 * (0.3 - 0.16),
    ),
    "odds ratio": (Contingency(OUTCOME), [200, 1000, 800, 9000], lambda r: r.odds_ratio, 2.25),
    "odds ratio of small cells": (Contingency(OUTCOME), [30, 100, 80, 900], lambda r: r.odds_ratio, 3.375),
    "rate": (
        Incidence(OUTCOME, 2017, 2019),
        INCIDENCE,
        lambda r: r.periods[1].rate,
        1000 * 60 / (2000 * YEARS),
    ),
    "overall rate": (
        Incidence(OUTCOME, 2017, 2019),
        INCIDENCE,
        lambda r: r.overall.rate,
        1000 * 180 / (6000 * YEARS),
    ),
    "survival": (
        Survival(OUTCOME, 90, 30),
        [*EVENTS, *CENSORED, BEYOND],
        lambda r: r.curve[-1],
        SURVIVAL,
    ),
    "before any rule": (Attrition(), TABLE, lambda r: r.remaining[0], 900),
    "after one rule": (Attrition(), TABLE, lambda r: r.remaining[1], 500),
}


@cache
def figures(case: str, mechanism: Mechanism) -> list[Estimate]:
    statistic, total, figure, _ = CASES[case]
    asked = question(statistic, mechanism=mechanism)
    return [figure(read(answered(asked, total, seed=seed))) for seed in range(REPEATS)]


def coverage(found: list[Estimate], truth: float, *, widened: float = 1.0) -> float:
    held = 0
    for estimate in found:
        middle, half = (estimate.low + estimate.high) / 2, (estimate.high - estimate.low) / 2 * widened
        held += middle - half <= truth <= middle + half
    return held / len(found)


@pytest.mark.parametrize("mechanism", list(Mechanism))
@pytest.mark.parametrize("case", CASES)
def test_an_interval_holds_the_truth_95_times_in_100(case: str, mechanism: Mechanism) -> None:
    found = coverage(figures(case, mechanism), CASES[case][-1])
    assert BAND[0] < found < BAND[1], found


@pytest.mark.parametrize("case", ["count", "reconciled cell", "mean of many", "rate", "survival"])
def test_an_interval_of_another_width_would_be_noticed(case: str) -> None:
    found, truth = figures(case, Mechanism.GAUSSIAN), CASES[case][-1]
    assert coverage(found, truth, widened=0.8) < BAND[0]
    assert coverage(found, truth, widened=1.33) > BAND[1]


@pytest.mark.parametrize("cell", [0, 1, 3])
def test_a_cell_near_zero_is_covered_at_least_as_often(cell: int) -> None:
    asked = question(Breakdown(By.SEX))
    found = [read(answered(asked, [200, 90, cell], seed=seed)).cells[2] for seed in range(REPEATS)]  # type: ignore[attr-defined]
    assert coverage(found, cell) > BAND[0]
    assert all(0.0 <= estimate.low <= (estimate.value or 0.0) <= estimate.high for estimate in found)


def population_coverage(
    statistic: Statistic, draw: Callable[[np.random.Generator], list[int]], figure: Figure, truth: float
) -> float:
    """Draw the patients anew for each answer, and see how often the wider interval holds the truth."""
    asked, rng = question(statistic, epsilon=4.0), np.random.default_rng(7)
    held = 0
    for seed in range(REPEATS):
        found = figure(read(answered(asked, draw(rng), seed=seed)))
        assert found.population is not None
        held += found.population[0] <= truth <= found.population[1]
    return held / REPEATS


def test_the_population_interval_of_an_odds_ratio_holds_that_of_the_population() -> None:
    shares = np.array([0.02, 0.1, 0.08, 0.8])
    found = population_coverage(
        Contingency(OUTCOME),
        lambda rng: rng.multinomial(5_000, shares).tolist(),
        lambda r: r.odds_ratio,
        0.02 * 0.8 / (0.1 * 0.08),
    )
    assert BAND[0] < found < BAND[1], found


def test_the_population_interval_of_a_rate_holds_that_of_the_population() -> None:
    per_person_year = 0.02
    found = population_coverage(
        Incidence(OUTCOME, 2018, 2018),
        lambda rng: [UNIT * int(rng.poisson(per_person_year * 3000 * YEARS)), UNIT * 3000],
        lambda r: r.overall.rate,
        1000 * per_person_year,
    )
    assert BAND[0] < found < BAND[1], found


def test_the_population_interval_of_survival_holds_that_of_the_population() -> None:
    hazards, patients = (0.05, 0.1, 0.08), 1_500

    def draw(rng: np.random.Generator) -> list[int]:
        left, events, censored = patients, [], []
        for hazard in hazards:
            events.append(int(rng.binomial(left, hazard)))
            censored.append(int(rng.binomial(left - events[-1], 0.05)))
            left -= events[-1] + censored[-1]
        return [*events, *censored, left]

    found = population_coverage(
        Survival(OUTCOME, 90, 30), draw, lambda r: r.curve[-1], math.prod(1 - hazard for hazard in hazards)
    )
    assert BAND[0] < found < BAND[1], found


def test_the_population_interval_of_a_mean_holds_that_of_the_population() -> None:
    def draw(rng: np.random.Generator) -> list[int]:
        x = np.clip(rng.normal(-0.2, 0.3, 400), -1, 1)
        return [
            MEAN_UNIT * 400,
            int(np.rint(MEAN_UNIT * x).sum()),
            int(np.rint(MEAN_UNIT * x**2).sum()),
        ]

    clipped = float(np.clip(np.random.default_rng(1).normal(-0.2, 0.3, 2_000_000), -1, 1).mean())
    found = population_coverage(Mean(HBA1C, 4, 14), draw, lambda r: r.mean, 9 + clipped * WIDTH / 2)
    assert BAND[0] < found < BAND[1], found
