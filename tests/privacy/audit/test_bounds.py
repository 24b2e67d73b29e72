"""Lower bounds on ε: they rarely exceed a true claim, and find a false one."""

import math

import numpy as np
import pytest

from privacy.audit.bounds import one_run_epsilon
from privacy.audit.membership import auc, likelihood_ratios

DELTA = 1e-5


def test_one_run_bound_without_delta_is_the_exact_binomial_one() -> None:
    # 100 guesses, all right: refuted as long as p^100 < 0.05, with p = e^eps / (1 + e^eps)
    p = 0.05 ** (1 / 100)
    found = one_run_epsilon(canaries=100, guesses=100, right=100, delta=0.0, confidence=0.95)
    assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_delta_weakens_the_bound_and_guesses_no_better_than_coins_show_nothing() -> None:
    sure = one_run_epsilon(canaries=1000, guesses=200, right=190, delta=0.0, confidence=0.95)
    unsure = one_run_epsilon(canaries=1000, guesses=200, right=190, delta=1e-4, confidence=0.95)
    assert 0.0 < unsure < sure
    assert one_run_epsilon(canaries=1000, guesses=200, right=100, delta=DELTA, confidence=0.95) == 0.0
    assert one_run_epsilon(canaries=10, guesses=0, right=0, delta=DELTA, confidence=0.95) == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomized_response_is_rarely_shown_to_leak_more_than_it_does(epsilon: float) -> None:
    rng = np.random.default_rng(7)
    truthful = 1 / (1 + math.exp(-epsilon))
    found = [
        one_run_epsilon(
            canaries=300, guesses=300, right=int(rng.binomial(300, truthful)), delta=0.0, confidence=0.95
        )
        for _ in range(200)
    ]
    assert np.mean(np.array(found) > epsilon) < 0.09  # 5 % and three standard deviations of 200 trials
    assert np.median(found) > 0.6 * epsilon  # and it has power


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="right"):
        one_run_epsilon(canaries=10, guesses=5, right=6, delta=DELTA, confidence=0.95)
    with pytest.raises(ValueError, match="delta"):
        one_run_epsilon(canaries=10, guesses=5, right=5, delta=1.0, confidence=0.95)


def test_likelihood_ratios_find_members_of_models_that_remember_and_nobody_elsewhere() -> None:
    rng = np.random.default_rng(3)
    member = rng.random((24, 60)) < 0.5
    level = rng.normal(0, 3, 60)  # some records are easy for every model: what a plain threshold falls for
    remembers = level + rng.normal(0, 1, member.shape) + 2.0 * member
    forgets = level + rng.normal(0, 1, member.shape)
    found = auc(likelihood_ratios(remembers, member).ravel(), member.ravel())
    assert found > 0.85
    assert found > auc(remembers.ravel(), member.ravel()) + 0.1
    assert abs(auc(likelihood_ratios(forgets, member).ravel(), member.ravel()) - 0.5) < 0.05


def test_auc_counts_ties_half_and_leaves_out_the_unknown() -> None:
    truth = np.array([True, False, True, False])
    assert auc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert auc(np.array([2.0, 1.0, np.nan, 0.0]), truth) == 1.0
    with pytest.raises(ValueError, match="members"):
        auc(np.array([1.0]), np.array([True]))
