"""A clip norm that adapts: one patient's share of a sum stays bounded, and the norm finds its quantile."""

import math

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training.contributions import contribution
from node.training.gradient import clipped_sums, gradient_norms
from node.training.local_sgd import Site
from privacy import adaptive_descent, descent, study_noise, walks
from privacy.adaptive_descent import AdaptiveDescent
from privacy.descent import Descent, NotFinite
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from sim.privacy_audit import made_up
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form

CLIPPING = {"quantile": 0.5, "learning_rate": 0.5, "share": 0.1}


def plan(**changes: object) -> Study:
    return Study.from_json(study_form(**{"clipping": CLIPPING} | changes))


def table(study: Study, patients: int = 200) -> FeatureTable:
    [found] = made_up(study, sites=1, patients=patients, generator=np.random.default_rng(1))
    return found


def vector(study: Study, walk: AdaptiveDescent, rows: FeatureTable) -> np.ndarray:
    return contribution(study, walk, rows, site=Site(SecureBits())).shared


@pytest.mark.parametrize("clip_norm", [0.05, 0.4, 3.0])
def test_one_patient_moves_gradients_and_count_together_by_no_more_than_the_plans_norm(
    clip_norm: float,
) -> None:
    study = plan(privacy__clip_norm=0.7)
    walk = AdaptiveDescent(study, descent.initial(study))
    walk.clip_norm = clip_norm
    rows = table(study, 30)
    whole = vector(study, walk, rows)
    moved = []
    for left_out in range(30):
        others = rows.rows(np.arange(30) != left_out)
        moved.append(float(np.linalg.norm(whole - vector(study, walk, others))))
    assert max(moved) <= 0.7
    norms = gradient_norms(study, walk.params, rows)
    if norms.max() >= clip_norm:
        assert max(moved) > 0.7 * (1.0 - 1e-6), "and all of it is used"


def test_a_plan_that_adapts_has_the_noise_and_the_price_of_one_that_does_not() -> None:
    plain, adapting = Study.from_json(study_form()), plan()
    assert study_noise.event(adapting, steps=6) == study_noise.event(plain, steps=6)
    sigmas = {study_noise.noise_plan(s, participants=3, tolerance=1).sigma for s in (plain, adapting)}
    assert len(sigmas) == 1
    assert study_noise.noise_plan(adapting, participants=3, tolerance=1).dimension == plain.parameters + 1


def test_without_adapting_yet_a_step_is_the_plain_one_less_what_counting_takes() -> None:
    study = plan()
    start, rows = descent.initial(study), table(study)
    walk = AdaptiveDescent(study, start)
    plain = Descent(study, start)
    plain.apply(clipped_sums(study, start, rows).shared)
    walk.apply(vector(study, walk, rows))
    assert np.allclose(walk.params, plain.params, atol=1e-8)


@pytest.mark.parametrize("quantile", [0.2, 0.8])
@pytest.mark.parametrize("start", [0.02, 20.0])
def test_the_norm_finds_the_quantile_from_below_and_from_above(quantile: float, start: float) -> None:
    study = plan(
        clipping=CLIPPING | {"quantile": quantile},
        privacy__clip_norm=start,
        training__steps_per_round=60,
        training__learning_rate=1e-6,
    )
    rows = table(study)
    walk = AdaptiveDescent(study, np.linspace(-1, 1, study.parameters))
    while not walk.finished:
        walk.apply(vector(study, walk, rows))
    norms = gradient_norms(study, walk.params, rows)
    assert float(np.mean(norms <= walk.clip_norm)) == pytest.approx(quantile, abs=0.12)


def test_the_walk_is_the_same_bit_for_bit_and_its_exponential_is_right() -> None:
    study = plan()
    totals = [np.random.default_rng(n).normal(0, 9, study.parameters + 1) for n in range(3)]
    first, second = (AdaptiveDescent(study, descent.initial(study)) for _ in range(2))
    for total in totals:
        assert np.array_equal(first.apply(total), second.apply(total))
        assert first.clip_norm == second.clip_norm
    for x in (-1.0, -0.3, 0.0, 0.7, 1.0):
        assert adaptive_descent._exp(x) == pytest.approx(math.exp(x), rel=1e-14)


def test_noise_in_the_count_moves_the_norm_by_no_more_than_a_step_and_never_out_of_its_range() -> None:
    study = plan(training__steps_per_round=100)
    walk = AdaptiveDescent(study, descent.initial(study))
    for _ in range(100):
        before = walk.clip_norm
        walk.apply(np.append(np.zeros(study.parameters), -1e9))
        assert walk.clip_norm <= before * math.exp(0.5)
    assert walk.clip_norm == adaptive_descent.FARTHEST * study.privacy.clip_norm


@pytest.mark.parametrize("total", [np.zeros(7), np.full(8, np.nan), np.append(np.zeros(7), np.inf)])
def test_a_total_that_is_none_is_refused(total: np.ndarray) -> None:
    study = plan()
    with pytest.raises(NotFinite):
        walks.begin(study, walks.initial(study)).apply(total)


def test_a_private_run_with_samples_and_adapting_norms_learns() -> None:
    from fedtwin.yardsticks import metrics
    from node.training import models

    rng = np.random.default_rng(4)

    def site(patients: int) -> FeatureTable:
        x = rng.uniform(-1, 1, (patients, 6)).astype(np.float32)
        y = (rng.random(patients) < 1 / (1 + np.exp(-4.0 * (x[:, 0] - x[:, 1])))).astype(np.float32)
        return FeatureTable(np.arange(patients) + 1, x, np.ones(x.shape, bool), y)

    study = plan(
        privacy__epsilon=4.0, privacy__clip_norm=5.0, training__sampling_rate=0.5,
        training__steps_per_round=10, training__expected_patients=900,
    )  # fmt: skip
    run = federate(study, [site(300) for _ in range(3)], noise=Noise.SHARES, bits=SeededBits(1))
    assert 3.95 < run.epsilon <= 4.0
    unseen = site(2000)
    assert metrics(models.logits(study, run.params, unseen.x), unseen.y)[1] > 0.7
