"""A coordinator that colludes with t of n hospitals: they know their own contributions and take them away.

What is left is the sum of the honest hospitals' values and noise shares. With up to t colluders that noise is
the whole of what was promised: the central mechanism's, no less. With one colluder more it is less, and the
attack beats the bound; the tests show both.
"""

import math

import numpy as np
import pytest
from scipy import stats

from privacy import release
from privacy.accountant import GaussianEvent, epsilon
from privacy.lattice import NoisePlan
from privacy.masks import add_mask, subtract_mask
from protocols.question import Mechanism, Question
from tests.privacy.sum_network import CONTEXT, SumNetwork, node
from tests.statistical.test_polya_noise import p_value
from tests.threats.games import Advantage, bounds, contributions, evidence, question, report

ACCEPT, REJECT = 1e-4, 1e-9
CASES = [(4, 1), (10, 3)]  # hospitals, colluders that the noise is made for
HELD = 40  # patients at each hospital


def left_over(
    asked: Question, sites: int, *, tolerance: int, target: bool, games: int, seed: int
) -> list[np.ndarray]:
    """Return what 0, 1, 2, … colluders compute: the total of a real secure sum less what they sent.

    The patient is known to the first two hospitals, which are honest.
    """
    vectors = [np.array([HELD + (target and site < 2)]) for site in range(sites)]
    plan, sent = contributions(asked, vectors, games=games, seed=seed, tolerance=tolerance)
    network = SumNetwork(sites, colluders=tolerance, seed=seed).open()
    total = network.run(dict(enumerate(sent)))
    found = [total]
    for known in reversed(sent[2:]):
        found.append(found[-1] - known)
    return [plan.decode(words) for words in found]


def advantages(asked: Question, sites: int, *, tolerance: int, games: int, seed: int) -> list[Advantage]:
    """Return the advantage of 0, 1, 2, … colluders, who judge by what they are left with."""
    worlds = [
        left_over(asked, sites, tolerance=tolerance, target=target, games=games, seed=seed + target)
        for target in (True, False)
    ]
    found = []
    for colluders, pair in enumerate(zip(*worlds, strict=True)):
        when_out = np.array([HELD * (sites - colluders)])
        says = [
            evidence(asked, left[:, np.newaxis], when_in=when_out + 2, when_out=when_out) > 0 for left in pair
        ]
        found.append(Advantage.of(*says))
    return found


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize(("sites", "tolerance"), CASES)
def test_t_colluders_stay_within_the_bound_and_one_more_does_not(
    sites: int, tolerance: int, mechanism: Mechanism
) -> None:
    asked = question(epsilon=2.0, mechanism=mechanism)
    found = advantages(asked, sites, tolerance=tolerance, games=300_000, seed=20)
    exact, allowed = bounds(asked)
    report(
        f"coordinator and {tolerance} of {sites} colluding, {mechanism}, ε 2",
        found[tolerance],
        bound=exact,
        promised=allowed,
        without=found[tolerance + 1].value,
    )
    print(f"{f'  and {sites - 2} of {sites} colluding':<62} {found[-1].value:6.3f}")
    assert found[tolerance].high > exact - 0.008, "nothing of the promise is to spare: the bound is met"
    assert found[tolerance + 1].low > exact, "the control: one colluder more than tolerated tells more"


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize(("sites", "tolerance"), [*CASES, (6, 2)])
def test_a_million_games_and_more_against_colluders_stay_within_the_bound(
    sites: int, tolerance: int, mechanism: Mechanism
) -> None:
    asked = question(epsilon=1.0, mechanism=mechanism)
    found = advantages(asked, sites, tolerance=tolerance, games=1_500_000, seed=300)
    exact, allowed = bounds(asked)
    report(
        f"coordinator and {tolerance} of {sites} colluding, {mechanism}, ε 1",
        found[tolerance],
        bound=exact,
        promised=allowed,
        without=found[tolerance + 1].value,
    )
    assert found[tolerance].high > exact - 0.004
    assert found[tolerance + 1].low > exact


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize(("sites", "tolerance"), CASES)
def test_what_colluders_are_left_with_is_the_central_mechanism(
    sites: int, tolerance: int, mechanism: Mechanism
) -> None:
    """Chi-square or Kolmogorov-Smirnov against one trusted curator's noise; one colluder more is seen."""
    asked = question(mechanism=mechanism)
    left = left_over(asked, sites, tolerance=tolerance, target=False, games=100_000, seed=41 + sites)
    for colluders in (tolerance, tolerance + 1):
        noise = left[colluders] - HELD * (sites - colluders)
        fits = fit(asked, noise, release.plan(asked, participants=sites, tolerance=tolerance))
        assert fits > ACCEPT if colluders == tolerance else fits < REJECT


def fit(asked: Question, noise: np.ndarray, plan: release.Plan) -> float:
    """Return the p-value of the noise as that of one curator who answers alone at the same price."""
    price = release.price(asked)
    if not isinstance(price, GaussianEvent) or not isinstance(plan, NoisePlan):
        return p_value(noise, asked.epsilon / 2.0)
    steps = np.random.default_rng(1).uniform(-0.5, 0.5, len(noise)) / float(plan.scale)  # off the lattice
    return float(stats.kstest(noise + steps, stats.norm(scale=2.0 * price.noise_multiplier).cdf).pvalue)


def test_colluders_beyond_the_tolerance_leave_more_than_was_charged() -> None:
    """By the accountant itself: ε of what one colluder too many is left with is above the question's ε."""
    asked = question(epsilon=1.0)
    for sites, tolerance in CASES:
        plan = release.plan(asked, participants=sites, tolerance=tolerance)
        assert isinstance(plan, NoisePlan)
        of_a_share = float(plan.share_sigma / plan.scale)
        costs = {}
        for honest in (sites - tolerance, sites - tolerance - 1):
            multiplier = of_a_share * math.sqrt(honest) / plan.sensitivity
            costs[honest] = epsilon([GaussianEvent(multiplier)], delta=asked.delta)
        assert costs[sites - tolerance] <= asked.epsilon
        assert costs[sites - tolerance - 1] > 1.05 * asked.epsilon


def test_colluders_learn_nothing_from_the_masked_input_of_another() -> None:
    """They know every mask they share with the victim; the one it shares with an honest hospital hides it.

    Unprotected: the same input if that hospital colludes too, and the sum of self masks is known.
    """
    asked, sites, games = question(epsilon=2.0), 4, 20_000
    guesses: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for target in (True, False):
        vectors = [np.array([HELD + (target and site == 0)]) for site in range(sites)]
        plan, sent = contributions(asked, vectors, games=games, seed=60 + target)
        network = SumNetwork(sites, colluders=1, seed=60 + target).open()
        seeds = [dict(party._pair_seeds[0]) for party in network.parties]
        own_mask = network.parties[0]._self_seeds[0]  # opened with the total, so the coordinator knows it
        network.run(dict(enumerate(sent)))
        for colluders in ((2, 3), (1, 2, 3)):
            bare = network.sent[0, 0].copy()
            subtract_mask(bare, seed=own_mask, context=CONTEXT)
            for colluder in colluders:
                apply = subtract_mask if node(0) < node(colluder) else add_mask
                apply(bare, seed=seeds[colluder][node(0)], context=CONTEXT)
            guesses[len(colluders) == 2].append(plan.decode(bare) > HELD + 0.5)
    hidden, shown = (Advantage.of(*guesses[masked]) for masked in (True, False))
    report(
        "coordinator and 2 of 4, one hospital's masked input",
        hidden,
        bound=0.0,
        promised=0.0,
        without=shown.value,
    )
    assert shown.low > 0.0, "with every pair mask known, its value and one share of noise are bare"
