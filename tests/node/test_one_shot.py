"""One noisy sum of sufficient statistics: what a patient moves, what comes out, what it costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training import one_shot, second_accountant
from node.training.validation import LocalFigures
from privacy import descent, study_noise, sufficient, validation, walks
from privacy.accountant import GaussianEvent, epsilon
from privacy.descent import NotFinite
from privacy.sufficient import OneStep
from protocols.refusal import RefusalCode
from protocols.round import RoundReply
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from sim.federation import Noise, federate
from tests.node.hub import Hospitals
from tests.node.patients import fill
from tests.node.test_rounds import patients
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form

AMOUNT = {"kind": "amount", "table": "measurement", "concept_id": 3004249, "range": [90, 190]}
WEIGHTS = np.array([1.2, -0.8, 0.5, 0.0, 0.3])


LOOKS = {"every": 1, "fraction": 0.3, "share": 0.2, "loss_bound": 2.0, "patience": 0}
PART = {"mode": "one-shot", "train_fraction": 0.6}


def form(*, linear: bool = False, columns: int = 4, prior: float = 0.0, **keys: Any) -> dict[str, Any]:
    found = study_form()
    found["features"] = [
        {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
        for i in range(columns)
    ]
    if prior:
        found["features"][0]["prior"] = prior
    del found["privacy"]["clip_norm"]
    found["training"] = {"mode": "one-shot"}
    if linear:
        found["outcome"] = AMOUNT
    if keys:
        found["one_shot"] = keys
    return found


def study(**changes: Any) -> Study:
    return Study.from_json(form(**changes))


def people(count: int, *, linear: bool = False, seed: int = 1, columns: int = 4) -> FeatureTable:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (count, columns)).astype(np.float32)
    eta = np.column_stack([x, np.ones(count)]) @ WEIGHTS[: columns + 1]
    y = (
        np.clip(0.3 * eta + rng.normal(0, 0.1, count), -1, 1)
        if linear
        else rng.random(count) < 1 / (1 + np.exp(-eta))
    )
    return FeatureTable(np.arange(count), x, np.ones(x.shape, dtype=bool), y.astype(np.float32))


# ---- what one patient moves ----


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("prior", [0.0, 0.7])
@pytest.mark.parametrize(("row_norm", "weight"), [(2.0, 0.5), (0.3, 2.0), (9.0, 0.1)])
def test_one_patient_more_moves_the_sum_by_the_clip_norm_at_most(
    linear: bool, prior: float, row_norm: float, weight: float
) -> None:
    plan = study(linear=linear, prior=prior, row_norm=row_norm, information_weight=weight)
    table = people(60, linear=linear)
    x = table.x.copy()
    x[:20] = np.sign(x[:20])
    x[20:30] = 0.0
    table = FeatureTable(table.person_ids, x, table.mask, table.y)
    rng = np.random.default_rng(2)
    for at in (descent.initial(plan), rng.normal(size=5), 1e3 * rng.normal(size=5), np.full(5, 1.7e308)):
        whole = one_shot.part(plan, at, table)
        assert np.isfinite(whole).all()
        for gone in range(len(table)):
            without = one_shot.part(plan, at, table.rows(np.arange(60) != gone))
            assert np.linalg.norm(whole - without) <= plan.privacy.clip_norm * (1 + 1e-12)


def test_the_bound_is_reached_so_no_noise_is_wasted() -> None:
    plan = study(row_norm=5.0**0.5)
    longest = FeatureTable(
        np.arange(1), np.ones((1, 4), np.float32), np.ones((1, 4), bool), np.ones(1, np.float32)
    )
    moved = np.linalg.norm(one_shot.part(plan, descent.initial(plan), longest))
    assert moved == pytest.approx(plan.privacy.clip_norm, rel=1e-6)


def test_without_the_factor_off_the_diagonal_one_patient_would_be_measured_wrong() -> None:
    z = np.array([0.6, -0.8, 1.0])
    packed = sufficient.packed(np.zeros(3), np.outer(z, z))
    assert np.linalg.norm(packed) == pytest.approx(z @ z)
    score, information = sufficient.unpacked(packed, 3)
    assert np.allclose(information, np.outer(z, z))
    assert not score.any()


def test_the_sum_is_the_sum_over_people_in_whatever_parts() -> None:
    plan, table = study(), people(500)
    at = descent.initial(plan)
    parts = [one_shot.part(plan, at, table.rows(np.arange(500) % 3 == k)) for k in range(3)]
    assert np.allclose(np.sum(parts, axis=0), one_shot.part(plan, at, table), atol=1e-12)
    assert not one_shot.part(plan, at, table.rows(np.zeros(500, bool))).any()


# ---- what comes out ----


def test_with_enough_data_a_linear_model_is_least_squares() -> None:
    plan, table = study(linear=True, row_norm=3.0), people(20_000, linear=True)
    step = OneStep(plan, descent.initial(plan))
    step.apply(one_shot.part(plan, step.params, table))
    design = np.column_stack([table.x, np.ones(len(table))]).astype(float)
    fit = np.linalg.lstsq(design, table.y.astype(float), rcond=None)[0]
    assert np.abs(step.params - fit).max() < 1e-6
    assert step.finished


@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_with_enough_data_a_logistic_model_is_one_newton_step(prior: float) -> None:
    plan, table = study(prior=prior, row_norm=3.0), people(20_000)
    start = descent.initial(plan)
    step = OneStep(plan, start)
    step.apply(one_shot.part(plan, start, table))
    design = np.column_stack([table.x, np.ones(len(table))]).astype(float)
    mean = 1.0 / (1.0 + np.exp(-design @ start))
    newton = np.linalg.solve((design * (mean * (1 - mean))[:, None]).T @ design, design.T @ (table.y - mean))
    assert np.abs(step.params - start - newton).max() < 1e-6


def test_little_data_are_shrunk_and_never_explode() -> None:
    plan = study()
    for seed in range(20):
        tables = [people(5, seed=seed + s) for s in range(3)]
        run = federate(plan, tables, noise=Noise.SHARES, bits=SeededBits(seed))
        assert np.abs(run.params).max() < 5.0


def test_longer_rows_count_for_less_without_a_bias() -> None:
    """Weights are of whole patients: least squares stays right where the model is."""
    plan, table = study(linear=True, row_norm=0.5), people(50_000, linear=True, seed=3)
    step = OneStep(plan, descent.initial(plan))
    step.apply(one_shot.part(plan, step.params, table))
    assert np.abs(step.params - 0.3 * WEIGHTS).max() < 0.02


@pytest.mark.parametrize("size", [1, 4, 12])
def test_the_smallest_eigenvalue_is_found_and_never_overstated(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(5):
        matrix = rng.normal(size=(size, size))
        matrix = matrix + matrix.T
        found, right = sufficient.smallest_eigenvalue(matrix), float(np.linalg.eigvalsh(matrix)[0])
        assert right - 1e-8 <= found <= right + 1e-12


def test_private_training_finds_the_model_where_there_are_people_enough() -> None:
    plan = study()
    run = federate(plan, [people(1500, seed=s) for s in range(4)], noise=Noise.SHARES, bits=SeededBits(1))
    test = people(4000, seed=99)
    design = np.column_stack([test.x, np.ones(len(test))])
    agree = ((design @ run.params > 0) == (design @ WEIGHTS > 0)).mean()
    assert agree > 0.93
    assert run.steps == 1
    assert 0.99 < run.epsilon <= 1.0


# ---- what it costs ----


def test_it_costs_one_gaussian_release_of_the_plans_epsilon() -> None:
    plan = study()
    event = study_noise.event(plan, steps=1)
    assert isinstance(event, GaussianEvent)
    assert event.count == 1
    assert 0.99 < epsilon([event], delta=plan.privacy.delta) <= plan.privacy.epsilon
    noise = study_noise.noise_plan(plan, participants=4, tolerance=1)
    assert noise.dimension == 5 + 15
    assert noise.sensitivity == pytest.approx(np.sqrt(1.25))
    assert noise.noise_multiplier == pytest.approx(event.noise_multiplier)
    assert sufficient.noise_sd(plan) == pytest.approx(noise.sigma)
    second_accountant.check(plan)


def test_a_patient_of_two_hospitals_costs_twice_the_noise() -> None:
    twice = form()
    twice["privacy"]["max_sites_per_patient"] = 2
    both = [
        study_noise.noise_plan(s, participants=4, tolerance=1).sigma
        for s in (study(), Study.from_json(twice))
    ]
    assert both[1] == pytest.approx(2.0 * both[0])


def test_hospitals_train_it_in_one_round_and_are_charged_once(tmp_path: Path) -> None:
    form_ = study_form()
    del form_["privacy"]["clip_norm"]
    plan = Study.from_json(form_ | {"training": {"mode": "one-shot", "train_fraction": 0.8}})
    with Hospitals(tmp_path, 3) as network:
        for place, hospital in enumerate(network.all):
            fill(hospital.store, patients(30, seed=place))
        network.approve(plan)
        replies = network.round(plan, descent.initial(plan), round=1)
        assert all(isinstance(reply, RoundReply) for reply in replies), replies
        assert len({reply.parameters_digest for reply in replies}) == 1
        assert {reply.steps for reply in replies} == {1}
        noise = study_noise.noise_plan(plan, participants=3, tolerance=1)
        walk = walks.begin(plan, descent.initial(plan))
        walk.apply(noise.decode(np.sum([v for _, v in network.hub.vectors], axis=0, dtype=np.uint64)))
        assert descent.digest(walk.params) == replies[0].parameters_digest
        for hospital in network.all:
            spent = hospital.ledger.spent("tests", delta=1e-5)
            assert spent.events == 1
            assert 0.99 < spent.epsilon <= 1.0
        again = network.round(plan, descent.initial(plan), round=1)
        assert {getattr(reply, "code", None) for reply in again} == {RefusalCode.BUDGET_EXHAUSTED}


def test_a_look_at_what_came_out_is_bought_from_the_same_epsilon(tmp_path: Path) -> None:
    form_ = study_form(validation=LOOKS)
    del form_["privacy"]["clip_norm"]
    plan = Study.from_json(form_ | {"training": PART})
    alone = Study.from_json({k: v for k, v in plan.to_json().items() if k != "validation"})
    assert sufficient.noise_sd(plan) > 1.05 * sufficient.noise_sd(alone), "the look takes its share"
    noise = study_noise.noise_plan(plan, participants=3, tolerance=1)
    assert sufficient.noise_sd(plan) == pytest.approx(noise.sigma)
    second_accountant.check(plan)
    with Hospitals(tmp_path, 3) as network:
        for place, hospital in enumerate(network.all):
            fill(hospital.store, patients(40, seed=place))
        network.approve(plan)
        replies = network.round(plan, descent.initial(plan), round=1)
        assert all(isinstance(reply, RoundReply) for reply in replies), replies
        look = validation.noise_plan(plan, participants=3, tolerance=1)
        total = look.decode(np.sum([v for _, v in network.hub.vectors[3:]], axis=0, dtype=np.uint64))
        assert total[-1] / 0.5 == pytest.approx(120, abs=6 * 2 * look.standard_deviation(contributors=3))
        for hospital in network.all:
            spent = hospital.ledger.spent("tests", delta=1e-5)
            assert spent.events == 2
            assert 0.99 < spent.epsilon <= 1.0
            assert hospital.trainer.looks_taken(plan.plan_hash()) == 1
            (line,) = LocalFigures(hospital.home / "looks").lines(plan)
            assert line["here"]["patients"] > 0


# ---- plans and walks ----


def test_a_plan_survives_its_own_form_and_the_defaults_are_part_of_it() -> None:
    for plan in (study(), study(linear=True), study(row_norm=1.0)):
        assert Study.from_json(plan.to_json()) == plan
    assert study().plan_hash() == study(row_norm=1.528).plan_hash() != study(row_norm=1.0).plan_hash()
    assert study().training.steps == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"privacy": study_form()["privacy"]}, "privacy.clip_norm"),
        ({"training": {"mode": "one-shot", "rounds": 2}}, "training.rounds"),
        (
            {
                "training": study_form()["training"],
                "one_shot": {},
            },
            "one_shot",
        ),
        ({"one_shot": {"row_norm": 0.0}}, "one_shot.row_norm"),
        ({"one_shot": {"noise": 1.0}}, "one_shot.noise"),
        ({"study": {"name": "a", "project": "b", "model": "mlp", "hidden": [4]}}, "study.model"),
        ({"study": {"name": "a", "project": "b", "model": "logistic", "local": "intercept"}}, "study.local"),
        ({"validation": LOOKS | {"patience": 1}, "training": PART}, "validation.patience"),
        ({"validation": LOOKS | {"every": 2}}, "validation.every"),
        ({"validation": LOOKS, "training": {"mode": "one-shot"}}, "validation.fraction"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(form() | change)
    assert refused.value.path == path


def test_a_walk_is_over_after_one_sum_and_takes_only_sums() -> None:
    plan = study()
    walk = walks.begin(plan, descent.initial(plan))
    length = walks.vector_length(plan)
    for wrong in (np.zeros(length + 1), np.full(length, np.nan)):
        with pytest.raises(NotFinite):
            walk.apply(wrong)
    walk.apply(np.zeros(length))
    with pytest.raises(ValueError, match="one sum"):
        walk.apply(np.zeros(length))
