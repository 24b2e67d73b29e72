"""Noisy cells made consistent: counts not below 0, tables that only fall, parts that sum to their whole.

Everything here reads released numbers only, so it costs no privacy (post-processing). It lowers the error and
makes an answer readable, at the price of a bias: a cell that is clipped is no longer right on average. The
noisy values themselves are unbiased; a caller who adds or averages answers further keeps those.

Functions take and return float64 arrays of one dimension and never change their arguments. All raise
ValueError for an array of another shape, or with a value that is not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from privacy.lattice import NoisePlan, check_level
from privacy.polya import LaplacePlan

Reals = NDArray[np.float64]

OWN_WIDTHS = 8  # sums of more cells of discrete Laplace noise are close enough to normal


@dataclass(frozen=True, slots=True)
class CellNoise:
    """The noise in each cell of one answer: independent, mean 0.

    `factor` times a standard deviation is the half-width of an interval of confidence `level`: the larger of
    what the cell's own distribution and what the normal one needs. `sums` holds the half-widths of sums of
    1, 2, … cells where they are known better: discrete Laplace noise is of whole numbers and has long tails.
    """

    deviation: float
    factor: float
    level: float
    sums: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_level(self.level)
        if not (math.isfinite(self.deviation) and self.deviation > 0 and self.factor > 0):
            raise ValueError("deviation and factor must be above 0")

    @classmethod
    def of(cls, plan: NoisePlan | LaplacePlan, *, contributors: int, level: float) -> CellNoise:
        """Return the noise of a total under `plan` that `contributors` sites are in. Raises: ValueError."""
        deviation = plan.standard_deviation(contributors=contributors)
        own = plan.half_width(contributors=contributors, level=level)
        sums: tuple[float, ...] = ()
        if isinstance(plan, LaplacePlan):
            sums = tuple(
                plan.half_width(contributors=contributors, level=level, cells=cells)
                for cells in range(1, OWN_WIDTHS + 1)
            )
        return cls(deviation, max(own / deviation, NormalDist().inv_cdf(0.5 + level / 2.0)), level, sums)

    def half_width(self, *, cells: int = 1) -> float:
        """Return the half-width of the interval for a sum of `cells` cells."""
        if cells <= len(self.sums):
            return self.sums[cells - 1]
        return self.factor * self.deviation * math.sqrt(cells)


@dataclass(frozen=True, slots=True, eq=False)
class Consistent:
    """Cells and a total that agree, and the variance that is left in each."""

    cells: Reals
    total: float
    cell_variance: Reals
    total_variance: float


@dataclass(frozen=True, slots=True, eq=False)
class Attrition:
    """Patients left after each rule, the first entry before any: unbiased, consistent, and half an interval.

    `remaining` only falls and is never below 0; raw ± half_width is the interval of each entry on its own.
    """

    raw: Reals
    remaining: Reals
    half_width: Reals


def non_negative(values: Reals) -> Reals:
    """Return `values` with 0 in place of everything below: the nearest counts that can be.

    Promise: no entry moves away from a true count of 0 or more. Small counts become too large on average.
    """
    return np.maximum(_checked(values), 0.0)


def monotone(values: Reals, *, weights: Reals | None = None, decreasing: bool = True) -> Reals:
    """Return the values nearest to `values` in weighted least squares that never rise (or never fall).

    Promise: the weighted mean is kept, and the squared distance to every monotone truth does not grow.
    Args: weights, above 0, 1/variance of each value; all equal if not given.
    Source: pool adjacent violators (Barlow, Bartholomew, Bremner, Brunk 1972); for noisy counts Hay, Rastogi,
    Miklau, Suciu 2010, "Boosting the Accuracy of Differentially Private Histograms Through Consistency".

    >>> monotone(np.array([9.0, 4.0, 6.0, 1.0])).tolist()
    [9.0, 5.0, 5.0, 1.0]
    """
    given = _checked(values)
    weight = np.ones_like(given) if weights is None else _checked(weights)
    if weight.shape != given.shape or (weight.size and float(weight.min()) <= 0.0):
        raise ValueError("a weight above 0 for each value")
    sign = -1.0 if decreasing else 1.0
    means: list[float] = []
    sizes: list[float] = []
    lengths: list[int] = []
    for value, size in zip((sign * given).tolist(), weight.tolist(), strict=True):
        means.append(value)
        sizes.append(size)
        lengths.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mean, size, length = means.pop(), sizes.pop(), lengths.pop()
            together = sizes[-1] + size
            means[-1] += (mean - means[-1]) * size / together
            sizes[-1] = together
            lengths[-1] += length
    return sign * np.repeat(np.array(means, dtype=np.float64), lengths)


def with_total(
    cells: Reals, total: float, *, cell_variance: Reals | float, total_variance: float
) -> Consistent:
    """Return cells that sum to a total which was measured beside them, by generalised least squares.

    Promise: unbiased if the noise is, and of the smallest variance among linear estimates: no variance grows.
    For k cells of variance v and a total of variance w the difference d = total − Σ cells has variance
    w + k·v, and each cell takes the share v/(w + k·v) of it: its variance becomes v − v²/(w + k·v), the
    total's k·v·w/(w + k·v).
    Source: Gauss-Markov; Hay, Rastogi, Miklau, Suciu 2010, section 4, for a tree of one level.

    >>> found = with_total(np.array([10.0, 20.0]), 33.0, cell_variance=1.0, total_variance=1.0)
    >>> found.cells.tolist(), found.total
    ([11.0, 21.0], 32.0)
    """
    given = _checked(cells)
    variance = np.broadcast_to(np.asarray(cell_variance, dtype=np.float64), given.shape)
    if not given.size or not np.all(np.isfinite(variance) & (variance > 0.0)):
        raise ValueError("at least one cell, and variances above 0")
    if not (math.isfinite(total) and math.isfinite(total_variance) and total_variance > 0.0):
        raise ValueError("a finite total, and its variance above 0")
    of_difference = total_variance + float(variance.sum())
    moved = given + variance * ((total - float(given.sum())) / of_difference)
    return Consistent(
        cells=moved,
        total=float(moved.sum()),
        cell_variance=variance - variance**2 / of_difference,
        total_variance=total_variance * float(variance.sum()) / of_difference,
    )


def onto_sum(cells: Reals, total: float) -> Reals:
    """Return the cells nearest to `cells` that are not below 0 and sum to `total`.

    Promise: Euclidean projection, so the squared distance to every true table with this sum does not grow. It
    takes the same amount from every cell that stays above 0.
    Args: total, 0 or more.
    Source: Duchi, Shalev-Shwartz, Singer, Chandra 2008, "Efficient Projections onto the l1-Ball", Figure 1.

    >>> onto_sum(np.array([5.0, 2.0, -1.0]), 6.0).tolist()
    [4.5, 1.5, 0.0]
    """
    given = _checked(cells)
    if not given.size or not (math.isfinite(total) and total >= 0.0):
        raise ValueError("at least one cell, and a total of 0 or more")
    falling = np.sort(given)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, given.size + 1)
    taken = excess[max(int(np.count_nonzero(falling > excess)) - 1, 0)]
    found: Reals = np.maximum(given - taken, 0.0)
    return found


def onto_own_sum(cells: Reals) -> Reals:
    """Return the nearest cells not below 0 that keep the sum of `cells`, or 0 where that is below 0."""
    return onto_sum(cells, max(float(_checked(cells).sum()), 0.0))


def attrition(cells: Reals, *, noise: CellNoise) -> Attrition:
    """Return how many patients are left after each rule, from disjoint cells "passed exactly the first j".

    Promise: `raw` is unbiased; `remaining` starts at max(sum, 0), only falls, and never below 0 (the
    projection of the cells keeps their sum, so the start is not inflated).
    """
    given = _checked(cells)
    return Attrition(
        raw=_sums_from_the_end(given),
        remaining=_sums_from_the_end(onto_own_sum(given)),
        half_width=np.array([noise.half_width(cells=cells) for cells in range(given.size, 0, -1)]),
    )


def _sums_from_the_end(cells: Reals) -> Reals:
    return np.cumsum(cells[::-1])[::-1]


def _checked(values: Reals) -> Reals:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not np.all(np.isfinite(found)):
        raise ValueError("one dimension of finite values")
    return found
