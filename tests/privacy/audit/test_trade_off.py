"""Errors in many runs, tested at once: true curves are rarely ruled out, and false ones are."""

import math

import numpy as np
import pytest
from scipy import stats

from privacy.accountant import SampledGaussianEvent, calibrate, epsilon
from privacy.audit import bounds
from privacy.audit.trade_off import Seen, gaussian, of_deltas, ruled_out
from privacy.sampled_gaussian import pld

DELTA = 1e-5


def errors_of_the_best(mu: float, threshold: float) -> tuple[float, float]:
    """False alarms and misses of the likelihood ratio of N(mu, 1) to N(0, 1) at a threshold."""
    at = threshold / mu + mu / 2.0
    return float(stats.norm.sf(at)), float(stats.norm.cdf(at - mu))


@pytest.mark.parametrize("threshold", [-0.7, 0.0, 1.0])
def test_a_true_curve_is_ruled_out_as_rarely_as_the_confidence_says_and_hardly_more_rarely(
    threshold: float,
) -> None:
    rng, mu, runs, audits = np.random.default_rng(1), 1.3, 200, 400
    alarm, miss = errors_of_the_best(mu, threshold)

    def drawn() -> Seen:
        return Seen(runs, int(rng.binomial(runs, alarm)), int(rng.binomial(runs, miss)), math.exp(threshold))

    wrong = np.mean([ruled_out(drawn(), gaussian(mu), confidence=0.9) for _ in range(audits)])
    assert 0.04 < wrong < 0.145  # a tenth and three standard deviations; counts are whole, so it is below
    assert np.mean([ruled_out(drawn(), gaussian(0.7 * mu), confidence=0.9) for _ in range(40)]) > 0.6


def test_the_largest_chance_of_luck_is_no_smaller_than_that_of_any_attacker() -> None:
    """Held against the sum over all pairs of counts, for attackers at many places of a curve."""
    seen, mu = Seen(40, 7, 9, 1.7), 1.0
    counts = np.arange(41)
    cheap = counts[None, :] + 1.7 * counts[:, None] <= 9 + 1.7 * 7 + 1e-9

    def luck(alarm: float) -> float:
        miss = float(gaussian(mu)(np.array([alarm]))[0])
        both = np.outer(stats.binom.pmf(counts, 40, alarm), stats.binom.pmf(counts, 40, miss))
        return float(both[cheap].sum())

    most = max(luck(alarm) for alarm in np.linspace(0.001, 0.999, 999))
    assert ruled_out(seen, gaussian(mu), confidence=1.0 - 1.02 * most)
    assert not ruled_out(seen, gaussian(mu), confidence=1.0 - most)


def test_curves_of_deltas_are_those_of_the_mechanism() -> None:
    alarms, at = np.linspace(0.0, 1.0, 201), np.linspace(0.0, 12.0, 400)
    losses = pld(1.0, 1.0, 1, 2.0**-10)
    curve = of_deltas(at, np.array([losses.get_delta_for_epsilon(float(one)) for one in at]))
    assert curve(alarms) == pytest.approx(gaussian(1.0)(alarms), abs=2e-3)
    assert (curve(alarms) <= gaussian(1.0)(alarms) + 1e-9).all(), "never understates what can be told"
    assert gaussian(1.0)(np.array([0.0, 1.0])) == pytest.approx([1.0, 0.0])


def test_a_bound_of_any_mechanism_holds_for_randomized_response_and_comes_close_to_it() -> None:
    rng, runs, truth = np.random.default_rng(7), 2000, 2.0
    wrong = 1.0 / (1.0 + math.exp(truth))

    def drawn() -> Seen:
        return Seen(runs, int(rng.binomial(runs, wrong)), int(rng.binomial(runs, wrong)), 1.0)

    def refuted(seen: Seen, at: float) -> bool:
        return ruled_out(seen, of_deltas(np.array([at]), np.zeros(1)), confidence=0.95)

    assert np.mean([refuted(drawn(), truth) for _ in range(60)]) < 0.15  # 5 %, three standard deviations
    assert np.mean([refuted(drawn(), 0.9 * truth) for _ in range(20)]) > 0.5
    seen = drawn()
    shown = bounds.epsilon(seen, delta=0.0, confidence=0.95)
    assert refuted(seen, shown)
    assert not refuted(seen, 1.02 * shown)


def test_samples_are_told_apart_best_by_rare_alarms_and_the_price_is_what_makes_them_count() -> None:
    """Errors as the exact ratio makes them in releases of samples: more shows where alarms are dear."""
    z = calibrate(epsilon=8.0, delta=DELTA, count=1, sampling_rate=0.2)
    assert epsilon([SampledGaussianEvent(z, 0.2, 1)], delta=DELTA) == pytest.approx(8.0, rel=0.01)

    def shown(threshold: float) -> bool:
        at = z * z * math.log((math.exp(threshold) - 0.8) / 0.2) + 0.5
        alarm, miss = stats.norm.sf(at / z), 0.8 * stats.norm.cdf(at / z) + 0.2 * stats.norm.cdf((at - 1) / z)
        seen = Seen(2000, round(2000 * alarm), round(2000 * miss), math.exp(threshold))
        epsilons = np.linspace(0.0, 12.0, 97)
        losses = pld(1.3 * z, 0.2, 1, 2.0**-8)
        deltas = np.array([losses.get_delta_for_epsilon(float(one)) for one in epsilons])
        return ruled_out(seen, of_deltas(epsilons, deltas), confidence=0.95)

    assert shown(0.7)
    assert not shown(0.0)


@pytest.mark.parametrize("seen", [Seen(20, 20, 20, 1.0), Seen(20, 12, 10, 3.0), Seen(20, 20, 0, 9.0)])
def test_errors_dearer_than_a_coins_rule_nothing_out(seen: Seen) -> None:
    assert not ruled_out(seen, gaussian(0.01), confidence=0.6)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="errors"):
        Seen(10, 11, 0, 1.0)
    with pytest.raises(ValueError, match="price"):
        Seen(10, 1, 1, 0.0)
    with pytest.raises(ValueError, match="ten runs"):
        Seen.of(np.zeros(9), np.zeros(9), threshold=0.0)
    with pytest.raises(ValueError, match="as many"):
        Seen.of(np.zeros(19), np.zeros(20), threshold=0.0)
    with pytest.raises(ValueError, match="confidence"):
        ruled_out(Seen(10, 1, 1, 1.0), gaussian(1.0), confidence=1.0)
