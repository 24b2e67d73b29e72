"""Shares of discrete Laplace noise against exact arithmetic: tables, digits, sums, bounds, and refusals."""

import math
import time
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from privacy import polya
from privacy.accountant import DISTANCE_PER_RELEASE
from privacy.inversion import Table
from privacy.lattice import NotEncodable
from privacy.polya import LaplacePlan
from privacy.rng import SecureBits
from tests.privacy.seeded_bits import SeededBits


class ConstantBits(SecureBits):
    """Gives one word for ever."""

    def __init__(self, word: int) -> None:
        self._word = word

    def uint64(self, n: int) -> np.ndarray:
        return np.full(n, self._word, dtype=np.uint64)


def plan(**changes: object) -> LaplacePlan:
    given: dict[str, object] = {"epsilon": 1.0, "l1_sensitivity": 2.0, "participants": 10, "tolerance": 1}
    return LaplacePlan.for_counts(**(given | changes))  # type: ignore[arg-type]  # names are checked by the call


def entries(table: Table) -> list[int]:
    return [(int(high) << 128) | low for high, low in zip(table.high, table.low, strict=True)]


def negative_binomial(rate: float, shape: float, cells: int) -> np.ndarray:
    """P(k) for k < cells, from log-gamma: a way of computing it that the sampler does not share."""
    k = np.arange(cells)
    choose = np.array([math.lgamma(i + shape) - math.lgamma(i + 1) for i in k]) - math.lgamma(shape)
    return np.exp(choose - rate * k + shape * math.log(-math.expm1(-rate)))


def difference(side: np.ndarray) -> np.ndarray:
    """P(x) of the difference of two such variables, x from −(cells − 1) on."""
    return np.convolve(side, side[::-1])


@pytest.mark.parametrize(("rate", "parts"), [(8, 1000), (1, 1), (Fraction(1, 2), 9), (Fraction(1, 30), 50)])
def test_the_table_is_the_negative_binomial_to_one_hundred_and_ninety_bits(
    rate: Fraction | int, parts: int
) -> None:
    rate = Fraction(rate)
    table = polya._negative_binomial(rate, parts)
    with localcontext() as context:
        context.prec = 90
        p = (Decimal(-rate.numerator) / Decimal(rate.denominator)).exp()
        mass = ((1 - p).ln() / parts).exp()  # (1 − p)^(1/m), which the table never computes
        cumulative = Decimal(0)
        for k, entry in enumerate(entries(table)[:-1]):
            cumulative += mass
            assert abs(Decimal(entry) / Decimal(2**192) - cumulative) < Decimal(2) ** -189
            mass *= p * (k + Decimal(1) / parts) / (k + 1)


def test_a_wrong_rate_is_not_the_distribution() -> None:
    """The check above notices one part in a million."""
    right = entries(polya._negative_binomial(Fraction(1, 2), 9))
    wrong = entries(polya._negative_binomial(Fraction(1_000_001, 2_000_000), 9))
    assert max(abs(a - b) for a, b in zip(wrong, right, strict=False)) > 2 ** (192 - 24)


@pytest.mark.parametrize("rate", [Fraction(1, 1024), Fraction(1, 7), Fraction(3)])
@pytest.mark.parametrize("parts", [1, 3, 1000])
def test_what_a_table_leaves_out_is_below_the_bound(rate: Fraction, parts: int) -> None:
    cells = polya._end(rate)
    tail_bits = float(rate) * (cells + 1) / math.log(2)  # of the geometric variable, which is larger
    assert polya.TAIL_BITS <= tail_bits < polya.TAIL_BITS + 2 + float(rate) * 3


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("parts", [1, 2, 9])
def test_enough_shares_add_up_to_the_discrete_laplace_exactly_and_one_less_does_not(
    rate: float, parts: int
) -> None:
    cells = int(45 / rate) + 2
    share = difference(negative_binomial(rate, 1 / parts, cells))
    total = np.ones(1)
    for _ in range(parts):
        total = np.convolve(total, share)
    x = np.arange(len(total)) - len(total) // 2
    target = np.tanh(rate / 2) * np.exp(-rate * np.abs(x))
    assert np.abs(total - target).max() < 1e-12
    if parts > 1:
        fewer = np.ones(1)
        for _ in range(parts - 1):
            fewer = np.convolve(fewer, share)
        assert abs(fewer[len(fewer) // 2] - target[len(target) // 2]) > 1e-3


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_the_privacy_loss_is_the_rate_with_enough_shares_and_more_with_one_less(rate: float) -> None:
    """The largest |log P(x)/P(x + 1)|, which is what one patient in one cell can do."""

    def loss(shape: float) -> float:
        total = difference(negative_binomial(rate, shape, int(60 / rate)))
        middle = len(total) // 2
        near = total[middle - int(8 / rate) : middle + int(8 / rate)]  # where float64 holds the ratio
        return float(np.abs(np.diff(np.log(near))).max())

    assert loss(9 / 9) == pytest.approx(rate, rel=1e-9)
    assert loss(10 / 9) < rate, "the tenth share is surplus"
    assert loss(8 / 9) > rate * 1.03, "eight shares of nine are not enough"


def test_a_digit_is_one_as_often_as_it_must_be() -> None:
    for rate in (Fraction(1, 2**40), Fraction(1, 2000), Fraction(1, 3)):
        with localcontext() as context:
            context.prec = 90
            zero = 1 / (1 + (Decimal(-rate.numerator) / Decimal(rate.denominator)).exp())
            found = entries(polya._digit(rate))
            assert abs(Decimal(found[0]) / Decimal(2**192) - zero) < Decimal(2) ** -190
            assert len(found) == 2


def test_digits_and_a_coarser_geometric_are_the_geometric() -> None:
    rate, shift = 1 / 20, 3
    cells = int(45 / rate)
    fine = -math.expm1(-rate) * np.exp(-rate * np.arange(cells))
    built = np.zeros(cells + 2**shift)
    coarse = -math.expm1(-rate * 2**shift) * np.exp(-rate * 2**shift * np.arange(cells // 2**shift + 1))
    built[: len(coarse) * 2**shift : 2**shift] = coarse
    for j in range(shift):
        one = 1 / (1 + math.exp(rate * 2**j))
        built = (1 - one) * built + one * np.roll(built, 2**j)
    assert np.abs(built[:cells] - fine).max() < 1e-12


@pytest.mark.parametrize(
    "rate", [Fraction(1, 1024), Fraction(1, 24_576), Fraction(3, 2**20), Fraction(1, 2**40)]
)
def test_small_rates_draw_digits_until_a_table_is_short_enough(rate: Fraction) -> None:
    shift = polya._shift(rate)
    assert polya.TABLE_RATE <= rate * 2**shift < 2 * polya.TABLE_RATE
    surplus = polya.variance(rate, 1000, shares=1000) / polya.variance(rate, 1, shares=1) - 1
    assert 0 <= surplus <= 999 * 2.0**-21.5
    assert polya.variance(rate, 1, shares=1) == pytest.approx(2 / float(rate) ** 2, rel=1e-5)


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(1), Fraction(1, 300), Fraction(1, 24_576)])
def test_no_draw_is_beyond_the_bound_that_rules_out_a_wrap(rate: Fraction) -> None:
    bound = polya.largest(rate)
    for word in (0, 1, 2**63, 2**64 - 1):
        side = polya._one_side(rate, 7, 3, ConstantBits(word))
        assert (side >= 0).all()
        assert (side <= bound).all()
    assert (polya._one_side(rate, 7, 1, ConstantBits(2**64 - 1)) == bound).all()


@pytest.mark.parametrize(("epsilon", "l1"), [(1e-3, 1.0), (8.0, 1.0), (1.0, 2.0), (0.01, 24_576.0)])
@pytest.mark.parametrize(("participants", "tolerance"), [(1, 0), (10, 1), (1000, 0), (1000, 999)])
def test_every_plan_stays_within_the_distance_that_the_accountant_charges(
    epsilon: float, l1: float, participants: int, tolerance: int
) -> None:
    made = plan(
        epsilon=epsilon,
        l1_sensitivity=l1,
        participants=participants,
        tolerance=tolerance,
        dimension=4096,
    )
    assert 0 < made.distance <= DISTANCE_PER_RELEASE


def test_a_vector_so_long_that_its_distance_would_count_is_refused() -> None:
    with pytest.raises(ValueError, match="too far"):
        plan(epsilon=1e-3, participants=2**14, tolerance=0, dimension=2**32, largest=1)


def test_counts_come_back_exactly_without_noise_and_near_with_it() -> None:
    made = plan(dimension=3, participants=3, tolerance=0, epsilon=64.0, l1_sensitivity=1.0)
    values = [np.array([0, 5, 2**31]), np.array([7, -5, 1]), np.array([1, 1, 1])]
    total = sum((made.encode(v) for v in values), start=np.zeros(3, dtype=np.uint64))
    assert made.decode(total).tolist() == [8.0, 1.0, float(2**31 + 2)]
    noisy = sum((made.contribution(v, bits=SecureBits()) for v in values), start=np.zeros(3, dtype=np.uint64))
    assert made.decode(noisy).tolist() == made.decode(total).tolist(), "at ε = 64 noise comes once in e^64"


def test_the_worst_total_does_not_wrap() -> None:
    made = plan(epsilon=0.01, largest=2**40, dimension=1)
    worst = np.uint64(polya.largest(made.rate))
    for sign in (1, -1):
        total = np.zeros(1, dtype=np.uint64)
        for _ in range(10):
            value = made.encode(np.array([sign * 2**40]))
            total += value + worst if sign > 0 else value - worst
        assert sign * made.decode(total)[0] > 10 * 2**40


def test_a_plan_that_could_wrap_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="wrap"):
        plan(largest=2**60)
    with pytest.raises(ValueError, match="wrap"):
        plan(epsilon=2.0**-39, participants=2**14, tolerance=0, l1_sensitivity=2.0, largest=2**50)


@pytest.mark.parametrize(
    "values",
    [np.array([1.0]), np.array([2**33]), np.array([-(2**33)]), np.array([1, 2]), np.array([True])],
)
def test_counts_that_do_not_fit_are_refused_without_saying_them(values: np.ndarray) -> None:
    with pytest.raises(NotEncodable) as refused:
        plan().encode(values)
    assert not any(character.isdigit() for character in str(refused.value))


def test_a_total_of_another_shape_is_refused() -> None:
    for total in (np.zeros(2, dtype=np.uint64), np.zeros(1, dtype=np.int64)):
        with pytest.raises(NotEncodable):
            plan().decode(total)


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": 10},
        {"tolerance": -1},
        {"participants": 0, "tolerance": 0},
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"l1_sensitivity": -1.0},
        {"epsilon": 129.0},  # λ = 64.5
        {"epsilon": 2.0**-40},  # λ = 2^-41
        {"dimension": 0},
        {"largest": 0},
        {"largest": 1.5},
    ],
)
def test_a_plan_without_sense_cannot_be_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        plan(**changes)


@pytest.mark.parametrize("rate", [0.5, 1, "1", Fraction(65), Fraction(0), Fraction(-1)])
def test_a_rate_that_is_inexact_or_out_of_range_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="rate"):
        polya.share(rate, 3, 1, bits=SecureBits())  # type: ignore[arg-type]  # what a careless caller might pass
    with pytest.raises(ValueError, match="parts"):
        polya.share(Fraction(1), 0, 1, bits=SecureBits())


@pytest.mark.parametrize(("epsilon", "l1"), [(1.0, 1.0), (1.0, 2.0), (4.0, 1.0), (0.1, 2.0)])
@pytest.mark.parametrize("contributors", [9, 10])
def test_the_error_bar_is_that_of_the_exact_distribution(
    epsilon: float, l1: float, contributors: int
) -> None:
    made = plan(epsilon=epsilon, l1_sensitivity=l1)
    rate = epsilon / l1
    exact = difference(negative_binomial(rate, contributors / 9, int(60 / rate)))
    x = np.arange(len(exact)) - len(exact) // 2
    deviation = made.standard_deviation(contributors=contributors)
    assert deviation == pytest.approx(math.sqrt((exact * x**2).sum()), rel=1e-9)
    for level in (0.5, 0.95, 0.999):
        half = made.half_width(contributors=contributors, level=level)
        assert exact[np.abs(x) <= half].sum() >= level - 1e-9
        assert exact[np.abs(x) <= half - 1].sum() < level


def test_the_error_bar_of_a_small_rate_is_that_of_the_continuous_laplace() -> None:
    made = plan(epsilon=1.0, l1_sensitivity=24_576.0, tolerance=0)
    assert made.half_width(contributors=10, level=0.95) == pytest.approx(24_576 * math.log(20), rel=2e-3)


def test_simulated_noise_is_like_the_noise() -> None:
    rng = np.random.default_rng(8)
    for made in (plan(), plan(l1_sensitivity=24_576.0)):
        drawn = made.simulated_noise((200_000,), contributors=10, rng=rng)
        assert drawn.std() == pytest.approx(made.standard_deviation(contributors=10), rel=0.02)
        half = made.half_width(contributors=10, level=0.9)
        assert 0.895 < np.mean(np.abs(drawn) <= half) < 0.93


def test_the_error_bar_is_only_given_for_totals_with_enough_shares() -> None:
    for contributors in (8, 11):
        with pytest.raises(ValueError, match="promises"):
            plan().standard_deviation(contributors=contributors)
        with pytest.raises(ValueError, match="promises"):
            plan().half_width(contributors=contributors, level=0.95)
    with pytest.raises(ValueError, match="level"):
        plan().half_width(contributors=10, level=1.0)


def test_shares_are_fresh_each_time() -> None:
    made = plan(epsilon=1e-3, dimension=64, participants=1, tolerance=0)
    assert (made.noise(bits=SecureBits()) != made.noise(bits=SecureBits())).sum() > 50


def test_the_same_bits_give_the_same_share() -> None:
    """A later change of the sampler is a change of every replayed history: it should be seen."""
    first = polya.share(Fraction(1, 2), 9, 8, bits=SeededBits(1))
    again = polya.share(Fraction(1, 2), 9, 8, bits=SeededBits(1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != polya.share(Fraction(1, 2), 9, 8, bits=SeededBits(2)).tolist()


def test_the_slowest_table_is_made_in_less_than_a_second_and_a_wide_share_in_milliseconds() -> None:
    polya._negative_binomial.cache_clear()
    started = time.thread_time()
    polya._negative_binomial(Fraction(1, 1024), 1000)
    build_s = time.thread_time() - started
    bits = SecureBits()
    timings = {}
    for rate, size in ((Fraction(1, 1024), 4096), (Fraction(1, 2), 1), (Fraction(1, 24_576), 4096)):
        polya.share(rate, 9, size, bits=bits)
        taken = []
        for _ in range(20):
            started = time.thread_time()
            polya.share(rate, 9, size, bits=bits)
            taken.append(time.thread_time() - started)
        timings[rate, size] = sorted(taken)[10] * 1e3
    print(
        f"table at λ = 1/1024: {build_s:.2f} s; " + "; ".join(f"{k}: {v:.2f} ms" for k, v in timings.items())
    )
    assert build_s < 1.0
    assert max(timings.values()) < 10
    assert timings[Fraction(1, 2), 1] < 0.5
