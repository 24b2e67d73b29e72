"""The charged ε against two independent accountants, and what is refused."""

import math
import time

import dp_accounting
import pytest
from dp_accounting import pld, rdp

from privacy.accountant import (
    Composition,
    GaussianEvent,
    UnknownEvent,
    calibrate,
    epsilon,
    event_from_json,
    fold,
    largest_further_epsilon,
)


def by(accountant: dp_accounting.PrivacyAccountant, events: list[GaussianEvent], *, delta: float) -> float:
    for event in events:
        accountant.compose(dp_accounting.GaussianDpEvent(event.noise_multiplier), event.count)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("events", "delta"),
    [
        ([GaussianEvent(4.224679)], 1e-6),
        ([GaussianEvent(8.0, 10)], 1e-5),
        ([GaussianEvent(20.0, 100), GaussianEvent(5.0, 2)], 1e-6),
        ([GaussianEvent(1.0, 30)], 1e-5),
        ([GaussianEvent(100.0)], 1e-7),
        ([GaussianEvent(0.5)], 1e-6),
    ],
)
def test_the_charge_equals_pld_and_is_below_rdp(events: list[GaussianEvent], delta: float) -> None:
    charged = epsilon(events, delta=delta)
    exact = by(pld.PLDAccountant(), events, delta=delta)
    loose = by(rdp.RdpAccountant(), events, delta=delta)
    zcdp = fold(events).mu_squared / 2
    simple = zcdp + 2 * math.sqrt(zcdp * math.log(1 / delta))
    print(f"δ={delta:g}: charged {charged:.6f}, PLD {exact:.6f}, RDP {loose:.6f}, simple zCDP {simple:.6f}")
    assert charged == pytest.approx(exact, rel=1e-4)
    assert charged < loose < simple


def test_the_charge_is_never_below_the_continuous_gaussian() -> None:
    """dp_accounting's own closed form, to its tolerance; the discrete noise may only cost more."""
    for sigma in (0.7, 1.0, 3.0, 10.0, 60.0):
        for delta in (1e-9, 1e-6, 1e-5):
            exact = dp_accounting.get_epsilon_gaussian(sigma, delta)
            assert exact * (1 - 1e-9) <= epsilon([GaussianEvent(sigma)], delta=delta) <= exact * (1 + 1e-6)


@pytest.mark.parametrize("count", [1, 20, 4096])
@pytest.mark.parametrize("target", [0.01, 0.1, 1.0, 8.0])
def test_calibrated_noise_costs_what_was_asked_and_no_smaller_noise_does(count: int, target: float) -> None:
    multiplier = calibrate(epsilon=target, delta=1e-6, count=count)
    assert epsilon([GaussianEvent(multiplier, count)], delta=1e-6) <= target
    assert epsilon([GaussianEvent(multiplier - 2e-6, count)], delta=1e-6) > target


def test_ten_events_cost_the_same_as_one_event_of_ten() -> None:
    apart = epsilon([GaussianEvent(9.0)] * 10, delta=1e-6)
    assert apart == pytest.approx(epsilon([GaussianEvent(9.0, 10)], delta=1e-6), rel=1e-9)


def test_nothing_costs_nothing_and_everything_costs_more() -> None:
    assert epsilon([], delta=1e-6) == 0.0
    previous = 0.0
    for count in (1, 2, 10, 100, 1000):
        now = epsilon([GaussianEvent(30.0, count)], delta=1e-6)
        assert now > previous
        previous = now


def test_a_history_beyond_any_guarantee_is_infinite_not_cheap() -> None:
    assert epsilon([GaussianEvent(0.01)], delta=1e-6) == math.inf
    assert epsilon([GaussianEvent(1.0, 10**9)], delta=1e-6) == math.inf


def test_the_largest_further_question_fits_and_a_larger_one_does_not() -> None:
    spent = fold([GaussianEvent(10.0, 3)])
    further = largest_further_epsilon(spent, cap=2.0, delta=1e-6)
    fits = spent.plus(GaussianEvent(calibrate(epsilon=further, delta=1e-6, count=1)))
    too_much = spent.plus(GaussianEvent(calibrate(epsilon=further * 1.01, delta=1e-6, count=1)))
    assert fits.epsilon(delta=1e-6) <= 2.0 * (1 + 1e-6)
    assert too_much.epsilon(delta=1e-6) > 2.0
    assert further > 2.0 - spent.epsilon(delta=1e-6), "composition is sublinear"
    assert largest_further_epsilon(spent, cap=0.1, delta=1e-6) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "laplace", "noise_multiplier": 1.0, "count": 1},
        {"kind": "gaussian", "noise_multiplier": 1.0},
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": 1, "sampling": 0.01},
        {"kind": "gaussian", "noise_multiplier": 0.0, "count": 1},
        {"kind": "gaussian", "noise_multiplier": -2.0, "count": 1},
        {"kind": "gaussian", "noise_multiplier": float("inf"), "count": 1},
        {"kind": "gaussian", "noise_multiplier": "1", "count": 1},
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": 0},
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": True},
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": 1.0},
        [],
        None,
    ],
)
def test_an_unknown_or_malformed_event_is_refused(value: object) -> None:
    with pytest.raises(UnknownEvent):
        event_from_json(value)


def test_only_events_compose() -> None:
    with pytest.raises(UnknownEvent):
        Composition().plus(0.1)  # type: ignore[arg-type]  # what a careless caller might pass


def test_an_event_survives_json() -> None:
    event = GaussianEvent(4.224679, 12)
    assert event_from_json(event.to_json()) == event


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, float("nan")])
def test_a_delta_outside_its_range_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        epsilon([GaussianEvent(1.0)], delta=delta)


def test_pricing_is_fast_enough_for_the_query_path() -> None:
    events = [GaussianEvent(10.0 + n, 1) for n in range(200)]
    epsilon(events, delta=1e-6)
    start = time.thread_time()
    for n in range(50):
        epsilon([*events, GaussianEvent(50.0 + n)], delta=1e-6)
    each_ms = (time.thread_time() - start) / 50 * 1e3
    start = time.thread_time()
    for n in range(20):
        calibrate(epsilon=1.0 + n / 1000, delta=1e-6, count=1)
    cold_ms = (time.thread_time() - start) / 20 * 1e3
    print(f"composing 201 events {each_ms:.2f} ms, calibrating a new ε {cold_ms:.2f} ms")
    assert each_ms < 5
    assert cold_ms < 20
