"""The example studies of the modes are one plan three times, keep their ε, and learn."""

from importlib import resources

import pytest
import torch

from node.training import second_accountant
from privacy import study_noise
from privacy.accountant import epsilon
from protocols.study import Study
from sim.federation import Noise
from tests.bench.train_modes import MODES, auc, plan


@pytest.mark.parametrize("name", MODES)
def test_an_example_differs_from_the_plain_one_in_how_it_trains_only(name: str) -> None:
    plain, other = plan("heart_failure").to_json(), plan(name).to_json()
    for section in ("cohort", "outcome", "features", "privacy", "sites"):
        assert other[section] == plain[section]
    assert other["training"] != plain["training"]
    text = resources.files("sim").joinpath("studies", f"{name}.toml").read_bytes()
    assert Study.parse(text).plan_hash() == plan(name).plan_hash()


@pytest.mark.parametrize("name", MODES)
def test_an_example_costs_what_it_says_by_both_accountants(name: str) -> None:
    study = plan(name)
    second_accountant.check(study)
    spent = study_noise.event(study, steps=study.training.steps)
    assert 0.99 < epsilon([spent], delta=study.privacy.delta) <= study.privacy.epsilon


@pytest.mark.parametrize("name", MODES)
def test_an_example_learns(name: str) -> None:
    torch.set_num_threads(1)
    assert auc(plan(name), 1, noise=Noise.SHARES) > 0.7
