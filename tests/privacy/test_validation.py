"""Looks at a model: what they cost, what one patient can move, what the noisy sums say, when a run ends."""

import math
from typing import Any

import numpy as np
import pytest

from privacy import study_noise, validation
from privacy.accountant import epsilon
from privacy.validation import Metric
from protocols.study import Study
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form

SECTION: dict[str, Any] = {"every": 1, "fraction": 0.1, "share": 0.1, "loss_bound": 2.0, "patience": 2}


def study(**changes: Any) -> Study:
    return Study.from_json(study_form(validation=SECTION | changes, training__rounds=6))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("every", [1, 4])
def test_steps_and_looks_together_cost_what_the_plan_says_and_hardly_less(share: float, every: int) -> None:
    plan = study(share=share, every=every)
    steps, looks = plan.training.steps, validation.looks(plan)
    spent = [study_noise.event(plan, steps=steps), validation.event(plan, count=looks)]
    assert 0.9999 < epsilon(spent, delta=1e-5) <= 1.0
    assert epsilon([*spent, validation.event(plan, count=1)], delta=1e-5) > 1.0  # one more is too much


def test_a_larger_share_means_less_noise_of_looks_and_more_of_gradients() -> None:
    few, many = (validation.noise_multipliers(study(share=share)) for share in (0.05, 0.5))
    assert few[0] < many[0]
    assert few[1] > many[1]
    without = Study.from_json(study_form(training__rounds=6))
    assert study_noise.noise_multiplier(without) < few[0]


def test_no_patient_adds_more_than_the_norm_that_the_noise_is_for() -> None:
    plan = study()
    losses = np.array([0.0, 1.0, 2.0, 50.0, np.inf, np.nan, -1.0])
    for right in (np.zeros(7, dtype=bool), np.ones(7, dtype=bool)):
        rows = validation.rows(plan, losses, right, others=3)
        norms = np.linalg.norm(rows, axis=1)
        assert len(norms) == 10
        assert norms.max() <= validation.patient_norm(plan) * (1 + 1e-12)
        assert norms.max() == pytest.approx(validation.patient_norm(plan))  # the bound is not loose
    assert rows[5, 0] == 1.0  # a loss that is no number counts as the bound
    found = validation.noise_plan(plan, participants=4, tolerance=1)
    assert found.noise_multiplier == pytest.approx(validation.noise_multipliers(plan)[1])
    assert found.sensitivity == pytest.approx(validation.patient_norm(plan))


def test_figures_are_those_of_the_patients_up_to_the_noise_that_is_stated() -> None:
    """Over 200 looks, the errors have the stated standard deviation: not half of it, not twice."""
    plan = study(share=0.5)
    rng = np.random.default_rng(1)
    losses, right = rng.uniform(0.1, 1.9, 3_000), rng.random(3_000) < 0.8
    rows = validation.rows(plan, losses, right, others=27_000)
    noise = validation.noise_plan(plan, participants=4, tolerance=0)
    exact, sd = noise.encode_rows(rows), noise.standard_deviation(contributors=4)
    errors: dict[str, list[float]] = {}
    truth = {"patients": 30_000.0, "loss": float(losses.mean()), "accuracy": float(right.mean())}
    bits = SeededBits(1)
    for _ in range(200):
        total = noise.to_send(exact + noise.noise(bits=bits))
        for _site in range(3):
            total += noise.to_send(noise.noise(bits=bits))
        for metric in validation.metrics(plan, noise.decode(total), round=1, noise_sd=sd):
            errors.setdefault(metric.name, []).append((metric.value - truth[metric.name]) / metric.noise_sd)
    assert set(errors) == set(truth)
    for found in errors.values():
        assert np.std(found) == pytest.approx(1.0, abs=0.2)  # 4 standard errors
        assert abs(np.mean(found)) < 0.3


def test_a_mean_over_fewer_patients_than_the_noise_hides_is_not_given() -> None:
    total = np.array([-20.0, 20.0, 29.0, 400.0])
    assert {m.name for m in validation.metrics(study(), total, round=1, noise_sd=10.0)} == {"patients"}
    total[2] = 31.0
    found = {m.name: m.value for m in validation.metrics(study(), total, round=1, noise_sd=10.0)}
    assert found["patients"] == 800.0
    assert found["loss"] == pytest.approx(1.0 - 20 / 31)


def metrics(*values: float, name: str = "loss") -> list[Metric]:
    return [Metric(number, name, value, 0.0) for number, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ((), False),
        ((0.7,), False),
        ((0.7, 0.8), False),
        ((0.7, 0.8, 0.75), True),
        ((0.7, 0.8, 0.69), False),
        ((0.7, 0.8, 0.69, 0.69, 0.69), True),
    ],
)
def test_a_run_ends_after_so_many_looks_without_improvement(values: tuple[float, ...], stops: bool) -> None:
    assert validation.should_stop(study(), metrics(*values)) is stops
    assert not validation.should_stop(study(patience=0), metrics(*values))
    better = metrics(*(-value for value in values), name="accuracy")
    assert validation.should_stop(study(metric="accuracy"), better) is stops
    assert validation.should_stop(study(), better) is False  # what does not decide decides nothing


def test_an_improvement_below_min_delta_is_none() -> None:
    seen = metrics(0.7, 0.69, 0.68)
    assert not validation.should_stop(study(), seen)
    assert validation.should_stop(study(min_delta=0.05), seen)
    assert validation.best_round(study(min_delta=0.05), seen) == 3  # the best is the best all the same


def test_the_best_round_is_the_first_of_the_best() -> None:
    assert validation.best_round(study(), []) is None
    assert validation.best_round(study(), metrics(0.7, 0.6, 0.6, 0.9)) == 2
    assert validation.best_round(study(metric="accuracy"), metrics(0.7, 0.6, name="accuracy")) == 1


def test_outcomes_without_classes_have_no_accuracy_and_one_number_less() -> None:
    edges = {"kind": "time", "table": "condition_occurrence", "concept_id": 316139, "edges": [30, 60]}
    plan = Study.from_json(study_form(validation=SECTION, outcome=edges))
    assert validation.vector_length(plan) == 3
    rows = validation.rows(plan, np.array([0.5]), None, others=1)
    assert rows.tolist() == [[-0.5, 1.0, 0.5], [0.0, 0.0, 0.5]]
    assert math.isclose(validation.patient_norm(plan), 1.5)
    found = validation.metrics(plan, np.array([-50.0, 100.0, 500.0]), round=1, noise_sd=1.0)
    assert [metric.name for metric in found] == ["patients", "loss"]


def test_looks_and_steps_of_other_rounds_and_models_do_not_add_up() -> None:
    plan_hash, contexts = study().plan_hash(), set()
    for number in (1, 2):
        for model in (bytes(32), b"\1" * 32):
            contexts.add(validation.step_context(plan_hash, round=number, model=model))
            contexts.add(study_noise.step_context(plan_hash, round=number, step=3, model=model))
    assert len(contexts) == 8
