"""Opacus' accountant agrees with what plans claim, and not with less noise."""

import dataclasses

import pytest

from node.training import second_accountant
from node.training.second_accountant import LOOSENESS, AccountantsDisagree, opinion
from privacy.accountant import calibrate
from protocols.study import Study
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form())


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-5, 1e-9])
@pytest.mark.parametrize("rounds", [1, 100])
def test_what_the_exact_curve_allows_is_about_what_opacus_finds(
    epsilon: float, delta: float, rounds: int
) -> None:
    privacy = dataclasses.replace(STUDY.privacy, epsilon=epsilon, delta=delta)
    training = dataclasses.replace(STUDY.training, rounds=rounds)
    second_accountant.check(dataclasses.replace(STUDY, privacy=privacy, training=training))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_less_noise_is_more_than_opacus_lets_pass(epsilon: float) -> None:
    steps = STUDY.training.steps
    right = calibrate(epsilon=epsilon, delta=1e-5, count=steps)
    assert epsilon < opinion(right, steps, 1e-5) < LOOSENESS * epsilon
    assert opinion(0.7 * right, steps, 1e-5) > LOOSENESS * epsilon
    of_one_step = calibrate(epsilon=epsilon, delta=1e-5, count=1)  # an accountant that starts anew each step
    assert opinion(of_one_step, steps, 1e-5) > LOOSENESS * epsilon


def test_the_error_says_both_figures() -> None:
    error = AccountantsDisagree(claimed=1.0, found=1.6)
    assert (error.claimed, error.found) == (1.0, 1.6)
    assert "1.6" in str(error)
