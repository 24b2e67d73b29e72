"""Means, variances and ratios of noisy sums: right without noise, and intervals that cover with it."""

import math

import numpy as np
import pytest

from privacy.moments import Moments, mean_and_variance, ratio_interval
from privacy.post_processing import CellNoise

UNIT = 4096
NORMAL = 1.959964


def sums(values: np.ndarray, *, lower: float = 40.0, upper: float = 200.0) -> np.ndarray:
    """What one site adds up: Q, Q·x and Q·x², each rounded for each patient."""
    x = (np.clip(values, lower, upper) - (lower + upper) / 2) / ((upper - lower) / 2)
    return np.array([UNIT * len(x), np.rint(UNIT * x).sum(), np.rint(UNIT * x * x).sum()])


def read(cells: np.ndarray, *, deviation: float, factor: float = NORMAL) -> Moments:
    noise = CellNoise(deviation, factor, 0.95)
    return mean_and_variance(cells, unit=UNIT, lower=40.0, upper=200.0, noise=noise)


def test_without_noise_it_is_the_mean_and_variance_of_the_clipped_values() -> None:
    values = np.random.default_rng(1).normal(120, 30, 3000)
    found = read(sums(values), deviation=1e-6)
    clipped = np.clip(values, 40, 200)
    assert found.patients == 3000
    assert found.mean == pytest.approx(clipped.mean(), abs=80 * 0.5 / UNIT)
    assert found.variance == pytest.approx(clipped.var(), rel=1e-2)
    assert found.mean_interval[0] < clipped.mean() < found.mean_interval[1]
    assert found.variance_interval[0] < clipped.var() < found.variance_interval[1]
    assert found.mean_interval[1] - found.mean_interval[0] < 0.03, "nothing but the rounding"


def test_rounding_alone_never_leaves_the_intervals() -> None:
    """Values just where rounding to 1/Q is worst, all the same way."""
    values = np.full(500, 120 + 80 * (0.499 / UNIT))
    found = read(sums(values), deviation=1e-6)
    assert found.mean == pytest.approx(120.0, abs=1e-9), "the rounding is lost"
    assert found.mean_interval[0] <= values[0] <= found.mean_interval[1]
    assert found.variance_interval[0] <= 0.0 <= found.variance_interval[1]


@pytest.mark.parametrize("patients", [3, 30, 300, 3000])
def test_intervals_hold_the_truth_as_often_as_they_say_for_few_patients_too(patients: int) -> None:
    """And intervals made for half the noise do not: the measure sees it."""
    rng = np.random.default_rng(patients)
    values = rng.normal(135, 25, patients)
    exact, clipped = sums(values), np.clip(values, 40, 200)
    deviation = 8.4 * UNIT
    inside = {"mean": 0, "variance": 0, "half": 0}
    rounds = 4000
    for noise in rng.normal(0.0, deviation, (rounds, 3)):
        found = read(exact + noise, deviation=deviation)
        half = read(exact + noise, deviation=deviation / 2)
        inside["mean"] += found.mean_interval[0] <= clipped.mean() <= found.mean_interval[1]
        inside["variance"] += found.variance_interval[0] <= clipped.var() <= found.variance_interval[1]
        inside["half"] += half.mean_interval[0] <= clipped.mean() <= half.mean_interval[1]
    covered = {name: count / rounds for name, count in inside.items()}
    print(f"{patients} patients: {covered}")
    assert covered["mean"] >= 0.94
    assert covered["variance"] >= 0.93
    if patients >= 30:
        assert covered["mean"] <= 0.965
    assert covered["half"] < 0.9


def test_the_population_interval_holds_the_mean_that_patients_were_drawn_from() -> None:
    rng = np.random.default_rng(4)
    deviation, rounds = 8.4 * UNIT, 2000
    own = population = 0
    for _ in range(rounds):
        values = rng.normal(120, 25, 400)  # symmetric in the bounds: clipping leaves the mean at 120
        found = read(sums(values) + rng.normal(0, deviation, 3), deviation=deviation)
        own += found.mean_interval[0] <= 120 <= found.mean_interval[1]
        population += found.population_interval[0] <= 120 <= found.population_interval[1]
    print(f"population {population / rounds:.3f}, interval for the noise alone {own / rounds:.3f}")
    assert 0.935 <= population / rounds <= 0.97
    assert own / rounds < 0.9, "what another sample would change is not in it"


def test_hidden_patients_leave_everything_open() -> None:
    for first in (2.0, -5.0):
        found = read(np.array([first * UNIT, 1.0, 1.0]), deviation=8.4 * UNIT)
        assert found.mean_interval == (40.0, 200.0)
        assert found.variance_interval == (0.0, 80.0**2)
        assert (found.mean is None) == (first < 0) == (found.variance is None)
        assert found.patients == first


@pytest.mark.parametrize("seed", range(20))
def test_figures_stay_where_they_can_be(seed: int) -> None:
    cells = np.random.default_rng(seed).normal(0, 40 * UNIT, 3)
    found = read(cells, deviation=8.4 * UNIT)
    if found.mean is not None and found.variance is not None:
        assert 40 <= found.mean <= 200
        x = (found.mean - 120) / 80
        assert -1e-9 <= found.variance <= 80**2 * (1 - x * x) + 1e-9
    for low, high in (found.mean_interval, found.population_interval):
        assert 40 <= low <= high <= 200
    assert 0 <= found.variance_interval[0] <= found.variance_interval[1] <= 80**2


def test_a_wrong_table_is_refused() -> None:
    noise = CellNoise(1.0, 2.0, 0.95)
    for cells in (np.ones(2), np.array([1.0, 2.0, math.nan])):
        with pytest.raises(ValueError, match="three"):
            mean_and_variance(cells, unit=1, lower=0, upper=1, noise=noise)
    with pytest.raises(ValueError, match="below"):
        mean_and_variance(np.ones(3), unit=1, lower=1, upper=1, noise=noise)


@pytest.mark.parametrize(
    ("ratio", "denominator"), [(0.0, 100.0), (0.4, 100.0), (0.4, 8.0), (2.0, 1.0), (0.4, 0.5)]
)
def test_a_ratio_is_covered_whatever_its_denominator(ratio: float, denominator: float) -> None:
    rng = np.random.default_rng(7)
    rounds, inside = 20_000, 0
    for one, other in rng.normal(0.0, [2.0, 5.0], (rounds, 2)):
        low, high = ratio_interval(
            ratio * denominator + one,
            denominator + other,
            numerator_deviation=2.0,
            denominator_deviation=5.0,
            factor=NORMAL,
            lower=0.0,
            upper=math.inf,
        )
        assert 0.0 <= low <= high
        inside += low <= ratio <= high
    assert inside / rounds >= 0.945
    if denominator == 100.0 and ratio:
        assert inside / rounds <= 0.955


def test_a_ratio_with_a_hidden_denominator_is_cut_where_it_can_be() -> None:
    """A large numerator over almost nothing rules out small ratios, and nothing above."""
    low, high = ratio_interval(
        100.0,
        1.0,
        numerator_deviation=2.0,
        denominator_deviation=5.0,
        factor=NORMAL,
        lower=0.0,
        upper=math.inf,
    )
    assert 5 < low < 15
    assert high == math.inf
