"""Releases of secret samples: the charge against closed forms and other code, and what would be wrong."""

import math
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from dp_accounting.pld import privacy_loss_distribution as plds
from opacus.accountants import PRVAccountant, RDPAccountant

from privacy import mixture, sampled_gaussian
from privacy.accountant import (
    SAMPLED_GRID,
    Event,
    GaussianEvent,
    PureEvent,
    SampledGaussianEvent,
    UnknownEvent,
    calibrate,
    epsilon,
    event_from_json,
    fold,
    largest_further_epsilon,
)
from privacy.budget import Account, Caps, Sum
from privacy.ledger import Ledger
from protocols.clock import FixedClock

Phi = NormalDist().cdf
RUNS = [
    (1.0, 0.01, 1000),
    (2.0, 0.1, 20),
    (0.8, 0.05, 1),
    *(
        pytest.param(*run, marks=pytest.mark.slow)
        for run in ((4.0, 0.2, 100), (0.7, 0.001, 5000), (20.0, 0.5, 1000))
    ),
]


def one_release(epsilon_: float, noise_multiplier: float, rate: float) -> float:
    """δ(ε) of one release, the larger of both directions, where the densities' ratio crosses e^ε."""
    z = noise_multiplier

    def crossing(ratio: float) -> float:  # x at which (1 − q) + q·e^((2x−1)/2z²) = ratio
        return 0.5 + z * z * math.log((ratio - 1.0 + rate) / rate) if ratio > 1.0 - rate else -math.inf

    at = crossing(math.exp(epsilon_))
    added = (1.0 - rate) * Phi(-at / z) + rate * Phi((1.0 - at) / z) - math.exp(epsilon_) * Phi(-at / z)
    at = crossing(math.exp(-epsilon_))
    if at == -math.inf:
        return added
    mixed = (1.0 - rate) * Phi(at / z) + rate * Phi((at - 1.0) / z)
    return max(added, Phi(at / z) - math.exp(epsilon_) * mixed)


def least(delta_at, delta: float) -> float:
    low, high = 0.0, 80.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_at(middle) <= delta else (middle, high)
    return high


@pytest.mark.parametrize("delta", [1e-5, 1e-7])
@pytest.mark.parametrize(("z", "rate"), [(1.0, 0.1), (0.8, 0.05), (2.0, 0.5), (0.5, 0.01), (5.0, 0.9)])
def test_one_release_costs_its_closed_form(z: float, rate: float, delta: float) -> None:
    exact = least(lambda e: one_release(e, z, rate), delta)
    charged = epsilon([SampledGaussianEvent(z, rate)], delta=delta)
    assert exact * (1 - 1e-9) <= charged <= exact * 1.002 + 1e-6
    assert epsilon([SampledGaussianEvent(z * 1.05, rate)], delta=delta) < exact, "a little more noise is seen"
    assert epsilon([SampledGaussianEvent(z, rate * 0.9)], delta=delta) < exact, "and a smaller rate"


@pytest.mark.parametrize(("z", "rate", "count"), RUNS)
def test_a_run_costs_what_opacus_finds_by_convolution_and_less_than_by_renyi(
    z: float, rate: float, count: int
) -> None:
    """Opacus' PRV accountant is other code for the same distribution, and says how far it may be off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prv, renyi = PRVAccountant(), RDPAccountant()
        prv.history = renyi.history = [(z, rate, count)]
        tight = prv.get_epsilon(1e-5, eps_error=0.005, delta_error=1e-9)  # its upper bound
        loose = renyi.get_epsilon(1e-5)
    charged = epsilon([SampledGaussianEvent(z, rate, count)], delta=1e-5)
    print(f"charged {charged:.4f}, Opacus PRV {tight:.4f}, RDP {loose:.4f}")
    assert tight - 2 * 0.005 - 1e-3 <= charged <= tight + 1e-3
    assert charged < loose
    fewer = epsilon([SampledGaussianEvent(z * 1.1, rate, count)], delta=1e-5)
    assert fewer < tight - 2 * 0.005 - 1e-3, "a tenth more noise would not pass"


@pytest.mark.parametrize(("z", "rate", "count"), RUNS)
def test_each_bound_holds_and_the_smallest_is_charged(z: float, rate: float, count: int) -> None:
    total, delta = fold([SampledGaussianEvent(z, rate, count)]), 1e-5
    accountant = pld.PLDAccountant(value_discretization_interval=1e-4)
    sampled = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(z))
    accountant.compose(sampled, count)
    fine = accountant.get_epsilon(delta)
    basic, renyi, grid = (bound(total, delta) for bound in (mixture._basic, mixture._rdp, mixture._pld))
    print(f"basic {basic:.4f}, RDP {renyi:.4f}, PLD {grid:.4f} (finer {fine:.4f})")
    assert min(basic, renyi) >= fine * 0.999
    assert grid == pytest.approx(fine, rel=2e-3)
    assert total.epsilon(delta=delta) == pytest.approx(min(basic, renyi, grid), rel=2e-3)


def test_renyi_divergences_are_those_of_dp_accounting_and_never_too_small_between_whole_orders() -> None:
    from dp_accounting.rdp import rdp_privacy_accountant

    theirs = rdp_privacy_accountant._compute_rdp_poisson_subsampled_gaussian
    for z, rate in ((1.0, 0.01), (4.0, 0.2), (0.6, 0.5)):
        whole = np.array([2.0, 3.0, 8.0, 64.0])
        assert sampled_gaussian.rdp(z, rate, whole) == pytest.approx(theirs(rate, z, whole), rel=1e-6)
        between = np.array([1.5, 2.5, 7.3, 20.5])
        bounds, exact = sampled_gaussian.rdp(z, rate, between), by_quadrature(z, rate, between)
        assert (bounds >= exact * (1 - 1e-9)).all()
        assert (sampled_gaussian.rdp(z * 1.3, rate, between) < exact).all(), "a wrong multiplier is seen"


def by_quadrature(z: float, rate: float, orders: np.ndarray) -> np.ndarray:
    x = np.linspace(-12 * z, 12 * z + 30, 400_001)
    log_density = -(x**2) / (2 * z * z) - math.log(z * math.sqrt(2 * math.pi))
    ratio = np.log1p(rate * np.expm1((2 * x - 1) / (2 * z * z)))
    moments = [np.sum(np.exp(log_density + order * ratio)) * (x[1] - x[0]) for order in orders]
    return np.log(moments) / (orders - 1.0)


@pytest.mark.parametrize("count", [1, 40])
def test_a_sample_of_everybody_is_the_gaussian_exactly(count: int) -> None:
    assert epsilon([SampledGaussianEvent(3.0, 1.0, count)], delta=1e-6) == epsilon(
        [GaussianEvent(3.0, count)], delta=1e-6
    )
    nearly = epsilon([SampledGaussianEvent(3.0, 1.0 - 1e-9, count)], delta=1e-6)
    assert nearly == pytest.approx(epsilon([GaussianEvent(3.0, count)], delta=1e-6), rel=2e-3)
    assert calibrate(epsilon=1.0, delta=1e-6, count=count, sampling_rate=1.0) == calibrate(
        epsilon=1.0, delta=1e-6, count=count
    )


@pytest.mark.parametrize(
    ("sites", "z", "rate", "steps"),
    [
        (2, 1.0, 0.05, 200),
        (3, 2.0, 0.3, 50),
        *(
            pytest.param(sites, *rest, marks=pytest.mark.slow)
            for sites in (2, 5)
            for rest in ((1.0, 0.05, 200), (2.0, 0.3, 50), (0.8, 0.5, 5), (1.0, 0.9, 5))
        ),
    ],
)
def test_a_patient_of_several_sites_is_never_charged_too_little(
    sites: int, z: float, rate: float, steps: int
) -> None:
    """Their coins are independent: the total shifts by k of m parts, k binomial; a mixture of Gaussians."""
    sigma = z * sites  # of vectors with norm 1 a site
    drawn = [math.comb(sites, k) * rate**k * (1 - rate) ** (sites - k) for k in range(sites + 1)]
    exact = plds.from_mixture_gaussian_mechanism(
        sigma, sensitivities=list(range(sites + 1)), sampling_probs=drawn, value_discretization_interval=2e-3
    )
    truth = exact.self_compose(steps).get_epsilon_for_delta(1e-5)
    charged = epsilon([SampledGaussianEvent(sigma / math.sqrt(sites), rate, sites * steps)], delta=1e-5)
    as_one_site = epsilon([SampledGaussianEvent(sigma, rate, steps)], delta=1e-5)
    print(f"m = {sites}: charged {charged:.4f}, mixture {truth:.4f}, as if at one site {as_one_site:.4f}")
    assert truth * 0.995 <= charged <= truth * 1.1
    assert as_one_site < 0.9 * truth, "forgetting the other sites would be seen"


HISTORIES: list[list[Event]] = [
    [SampledGaussianEvent(1.0, 0.01, 500), GaussianEvent(8.0, 2)],
    [SampledGaussianEvent(2.0, 0.1, 50), SampledGaussianEvent(4.0, 0.25, 100), PureEvent(0.1, 5)],
    [GaussianEvent(30.0, 20), SampledGaussianEvent(3.0, 0.5, 10), PureEvent(0.3)],
]


@pytest.mark.parametrize("events", HISTORIES)
def test_a_mixture_costs_no_less_than_on_a_fine_grid_and_more_with_each_release(events: list[Event]) -> None:
    fine = plds.identity(2.0**-13)
    for event in events:
        match event:
            case SampledGaussianEvent(z, rate, count):
                one = plds.from_gaussian_mechanism(
                    z, value_discretization_interval=2.0**-13, sampling_prob=rate
                )
            case GaussianEvent(z, count):
                one = plds.from_gaussian_mechanism(z, value_discretization_interval=2.0**-13)
            case PureEvent(e, count):
                one = plds.from_randomized_response(
                    2 / (1 + math.exp(e)), 2, value_discretization_interval=2.0**-13
                )
        fine = fine.compose(one.self_compose(count))
    truth = fine.get_epsilon_for_delta(1e-6)
    charged = epsilon(events, delta=1e-6)
    assert truth * 0.9995 <= charged <= truth * 1.01
    assert epsilon(reversed(events), delta=1e-6) == charged
    for at, event in enumerate(events):
        without = [*events[:at], *events[at + 1 :]]
        assert epsilon(without, delta=1e-6) < charged
        assert epsilon([*events, event], delta=1e-6) > charged
    for cap in (charged * 0.999, charged * 1.001):
        assert fold(events).within(cap, delta=1e-6) == (charged <= cap)


@pytest.mark.parametrize(
    ("target", "rate", "count"), [(1.0, 0.05, 200), (8.0, 0.2, 20), (0.1, 0.01, 1000), (3.0, 0.5, 1)]
)
def test_calibrated_noise_costs_what_was_asked_and_no_smaller_noise_does(
    target: float, rate: float, count: int
) -> None:
    z = calibrate(epsilon=target, delta=1e-5, count=count, sampling_rate=rate)
    assert epsilon([SampledGaussianEvent(z, rate, count)], delta=1e-5) <= target
    assert epsilon([SampledGaussianEvent(z - SAMPLED_GRID, rate, count)], delta=1e-5) > target
    assert z < calibrate(epsilon=target, delta=1e-5, count=count), "sampling spares noise"


def test_noise_is_calibrated_for_what_other_releases_leave() -> None:
    beside = fold([GaussianEvent(10.0, 4)])
    z = calibrate(epsilon=2.0, delta=1e-5, count=50, sampling_rate=0.1, beside=beside)
    assert beside.plus(SampledGaussianEvent(z, 0.1, 50)).epsilon(delta=1e-5) <= 2.0
    assert beside.plus(SampledGaussianEvent(z - SAMPLED_GRID, 0.1, 50)).epsilon(delta=1e-5) > 2.0
    with pytest.raises(ValueError, match="leaves nothing"):
        calibrate(epsilon=0.5, delta=1e-5, count=50, sampling_rate=0.1, beside=beside)


def test_a_calibration_takes_seconds_at_most_and_is_remembered() -> None:
    start = time.thread_time()
    calibrate(epsilon=2.0, delta=1e-6, count=4000, sampling_rate=0.02)
    assert time.thread_time() - start < 10.0
    start = time.thread_time()
    calibrate(epsilon=2.0, delta=1e-6, count=4000, sampling_rate=0.02)
    assert time.thread_time() - start < 0.01


def test_what_no_grid_can_hold_is_charged_by_the_other_bounds_or_is_infinite() -> None:
    assert epsilon([SampledGaussianEvent(0.01, 0.5)], delta=1e-6) == math.inf
    little = fold([SampledGaussianEvent(0.09, 0.01, 3)])
    assert mixture._pld(little, 1e-6) == math.inf
    tiny = [SampledGaussianEvent(2.0, 0.01, 100)]
    assert mixture._pld(fold(tiny), 1e-12) == math.inf
    assert epsilon(tiny, delta=1e-8) < epsilon(tiny, delta=1e-12) < math.inf


def test_the_largest_further_question_after_a_sampled_run_fits_and_a_larger_one_does_not() -> None:
    spent = fold([SampledGaussianEvent(1.5, 0.02, 300)])
    further = largest_further_epsilon(spent, cap=2.0, delta=1e-6)
    fits, too_much = (
        spent.plus(GaussianEvent(calibrate(epsilon=share * further, delta=1e-6, count=1)))
        for share in (1.0, 1.02)
    )
    assert fits.within(2.0, delta=1e-6)
    assert not too_much.within(2.0, delta=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.01},
        {"sampling_rate": -0.1},
        {"sampling_rate": float("nan")},
        {"sampling_rate": 1},
        {"sampling_rate": "0.1"},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": None},
        {"count": 0},
        {"count": True},
        {"kind": "sampled"},
        {"sites": 2},
    ],
)
def test_a_malformed_event_is_refused(change: dict) -> None:
    form = {"kind": "sampled-gaussian", "noise_multiplier": 1.0, "sampling_rate": 0.1, "count": 1}
    assert event_from_json(form) == SampledGaussianEvent(1.0, 0.1)
    with pytest.raises(UnknownEvent):
        event_from_json(form | change)


@pytest.mark.parametrize("rate", [0.0, 1.5, -1.0, float("nan")])
def test_a_rate_outside_its_range_is_not_calibrated(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling_rate"):
        calibrate(epsilon=1.0, delta=1e-6, count=1, sampling_rate=rate)


def test_a_sum_in_place_is_the_fold() -> None:
    events: list[Event] = [*HISTORIES[0], *HISTORIES[1], SampledGaussianEvent(5.0, 1.0, 3)]
    first, second = Sum(), Sum()
    for place, event in enumerate(events):
        (first if place % 2 else second).add(event)
    first.join(second)
    assert first.composition().sampled == fold(events).sampled
    assert first.composition().releases == fold(events).releases
    assert first.composition().mu_squared == pytest.approx(fold(events).mu_squared, rel=1e-12)


def test_a_ledger_keeps_sampled_releases_over_a_restart(tmp_path: Path) -> None:
    clock = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
    account = Account("p", "lead")
    event = SampledGaussianEvent(1.0, 0.05, 60)
    whole = epsilon([event], delta=1e-6)
    caps = Caps(
        delta=1e-6,
        epsilon_total=whole * 1.01,
        epsilon_dataset=9.0,
        epsilon_project=9.0,
        epsilon_researcher=9.0,
    )
    with Ledger(tmp_path / "ledger", clock=clock) as ledger:
        held = ledger.reserve("run", account=account, purpose="training", event=event, caps=caps)
        for _ in range(4):
            ledger.commit(held, count=10)
    with Ledger(tmp_path / "ledger", clock=clock) as ledger:
        assert ledger.spent(delta=1e-6).events == 40
        assert ledger.spent(delta=1e-6).epsilon == epsilon([event.times(40)], delta=1e-6)
        [reserved] = [entry.event for entry in ledger.entries() if entry.kind == "reserved"]
        assert reserved == event
