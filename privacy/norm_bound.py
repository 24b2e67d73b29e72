"""How long vectors may be: a site's own before it is masked, and a total after it was opened.

Own. A sum of P clipped gradients is at most P·(clip norm) long in L2. A plan names the P that it is made for
(`site_patients`). A site projects its vector onto the ball of that radius: projection onto a convex set moves
no two vectors apart, so one patient more or less still moves what leaves by the clip norm at most. (To refuse
a longer vector would say something of the patients that made it long, outside what the noise covers.) What is
longer all the same is not masked.

Total. It is S + Z, S a sum of c honest vectors, ‖S‖ ≤ c·P·(clip norm), or less where the plan knows better,
and Z noise of standard deviation s in each of d coordinates. With x = ln(2/α):

    P(‖S + Z‖ > ‖S‖ + s(√d + √(2x))) ≤ α/2    the norm is 1-Lipschitz and E‖Z‖ ≤ s√d (Gaussian concentration)
    P(‖S + Z‖² < s²(d − 2√(dx)))     ≤ α/2    Anderson's inequality, then Laurent and Massart 2000, Lemma 1

so a total outside is wrong, but for once in 1/α honest ones, whatever S is. The lattice's noise is that of
the Gaussian up to the plan's distance (privacy.lattice).

What is seen: any one vector longer than twice the upper bound; a total whose noise is missing, once d is some
ten times x and S is short beside s√d. What is not: a vector within the bound, wrong as it may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

FALSE_ALARM = 1e-9  # of one total: once in a hundred thousand runs of ten thousand steps
TOO_LONG = 1e-9  # relative: what a norm computed in float64 may be off by, and more
_CHUNK = 2**14  # of a vector at a time: its squares stay in the cache


class Implausible(ValueError):
    """A total that honest sites do not give, but for once in a very long time."""


@dataclass(frozen=True, slots=True)
class TotalBounds:
    """What the L2 norm of a total of honest sites lies between, but for a chance of `FALSE_ALARM`."""

    shortest: float
    longest: float

    @classmethod
    def of(
        cls, *, honest: float, noise_sd: float, dimension: int, false_alarm: float = FALSE_ALARM
    ) -> TotalBounds:
        """Return the bounds.

        Args: honest: the longest sum without noise; noise_sd: of the noise, per coordinate.
        Raises: ValueError.
        """
        if not (0.0 <= honest < math.inf and 0.0 <= noise_sd < math.inf):
            raise ValueError("norms are finite and not negative")
        if dimension < 1 or not 0.0 < false_alarm < 1.0:
            raise ValueError("needs a dimension and a chance")
        x = math.log(2.0 / false_alarm)
        least = max(0.0, dimension - 2.0 * math.sqrt(dimension * x))
        most = math.sqrt(dimension) + math.sqrt(2.0 * x)
        return cls(noise_sd * math.sqrt(least), (honest + noise_sd * most) * (1.0 + TOO_LONG))

    def check(self, total: Reals) -> float:
        """Return the norm of a total. Raises: Implausible if it lies outside, or is no number."""
        norm = length(total)
        if not self.shortest * (1.0 - TOO_LONG) <= norm <= self.longest:
            raise Implausible("shorter than its noise, or longer than what honest sites add")
        return norm


def length(vector: NDArray[Any]) -> float:
    """Return the L2 norm; inf where a square is no float64.

    Not by BLAS, which splits it over threads that wait for each other at work: where others compute too, that
    takes a hundred times as long.
    """
    flat, total = np.ravel(vector), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _CHUNK):
            total += float(np.square(flat[start : start + _CHUNK], dtype=np.float64).sum())
    return math.sqrt(total)


def projected(vector: NDArray[Any], *, longest: float) -> Reals:
    """Return the nearest vector that is at most `longest` long."""
    values = np.asarray(vector, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = length(values)
        if not norm > longest:
            return values
        if norm == math.inf:  # its square is no float64
            values = values * (longest / float(np.abs(values).max()))
            norm = length(values)
        return values * (longest / norm)


def fits(vector: NDArray[Any], *, longest: float) -> bool:
    """Return whether a vector may be masked: it is finite and no longer than that."""
    return length(vector) <= longest * (1.0 + TOO_LONG)
