"""What one patient can move is bounded by the clip norm, whatever the data and the parameters are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from opacus import GradSampleModule
from torch.nn import Linear, Sequential, Tanh

from node.features.table import FeatureTable
from node.training import models
from node.training.gradient import sum_of_clipped_grads
from privacy import descent
from protocols.study import Study
from tests.protocols.study_forms import study_form

LOGISTIC = Study.from_json(study_form())
MLP = Study.from_json(study_form(study__model="mlp", study__hidden=[5, 3]))
WIDTH = len(LOGISTIC.columns)

features = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.just(WIDTH)), elements=st.floats(-1, 1, width=32)
)


def table(x: np.ndarray, y: np.ndarray | None = None) -> FeatureTable:
    y = np.arange(len(x)) % 2 if y is None else y
    return FeatureTable(np.arange(len(x)), x.astype(np.float32), np.ones(x.shape, bool), y.astype(np.float32))


def drawn(seed: int, patients: int) -> FeatureTable:
    rng = np.random.default_rng(seed)
    return table(rng.uniform(-1, 1, (patients, WIDTH)), rng.integers(0, 2, patients))


def params(study: Study, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, scale, study.parameters)


def test_the_sum_equals_opacus_per_patient_gradients_clipped_one_by_one() -> None:
    rows, at = drawn(1, 40), params(MLP, 2)
    layers = [
        module for pair in descent.unpacked(MLP.layout, at).values() for module in (linear(*pair), Tanh())
    ]
    model = GradSampleModule(Sequential(*layers[:-1]), loss_reduction="sum")
    x = torch.from_numpy(rows.x).double().requires_grad_()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        model(x)[:, 0], torch.from_numpy(rows.y).double(), reduction="sum"
    )
    loss.backward()
    each = np.concatenate([p.grad_sample.reshape(40, -1).numpy() for p in model.parameters()], axis=1)
    norms = np.linalg.norm(each, axis=1)
    assert (norms > 1).any()
    assert (norms < 1).any()
    expected = (each * np.minimum(1.0, 1.0 / norms)[:, None]).sum(axis=0)
    assert np.allclose(sum_of_clipped_grads(MLP, at, rows), expected, atol=1e-7)


def linear(weights: np.ndarray, biases: np.ndarray) -> Linear:
    found = Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
    with torch.no_grad():
        found.weight.copy_(torch.from_numpy(weights.copy()))
        found.bias.copy_(torch.from_numpy(biases.copy()))
    return found


def test_a_logistic_gradient_equals_the_formula() -> None:
    rows, at = drawn(3, 30), params(LOGISTIC, 4)
    error = models.probabilities(LOGISTIC, at, rows.x) - rows.y
    each = error[:, None] * np.column_stack([rows.x, np.ones(30)])
    expected = (each * np.minimum(1.0, 1.0 / np.linalg.norm(each, axis=1))[:, None]).sum(axis=0)
    assert np.allclose(sum_of_clipped_grads(LOGISTIC, at, rows), expected, atol=1e-7)


@pytest.mark.parametrize("study", [LOGISTIC, MLP], ids=["logistic", "mlp"])
@settings(max_examples=40, deadline=None)
@given(x=features, seed=st.integers(0, 2**32), scale=st.sampled_from([0.0, 1.0, 1e3, 1e150, 1e300]))
def test_removing_one_patient_moves_the_sum_by_at_most_the_clip_norm(
    study: Study, x: np.ndarray, seed: int, scale: float
) -> None:
    rows, at = table(x), params(study, seed, scale)
    everyone = sum_of_clipped_grads(study, at, rows)
    assert np.isfinite(everyone).all()
    assert np.linalg.norm(everyone) <= len(rows) * study.privacy.clip_norm
    for left_out in range(len(rows)):
        without = sum_of_clipped_grads(study, at, rows.rows(np.arange(len(rows)) != left_out))
        assert np.linalg.norm(everyone - without) <= study.privacy.clip_norm


def test_the_bound_is_reached_so_a_doubled_clip_norm_would_be_seen() -> None:
    rows = table(np.ones((1, WIDTH)), np.zeros(1))
    assert np.linalg.norm(sum_of_clipped_grads(LOGISTIC, np.full(7, 9.0), rows)) == pytest.approx(
        1.0, rel=1e-6
    )


def test_an_empty_site_contributes_zeros() -> None:
    assert not sum_of_clipped_grads(MLP, descent.initial(MLP), drawn(1, 1).rows(np.array([False]))).any()


def test_patients_beyond_one_batch_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, at = drawn(5, 50), params(MLP, 6)
    whole = sum_of_clipped_grads(MLP, at, rows)
    monkeypatch.setattr("node.training.gradient.PATIENTS_AT_ONCE", 7)
    assert np.allclose(sum_of_clipped_grads(MLP, at, rows), whole, atol=1e-12)


def test_a_network_is_what_its_layout_says() -> None:
    rows, at = drawn(7, 20), params(MLP, 8)
    hidden = rows.x.astype(np.float64)
    *inner, (weights, biases) = descent.unpacked(MLP.layout, at).values()
    for inner_weights, inner_biases in inner:
        hidden = np.tanh(hidden @ inner_weights.T + inner_biases)
    logits = (hidden @ weights.T + biases)[:, 0]
    assert np.allclose(models.probabilities(MLP, at, rows.x), 1 / (1 + np.exp(-logits)), atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.5])
def test_a_row_that_is_not_finite_or_not_scaled_never_becomes_a_feature_table(bad: float) -> None:
    x = np.zeros((2, WIDTH), dtype=np.float32)
    x[1, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        table(x)
