"""Every kind of fusion, for every kind of outcome: one patient's bound, missing modalities, hidden ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node.features.table import FeatureTable
from node.training import gradient, inputs, models
from node.training.gradient import clipped_sums, gradient_norms, sum_of_clipped_grads
from node.training.losses import losses
from privacy import descent
from protocols.study import Study
from protocols.study_fusion import KINDS
from tests.protocols.study_forms import fusion_form

OUTCOMES = {
    "binary": {"kind": "present", "table": "condition_occurrence", "concept_id": 316139},
    "multiclass": {"kind": "class", "table": "observation", "concept_id": 1, "codes": [1, 2, 3]},
    "regression": {"kind": "amount", "table": "measurement", "concept_id": 1, "range": [0, 10]},
    "survival": {"kind": "time", "table": "death", "edges": [30, 90, 365]},
}
KIND_NAMES = pytest.mark.parametrize("kind", KINDS)
WIDTH = 7


def fusion(
    kind: str, task: str = "binary", *, dropout: float = 0.0, views: int = 1, **changes: object
) -> Study:
    form = fusion_form(kind, fusion__modality_dropout=dropout, fusion__views=views, **changes)
    form["outcome"] = OUTCOMES[task]
    return Study.from_json(form)


def outcomes(task: str, rng: np.random.Generator, patients: int) -> np.ndarray:
    if task == "survival":
        return np.column_stack([rng.integers(0, 4, patients), rng.integers(0, 2, patients)])
    if task == "regression":
        return rng.uniform(-1, 1, patients)
    return rng.integers(0, 3 if task == "multiclass" else 2, patients)


def drawn(seed: int, patients: int, task: str = "binary") -> FeatureTable:
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((patients, 4)) < 0.7, (2, 2, 1, 2), axis=1)
    mask[:, 3] = True  # the flag that says a value is missing
    x = np.where(mask, rng.uniform(-1, 1, (patients, WIDTH)), 0.0)
    y = outcomes(task, rng, patients)
    if task == "survival":
        y[:, 1] *= y[:, 0] < 3
    ids = rng.choice(10**12, patients, replace=False)
    return FeatureTable(ids, x.astype(np.float32), mask, y.astype(np.float32))


def params(study: Study, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, scale, study.parameters)


def one_by_one(study: Study, at: np.ndarray, own: np.ndarray, rows: FeatureTable) -> np.ndarray:
    """Each patient's gradient of shared and own parameters, by plain automatic differentiation."""
    seen = inputs.views(study, inputs.presence(study, rows), rows.person_ids, at)
    found = []
    for place in range(len(rows)):
        layers = models.Layers.of(study, at, own)
        named = [t for pair in layers.tensors.values() for t in pair]
        for tensor in named:
            tensor.requires_grad_()
        present = torch.from_numpy(seen[[place]]).double()
        x = torch.from_numpy(rows.x[[place]]).double()[:, None].expand(-1, present.shape[1], -1)
        out = models.forward(study, layers, x, present)
        loss = losses(study.outcome, out, torch.from_numpy(rows.y[[place]]).double()).mean()
        grads = torch.autograd.grad(loss, named, allow_unused=True)
        pairs = zip(grads, named, strict=True)
        found.append(torch.cat([torch.zeros(t.numel()) if g is None else g.flatten() for g, t in pairs]))
    return torch.stack(found).numpy()


@KIND_NAMES
@pytest.mark.parametrize(
    ("task", "dropout", "views", "local"),
    [
        ("binary", 0.0, 1, "none"),
        ("binary", 0.4, 1, "none"),
        *((task, 0.4, 3, "intercept") for task in OUTCOMES),
    ],
)
def test_sums_equal_gradients_computed_and_clipped_one_by_one(
    kind: str, task: str, dropout: float, views: int, local: str
) -> None:
    study = fusion(kind, task, dropout=dropout, views=views, study__local=local)
    rows, at = drawn(1, 8, task), params(study, 2)
    own = np.random.default_rng(3).normal(size=study.local_parameters)
    each = one_by_one(study, at, own, rows)
    norms = np.linalg.norm(each, axis=1)
    bound = float(np.median(norms))
    study = fusion(kind, task, dropout=dropout, views=views, study__local=local, privacy__clip_norm=bound)
    expected = (each * np.minimum(1.0, bound / np.maximum(norms, 1e-300))[:, None]).sum(axis=0)
    found = clipped_sums(study, at, rows, own=own)
    assert np.allclose(np.concatenate([found.shared, found.own]), expected, atol=1e-7)
    if local == "none":
        assert np.allclose(gradient_norms(study, at, rows), norms)


def test_wide_tokens_give_the_sums_of_gradients_computed_one_by_one() -> None:
    study = fusion("attention", fusion__width=16)
    assert len(study.modalities) ** 2 < 16 * 16  # so few tokens that their inner products are the short way
    rows, at = drawn(1, 8), params(study, 2)
    each = one_by_one(study, at, np.zeros(0), rows)
    expected = (each * np.minimum(1.0, 1.0 / np.linalg.norm(each, axis=1))[:, None]).sum(axis=0)
    assert np.allclose(clipped_sums(study, at, rows).shared, expected, atol=1e-9)
    assert np.allclose(gradient_norms(study, at, rows), np.linalg.norm(each, axis=1))


@pytest.mark.parametrize("left", [1.0, 1e-3, 1e-6, 1e-9])
def test_tokens_that_cancel_are_not_taken_for_shorter_than_what_they_add_up_to(left: float) -> None:
    rng = np.random.default_rng(5)
    into, grad = (torch.from_numpy(rng.normal(size=(2000, 1, width))) for width in (40, 30))
    into = torch.cat([into, into], dim=1)
    grad = torch.cat([grad, -grad * (1.0 - left)], dim=1)  # all but `left` of it cancels, biases as well
    layer = gradient._Tokens(into, grad)
    written_out = (torch.einsum("pto,pti->poi", grad, into) ** 2).sum(dim=(1, 2)) + (
        grad.sum(dim=1) ** 2
    ).sum(1)
    assert bool((layer.squares() >= written_out * (1.0 - 1e-10)).all())
    if left == 1.0:
        assert torch.allclose(layer.squares(), written_out, rtol=1e-10)
    factors = torch.clamp(1.0 / layer.squares().sqrt(), max=1.0)
    for one in range(20):
        alone = gradient._Tokens(into[[one]], grad[[one]]).sum(factors[[one]])
        assert sum(float((part**2).sum()) for part in alone) <= (1.0 + 1e-9) ** 2


def test_a_head_of_ones_own_sees_the_last_layer() -> None:
    study = fusion("attention", study__local="head")
    rows, at = drawn(1, 20), params(study, 2)
    own = np.random.default_rng(3).normal(size=study.local_parameters)
    assert study.local_parameters == 4 + 1
    each = one_by_one(study, at, own, rows)
    expected = (each * np.minimum(1.0, 1.0 / np.linalg.norm(each, axis=1))[:, None]).sum(axis=0)
    found = clipped_sums(study, at, rows, own=own)
    assert np.allclose(np.concatenate([found.shared, found.own]), expected, atol=1e-7)


@KIND_NAMES
@settings(max_examples=10, deadline=None)
@given(
    x=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.just(WIDTH)), elements=st.floats(-1, 1, width=32)
    ),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.0, 1.0, 1e3, 1e150, 1e300]),
    task=st.sampled_from(sorted(OUTCOMES)),
)
def test_one_patient_moves_both_sums_together_by_at_most_the_clip_norm(
    kind: str, x: np.ndarray, seed: int, scale: float, task: str
) -> None:
    study = fusion(kind, task, dropout=0.4, views=2, study__local="intercept")
    rng = np.random.default_rng(seed)
    mask = rng.random(x.shape) < 0.6
    y = outcomes(task, rng, len(x)).astype(np.float32)
    rows, at = FeatureTable(rng.permutation(len(x)), x, mask, y), params(study, seed, scale)
    own = rng.normal(size=study.local_parameters)

    def both(table: FeatureTable) -> np.ndarray:
        found = clipped_sums(study, at, table, own=own)
        return np.concatenate([found.shared, found.own])

    everyone = both(rows)
    assert np.isfinite(everyone).all()
    for left_out in range(len(rows)):
        without = both(rows.rows(np.arange(len(rows)) != left_out))
        assert np.linalg.norm(everyone - without) <= study.privacy.clip_norm


@KIND_NAMES
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e120])
def test_a_patients_gradient_is_the_same_to_the_last_bit_whoever_else_is_there(
    kind: str, scale: float
) -> None:
    study, rows = fusion(kind, dropout=0.4, views=2), drawn(12, 150)
    at = params(study, 13, scale)
    everyone = gradient_norms(study, at, rows)
    for first, last in ((1, 150), (0, 149), (37, 101), (149, 150)):
        some = rows.rows((np.arange(150) >= first) & (np.arange(150) < last))
        assert np.array_equal(gradient_norms(study, at, some), everyone[first:last])


@KIND_NAMES
def test_the_bound_is_reached_so_a_doubled_clip_norm_would_be_seen(kind: str) -> None:
    study = fusion(kind, privacy__clip_norm=1e-3)
    norm = np.linalg.norm(sum_of_clipped_grads(study, params(study, 1), drawn(2, 1)))
    assert norm == pytest.approx(1e-3, rel=1e-6)


@KIND_NAMES
def test_what_stands_in_the_columns_of_a_missing_modality_does_not_matter(kind: str) -> None:
    study, rows = fusion(kind), drawn(4, 60)
    at = params(study, 5)
    noise = np.random.default_rng(6).uniform(-1, 1, rows.x.shape).astype(np.float32)
    absent = np.repeat(~inputs.presence(study, rows), (2, 2, 1, 2), axis=1)
    assert absent.any()
    other = FeatureTable(rows.person_ids, np.where(absent, noise, rows.x), rows.mask, rows.y)
    assert np.array_equal(models.outputs(study, at, other), models.outputs(study, at, rows))
    changed = FeatureTable(rows.person_ids, np.where(absent, rows.x, noise), rows.mask, rows.y)
    assert not np.allclose(models.outputs(study, at, changed), models.outputs(study, at, rows))


@KIND_NAMES
def test_a_patient_with_nothing_present_still_gets_a_finite_answer(kind: str) -> None:
    study, rows = fusion(kind), drawn(4, 3)
    bare = FeatureTable(rows.person_ids, rows.x, np.zeros_like(rows.mask), rows.y)
    assert np.isfinite(models.outputs(study, params(study, 5), bare)).all()
    assert np.isfinite(sum_of_clipped_grads(study, params(study, 5), bare)).all()


@KIND_NAMES
def test_a_prediction_does_not_depend_on_who_else_is_asked_about(kind: str) -> None:
    study, rows = fusion(kind), drawn(7, 12)
    at = params(study, 8)
    alone = [models.outputs(study, at, rows.rows(np.arange(12) == place))[0] for place in range(12)]
    assert np.allclose(models.outputs(study, at, rows), alone, atol=1e-12)


def test_hiding_follows_from_the_person_and_the_step_and_leaves_something_to_see() -> None:
    study = fusion("early", dropout=0.5, views=2)
    rows, at = drawn(9, 4000), params(study, 10)
    present = inputs.presence(study, rows)
    seen = inputs.views(study, present, rows.person_ids, at)
    assert np.array_equal(seen[:, 0], present)
    assert not (seen & ~present[:, None]).any()
    assert seen.any(axis=2)[present.any(axis=1)].all()
    turned = inputs.views(study, present[::-1], rows.person_ids[::-1], at)
    assert np.array_equal(turned[::-1], seen)
    several = present.sum(axis=1) > 2
    kept = seen[several, 1].sum() / present[several].sum()
    assert 0.5 < kept < 0.6  # half, and whoever would have had nothing left
    assert not np.array_equal(seen, inputs.views(study, present, rows.person_ids, at + 1.0))


def test_a_discrete_hazard_has_the_likelihood_of_its_intervals() -> None:
    outcome = fusion("early", "survival").outcome
    logits = torch.tensor([[0.3, -0.7, 1.2]], dtype=torch.float64)
    h1, h2, h3 = torch.sigmoid(logits[0]).tolist()

    def loss(lived: int, event: int) -> float:
        y = torch.tensor([[lived, event]], dtype=torch.float64)
        return float(losses(outcome, logits[:, None], y)[0, 0])

    assert loss(0, 1) == pytest.approx(-np.log(h1))
    assert loss(2, 1) == pytest.approx(-np.log((1 - h1) * (1 - h2) * h3))
    assert loss(1, 0) == pytest.approx(-np.log(1 - h1))  # censored after the first interval
    assert loss(0, 0) == 0.0
    assert loss(3, 0) == pytest.approx(-np.log((1 - h1) * (1 - h2) * (1 - h3)))


def test_initial_parameters_give_even_odds_whatever_is_present() -> None:
    for kind in KINDS:
        study = fusion(kind)
        assert not models.outputs(study, descent.initial(study), drawn(11, 10)).any()
        assert descent.initial(study).any()
