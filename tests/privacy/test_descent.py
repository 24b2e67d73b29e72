"""The same sums lead to the same model, on every machine and for everyone."""

import numpy as np
import pytest

from privacy import descent
from privacy.descent import Descent, NotFinite
from protocols.study import Study
from tests.protocols.study_forms import study_form

LOGISTIC = Study.from_json(study_form())
MLP = Study.from_json(study_form(study__model="mlp", study__hidden=[5, 3]))


def sums(study: Study, seed: int, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.0, 30.0, study.parameters) for _ in range(count)]


def test_the_same_plan_gives_the_same_initial_parameters_and_another_plan_others() -> None:
    again = Study.from_json(study_form(study__model="mlp", study__hidden=[5, 3]))
    other = Study.from_json(study_form(study__model="mlp", study__hidden=[5, 3], study__name="other"))
    assert np.array_equal(descent.initial(MLP), descent.initial(again))
    assert not np.array_equal(descent.initial(MLP), descent.initial(other))
    assert not descent.initial(LOGISTIC).any()


def test_initial_parameters_are_pinned_so_that_releases_agree() -> None:
    """A vector: if it changes, nodes of two releases start apart and every digest check fails."""
    assert descent.digest(descent.initial(MLP)).hex()[:16] == "7a60cb4a3ab9d094"


def test_initial_weights_stay_inside_their_glorot_limits_and_biases_are_zero() -> None:
    for weights, biases in descent.unpacked(MLP.layout, descent.initial(MLP)).values():
        limit = np.sqrt(6.0 / sum(weights.shape))
        assert np.abs(weights).max() <= limit
        assert np.abs(weights).max() > limit / 4
        assert not biases.any()


def test_two_machines_with_the_same_sums_hold_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        round_ = Descent(MLP, descent.initial(MLP))
        for noisy in sums(MLP, seed=1):
            round_.apply(noisy)
        runs.append(descent.digest(round_.params))
    assert runs[0] == runs[1]


def test_one_step_divides_by_the_public_number_and_follows_the_momentum() -> None:
    first, second, _ = sums(LOGISTIC, seed=2)
    round_ = Descent(LOGISTIC, descent.initial(LOGISTIC))
    one = round_.apply(first).copy()
    two = round_.apply(second)
    assert np.allclose(one, -first / 200)
    assert np.allclose(two, one - (0.5 * first + second) / 200)


def test_averaging_ends_the_round_at_the_mean_of_its_iterates() -> None:
    plain = Descent(LOGISTIC, descent.initial(LOGISTIC))
    averaging = Study.from_json(study_form(training__average=True))
    averaged = Descent(averaging, descent.initial(averaging))
    iterates = [plain.apply(noisy).copy() for noisy in sums(LOGISTIC, seed=3)]
    for noisy in sums(LOGISTIC, seed=3):
        averaged.apply(noisy)
    assert np.allclose(averaged.params, np.mean(iterates, axis=0))


def test_descent_finds_the_minimum_of_a_quadratic() -> None:
    study = Study.from_json(study_form(training__steps_per_round=200, training__learning_rate=0.2))
    target = np.linspace(-1.0, 1.0, study.parameters)
    round_ = Descent(study, descent.initial(study))
    for _ in range(200):
        round_.apply(200.0 * (round_.params - target))
    assert np.allclose(round_.params, target, atol=1e-6)


@pytest.mark.parametrize("broken", [np.full(7, np.nan), np.full(7, np.inf), np.zeros(6), np.zeros((7, 1))])
def test_a_sum_that_is_not_finite_or_has_another_shape_changes_nothing(broken: np.ndarray) -> None:
    round_ = Descent(LOGISTIC, descent.initial(LOGISTIC))
    with pytest.raises(NotFinite):
        round_.apply(broken)
    assert round_.steps_done == 0
    assert not round_.params.any()


def test_parameters_that_would_overflow_are_refused_and_the_last_ones_stay() -> None:
    round_ = Descent(Study.from_json(study_form(training__learning_rate=1000)), np.full(7, 1.7e308))
    with pytest.raises(NotFinite):
        round_.apply(np.full(7, -1.7e308))
    assert round_.params[0] == 1.7e308


def test_a_round_has_no_more_steps_than_its_plan() -> None:
    round_ = Descent(LOGISTIC, descent.initial(LOGISTIC))
    for noisy in sums(LOGISTIC, seed=4):
        round_.apply(noisy)
    with pytest.raises(ValueError, match="no further step"):
        round_.apply(np.zeros(7))


def test_adam_moves_by_the_learning_rate_whatever_the_size_of_the_gradient() -> None:
    study = Study.from_json(study_form(training__optimizer="adam", training__learning_rate=0.1))
    round_ = Descent(study, descent.initial(study))
    sizes = np.array([1e-3, 1.0, 50.0, -1e-3, -1.0, -50.0, 1e4])
    assert np.allclose(round_.apply(sizes), -0.1 * np.sign(sizes), rtol=1e-2)
    again = Descent(study, descent.initial(study))
    again.apply(sizes)
    first, second = sums(study, seed=5, count=2)
    assert np.array_equal(round_.apply(first), again.apply(first))
    assert np.array_equal(round_.apply(second), again.apply(second))


def test_adam_follows_its_published_formula_and_shrinks_beside_it() -> None:
    study = Study.from_json(
        study_form(training__optimizer="adam", training__learning_rate=0.1, training__l2=0.3)
    )
    round_, m, v, at = Descent(study, descent.initial(study)), 0.0, 0.0, np.zeros(study.parameters)
    for step, noisy in enumerate(sums(study, seed=6), start=1):
        gradient = noisy / 200
        m, v = 0.5 * m + 0.5 * gradient, 0.98 * v + 0.02 * gradient**2
        moved = (m / (1 - 0.5**step)) / (np.sqrt(v / (1 - 0.98**step)) + 1e-8)
        at = at - 0.1 * (moved + 0.3 * at)
        assert np.allclose(round_.apply(noisy), at)


def test_a_logistic_model_may_start_from_public_weights() -> None:
    form = study_form(study__prior_bias=-1.0)
    form["features"][0]["prior"] = 2.0
    form["features"][2]["prior"] = 0.5
    study = Study.from_json(form)
    assert descent.initial(study).tolist() == [2.0, 0.0, 0.5, 0.0, 0.0, 0.0, -1.0]
    assert study.plan_hash() != LOGISTIC.plan_hash()
    assert Study.from_json(study.to_json()) == study
