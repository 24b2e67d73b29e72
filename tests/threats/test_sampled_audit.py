"""Someone tries to show that samples, local training or adapting clip norms leak more than they claim."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import contributions, local_sgd, sampling
from node.training.local_sgd import LatticeOptimizer
from privacy import study_releases
from privacy.accountant import SampledGaussianEvent, epsilon
from privacy.audit.trade_off import Seen
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from protocols.study import Study
from sim.attacked_run import Totals
from sim.canary_attack import log_ratio
from sim.one_run_audit import OneRun, audit_in_one_run
from sim.privacy_audit import Audit, audit, lower_bound, noisy_total
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form
from tests.threats.faulty_noise import weaken_local_noise
from tests.threats.test_training_audit import clipped_twice_as_long, one_share_missing

Vector = NDArray[np.float64]
FEATURES = [
    {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
    for i in range(12)
]


def plan(mode: str, *, claim: float, rate: float = 0.3, sites: int = 1, own: str = "none") -> Study:
    form = study_form(
        features=FEATURES,
        study__local=own,
        privacy__epsilon=claim,
        privacy__max_sites_per_patient=sites,
        training__rounds=1,
        training__steps_per_round=2,
    )
    if mode == "local":
        form["training"]["mode"] = "local"
        form["local"] = {"local_steps": 2, "sampling_rate": rate, "update_clip": 1.0}
    else:
        form["training"]["sampling_rate"] = rate
    if mode == "adapting":
        form["clipping"] = {"quantile": 0.5}
    return Study.from_json(form)


def attacked(study: Study, *, runs: int, totals: Totals = noisy_total, seed: int = 6) -> Audit:
    return audit(
        study,
        runs=runs,
        sites=3,
        confidence=0.95,
        bits=SeededBits(seed),
        generator=np.random.default_rng(seed),
        totals=totals,
    )


# ---- what is right stands, and the canary costs all that is claimed ----


@pytest.mark.parametrize(
    ("mode", "sites"),
    [
        ("sampled", 1),
        ("local", 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("sampled", 2), ("adapting", 1), ("local", 2))
        ),
    ],
)
def test_the_claim_stands_and_the_attack_has_power(mode: str, sites: int) -> None:
    found = attacked(plan(mode, claim=8.0, rate=0.6, sites=sites), runs=80)
    assert not found.refuted
    assert found.attainable == pytest.approx(8.0, rel=0.01)
    assert found.gaussian > 2.0


@pytest.mark.slow
@pytest.mark.parametrize("claim", [1.0, 8.0])
@pytest.mark.parametrize("mode", ["sampled", "adapting", "local"])
def test_the_claim_stands_over_many_runs(mode: str, claim: float) -> None:
    found = attacked(plan(mode, claim=claim, rate=0.5), runs=2000 if claim == 8.0 else 600)
    assert not found.refuted
    assert found.gaussian >= 5.5 if claim == 8.0 else True


# ---- planted faults ----


def half_the_noise(plan_: NoisePlan, sums: Sequence[Vector], bits: SecureBits) -> Vector:
    total = np.sum(sums, axis=0)
    return np.asarray(total + 0.5 * (noisy_total(plan_, sums, bits) - total))


@pytest.mark.parametrize("mode", ["sampled", pytest.param("adapting", marks=pytest.mark.slow)])
def test_half_the_noise_of_a_sum_over_samples_is_found(mode: str) -> None:
    assert attacked(plan(mode, claim=3.0, rate=0.9), runs=200, totals=half_the_noise).refuted


@pytest.mark.parametrize("mode", ["sampled", pytest.param("local", marks=pytest.mark.slow)])
def test_samples_that_are_reported_but_not_drawn_are_found(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everybody(table: FeatureTable, *, rate: float, bits: SecureBits) -> FeatureTable:
        return table

    study = plan(mode, claim=1.0, rate=0.1)
    monkeypatch.setattr(sampling, "drawn", everybody)
    assert attacked(study, runs=100).refuted


@pytest.mark.parametrize(
    ("share", "runs"),
    [(0.0, 60), pytest.param(0.5, 150, marks=pytest.mark.slow)],
    ids=["none", "half"],
)
def test_local_noise_that_is_too_small_or_missing_is_found(
    share: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken_local_noise(monkeypatch, share=share)
    assert attacked(plan("local", claim=3.0, rate=0.9), runs=runs).refuted


@pytest.mark.parametrize("mode", ["sampled", pytest.param("local", marks=pytest.mark.slow)])
def test_a_clip_norm_twice_as_large_as_claimed_is_found(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = contributions if mode == "sampled" else local_sgd
    monkeypatch.setattr(where, "clipped_sums", clipped_twice_as_long)
    assert attacked(plan(mode, claim=3.0, rate=0.9), runs=250).refuted


@pytest.mark.slow
def test_a_missing_share_of_noise_is_found() -> None:
    assert attacked(plan("sampled", claim=8.0, rate=0.9), runs=400, totals=one_share_missing).refuted


@pytest.mark.slow
def test_a_part_that_stays_at_its_site_costs_nothing_besides() -> None:
    """Here the attacker sees the own part's noisy gradients too, which never leave a hospital."""
    found = attacked(plan("local", claim=8.0, rate=0.6, own="head"), runs=80)
    assert not found.refuted
    assert found.attainable == pytest.approx(8.0, rel=0.01)
    assert found.gaussian > 2.0, "the attack has power"


# ---- the attack's own arithmetic ----


@pytest.mark.parametrize(("rate", "sites"), [(0.3, 1), (0.3, 3), (1.0, 2)])
def test_the_score_is_the_ratio_of_the_densities(rate: float, sites: int) -> None:
    v, sigma, x = 1.7, 2.3, np.linspace(-5, 9, 57)
    density = np.zeros_like(x)
    for k in range(sites + 1):
        from math import comb

        chance = comb(sites, k) * rate**k * (1 - rate) ** (sites - k)
        density += chance * np.exp(-((x - k * v) ** 2) / (2 * sigma**2))
    expected = np.log(density / np.exp(-(x**2) / (2 * sigma**2)))
    assert np.allclose(log_ratio(x * v / sigma**2, (v / sigma) ** 2, rate=rate, sites=sites), expected)


def test_the_bound_is_below_the_truth_for_errors_that_the_truth_allows_and_above_for_others() -> None:
    study = plan("sampled", claim=2.0, rate=0.6)
    event = SampledGaussianEvent(study_releases.noise_multiplier(study), 0.6, 2)
    assert epsilon([event], delta=1e-5) == pytest.approx(2.0, rel=0.01)
    rng, runs = np.random.default_rng(1), 400_000
    square, scores = event.noise_multiplier**-2, np.zeros((2, runs))
    for _ in range(2):
        for inside in (0, 1):
            drawn = rng.binomial(1, 0.6, runs) * inside
            told = drawn * square + square**0.5 * rng.normal(size=runs)
            scores[inside] += log_ratio(told, square, rate=0.6, sites=1)
    every = runs // 4000  # errors as expected of 4,000 runs
    true = Seen.of(scores[1], scores[0], threshold=0.3)
    true = Seen(4000, true.false_alarms // every, true.misses // every, true.price)
    assert 1.5 < lower_bound(study, true, confidence=0.95) < 2.0
    better = Seen(4000, true.false_alarms // 3, true.misses // 3, true.price)
    assert lower_bound(study, better, confidence=0.95) > 3.0
    assert lower_bound(study, Seen(4000, 2400, 2000, 1.0), confidence=0.95) == 0.0


# ---- one run with many canaries ----


def in_one_run(mode: str, *, claim: float, own: str = "none", canaries: int = 200) -> OneRun:
    form = plan(mode, claim=claim, rate=0.5, own=own).to_json()
    form["features"] = [
        {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
        for i in range(400)
    ]
    return audit_in_one_run(
        Study.from_json(form),
        canaries=canaries,
        sites=3,
        confidence=0.95,
        bits=SeededBits(3),
        generator=np.random.default_rng(3),
    )


@pytest.mark.parametrize("mode", ["sampled", "adapting", "local"])
def test_one_run_shows_less_than_is_claimed_and_more_than_nothing(mode: str) -> None:
    found = in_one_run(mode, claim=8.0)
    assert not found.refuted
    assert 0.2 < found.bound < 8.0


def test_one_run_of_a_plan_with_own_parts_shows_no_more_than_is_claimed() -> None:
    assert not in_one_run("local", claim=3.0, own="intercept", canaries=100).refuted


def test_missing_noise_at_hospitals_is_found_by_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LatticeOptimizer.add_noise

    def wrong(self: LatticeOptimizer) -> None:
        right(self)
        [params] = self.params
        self.noisy_sum = params.summed_grad.numpy().copy()
        params.grad.copy_(params.summed_grad)

    monkeypatch.setattr(LatticeOptimizer, "add_noise", wrong)
    assert in_one_run("local", claim=1.0).refuted
