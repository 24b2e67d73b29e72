"""Whether noise that was seen is the noise that was promised: tests of its size and of its independence.

An attack on one patient sees the noise in one direction of one step. That a share is used again in a later
step, or that two sites draw the same one, hardly shows there. It shows in the noise itself, which whoever
knows the data can take off the totals: in a run on made-up patients, or at hospitals without any.

Three tests, each exact for Gaussian noise (the lattice's is within `NoisePlan.distance` of it; for what is
rounded off before it is sent there is `ROUNDING`):

- size: the sum of squares over σ² is chi-squared. Too small: noise is missing. Too large: more than was paid
  for, or sites whose noise adds up instead of averaging out, as that of two with one seed does.
- sums: of independent steps, the share of all squares that lies in the steps' sum is Beta-distributed,
  whatever σ is. Larger: some site's share comes again. Smaller: steps take noise off one another.
- pairs: the cosine between any two steps, whatever σ is: finds single steps with the same noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Reals = NDArray[np.float64]

FALSE_ALARM = 1e-9  # by all tests together: who sees one looks for a fault, and there is one
ROUNDING = 2.0**-8  # of the variance: rounding by all sites, colluders too, may add less than half of that


@dataclass(frozen=True, slots=True)
class NoiseSeen:
    """What some runs' noise showed."""

    numbers: int  # how many there were
    spread: float  # their standard deviation, over the promised one
    too_small: bool
    too_large: bool
    used_again: bool  # steps of a run have to do with one another

    @property
    def as_promised(self) -> bool:
        """Whether nothing was found."""
        return not (self.too_small or self.too_large or self.used_again)


def seen(noise: Reals, *, promised_sd: float, false_alarm: float = FALSE_ALARM) -> NoiseSeen:
    """Return what noise of some runs shows: each number drawn anew, with the promised standard deviation?

    Guarantee: for independent Gaussian numbers of that standard deviation, or of a variance up to `ROUNDING`
    larger, anything is found with probability at most `false_alarm`; and `used_again`, for ones of any size.

    Args: noise, [runs, steps, numbers], of all sites together or of one. Steps of different runs are not
    compared. Of one step a run, only the size is told.
    Raises: ValueError for another shape, nothing in it, numbers that are not finite, or an argument out of
    range.
    """
    if noise.ndim != 3 or not noise.size or not np.isfinite(noise).all():
        raise ValueError("noise is [runs, steps, numbers], not empty, and finite")
    if not (promised_sd > 0.0 and math.isfinite(promised_sd) and 0.0 < false_alarm < 1.0):
        raise ValueError("needs a promised_sd above 0 and a false_alarm between 0 and 1")
    tail = false_alarm / 5.0  # two of the size, two of the sums, one of the pairs
    squares = float(np.sum(noise * noise))
    size = squares / promised_sd**2
    return NoiseSeen(
        numbers=noise.size,
        spread=math.sqrt(size / noise.size),
        too_small=float(special.chdtr(noise.size, size)) < tail,
        too_large=float(special.chdtrc(noise.size, size / (1.0 + ROUNDING))) < tail,
        used_again=_sums_are_odd(noise, squares, tail=tail) or _two_are_alike(noise, tail=tail),
    )


def _sums_are_odd(noise: Reals, squares: float, *, tail: float) -> bool:
    """Whether sums over steps are larger or smaller than those of independent steps, by all runs together."""
    runs, steps, numbers = noise.shape
    if steps < 2 or not squares:
        return False
    share = min(1.0, float(np.sum(noise.sum(axis=1) ** 2)) / steps / squares)
    inside, outside = runs * numbers / 2.0, runs * numbers * (steps - 1) / 2.0
    below, above = (float(of(inside, outside, share)) for of in (special.betainc, special.betaincc))
    return bool(min(below, above) < tail)


def _two_are_alike(noise: Reals, *, tail: float) -> bool:
    """Whether two steps of a run point the same way, or opposite ways, more than any pair would by chance."""
    runs, steps, numbers = noise.shape
    if steps < 2 or numbers < 2:  # single numbers all point one of two ways
        return False
    nearest = 0.0
    for run in noise:
        lengths = np.linalg.norm(run, axis=1)
        cosines = (run @ run.T) / np.maximum(np.outer(lengths, lengths), np.finfo(np.float64).tiny)
        nearest = max(nearest, float(np.abs(cosines[np.triu_indices(steps, 1)]).max()))
    rest = max(0.0, 1.0 - nearest**2)
    by_chance = float(special.betainc((numbers - 1) / 2.0, 0.5, rest))  # of one pair
    return bool(by_chance * runs * math.comb(steps, 2) < tail)
