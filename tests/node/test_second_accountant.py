"""Opacus' accountant agrees with what plans claim, and not with less noise."""

import dataclasses

import pytest

from node.training import second_accountant
from node.training.second_accountant import LOOSENESS, AccountantsDisagree, opinion
from privacy import accountant, study_noise, study_releases, validation
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


@pytest.mark.parametrize(("epsilon", "rate", "releases"), [(1.0, 0.05, 200), (8.0, 0.2, 40), (0.3, 0.5, 10)])
def test_opacus_agrees_on_samples_and_not_on_less_noise_or_on_samples_that_are_none(
    epsilon: float, rate: float, releases: int
) -> None:
    right = calibrate(epsilon=epsilon, delta=1e-5, count=releases, sampling_rate=rate)
    assert opinion(right, releases, 1e-5, rate=rate) == pytest.approx(epsilon, rel=0.04)
    assert opinion(0.7 * right, releases, 1e-5, rate=rate) > LOOSENESS * epsilon
    assert opinion(right, releases, 1e-5) > LOOSENESS * epsilon


def test_plans_of_samples_and_of_local_training_are_held_against_opacus_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampled = Study.from_json(study_form(training__sampling_rate=0.3, privacy__max_sites_per_patient=2))
    local = {"local_steps": 3, "sampling_rate": 0.4, "update_clip": 1.0}
    plans = [sampled, Study.from_json(study_form(training__mode="local") | {"local": local})]
    for study in plans:
        second_accountant.check(study)
    right = study_releases.noise_multiplier
    monkeypatch.setattr(study_releases, "noise_multiplier", lambda study: 0.7 * right(study))
    for study in plans:
        with pytest.raises(AccountantsDisagree):
            second_accountant.check(study)


@pytest.mark.parametrize("mode", ["sampled", "local"])
def test_looks_and_sampled_steps_cost_the_claim_together(mode: str) -> None:
    looks = {"every": 1, "fraction": 0.1, "share": 0.1, "loss_bound": 3.0, "patience": 0}
    form = study_form(validation=looks, training__sampling_rate=0.4)
    if mode == "local":
        local = {"local_steps": 3, "sampling_rate": 0.4, "update_clip": 1.0}
        form = study_form(validation=looks, training__mode="local") | {"local": local}
    study = Study.from_json(form)
    second_accountant.check(study)
    steps = study_noise.event(study, steps=study.training.steps)
    both = [steps, validation.event(study, count=validation.looks(study))]
    assert 0.99 < accountant.epsilon(both, delta=1e-5) <= 1.0
    assert accountant.epsilon([steps], delta=1e-5) < 0.99, "a part of it is the looks'"


def test_the_error_says_both_figures() -> None:
    error = AccountantsDisagree(claimed=1.0, found=1.6)
    assert (error.claimed, error.found) == (1.0, 1.6)
    assert "1.6" in str(error)
