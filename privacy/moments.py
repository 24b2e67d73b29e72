"""Ratios of noisy sums: a mean and a variance from three noisy cells, a rate from two, and their intervals.

Post-processing of released numbers: no privacy is spent here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from privacy.post_processing import CellNoise, Reals

RESOLVED = 3.0  # standard deviations of its noise that a denominator must be above 0 to be divided by


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a clipped value over the patients who have one, in its own unit.

    `mean` and `variance` are None where the noisy number of patients is not above 0. The intervals hold what
    the noise and the rounding of values can do to the figure of these patients; `population_interval` holds
    besides what another sample of as many patients would change in the mean. `patients` is unbiased.
    """

    patients: float
    mean: float | None
    variance: float | None
    mean_interval: tuple[float, float]
    variance_interval: tuple[float, float]
    population_interval: tuple[float, float]


def mean_and_variance(cells: Reals, *, unit: int, lower: float, upper: float, noise: CellNoise) -> Moments:
    """Return mean and variance from noisy sums [Q·n, Q·Σx, Q·Σx²], x in [-1, 1] for values lower to upper.

    The mean's interval is Fieller's: it keeps its level however small the number of patients is, and widens
    to all of lower..upper when the noise hides that number. The variance's is by the delta method, and all
    there can be unless the number is `RESOLVED` deviations above 0. Both are widened by what rounding x and
    x² to steps of 1/Q can do.
    Args: unit, Q; lower below upper, the clipping bounds; noise, of each of the three cells.
    Raises: ValueError.
    """
    given = np.asarray(cells, dtype=np.float64)
    if given.shape != (3,) or not np.all(np.isfinite(given)):
        raise ValueError("three finite cells")
    if unit < 1 or not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise ValueError("unit at least 1, lower below upper")
    patients, first, second = (given / unit).tolist()
    deviation, half, middle = noise.deviation / unit, (upper - lower) / 2.0, (upper + lower) / 2.0
    mean = _within(first / patients, -1.0, 1.0) if patients > 0 else 0.0
    square = 1.0 - mean**2  # the largest variance that values in [-1, 1] of this mean can have
    variance = _within(second / patients - mean**2, 0.0, square) if patients > 0 else square

    def interval(beside: float) -> tuple[float, float]:
        low, high = ratio_interval(
            first,
            patients,
            numerator_deviation=math.hypot(deviation, beside),
            denominator_deviation=deviation,
            factor=noise.factor,
            lower=-1.0,
            upper=1.0,
        )
        step = 0.5 / unit
        return middle + half * max(low - step, -1.0), middle + half * min(high + step, 1.0)

    spread = (0.0, 1.0)
    if patients > RESOLVED * deviation:
        slope = math.sqrt(1.0 + 4.0 * mean**2 + (mean**2 - variance) ** 2) / patients
        reach = noise.factor * deviation * slope + 1.5 / unit
        spread = (max(variance - reach, 0.0), min(variance + reach, 1.0))
    known = patients > 0
    return Moments(
        patients=patients,
        mean=middle + half * mean if known else None,
        variance=half**2 * variance if known else None,
        mean_interval=interval(0.0),
        variance_interval=(half**2 * spread[0], half**2 * spread[1]),
        population_interval=interval(math.sqrt(max(patients, 1.0) * variance)),
    )


def ratio_interval(
    numerator: float,
    denominator: float,
    *,
    numerator_deviation: float,
    denominator_deviation: float,
    factor: float,
    lower: float,
    upper: float,
) -> tuple[float, float]:
    """Return the interval, within lower..upper, of the ratio that two independent noisy numbers estimate.

    Promise: for normal noise and a true ratio r in lower..upper, r is inside with at least the probability
    that `factor` deviations stand for, whatever the denominator: (a − r·b)/√(s_a² + r²·s_b²) is standard
    normal at the true r, and the interval is the hull of all r where it is within ±factor.
    Args: lower, upper, all that the ratio can be; math.inf is allowed.
    Source: Fieller 1954, "Some Problems in Interval Estimation".

    >>> low, high = ratio_interval(50.0, 100.0, numerator_deviation=1.0, denominator_deviation=1.0,
    ...                            factor=1.96, lower=0.0, upper=math.inf)
    >>> round(low, 3), round(high, 3)
    (0.478, 0.522)
    """
    of_square = denominator**2 - (factor * denominator_deviation) ** 2
    product = numerator * denominator
    constant = numerator**2 - (factor * numerator_deviation) ** 2
    discriminant = product**2 - of_square * constant
    if of_square > 0.0:
        root = math.sqrt(max(discriminant, 0.0))
        low, high = (product - root) / of_square, (product + root) / of_square
        return _within(low, lower, upper), _within(high, lower, upper)
    if discriminant <= 0.0 or of_square == 0.0:
        return lower, upper
    # all r but those between the roots: two rays, cut at the bounds
    root = math.sqrt(discriminant)
    left, right = (product + root) / of_square, (product - root) / of_square
    if left < lower and upper < right:  # nothing that can be is plausible: then nothing is ruled out either
        return lower, upper
    return (lower if lower <= left else max(right, lower)), (upper if upper >= right else min(left, upper))


def _within(value: float, lower: float, upper: float) -> float:
    return min(max(value, lower), upper)
