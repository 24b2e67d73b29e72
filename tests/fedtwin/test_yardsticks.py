"""The rows that stand beside the private model."""

import numpy as np
import pytest

from fedtwin.yardsticks import (
    Split,
    fit_logistic,
    local_only,
    metrics,
    of_model,
    pooled,
    textbook,
    with_own_intercept,
)


def drawn(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(size, 4))
    chance = 1 / (1 + np.exp(-(x @ np.array([1.5, -1.0, 0.5, 0.0]) - 0.5)))
    return x, (rng.random(size) < chance).astype(float)


def splits() -> list[Split]:
    rng = np.random.default_rng(0)
    return [Split(name, *drawn(rng, 25), *drawn(rng, 400)) for name in ("a", "b", "c", "d", "e", "f")]


def test_fit_finds_the_weights_that_made_the_data() -> None:
    weights = fit_logistic(*drawn(np.random.default_rng(1), 20_000))
    assert weights == pytest.approx([1.5, -1.0, 0.5, 0.0, -0.5], abs=0.08)


def test_fit_is_finite_where_all_have_one_outcome() -> None:
    weights = fit_logistic(np.ones((5, 2)), np.zeros(5))
    assert np.isfinite(weights).all()


def test_pooled_beats_small_hospitals_alone() -> None:
    assert pooled(splits()).auc > local_only(splits()).auc
    assert pooled(splits()).accuracy > local_only(splits()).accuracy


def test_metrics_on_a_case_worked_by_hand() -> None:
    accuracy, auc = metrics(np.array([-1.0, 0.5, 2.0, 0.5]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert accuracy == 0.75
    assert auc == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_a_model_that_knows_nothing_scores_one_half() -> None:
    assert of_model(np.zeros(5), splits()).auc == 0.5


def test_a_hospital_with_one_outcome_has_no_auc_and_does_not_spoil_the_mean() -> None:
    (first, *_) = splits()
    flat = Split("flat", first.train_x, first.train_y, first.test_x, np.zeros(len(first.test_y)))
    found = of_model(fit_logistic(first.train_x, first.train_y), [first, flat])
    assert np.isfinite(found.auc)
    assert found.to_json()["by_hospital"]["flat"]["auc"] is None


def test_an_own_intercept_mends_a_model_that_is_off_by_a_constant_and_leaves_the_auc() -> None:
    weights = fit_logistic(*drawn(np.random.default_rng(1), 20_000))
    off = weights + np.array([0, 0, 0, 0, 4.0])
    mended, spoilt = with_own_intercept(off, splits()), of_model(off, splits())
    assert mended.accuracy > spoilt.accuracy + 0.1
    assert mended.auc == pytest.approx(spoilt.auc)


def test_the_textbook_score_counts_risk_factors_around_the_middle_of_the_scale() -> None:
    columns = ("age", "male", "cholesterol", "exercise-angina=1")
    assert textbook(columns).tolist() == [1.0, 2.0, 0.0, 2.0, -2.0]
