"""As many numbers travel in a word as fit into it, and no sum of what may be added wraps."""

import numpy as np
import pytest

from privacy.errors import BadParameters
from privacy.lanes import BLOCK_WORDS, MOST_LANES, LaneVector, laid, most_lanes, words_for
from privacy.lattice import NoisePlan

LANES = (1, 2, 3, 4, 5, 8, 21, 32)


def largest_of(lanes: int) -> int:
    """Return the largest number that a lane holds."""
    return int(2 ** (64 // lanes - 1)) - 1


def read_back(values: list[int], *, lanes: int) -> list[int]:
    """Return the sum of integers as it comes out of each lane, with the opposite sum in every second one."""
    signs = [(-1) ** lane for lane in range(lanes)]
    total = np.zeros(1, dtype=np.uint64)
    for value in values:
        given = np.array([(sign * value) % 2**64 for sign in signs], dtype=np.uint64)
        total += laid(given, lanes=lanes)
    found = LaneVector(total, lanes, lanes).signed().view(np.int64)
    return [sign * int(one) for sign, one in zip(signs, found, strict=True)]


@pytest.mark.parametrize("participants", [1, 2, 3, 8, 100, 1000])
@pytest.mark.parametrize("largest", [1, 127, 128, 2**20 - 1, 2**31, 2**40 + 12345, 2**52])
def test_no_sum_at_the_extremes_wraps_and_one_lane_more_does(participants: int, largest: int) -> None:
    lanes = most_lanes(participants=participants, largest=largest)
    for sign in (1, -1):
        whole = sign * largest * participants
        assert read_back([sign * largest] * participants, lanes=lanes) == [whole] * lanes
    mixed = [largest, -largest] * (participants // 2) + [largest] * (participants % 2)
    assert read_back(mixed, lanes=lanes) == [sum(mixed)] * lanes
    if lanes < MOST_LANES and 64 // (lanes + 1) < 64 // lanes:
        assert read_back([largest] * participants, lanes=lanes + 1) != [largest * participants] * (lanes + 1)


@pytest.mark.parametrize("lanes", LANES)
def test_the_bound_is_tight_by_one(lanes: int) -> None:
    most = largest_of(lanes)
    for value in (most, -most, -most - 1):
        assert read_back([value], lanes=lanes)[0] == value
    if lanes > 1:
        assert most_lanes(participants=1, largest=most) == lanes
        assert most_lanes(participants=1, largest=most + 1) < lanes
        assert read_back([most + 1], lanes=lanes) != [most + 1] * lanes
    else:
        with pytest.raises(BadParameters, match="wrap"):
            most_lanes(participants=1, largest=most + 1)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("length", [1, 2, 5, 1000, BLOCK_WORDS + 1, 3 * BLOCK_WORDS - 1, 7 * BLOCK_WORDS + 5])
def test_sums_of_laid_vectors_are_the_sums_of_the_vectors(lanes: int, length: int) -> None:
    most = largest_of(lanes) // 3
    vectors = np.random.default_rng(lanes).integers(-most, most + 1, (3, length))
    words = sum(laid(vector.view(np.uint64), lanes=lanes) for vector in vectors)
    assert isinstance(words, np.ndarray)
    assert words.size == words_for(length, lanes=lanes) == -(-length // lanes)
    total = LaneVector(words, length, lanes)
    np.testing.assert_array_equal(total.signed().view(np.int64), vectors.sum(axis=0))
    np.testing.assert_array_equal(total.narrowed().signed(), total.signed())


def test_a_vector_laid_in_pieces_is_the_vector() -> None:
    vector = np.random.default_rng(1).integers(-1000, 1000, 9 * BLOCK_WORDS + 77).view(np.uint64)
    pieces = [
        laid(vector[at : at + 6 * BLOCK_WORDS], lanes=3) for at in range(0, vector.size, 6 * BLOCK_WORDS)
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), laid(vector, lanes=3))


@pytest.mark.parametrize(("largest", "lanes"), [(0, 32), (1, 32), (2**11 - 1, 5), (2**20 - 1, 3), (2**20, 2)])
def test_a_total_comes_back_in_as_few_words_as_its_numbers_need(largest: int, lanes: int) -> None:
    numbers = np.full(100_000, -1 if largest else 0)
    numbers[77_777] = largest
    narrow = LaneVector(numbers.view(np.uint64), numbers.size).narrowed()
    assert narrow.lanes == lanes
    np.testing.assert_array_equal(narrow.signed().view(np.int64), numbers)


@pytest.mark.parametrize("lanes", [0, 33, -1, True, 1.0, None])
def test_a_number_of_lanes_that_no_word_has_is_refused(lanes: int) -> None:
    with pytest.raises(BadParameters):
        laid(np.zeros(1, dtype=np.uint64), lanes=lanes)
    with pytest.raises(BadParameters):
        LaneVector(np.zeros(1, dtype=np.uint64), 1, lanes)


@pytest.mark.parametrize("length", [3, 7])
def test_a_vector_of_other_words_than_its_numbers_take_is_refused(length: int) -> None:
    with pytest.raises(BadParameters):
        LaneVector(np.zeros(2, dtype=np.uint64), length, 3)


@pytest.mark.parametrize("participants", [2, 8, 100])
@pytest.mark.parametrize("dimension", [1, 1_000, 10**6])
def test_a_plans_lanes_hold_the_most_that_its_sites_can_add(participants: int, dimension: int) -> None:
    lanes = set()
    for tolerance in (0, participants - 1):
        plan = NoisePlan.for_reals(
            sigma=8.0,
            l2_clip_norm=1.0,
            sites_per_patient=2,
            participants=participants,
            tolerance=tolerance,
            dimension=dimension,
            largest=1e5,
        )
        most = plan.largest_contribution
        for sign in (1, -1):
            whole = sign * most * participants
            assert read_back([sign * most] * participants, lanes=plan.lanes) == [whole] * plan.lanes
        assert plan.lanes > 1
        lanes.add(plan.lanes)
    assert len(lanes) == 1, "whatever a site tolerates, its words look the same"
