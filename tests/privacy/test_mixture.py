"""Gaussian and pure releases together: the charge against brute force, two accountants, and the clock."""

import math
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution as plds
from dp_accounting.pld.common import DifferentialPrivacyParameters
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import mixture
from privacy.accountant import (
    Event,
    GaussianEvent,
    PureEvent,
    UnknownEvent,
    calibrate,
    epsilon,
    event_from_json,
    fold,
    largest_further_epsilon,
)
from privacy.budget import Account, Caps
from privacy.ledger import Ledger
from protocols.clock import FixedClock

HISTORIES: list[list[Event]] = [
    [GaussianEvent(4.2), PureEvent(0.5)],
    [GaussianEvent(4.2, 6), PureEvent(0.1, 10), PureEvent(0.37, 2)],
    [PureEvent(0.1, 40)],
    [PureEvent(1.0, 3), PureEvent(0.013, 5)],
    [GaussianEvent(1.0), PureEvent(0.5, 8)],
    [GaussianEvent(60.0), PureEvent(0.02, 8)],
    [GaussianEvent(0.5), PureEvent(1.0, 2)],
    [GaussianEvent(30.0, 50), PureEvent(0.05, 12), PureEvent(0.2, 3), PureEvent(0.0371)],
]


def gaussian_delta(epsilon_: float, mu: float) -> float:
    """δ(ε) of a μ-GDP Gaussian, for any real ε (Balle, Wang 2018); of nothing at all for μ = 0."""
    if mu == 0.0:
        return max(0.0, -math.expm1(epsilon_))
    upper = math.erfc(-(mu / 2 - epsilon_ / mu) / math.sqrt(2)) / 2
    return upper - math.exp(epsilon_) * math.erfc(-(-mu / 2 - epsilon_ / mu) / math.sqrt(2)) / 2


def losses(events: list[Event]) -> dict[int, float]:
    """Every total loss that randomised responses with these ε can have (in 1e-12), with its probability.

    No grid and no rounding: a loss is a signed sum of the ε.
    """
    found = {0: 1.0}
    for event in events:
        if isinstance(event, PureEvent):
            step, p = round(event.epsilon * 1e12), 1.0 / (1.0 + math.exp(-event.epsilon))
            for _ in range(event.count):
                more: dict[int, float] = {}
                for loss, probability in found.items():
                    more[loss + step] = more.get(loss + step, 0.0) + probability * p
                    more[loss - step] = more.get(loss - step, 0.0) + probability * (1.0 - p)
                found = more
    return found


def truth(events: list[Event], *, delta: float) -> float:
    """The smallest ε of the worst releases that these events allow: δ(ε) is the mean of the Gaussian's."""
    mu = math.sqrt(sum(e.count / e.noise_multiplier**2 for e in events if isinstance(e, GaussianEvent)))
    known = losses(events)

    def delta_at(epsilon_: float) -> float:
        return math.fsum(p * gaussian_delta(epsilon_ - loss * 1e-12, mu) for loss, p in known.items())

    low, high = 0.0, 80.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_at(middle) <= delta else (middle, high)
    return high


@pytest.mark.parametrize("delta", [1e-5, 1e-6, 1e-9])
@pytest.mark.parametrize("events", HISTORIES)
def test_the_charge_of_a_mixture_is_never_below_brute_force_and_hardly_above(
    events: list[Event], delta: float
) -> None:
    charged, exact = epsilon(events, delta=delta), truth(events, delta=delta)
    print(f"δ={delta:g}: charged {charged:.6f}, brute force {exact:.6f}")
    assert exact * (1 - 1e-9) <= charged <= exact * 1.003 + 1e-6
    cheaper = [events[0].times(events[0].count - 1)] if events[0].count > 1 else []
    assert epsilon([*cheaper, *events[1:]], delta=delta) < exact, "one release too few is noticed"


@pytest.mark.parametrize("events", HISTORIES)
def test_each_of_the_three_bounds_holds_and_the_smallest_is_charged(events: list[Event]) -> None:
    delta = 1e-6
    total, exact = fold(events), truth(events, delta=delta)
    basic, renyi, grid = (bound(total, delta) for bound in (mixture._basic, mixture._rdp, mixture._pld))
    charged = total.epsilon(delta=delta)
    print(f"basic {basic:.4f}, RDP {renyi:.4f}, PLD {grid:.4f}, charged {charged:.4f}")
    assert min(basic, renyi, grid) >= exact * (1 - 1e-9)
    assert charged == pytest.approx(min(basic, renyi, grid), rel=2e-3)


def by_their_rdp(events: list[Event], *, delta: float) -> float:
    """dp_accounting's Rényi divergences of randomised response, with the Gaussian's beside them."""
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    gaussian = rdp.RdpAccountant()
    for event in events:
        if isinstance(event, PureEvent):
            flip = 2.0 / (1.0 + math.exp(event.epsilon))
            accountant.compose(dp_accounting.RandomizedResponseDpEvent(flip, 2), event.count)
        else:
            gaussian.compose(dp_accounting.GaussianDpEvent(event.noise_multiplier), event.count)
    return float(rdp.compute_epsilon(accountant._orders, accountant._rdp + gaussian._rdp, delta)[0])


def by_their_pld(events: list[Event], *, delta: float) -> float:
    """dp_accounting's privacy loss distributions on their usual grid of 1e-4."""
    total = plds.identity()
    for event in events:
        if isinstance(event, PureEvent):
            part = plds.from_privacy_parameters(DifferentialPrivacyParameters(event.epsilon, 0.0))
        else:
            part = plds.from_gaussian_mechanism(event.noise_multiplier)
        total = total.compose(part.self_compose(event.count))
    return float(total.get_epsilon_for_delta(delta))


@pytest.mark.parametrize("events", HISTORIES)
def test_the_charge_is_at_most_what_dp_accounting_says_in_other_ways(events: list[Event]) -> None:
    charged = epsilon(events, delta=1e-6)
    renyi, grid = by_their_rdp(events, delta=1e-6), by_their_pld(events, delta=1e-6)
    print(f"charged {charged:.5f}, their RDP {renyi:.5f}, their PLD {grid:.5f}")
    assert charged <= renyi
    assert charged == pytest.approx(grid, rel=3e-3)


def test_a_discrete_laplace_release_costs_less_than_its_pure_event() -> None:
    """What is charged covers the noise that a pure question is answered with."""
    drawn = plds.from_discrete_laplace_mechanism(0.5).self_compose(10)
    assert drawn.get_epsilon_for_delta(1e-6) <= epsilon([PureEvent(0.5, 10)], delta=1e-6)


def test_one_pure_release_costs_its_epsilon_and_two_no_more_than_twice() -> None:
    assert epsilon([PureEvent(0.7)], delta=1e-6) == pytest.approx(0.7, rel=1e-9)
    assert epsilon([PureEvent(0.7)], delta=1e-6) >= 0.7
    assert epsilon([PureEvent(0.7, 2)], delta=1e-6) <= 1.4 * (1 + 1e-9)


EVENTS = st.one_of(
    st.builds(GaussianEvent, st.floats(2.0, 200.0), st.integers(1, 10)),
    st.builds(PureEvent, st.floats(0.002, 1.5), st.integers(1, 4)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4), EVENTS, st.sampled_from([1e-4, 1e-6, 1e-8]))
def test_any_mixture_is_charged_at_least_its_truth_and_more_for_more(
    events: list[Event], further: Event, delta: float
) -> None:
    charged = epsilon(events, delta=delta)
    assert charged >= min(truth(events, delta=delta), 75.0) * (1 - 1e-9)
    after = fold(events).plus(further)
    assert after.epsilon(delta=delta) >= charged * (1 - 1e-9)
    for cap in (charged * 0.999, charged * 1.001):
        assert fold(events).within(cap, delta=delta) == (charged <= cap)


def test_the_order_of_events_changes_nothing() -> None:
    events = HISTORIES[-1]
    assert fold(events).pure == fold(reversed(events)).pure
    assert epsilon(events, delta=1e-6) == pytest.approx(epsilon(events[::-1], delta=1e-6), rel=1e-9)


def test_a_mixture_beyond_any_guarantee_is_infinite_not_cheap() -> None:
    assert epsilon([PureEvent(80.0)], delta=1e-6) == math.inf
    assert epsilon([GaussianEvent(0.05), PureEvent(0.1)], delta=1e-6) == math.inf


def test_more_pure_releases_than_are_convolved_are_charged_by_rdp_without_delay() -> None:
    many = fold([PureEvent(1e-4, mixture.MOST_PURE_OF_PLD + 1), GaussianEvent(50.0, 10)])
    start = time.thread_time()
    assert many.epsilon(delta=1e-6) == pytest.approx(mixture._rdp(many, 1e-6), rel=1e-3)
    assert not fold([PureEvent(1.0, 10**9)]).within(75.0, delta=1e-6)
    assert time.thread_time() - start < 5.0


def test_a_tiny_delta_is_charged_by_the_bounds_that_need_no_convolution() -> None:
    events = [GaussianEvent(4.2), PureEvent(0.1, 10)]
    assert mixture._pld(fold(events), 1e-12) == math.inf
    assert truth(events, delta=1e-12) <= epsilon(events, delta=1e-12) < math.inf


def test_the_largest_further_question_after_a_mixture_fits_and_a_larger_one_does_not() -> None:
    spent = fold([GaussianEvent(10.0, 3), PureEvent(0.2, 4)])
    further = largest_further_epsilon(spent, cap=2.0, delta=1e-6)
    fits, too_much = (
        spent.plus(GaussianEvent(calibrate(epsilon=share * further, delta=1e-6, count=1)))
        for share in (1.0, 1.02)
    )
    assert fits.within(2.0, delta=1e-6)
    assert not too_much.within(2.0, delta=1e-6)
    assert further > 2.0 - spent.epsilon(delta=1e-6), "composition is sublinear"
    assert largest_further_epsilon(spent, cap=0.1, delta=1e-6) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "pure", "epsilon": 0.5},
        {"kind": "pure", "epsilon": 0.5, "count": 1, "delta": 1e-6},
        {"kind": "pure", "noise_multiplier": 0.5, "count": 1},
        {"kind": "gaussian", "epsilon": 0.5, "count": 1},
        {"kind": "pure", "epsilon": 0.0, "count": 1},
        {"kind": "pure", "epsilon": -0.5, "count": 1},
        {"kind": "pure", "epsilon": float("nan"), "count": 1},
        {"kind": "pure", "epsilon": 1, "count": 1},
        {"kind": "pure", "epsilon": 0.5, "count": 0},
        {"kind": "pure", "epsilon": 0.5, "count": True},
        {"kind": ["pure"], "epsilon": 0.5, "count": 1},
        {"epsilon": 0.5, "count": 1},
    ],
)
def test_an_unknown_or_malformed_pure_event_is_refused(value: object) -> None:
    with pytest.raises(UnknownEvent):
        event_from_json(value)


def test_a_pure_event_survives_json() -> None:
    assert event_from_json(PureEvent(0.25, 3).to_json()) == PureEvent(0.25, 3)


def test_who_charges_gaussian_noise_alone_never_loads_dp_accounting(tmp_path: Path) -> None:
    """It takes seconds to import: not at a node with Gaussian questions, not at the coordinator."""
    script = f"""
import sys
from datetime import UTC, datetime
from pathlib import Path
from privacy.accountant import GaussianEvent, PureEvent
from privacy.budget import Account, Caps
from privacy.ledger import Ledger
from protocols.clock import FixedClock
caps = Caps(delta=1e-6, epsilon_total=1.3, epsilon_dataset=1.3, epsilon_project=1.3, epsilon_researcher=1.3)
with Ledger(Path({str(tmp_path / "l")!r}), clock=FixedClock(datetime(2026, 1, 1, tzinfo=UTC))) as ledger:
    def ask(name, event):
        ledger.commit(
            ledger.reserve(name, account=Account("p", "r"), purpose="count", event=event, caps=caps)
        )
    for n in range(5):
        ask(f"q{{n}}", GaussianEvent(20.0))
    ask("pure", PureEvent(0.1))
    assert "dp_accounting" not in sys.modules, "the basic bound decides while it fits"
    for n in range(9):
        ask(f"more{{n}}", PureEvent(0.1))
    assert "dp_accounting" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("alike", [True, False], ids=["few kinds of events", "each event another"])
def test_a_reservation_among_a_thousand_mixed_events_is_fast_even_when_the_bounds_must_be_tight(
    tmp_path: Path, alike: bool
) -> None:
    rng = np.random.default_rng(7)
    multipliers = rng.choice([50.0, 80.0, 100.0], 500) if alike else rng.uniform(50.0, 100.0, 500)
    epsilons = rng.choice([0.005, 0.01, 0.03], 500) if alike else rng.uniform(0.005, 0.03, 500)
    events = [*(GaussianEvent(float(z)) for z in multipliers), *(PureEvent(float(e)) for e in epsilons)]
    wide = Caps(delta=1e-6, epsilon_total=75, epsilon_dataset=75, epsilon_project=75, epsilon_researcher=75)
    each: list[float] = []
    with Ledger(tmp_path / "ledger", clock=FixedClock(datetime(2026, 11, 21, tzinfo=UTC))) as ledger:

        def ask(name: str, n: int, caps: Caps) -> None:
            account = Account(f"p{n % 3}", f"r{n % 4}")
            start = time.thread_time()  # not the clock on the wall: other work on the machine is not ours
            held = ledger.reserve(name, account=account, purpose="count", event=events[n], caps=caps)
            each.append((time.thread_time() - start) * 1e3)
            ledger.commit(held)

        for n in range(1000):
            ask(f"q-{n}", n, wide)
        cap = epsilon([*events, *events[480:520]], delta=1e-6) * (1 + 1e-6)
        assert mixture._rdp(fold(events), 1e-6) > cap, "only the PLD can decide"
        near = Caps(
            delta=1e-6, epsilon_total=cap, epsilon_dataset=cap, epsilon_project=75, epsilon_researcher=75
        )
        each.clear()
        mixture._kept.clear()
        for n in range(480, 520):
            ask(f"near-{n}", n, near)
    print(
        f"first {each[0]:.1f} ms, then median {sorted(each[1:])[19]:.1f} ms, slowest {max(each[1:]):.1f} ms"
    )
    assert sorted(each)[20] <= 20
