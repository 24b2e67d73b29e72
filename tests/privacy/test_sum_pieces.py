"""A vector that comes in pieces counts when it is whole, and a part of one is in no sum."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from privacy.errors import BadParameters, OutOfOrder, ProtocolViolation, StepReused
from privacy.lanes import laid
from privacy.rng import Words
from privacy.sum_collector import SumCollector
from privacy.waiting_vector import HELD_BYTES
from tests.privacy.sum_network import CONTEXT, OTHER_CONTEXT, SumNetwork, node, plain_sum, vectors_of


def send_in_pieces(
    network: SumNetwork, index: int, vector: Words, *, size: int, lanes: int = 1, most: int | None = None
) -> bool:
    """Mask and send a vector piece by piece, the first `most` of them; return whether it counts."""
    words = laid(vector, lanes=lanes)
    masking = network.parties[index].masking(step=0, context=CONTEXT, length=words.size)
    starts = range(0, words.size, size)
    whole = False
    for start in list(starts)[:most]:
        data = masking.over(words[start : start + size]).tobytes()
        terms = {"lanes": lanes, "offset": start, "length": vector.size}
        whole = network.collector.piece(node(index), data, step=0, context=CONTEXT, **terms)
    return whole and network.collector.add(node(index), step=0)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_pieces_add_up_to_what_whole_vectors_do(size: int) -> None:
    vectors = vectors_of(4, length=1000)
    network = SumNetwork(4, colluders=1).open()
    for index in range(3):
        assert send_in_pieces(network, index, vectors[index], size=size)
    network.send(3, vectors[3])
    np.testing.assert_array_equal(network.run({}), plain_sum(vectors, range(4)))


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 32])
def test_numbers_that_share_words_give_the_signed_sum(lanes: int) -> None:
    most = (2 ** (64 // lanes - 1) - 1) // 4
    rng = np.random.default_rng(lanes)
    values = rng.integers(-most, most + 1, (4, 50))
    values[:, 0], values[:, 1] = most, -most
    network = SumNetwork(4, colluders=1).open()
    for index in range(4):
        assert send_in_pieces(network, index, values[index].view(np.uint64), size=7, lanes=lanes)
    network.die(2)  # after its vector: what is in the sum stands
    np.testing.assert_array_equal(network.run({}).view(np.int64), values.sum(axis=0))


def test_whoever_lays_its_numbers_out_otherwise_is_no_survivor() -> None:
    network = SumNetwork(4, colluders=1).open()
    values = np.arange(-12, 12)
    for index in range(4):
        assert send_in_pieces(network, index, values.view(np.uint64), size=50, lanes=3 if index else 2)
    assert network.collector.close(0) == (node(1), node(2), node(3))
    np.testing.assert_array_equal(network.run({}).view(np.int64), 3 * values)


@pytest.mark.parametrize("length", [50, 49])
def test_a_mask_computed_ahead_is_the_one_that_is_made_on_the_way(length: int) -> None:
    """And one of another length is not taken."""
    ahead, same = (SumNetwork(3, seed=4).open() for _ in range(2))
    ahead.parties[0].prepare(step=0, context=CONTEXT, length=length)
    vector = np.arange(50, dtype=np.uint64)
    both = [each.parties[0].masking(step=0, context=CONTEXT, length=50) for each in (ahead, same)]
    np.testing.assert_array_equal(both[0].over(vector), both[1].over(vector))


@pytest.mark.parametrize("pieces", [1, 9])
def test_a_vector_that_breaks_off_is_a_dropout_and_no_word_of_it_is_in_the_sum(pieces: int) -> None:
    vectors = vectors_of(4, length=100)
    network = SumNetwork(4, colluders=1).open()
    assert not send_in_pieces(network, 1, vectors[1], size=10, most=pieces)
    for index in (0, 2, 3):
        assert send_in_pieces(network, index, vectors[index], size=10)
    assert network.collector.missing_inputs(0) == {node(1)}
    assert network.collector.close(0) == (node(0), node(2), node(3))
    with pytest.raises(OutOfOrder, match="whole"):  # nor does the party help to open anything of its half
        network.parties[1].reveal(step=0, survivors=network.parameters.participants)
    for index in (0, 2, 3):
        network.reveal(index)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, (0, 2, 3)))


def test_pieces_that_do_not_follow_each_other_cost_the_vector() -> None:
    network = SumNetwork(3, colluders=0).open()
    good = {"step": 0, "context": CONTEXT, "lanes": 1, "length": 4}
    for wrong in (
        {"offset": 1},
        {"offset": 0},
        {"offset": 2, "length": 5},
        {"offset": 1, "lanes": 2},
        {"offset": 2, "context": OTHER_CONTEXT},
    ):
        network.collector.piece(node(0), bytes(16), **(good | {"offset": 0}))  # type: ignore[arg-type]
        with pytest.raises(ProtocolViolation, match="follow"):
            network.collector.piece(node(0), bytes(8), **(good | wrong))  # type: ignore[arg-type]
        assert not network.collector.add(node(0), step=0)
    for wrong in ({"data": b""}, {"data": bytes(9)}, {"data": bytes(40)}, {"length": 0}, {"lanes": 33}):
        fields = {"data": bytes(16), "offset": 0} | good | wrong
        with pytest.raises(ProtocolViolation):
            network.collector.piece(node(1), fields.pop("data"), **fields)  # type: ignore[arg-type]


def test_a_vector_in_pieces_is_added_once() -> None:
    vectors = vectors_of(3, length=10)
    network = SumNetwork(3, colluders=0).open()
    for index in range(3):
        assert send_in_pieces(network, index, vectors[index], size=5)
        again = {"step": 0, "context": CONTEXT, "lanes": 1, "offset": 0, "length": 10}
        assert not network.collector.piece(node(index), bytes(80), **again)  # type: ignore[arg-type]
        assert not network.collector.add(node(index), step=0)
        with pytest.raises(StepReused):
            network.parties[index].masking(step=0, context=CONTEXT, length=10)
        with pytest.raises(StepReused):
            network.parties[index].masked(vectors[index], step=0, context=CONTEXT)
    np.testing.assert_array_equal(network.run({}), plain_sum(vectors, range(3)))


def test_long_vectors_wait_in_files_without_a_name(tmp_path: Path) -> None:
    network = SumNetwork(3, colluders=0)
    network.collector = SumCollector(network.parameters, folder=tmp_path)
    network.open()
    length = 3 * HELD_BYTES // 8 // 2
    vectors = vectors_of(3, length=length)
    before = resident_files(tmp_path)
    assert not send_in_pieces(network, 0, vectors[0], size=length // 3 + 1, most=2)
    assert resident_files(tmp_path) == before + 1
    assert list(tmp_path.iterdir()) == []
    network.collector.drop(node(0))
    assert resident_files(tmp_path) == before
    for index in (1, 2):
        assert send_in_pieces(network, index, vectors[index], size=length // 3 + 1)
    assert resident_files(tmp_path) == before
    np.testing.assert_array_equal(network.run({}), plain_sum(vectors, (1, 2)))


def resident_files(folder: Path) -> int:
    """Return how many open files of this process lie in `folder`, named or not."""
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.startswith(str(folder)) for link in links)


def test_a_piece_beyond_the_vector_is_refused() -> None:
    network = SumNetwork(3, colluders=0).open()
    masking = network.parties[0].masking(step=0, context=CONTEXT, length=4)
    masking.over(np.zeros(3, dtype=np.uint64))
    for size in (0, 2):
        with pytest.raises(BadParameters):
            masking.over(np.zeros(size, dtype=np.uint64))
    assert not masking.finished
    masking.over(np.zeros(1, dtype=np.uint64))
    assert masking.finished


@pytest.mark.slow
def test_memory_holds_one_running_sum_however_many_send() -> None:
    """In a process of its own, whose peak is its own; the figure for 1e8 is in the bench."""
    values = 20_000_000
    program = f"from tests.bench import secure_aggregation as b; b.add_large({values})"
    found = json.loads(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout
    )
    one_sum_mb = found["bytes"] * values / 2**20
    assert found["grown_mb"] < one_sum_mb + 60, "three vectors would be 150 MB"
