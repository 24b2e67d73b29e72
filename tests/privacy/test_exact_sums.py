"""Sums without noise: what the masked words add up to is the sum of the values, and never wraps."""

import math
from fractions import Fraction

import numpy as np
import pytest

from privacy.exact_sums import HEADROOM_BITS, LOW_BITS, ExactSums
from privacy.lattice import NotEncodable


def plan(*, participants: int = 3, dimension: int = 4, largest: float = 1e6) -> ExactSums:
    return ExactSums(participants=participants, tolerance=1, dimension=dimension, largest=largest)


def added(found: ExactSums, rows: np.ndarray) -> np.ndarray:
    return found.decode(np.sum([found.encode(row) for row in rows], axis=0, dtype=np.uint64))


@pytest.mark.parametrize("participants", [2, 3, 8, 1000])
@pytest.mark.parametrize("largest", [1e-3, 1.0, 1e6, 4.3e16])
def test_a_total_is_the_sum_of_what_sites_hold_up_to_the_last_bit(participants: int, largest: float) -> None:
    found = plan(participants=participants, dimension=50, largest=largest)
    rng = np.random.default_rng(participants)
    size = largest * 10.0 ** rng.uniform(-12, 0, (participants, 50))
    rows = size * rng.choice([-1.0, 1.0], (participants, 50))
    error = participants * Fraction(1, 2 ** (found.scale_bits + 1))
    for got, column in zip(added(found, rows), rows.T, strict=True):
        exact = sum(Fraction(value) for value in column.tolist())
        assert abs(Fraction(float(got)) - exact) <= error + Fraction(math.ulp(float(exact))) / 2


@pytest.mark.parametrize("participants", [2, 3, 7, 1000, 2**14])
@pytest.mark.parametrize("largest", [1.0, 3.3e5, 7e12])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_largest_values_of_all_sites_do_not_wrap(participants: int, largest: float, sign: float) -> None:
    found = plan(participants=participants, dimension=1, largest=largest)
    words = found.encode(np.array([sign * largest])) * np.uint64(participants)
    assert found.decode(words)[0] == sign * largest * participants
    parts = np.abs(found.encode(np.array([sign * largest])).view(np.int64))
    assert participants * int(parts[0]) <= 2**HEADROOM_BITS
    assert int(parts.max()) <= max(found.largest_contribution, 2**LOW_BITS)


def test_one_bit_more_of_scale_could_wrap() -> None:
    """The bound is not idle: at twice the scale, the sum of the largest values is read as another number."""
    found = plan(participants=2, dimension=1, largest=1.0)
    object.__setattr__(found, "scale_bits", found.scale_bits + 1)
    words = found.encode(np.array([1.0])) * np.uint64(2)
    assert found.decode(words)[0] != 2.0


def test_one_word_a_value_would_not_be_enough() -> None:
    """A logistic model at 8 sites: what its bounds leave of one word is off by more than 1e-8."""
    found = plan(participants=8, dimension=1, largest=1e6 * 11_001.0)
    assert 2.0 ** -(found.scale_bits - LOW_BITS + 1) > 1e-8
    assert 2.0 ** -(found.scale_bits + 1) < 1e-21


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.0000001e6, -2e6])
def test_what_is_no_number_or_too_large_is_refused(value: float) -> None:
    with pytest.raises(NotEncodable):
        plan().encode(np.array([0.0, value, 0.0, 0.0]))


def test_other_shapes_and_types_are_refused() -> None:
    found = plan()
    for wrong in (np.zeros(5), np.zeros((2, 2)), np.zeros(4, dtype=np.int64)):
        with pytest.raises(NotEncodable):
            found.encode(wrong)
    for total in (np.zeros(4, dtype=np.uint64), np.zeros(8)):
        with pytest.raises(NotEncodable):
            found.decode(total)
    for largest in (0.0, -1.0, math.inf, 1e40):
        with pytest.raises(ValueError, match=r"larg"):
            plan(largest=largest)
