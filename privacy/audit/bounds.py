"""From how often an attacker was right to a lower bound on ε.

A claim of (ε, δ) limits how often anybody can tell worlds apart. Who is right more often has shown that the
claim is wrong, up to a chance of being lucky that is chosen here (`confidence`). A bound below the claim
proves nothing by itself: an audit is worth what it finds when something is broken, which
tests/threats/test_training_audit.py shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from privacy.audit.trade_off import Seen, of_deltas, ruled_out

LARGEST_EPSILON = 64.0  # no audit of at most a million guesses shows more: its bound is below ln(1e6/1e-4)
_HALVINGS = 40
_FEW_HALVINGS = 8  # where one takes longer: the bound is then a hundredth of itself too low at most


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


def epsilon(seen: Seen, *, delta: float, confidence: float) -> float:
    """Return a lower bound on ε from an attacker's errors in many runs, whatever the mechanism.

    Guarantee: if a run is (ε, δ)-DP for adding or removing the canary, the bound exceeds ε with probability
    at most 1 − confidence.
    Raises: ValueError.
    Source: Kairouz, Oh, Viswanath 2015, Theorem 2.1, for the curve; privacy.audit.trade_off for the test.
    """
    _check(delta, confidence)
    claimed = np.array([delta])

    def refuted(at: float) -> bool:
        return ruled_out(seen, of_deltas(np.array([at]), claimed), confidence=confidence)

    return _largest(refuted, halvings=_FEW_HALVINGS)


def _largest(refuted: Callable[[float], bool], *, halvings: int = _HALVINGS) -> float:
    """Return the largest ε that is refuted, 0 if none is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
        if high >= LARGEST_EPSILON:
            return low
    for _ in range(halvings):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _check(delta: float, confidence: float) -> None:
    if not 0.0 <= delta < 1.0:
        raise ValueError("delta must lie in [0, 1)")
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
