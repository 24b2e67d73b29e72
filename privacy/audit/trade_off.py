"""From how often an attacker erred to which trade-off curves that rules out: an exact test of both errors.

The trade-off curve f of a mechanism says how rarely an attacker misses a patient who is in (f(a) at least) if
they raise a false alarm over one who is not with chance a (Dong, Roth, Su 2022). An attacker who errs more
rarely than that by more than luck has ruled the curve out, and with it all mechanisms that claim it.

Both errors are tested at once, by their price: misses + price · false alarms. A bound on each of the two, as
in Nasr et al. 2023, spends half of the confidence on either, and supposes both at their worst: to show as
much, it needs more than twice as many runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Reals = NDArray[np.float64]
Curve = Callable[[Reals], Reals]  # chances of false alarms, rising, to the least chances of misses, falling

LARGEST_ODDS = 12.0  # e^±12: the cells between which chances of a false alarm are looked at first
CELLS = 48
PARTS = 8  # a cell in which luck is not ruled out is looked at in as many parts
DEPTH = 4  # times; cells are then 1e-4 of the odds wide, far below the spread of any count


@dataclass(frozen=True, slots=True)
class Seen:
    """How an attacker fared in `runs` runs with the canary and as many without.

    Args: price, of a false alarm, in misses. It must be chosen before the runs, like the threshold of scores:
        the likelihood ratio at that is the best.
    """

    runs: int
    false_alarms: int
    misses: int
    price: float

    def __post_init__(self) -> None:
        if not (0 <= self.false_alarms <= self.runs and 0 <= self.misses <= self.runs and self.runs > 0):
            raise ValueError("needs 0 <= errors <= runs of either kind")
        if not (math.isfinite(self.price) and self.price > 0.0):
            raise ValueError("a price is above 0")

    @classmethod
    def of(cls, with_canary: Reals, without: Reals, *, threshold: float) -> Seen:
        """Return the errors of saying "in" of log likelihood ratios above the threshold.

        Raises: ValueError for fewer than ten runs of either kind, or not as many of both.
        """
        if len(with_canary) != len(without) or len(without) < 10:
            raise ValueError("an audit needs ten runs with the canary, and as many without")
        return cls(
            runs=len(without),
            false_alarms=int((without > threshold).sum()),
            misses=int((with_canary <= threshold).sum()),
            price=math.exp(threshold),
        )


def ruled_out(seen: Seen, curve: Curve, *, confidence: float) -> bool:
    """Return whether errors as cheap as those seen are luck of less than 1 - confidence under the curve.

    Guarantee: under any mechanism whose trade-off curve is nowhere below `curve`, True comes out with
    probability at most 1 - confidence. The largest chance over all attackers is bounded, not searched: within
    a cell of chances of false alarms, both errors are taken as rare as they are anywhere in it.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
    odds = special.expit(np.linspace(-LARGEST_ODDS, LARGEST_ODDS, CELLS - 1))
    edges = np.concatenate([np.zeros(1), odds, np.ones(1)])
    left, right = edges[:-1], edges[1:]
    for _ in range(DEPTH):
        doubtful = _luck(seen, left, curve(right)) >= 1.0 - confidence
        if not doubtful.any():
            return True
        left, right = left[doubtful], right[doubtful]
        if (_luck(seen, left, curve(left)) >= 1.0 - confidence).any():
            return False  # an attacker who can do that much is among them
        parts = np.linspace(left, right, PARTS + 1)
        left, right = parts[:-1].ravel(), parts[1:].ravel()
    return False


def _luck(seen: Seen, false_alarm: Reals, miss: Reals) -> Reals:
    """Return the chances of errors at most as dear as those seen, for each pair of chances."""
    cost = seen.misses + seen.price * seen.false_alarms
    alarms = np.arange(min(seen.runs, int(cost / seen.price + 1e-9)) + 1)[:, None]
    misses = np.floor(cost - seen.price * alarms + 1e-9 * (1.0 + cost))  # rounding must count for luck
    misses = np.minimum(misses, seen.runs)  # bdtr of more is no number
    chances = stats.binom.pmf(alarms, seen.runs, false_alarm)
    found: Reals = (chances * special.bdtr(misses, seen.runs, np.clip(miss, 0.0, 1.0))).sum(axis=0)
    assert np.isfinite(found).all()
    return found


def gaussian(mu: float) -> Curve:
    """Return the curve of telling N(0, 1) from N(mu, 1)."""

    def curve(false_alarm: Reals) -> Reals:
        found: Reals = special.ndtr(-special.ndtri(false_alarm) - mu)
        return found

    return curve


def of_deltas(epsilons: Reals, deltas: Reals) -> Curve:
    """Return the curve that claims of (ε, δ) leave, δ for each of some ε >= 0, for both ways to be wrong.

    Source: Kairouz, Oh, Viswanath 2015, Theorem 2.1; Wasserman, Zhou 2010.
    """
    slopes = np.exp(epsilons)[:, None]
    offsets = 1.0 - deltas[:, None]

    def curve(false_alarm: Reals) -> Reals:
        lines = np.maximum(offsets - slopes * false_alarm, (offsets - false_alarm) / slopes)
        found: Reals = np.maximum(lines.max(axis=0), 0.0)
        return found

    return curve
