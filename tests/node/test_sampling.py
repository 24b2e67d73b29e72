"""Samples are secret coins: at the right rate, one a patient, thrown anew, and they never leave."""

import math

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training import sampling
from node.training.contributions import contribution
from node.training.gradient import sum_of_clipped_grads
from node.training.local_sgd import Site
from privacy import descent, study_noise, walks
from privacy.accountant import SampledGaussianEvent, calibrate, epsilon
from privacy.descent import Descent
from privacy.rng import SecureBits
from protocols.study import Study
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form(training__sampling_rate=0.3))


def table(patients: int) -> FeatureTable:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (patients, 6)).astype(np.float32)
    y = (rng.random(patients) < 0.5).astype(np.float32)
    return FeatureTable(np.arange(patients) + 1, x, np.ones(x.shape, bool), y)


def z_score(count: int, *, of: int, rate: float) -> float:
    return (count - of * rate) / math.sqrt(of * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.03])
def test_each_patient_is_drawn_at_the_rate_and_a_wrong_rate_is_seen(rate: float) -> None:
    draws = 400_000
    count = int(sampling.coins(draws, rate=rate, bits=SeededBits(1)).sum())
    assert abs(z_score(count, of=draws, rate=rate)) < 4.0
    for wrong in (0.93 * rate, 1.07 * rate):
        other = int(sampling.coins(draws, rate=wrong, bits=SeededBits(1)).sum())
        assert abs(z_score(other, of=draws, rate=rate)) > 4.0


def test_the_size_of_a_sample_varies_as_that_of_coins_does_not_as_that_of_a_fixed_batch() -> None:
    sizes = [len(sampling.drawn(table(200), rate=0.3, bits=SeededBits(n))) for n in range(300)]
    assert np.var(sizes) == pytest.approx(200 * 0.3 * 0.7, rel=0.35)  # 300 draws: 8 % standard error
    assert np.mean(sizes) == pytest.approx(60, abs=4 * math.sqrt(42 / 300))


def test_coins_of_two_patients_and_of_two_steps_have_nothing_to_do_with_each_other() -> None:
    bits = SeededBits(11)
    steps = np.array([sampling.coins(3000, rate=0.5, bits=bits) for _ in range(12)], dtype=float)
    correlations = np.corrcoef(steps)[np.triu_indices(12, 1)]
    assert np.abs(correlations).max() < 5.0 / math.sqrt(3000)
    assert abs(np.corrcoef(steps[:, :-1].ravel(), steps[:, 1:].ravel())[0, 1]) < 5.0 / math.sqrt(36_000)
    kept = np.array([sampling.coins(3000, rate=0.5, bits=SeededBits(7)) for _ in range(2)], dtype=float)
    assert np.corrcoef(kept)[0, 1] == pytest.approx(1.0), "coins that are used twice would be seen"


def test_nobody_is_drawn_twice_in_a_step_and_nobody_who_is_not_there() -> None:
    whole = table(500)
    for _ in range(20):
        sample = sampling.drawn(whole, rate=0.7, bits=SecureBits())
        assert len(np.unique(sample.person_ids)) == len(sample) < len(whole)
        assert np.isin(sample.person_ids, whole.person_ids).all()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_chance_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        sampling.drawn(table(3), rate=rate, bits=SecureBits())


def test_a_rate_of_one_takes_everybody_and_throws_no_coin() -> None:
    bits = SeededBits(1)
    assert sampling.drawn(table(5), rate=1.0, bits=bits) is not None
    assert bits._calls == 0


def test_a_contribution_is_the_sum_over_the_sample_and_nothing_of_the_sample_besides() -> None:
    start, whole = descent.initial(STUDY), table(80)
    walk = walks.begin(STUDY, walks.initial(STUDY))
    found = contribution(STUDY, walk, whole, site=Site(SeededBits(4)))
    sample = sampling.drawn(whole, rate=0.3, bits=SeededBits(4))
    assert 0 < len(sample) < 80
    assert np.array_equal(found.shared, sum_of_clipped_grads(STUDY, start, sample))
    assert found.shared.shape == (STUDY.parameters,), "no count, no ids"
    again = contribution(STUDY, walk, whole, site=Site(SecureBits()))
    assert not np.array_equal(found.shared, again.shared), "drawn anew at each try"


def test_a_step_is_scaled_by_the_patients_that_are_expected_in_a_sample() -> None:
    start, total = descent.initial(STUDY), np.ones(STUDY.parameters)
    sampled, whole = Descent(STUDY, start), Descent(Study.from_json(study_form()), start)
    assert np.allclose(sampled.apply(total) - start, (whole.apply(total) - start) / 0.3)


@pytest.mark.parametrize("sites", [1, 2, 3])
def test_the_noise_of_a_sampled_plan_makes_its_claim_true_and_no_less_would(sites: int) -> None:
    """σ over √sites is what one site's release counts with; forgetting that is seen."""
    study = Study.from_json(
        study_form(training__sampling_rate=0.3, privacy__max_sites_per_patient=sites, training__rounds=5)
    )
    plan = study_noise.noise_plan(study, participants=3, tolerance=0)
    steps = study.training.steps
    one = plan.sigma / study.privacy.clip_norm / math.sqrt(sites)
    event = study_noise.event(study, steps=steps)
    assert isinstance(event, SampledGaussianEvent)
    assert (event.sampling_rate, event.count) == (0.3, steps * sites)
    assert event.noise_multiplier == pytest.approx(one, rel=1e-9)
    assert 0.99 < epsilon([event], delta=1e-5) <= 1.0
    assert one < calibrate(epsilon=1.0, delta=1e-5, count=steps * sites), "samples spare noise"
    if sites > 1:
        forgotten = SampledGaussianEvent(plan.sigma / study.privacy.sensitivity, 0.3, steps * sites)
        assert epsilon([forgotten], delta=1e-5) > 1.0
