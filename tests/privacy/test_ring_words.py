"""Words of a sum are as wide as they must be, and no sum of what may be added wraps."""

import numpy as np
import pytest

from privacy.errors import BadParameters
from privacy.lattice import NoisePlan
from privacy.ring_words import RunningSum, add_packed, fewest_bytes, packed, put_signed, unpacked

WIDTHS = range(1, 9)


def read_back(values: list[int], *, width: int) -> int:
    """Return the sum of integers as it comes out of words of `width` bytes."""
    total, wide, back = RunningSum(1, width=width), np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    for value in values:
        data = packed(np.array([value % 2**64], dtype=np.uint64), width=width)
        add_packed(total.words, data, width=width)
        wide += unpacked(data, width=width)
    found = int(total.signed().view(np.int64)[0])
    put_signed(back, packed(wide, width=width), width=width)
    assert found == int(back.view(np.int64)[0]), "added in 64 bits it is the same"
    return found


@pytest.mark.parametrize("participants", [1, 2, 3, 8, 100, 1000])
@pytest.mark.parametrize("largest", [1, 127, 128, 2**20 - 1, 2**31, 2**40 + 12345, 2**52])
def test_no_sum_at_the_extremes_wraps_and_one_byte_less_does(participants: int, largest: int) -> None:
    width = fewest_bytes(participants=participants, largest=largest)
    for sign in (1, -1):
        assert read_back([sign * largest] * participants, width=width) == sign * largest * participants
    mixed = [largest, -largest] * (participants // 2) + [largest] * (participants % 2)
    assert read_back(mixed, width=width) == sum(mixed)
    if width > 1:
        assert read_back([largest] * participants, width=width - 1) != largest * participants


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bound_is_tight_by_one(width: int) -> None:
    most = 2 ** (8 * width - 1) - 1
    assert fewest_bytes(participants=1, largest=most) == width
    assert read_back([most], width=width) == most
    assert read_back([-most], width=width) == -most
    if width < 8:
        assert fewest_bytes(participants=1, largest=most + 1) == width + 1
        assert read_back([most + 1], width=width) != most + 1
    else:
        with pytest.raises(BadParameters, match="wrap"):
            fewest_bytes(participants=1, largest=most + 1)


@pytest.mark.parametrize("width", WIDTHS)
def test_words_are_packed_without_loss_of_their_low_bytes(width: int) -> None:
    words = np.random.default_rng(width).integers(0, 2**64, 1001, dtype=np.uint64)
    data = packed(words, width=width)
    assert len(data) == 1001 * width
    kept = words & np.uint64(2 ** (8 * width) - 1)
    np.testing.assert_array_equal(unpacked(data, width=width), kept)


@pytest.mark.parametrize("width", [0, 9, True, 1.0, None])
def test_a_width_that_no_word_has_is_refused(width: int) -> None:
    with pytest.raises(BadParameters):
        packed(np.zeros(1, dtype=np.uint64), width=width)


def test_half_a_word_is_refused() -> None:
    with pytest.raises(BadParameters):
        unpacked(bytes(7), width=2)


@pytest.mark.parametrize(("width", "other"), [(4, "<u8"), (5, "<u4")])
def test_words_are_added_in_their_own_ring_only(width: int, other: str) -> None:
    with pytest.raises(BadParameters, match="ring"):
        add_packed(np.zeros(2, dtype=other), bytes(2 * width), width=width)


@pytest.mark.parametrize("participants", [2, 8, 100])
@pytest.mark.parametrize("dimension", [1, 1_000, 10**6])
def test_a_plans_words_hold_the_most_that_its_sites_can_add(participants: int, dimension: int) -> None:
    plan = NoisePlan.for_reals(
        sigma=8.0,
        l2_clip_norm=1.0,
        sites_per_patient=2,
        participants=participants,
        tolerance=0,
        dimension=dimension,
        largest=1e5,
    )
    width, most = plan.ring_bytes, plan.largest_contribution
    for sign in (1, -1):
        assert read_back([sign * most] * participants, width=width) == sign * most * participants
    assert read_back([most] * participants, width=width - 1) != most * participants
    assert width < 8
