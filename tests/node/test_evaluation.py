"""How well a model does: each figure against what it must be, by hand or by another library."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from node.training import evaluation
from node.training.evaluation import auc, by_group, calibration, concordance, performance, predictions
from protocols.study import Study
from tests.protocols.study_forms import study_form

BINARY = Study.from_json(study_form()).outcome
SURVIVAL = Study.from_json(
    study_form(
        outcome={
            "kind": "time",
            "table": "condition_occurrence",
            "concept_id": 316139,
            "edges": [30, 90, 365],
        }
    )
).outcome
AMOUNT = Study.from_json(
    study_form(
        outcome={
            "kind": "amount", "table": "measurement", "concept_id": 3004249, "unit_concept_id": 8876,
            "range": [90, 190],
        }
    )
).outcome  # fmt: skip
CLASSES = Study.from_json(
    study_form(outcome={"kind": "class", "table": "observation", "concept_id": 4298794, "codes": [1, 2, 3]})
).outcome


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_figures_of_a_yes_or_no_are_those_of_another_library(rng: np.random.Generator) -> None:
    logits = np.round(rng.normal(size=(400, 1)), 1)  # with ties
    y = (rng.random(400) < 1 / (1 + np.exp(-logits[:, 0]))).astype(np.float64)
    found = performance(BINARY, logits, y)
    p = predictions(BINARY, logits)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, p))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, p > 0.5))
    low, high = found["auc_ci95"]
    assert low < found["auc"] < high
    assert (found["patients"], found["with_outcome"]) == (400, int(y.sum()))


def test_an_interval_of_the_auc_covers_the_truth_and_a_narrower_one_does_not(
    rng: np.random.Generator,
) -> None:
    truth = 0.7602  # of two normal distributions a standard deviation apart
    covered, narrow = [], []
    for _ in range(300):
        score = np.concatenate([rng.normal(1.0, 1.0, 60), rng.normal(0.0, 1.0, 90)])
        yes = np.arange(150) < 60
        area = auc(score, yes)
        assert area is not None
        low, high = evaluation._auc_interval(area, 60, 90)
        covered.append(low <= truth <= high)
        narrow.append(abs(area - truth) < (high - low) / 8)
    assert 0.90 < np.mean(covered) < 0.99
    assert np.mean(narrow) < 0.8


def test_one_outcome_gives_no_auc_and_nobody_gives_no_figures() -> None:
    found = performance(BINARY, np.zeros((5, 1)), np.ones(5))
    assert found["auc"] is None
    assert found["auc_ci95"] is None
    assert performance(BINARY, np.zeros((0, 1)), np.zeros(0)) == {"patients": 0}
    assert calibration(BINARY, np.zeros((0, 1)), np.zeros(0)) == []


def test_several_classes_are_those_of_another_library(rng: np.random.Generator) -> None:
    outputs = rng.normal(size=(300, 3))
    y = rng.integers(0, 3, 300).astype(np.float64)
    found = performance(CLASSES, outputs, y)
    p = predictions(CLASSES, outputs)
    assert p.sum(axis=1) == pytest.approx(np.ones(300))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, p.argmax(axis=1)))


def test_amounts_are_told_in_their_own_unit() -> None:
    outputs, y = np.array([[0.0], [1.0], [-1.0]]), np.array([0.2, 1.0, -1.0])
    assert predictions(AMOUNT, outputs).tolist() == [140.0, 190.0, 90.0]
    found = performance(AMOUNT, outputs, y)
    assert found["mean_absolute_error"] == pytest.approx(10.0 / 3)
    assert found["rmse"] == pytest.approx((100.0 / 3) ** 0.5)
    assert found["r2"] == pytest.approx(metrics.r2_score([150.0, 190.0, 90.0], [140.0, 190.0, 90.0]))


def test_times_are_ranked_by_who_came_first_of_those_of_whom_it_is_known() -> None:
    # hazards of one half everywhere: free of it .5, .25, .125
    assert predictions(SURVIVAL, np.zeros((1, 3)))[0].tolist() == [0.5, 0.25, 0.125]
    risk, lived, came = np.array([3.0, 2.0, 1.0, 0.5]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([1, 0, 1, 0])
    # known pairs: 0 before all others; 2 before 1 (censored behind it) and before 3
    assert concordance(risk, lived, came > 0) == pytest.approx(4 / 5)  # 1 was thought riskier than 2
    assert concordance(risk, lived, np.zeros(4, dtype=bool)) is None
    assert concordance(np.zeros(4), lived, came > 0) == 0.5


def test_the_loss_of_times_is_that_of_the_intervals_at_risk() -> None:
    outputs = np.log(np.array([[0.25, 1.0, 1.0], [1.0, 3.0, 1.0]]))  # hazards .2 .5 .5 and .5 .75 .5
    y = np.array([[1.0, 1.0], [1.0, 0.0]])  # lived one and it came in the second; censored after one
    found = performance(SURVIVAL, outputs, y)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.8, 0.5, 0.5])))
    assert (found["with_outcome"], found["patients"]) == (1, 2)


def test_calibration_compares_like_with_like(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4000, 1)) * 1.5
    y = (rng.random(4000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(np.float64)
    good, bad = calibration(BINARY, logits, y), calibration(BINARY, logits + 1.0, y)
    assert sum(row["patients"] for row in good) == 4000
    assert max(abs(row["predicted"] - row["observed"]) for row in good) < 0.09
    assert max(abs(row["predicted"] - row["observed"]) for row in bad) > 0.12
    assert [row["predicted"] for row in good] == sorted(row["predicted"] for row in good)


def test_calibration_of_times_counts_those_who_were_censored() -> None:
    # four at risk, one event; then two censored, and of the one left the outcome comes: 1 - 3/4 * 0
    y = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
    (row,) = calibration(SURVIVAL, np.zeros((4, 3)), y, bins=1)
    assert (row["predicted"], row["observed"]) == (0.875, 1.0)
    (row,) = calibration(SURVIVAL, np.zeros((3, 3)), y[:3], bins=1)
    assert row["observed"] == pytest.approx(1 / 3)


def test_groups_that_are_empty_are_left_out(rng: np.random.Generator) -> None:
    outputs, y = rng.normal(size=(20, 1)), np.tile([0.0, 1.0], 10)
    first = np.arange(20) < 8
    rows = list(by_group(BINARY, outputs, y, [("some", first), ("none", first & ~first)]))
    assert [row["group"] for row in rows] == ["some"]
    assert rows[0]["auc"] == performance(BINARY, outputs[:8], y[:8])["auc"]


def test_an_outcome_without_a_range_cannot_be_told_in_a_unit() -> None:
    with pytest.raises(AssertionError):
        predictions(replace(AMOUNT, range=None), np.zeros((1, 1)))
