"""From how often an attacker was right to a lower bound on ε.

A claim of (ε, δ) limits how often anybody can tell worlds apart. Who is right more often has shown that the
claim is wrong, up to a chance of being lucky that is chosen here (`confidence`). A bound below the claim
proves nothing by itself: an audit is worth what it finds when something is broken, which
tests/threats/test_training_audit.py shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from privacy.accountant import gaussian_epsilon

Scores = NDArray[np.float64]
LARGEST_EPSILON = 64.0  # no audit of at most a million guesses shows more: its bound is below ln(1e6/1e-4)
_HALVINGS = 40


def one_run_epsilon(*, canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """Return a lower bound on ε from one run in which each canary was in or out by a fair coin.

    Guarantee: if the run is (ε, δ)-DP for adding or removing a canary, the bound exceeds ε with probability
    at most 1 − confidence, as long as `guesses` was fixed before the run was seen.

    Args: canaries, how many coins were thrown; guesses, for how many of them the attacker said in or out;
    right, how many of these were right.
    Raises: ValueError.
    Source: Steinke, Nasr, Jagielski 2023, Theorem 5.2 (and the procedure of its appendix D).
    """
    if not 0 <= right <= guesses <= canaries or canaries < 1:
        raise ValueError("needs 0 <= right <= guesses <= canaries")
    _check(delta, confidence)

    def refuted(epsilon: float) -> bool:
        return _chance_of_luck(canaries, guesses, right, epsilon, delta) < 1.0 - confidence

    return _largest(refuted)


def _chance_of_luck(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return an upper bound on the probability of so many right guesses under (ε, δ)-DP."""
    truthful = 1.0 / (1.0 + math.exp(-epsilon))
    by_epsilon = float(stats.binom.sf(right - 1, guesses, truthful))
    if not right:
        return 1.0
    steps = np.arange(1, right + 1)
    by_delta = np.cumsum(stats.binom.pmf(right - steps, guesses, truthful)) / steps
    return min(1.0, by_epsilon + 2.0 * canaries * delta * float(by_delta.max()))


@dataclass(frozen=True, slots=True)
class Errors:
    """Upper bounds, at a confidence for both together, on how often a test errs in either world."""

    false_positive: float  # says "in" of a world without
    false_negative: float  # says "out" of a world with

    def epsilon(self, *, delta: float) -> float:
        """Return the least ε that allows these errors at `delta`: what they show of any mechanism.

        Source: Kairouz, Oh, Viswanath 2015, Theorem 2.1.
        """
        found = 0.0
        for one, other in (
            (self.false_positive, self.false_negative),
            (self.false_negative, self.false_positive),
        ):
            if 1.0 - delta - one > 0.0 and other > 0.0:
                found = max(found, math.log((1.0 - delta - one) / other))
        return max(0.0, found)

    def gaussian_epsilon(self, *, delta: float) -> float:
        """Return the least ε of a Gaussian mechanism that allows these errors at `delta`.

        Stands on the mechanism being Gaussian, as the claim itself does; it shows far more than `epsilon`,
        which needs events as rare as δ. Source: Nasr et al. 2023, section 4; Dong, Roth, Su 2019.
        """
        normal = NormalDist()
        if self.false_positive >= 1.0 or self.false_negative >= 1.0:
            return 0.0
        mu = normal.inv_cdf(1.0 - self.false_positive) - normal.inv_cdf(self.false_negative)
        return gaussian_epsilon(mu * mu, 1, delta) if mu > 0.0 else 0.0


def errors(with_canary: Scores, without: Scores, *, threshold: float, confidence: float) -> Errors:
    """Return bounds on the errors of saying "in" where a score is above the threshold.

    Guarantee: both hold together with probability `confidence`, as long as the threshold was chosen without
    these scores (Clopper and Pearson 1934).
    Raises: ValueError for fewer than ten runs of either world.
    """
    if min(len(with_canary), len(without)) < 10:
        raise ValueError("an audit needs at least ten runs with the canary and ten without")
    _check(0.0, confidence)
    share = (1.0 - confidence) / 2.0  # each of the two bounds may fail this often
    return Errors(_at_most(without > threshold, share), _at_most(with_canary <= threshold, share))


def _at_most(happened: NDArray[np.bool_], failing: float) -> float:
    count, size = int(happened.sum()), len(happened)
    return 1.0 if count == size else float(stats.beta.ppf(1.0 - failing, count + 1, size - count))


def _largest(refuted: Callable[[float], bool]) -> float:
    """Return the largest ε that is refuted, 0 if none is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
        if high >= LARGEST_EPSILON:
            return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _check(delta: float, confidence: float) -> None:
    if not 0.0 <= delta < 1.0:
        raise ValueError("delta must lie in [0, 1)")
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
