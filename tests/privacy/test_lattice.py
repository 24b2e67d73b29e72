"""The lattice: sensitivity after rounding, enough noise after dropouts, no wrap, exact decoding."""

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from privacy import discrete_gaussian
from privacy.accountant import DISTANCE_PER_RELEASE, GaussianEvent
from privacy.lanes import LaneVector, laid
from privacy.lattice import KERNEL_VARIANCE, NoisePlan, NotEncodable
from privacy.rng import SecureBits


def count_plan(**changes: object) -> NoisePlan:
    given: dict[str, object] = {"sigma": 8.4, "sensitivity": 2, "participants": 4, "tolerance": 1}
    return NoisePlan.for_counts(**(given | changes))  # type: ignore[arg-type]  # names are checked by the call


def real_plan(**changes: object) -> NoisePlan:
    given: dict[str, object] = {
        "sigma": 20.0,
        "l2_clip_norm": 1.0,
        "sites_per_patient": 2,
        "participants": 4,
        "tolerance": 1,
        "dimension": 14,
        "largest": 1e5,
    }
    return NoisePlan.for_reals(**(given | changes))  # type: ignore[arg-type]  # names are checked by the call


@pytest.mark.parametrize("participants", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 8.4, 1000.0, 1e7])
def test_what_is_left_of_the_noise_after_dropouts_is_what_was_promised(
    participants: int, sigma: float
) -> None:
    for tolerance in {0, min(1, participants - 1), participants - 1}:
        plan = count_plan(sigma=sigma, participants=participants, tolerance=tolerance)
        remaining = (participants - tolerance) * plan.share_sigma**2
        needed = (Fraction(sigma) * plan.scale) ** 2 + KERNEL_VARIANCE * 4**plan.cut_bits
        assert needed <= remaining <= needed * Fraction(101, 100)
        assert plan.share_sigma**2 >= 4, "below it sums of rounded shares collapse"
        assert plan.share_sigma >= 64 or sigma / math.sqrt(participants) * float(plan.scale) >= 63


def test_sites_with_different_tolerances_share_one_lattice() -> None:
    plans = [count_plan(tolerance=tolerance) for tolerance in range(4)]
    assert len({plan.scale_bits for plan in plans}) == 1
    assert len({plan.share_sigma for plan in plans}) == 4


def test_discrete_noise_costs_less_than_a_thousandth_more_than_continuous() -> None:
    plan = count_plan()
    smallest = plan.standard_deviation(contributors=3)
    assert plan.sigma < smallest < plan.sigma * 1.001
    reals = real_plan()
    assert reals.sigma < reals.standard_deviation(contributors=3) < reals.sigma * 1.001


def test_a_gradient_of_a_hundred_thousand_values_costs_less_than_half_a_percent_more() -> None:
    plan = real_plan(dimension=100_000)
    assert plan.sigma < plan.standard_deviation(contributors=3) < plan.sigma * 1.005


def test_the_event_of_a_plan_is_sigma_over_sensitivity() -> None:
    assert count_plan().event() == GaussianEvent(4.2, 1)
    assert real_plan().event(count=20) == GaussianEvent(10.0, 20)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_moves_neighbouring_sums_no_farther_than_paid_for(seed: int) -> None:
    """Random and adversarial patients: encoded sums of neighbours stay within the lattice sensitivity."""
    rng = np.random.default_rng(seed)
    plan = real_plan(dimension=50, sigma=3.0)
    rows = rng.normal(size=(200, 50))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if seed % 2:  # values half-way between lattice points, where rounding is worst
        rows = np.rint(rows * 2.0**plan.scale_bits) / 2.0**plan.scale_bits + 0.5 * 2.0**-plan.scale_bits
        rows *= 1 - 1e-3
    allowed_per_site = (
        float(Fraction(plan.noise_multiplier) ** -2 * plan.share_sigma**2 * 3) ** 0.5 / plan.sites_per_patient
    )
    for encode in (lambda r: plan.encode(r.sum(axis=0)), plan.encode_rows):
        difference = (encode(rows) - encode(rows[:-1])).view(np.int64).astype(float)
        assert np.linalg.norm(difference) <= allowed_per_site
        assert np.linalg.norm(difference) > 0.9 * float(plan.scale), "the patient is in it"


def test_counts_come_back_exactly() -> None:
    plan = count_plan(dimension=3)
    values = [np.array([0, 5, 2**31]), np.array([7, -5, 1]), np.array([1, 1, 1]), np.array([0, 0, 9])]
    total = sum((plan.encode(v) for v in values), start=np.zeros(3, dtype=np.uint64))
    assert plan.decode(total).tolist() == [8.0, 1.0, float(2**31 + 11)]


def test_a_real_vector_comes_back_to_half_a_lattice_unit() -> None:
    plan = real_plan()
    values = np.random.default_rng(1).normal(size=14)
    assert np.abs(plan.encode(values).view(np.int64) * 2.0**-plan.scale_bits - values).max() <= 2.0 ** -(
        plan.scale_bits + 1
    )
    half = 2.0 ** (plan.cut_bits - plan.scale_bits - 1)
    error = np.abs(plan.decode(plan.to_send(plan.encode(values))) - values)
    assert half / 8 < error.max() <= half * (1 + 2.0**-plan.cut_bits)


def test_rounding_disappears_beside_the_noise() -> None:
    plan = real_plan(dimension=1)
    assert 2.0**-plan.scale_bits < 2e-6 * plan.sigma


def test_the_worst_total_does_not_wrap() -> None:
    plan = real_plan(largest=1e6)
    extreme = np.full(14, 1e6)
    noise = np.uint64(discrete_gaussian.largest(plan.share_sigma))
    for sign, noisy in ((1, plan.encode(extreme) + noise), (-1, plan.encode(-extreme) - noise)):
        sent = plan.to_send(noisy)
        assert (np.abs(sent.view(np.int64)) == plan.largest_contribution).all(), "no site sends more"
        total = LaneVector(4 * laid(sent, lanes=plan.lanes), sent.size, plan.lanes)
        assert (sign * plan.decode(total.signed()) > 4e6).all()


def test_a_plan_that_could_wrap_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="wrap"):
        count_plan(largest=2**60)
    with pytest.raises(ValueError, match="wrap"):
        real_plan(largest=1e9, sigma=1e-12, l2_clip_norm=1e6, dimension=1)


def test_more_patients_than_float_sums_can_bear_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        real_plan(largest=1e9)


def test_every_plan_stays_within_the_distance_that_the_accountant_charges() -> None:
    for plan in (count_plan(), count_plan(participants=100), real_plan(dimension=10**6, participants=100)):
        assert 0 < plan.distance <= DISTANCE_PER_RELEASE


def test_shares_are_fresh_each_time() -> None:
    plan = real_plan()
    assert (plan.noise(bits=SecureBits()) != plan.noise(bits=SecureBits())).sum() > 10  # of 14


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0]),
        np.array([2**33]),
        np.array([-(2**33)]),
        np.array([1, 2]),
        np.array([[1]]),
        np.array([True]),
        np.array(["1"]),
    ],
)
def test_counts_that_do_not_fit_are_refused_without_saying_them(values: np.ndarray) -> None:
    with pytest.raises(NotEncodable) as refused:
        count_plan().encode(values)
    assert not any(character.isdigit() for character in str(refused.value))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5e5, -1.5e5])
def test_reals_that_do_not_fit_are_refused(bad: float) -> None:
    values = np.zeros(14)
    values[3] = bad
    with pytest.raises(NotEncodable):
        real_plan().encode(values)
    with pytest.raises(NotEncodable):
        real_plan().encode_rows(values[None, :])


def test_a_total_of_another_shape_is_refused() -> None:
    for total in (np.zeros(13, dtype=np.uint64), np.zeros(14, dtype=np.int64), np.zeros((14, 1), np.uint64)):
        with pytest.raises(NotEncodable):
            real_plan().decode(total)


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": 4},
        {"tolerance": -1},
        {"participants": 0},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"sensitivity": 0},
        {"dimension": 0},
    ],
)
def test_a_plan_without_sense_cannot_be_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        count_plan(**changes)


def test_the_error_bar_is_only_given_for_totals_with_enough_shares() -> None:
    plan = count_plan()
    assert plan.standard_deviation(contributors=4) > plan.standard_deviation(contributors=3)
    for contributors in (2, 5):
        with pytest.raises(ValueError, match="promises"):
            plan.standard_deviation(contributors=contributors)


@pytest.mark.parametrize("sigma", [8.0, 1e-7])
def test_values_are_rounded_to_the_nearest_unit_and_halves_to_even(sigma: float) -> None:
    """By the quick way, and by the other where the lattice is so fine that floats skip integers."""
    largest = 1000.0
    plan = NoisePlan.for_reals(
        sigma=sigma,
        l2_clip_norm=500.0,
        sites_per_patient=1,
        participants=3,
        tolerance=0,
        dimension=40_000,
        largest=largest,
    )
    unit = 2.0**-plan.scale_bits
    assert (largest / unit > 2.0**52) == (sigma < 1.0)
    values = np.random.default_rng(1).uniform(-largest, largest, 40_000)
    values[:8] = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0]) * unit
    values[8:12] = [largest, -largest, np.nextafter(largest, 0.0), -np.nextafter(largest, 0.0)]
    rounded = plan.encode(values).view(np.int64)
    assert rounded[:8].tolist() == [0, 2, 2, 0, -2, -2, 0, 0]
    assert rounded.tolist() == [round(Fraction(value) / Fraction(unit)) for value in values.tolist()]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1000.5])
@pytest.mark.parametrize("place", [0, 20_000, 39_999])
def test_one_bad_value_anywhere_is_refused(bad: float, place: int) -> None:
    plan = NoisePlan.for_reals(
        sigma=8.0,
        l2_clip_norm=1.0,
        sites_per_patient=1,
        participants=3,
        tolerance=0,
        dimension=40_000,
        largest=1000.0,
    )
    values = np.zeros(40_000)
    values[place] = bad
    with pytest.raises(NotEncodable):
        plan.encode(values)


def outcomes(sites: int, *, sigma: float, cut: int, values: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Return the exact chances of (what each site cut off, the total of what they sent)."""
    q, end = 2**cut, int(12 * sigma)
    weights = np.exp(-(np.arange(-end, end + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    found: dict[tuple[int, ...], float] = {(0,): 1.0}
    for value in values[:sites]:
        shifted = np.arange(value - end, value + end + 1) + q // 2
        grown: dict[tuple[int, ...], float] = defaultdict(float)
        for (*cuts, total), chance in found.items():
            for rest, sent, weight in zip(shifted % q, shifted // q, weights, strict=True):
                grown[*cuts, int(rest), total + int(sent)] += chance * weight
        found = grown
    return found


def promised(sites: int, *, sigma: float, cut: int, values: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Return the chances that the docstring of privacy.lattice states: what was cut off says nothing."""
    q, centre, found = 2**cut, sum(values[:sites]), {}
    for cuts in product(range(q), repeat=sites):
        totals = np.arange(-int(12 * sigma), int(12 * sigma) + 1)
        places = q * totals + sum(cuts) - sites * (q // 2)  # where the sum of all y lies
        weights = np.exp(-((places - centre) ** 2) / (2 * sites * sigma**2))
        for total, weight in zip(totals.tolist(), weights / weights.sum() / q**sites, strict=True):
            found[*cuts, total] = float(weight)
    return found


@pytest.mark.parametrize("values", [(0, 0), (3, -2), (17, 1)])
def test_what_is_cut_off_says_nothing_and_the_total_is_gaussian_on_what_is_left(
    values: tuple[int, int],
) -> None:
    """Exactly, over every outcome of two sites; and a share that is too narrow for its cut does not pass."""

    def apart(sigma: float) -> float:
        real, ideal = (each(2, sigma=sigma, cut=2, values=values) for each in (outcomes, promised))
        return 0.5 * sum(abs(real.get(key, 0.0) - ideal.get(key, 0.0)) for key in real.keys() | ideal.keys())

    assert apart(8.0) < 1e-12
    assert apart(0.8) > 1e-2


@pytest.mark.parametrize("participants", [1, 2, 8, 300])
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 8.0, 1e6])
@pytest.mark.parametrize("largest", [1.0, 1e4])
def test_a_noisy_number_keeps_what_the_proof_needs_and_no_more(
    participants: int, sigma: float, largest: float
) -> None:
    plan = real_plan(participants=participants, tolerance=0, sigma=sigma, largest=largest, dimension=3)
    share = float(plan.share_sigma) / 2**plan.cut_bits
    assert 2**3 <= share < 2**13 * 1.001
    total = share * math.sqrt(participants)
    assert total >= 2**6
    added = participants / 12 / total**2 + KERNEL_VARIANCE / total**2
    assert added < 0.003, "of the noise, by rounding and by what it is charged for"
    assert share >= 2**12 or coarser(plan) == plan.lanes > finer(plan)
    assert count_plan().cut_bits == 0


def coarser(plan: NoisePlan) -> int:
    """Return the lanes of the coarsest numbers that the proof allows."""
    share, total = plan.sigma / math.sqrt(plan.participants), plan.sigma
    return plan._lanes(min(plan._log2_units(share) - 3, plan._log2_units(total) - 6))


def finer(plan: NoisePlan) -> int:
    """Return the lanes of numbers with one more bit."""
    return plan._lanes(plan.cut_bits - 1)
