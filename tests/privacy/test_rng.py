"""What privacy.rng promises."""

import os
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from privacy.rng import LARGEST_BYTES, SecureBits


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 4096])
def test_as_many_bytes_come_as_were_asked_for(n: int) -> None:
    assert len(SecureBits().bytes(n)) == n


def test_words_come_in_an_array_that_may_be_written() -> None:
    words = SecureBits().uint64(100)
    assert words.dtype == np.uint64
    words += np.uint64(1)


@pytest.mark.parametrize("n", [-1, LARGEST_BYTES + 1])
def test_a_length_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        SecureBits().bytes(n)


def test_bytes_are_uniform() -> None:
    """Chi-square over 256 values; the control with one bit forced is rejected by the same test."""
    drawn = np.frombuffer(SecureBits().bytes(1 << 20), dtype=np.uint8)
    assert stats.chisquare(np.bincount(drawn, minlength=256)).pvalue > 1e-10
    biased = np.where(np.arange(drawn.size) % 50 == 0, drawn | 1, drawn)
    assert stats.chisquare(np.bincount(biased, minlength=256)).pvalue < 1e-10


@pytest.mark.parametrize("n", [16, 4096])
def test_two_calls_never_agree(n: int) -> None:
    bits = SecureBits()
    assert len({bits.bytes(n) for _ in range(100)}) == 100


@pytest.mark.parametrize("n", [32, 4096])
def test_a_forked_child_draws_other_bits_than_its_parent(n: int) -> None:
    bits = SecureBits()
    bits.bytes(n)  # whatever state there is exists before the fork
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, bits.bytes(n)[:32])
        os._exit(0)
    mine = bits.bytes(n)[:32]
    os.waitpid(child, 0)
    theirs = os.read(read, 32)
    os.close(read)
    os.close(write)
    assert len(theirs) == 32
    assert theirs != mine


def test_below_is_uniform_where_the_bound_is_no_power_of_two() -> None:
    """Chi-square on below(6); the control, a byte modulo 6 over 2^3 values, is rejected."""
    bits = SecureBits()
    counts = Counter(bits.below(6) for _ in range(12_000))
    assert stats.chisquare([counts[k] for k in range(6)]).pvalue > 1e-10
    biased = Counter((bits.bytes(1)[0] & 7) % 6 for _ in range(12_000))
    assert stats.chisquare([biased[k] for k in range(6)]).pvalue < 1e-10


def test_below_covers_bounds_of_any_size() -> None:
    bits = SecureBits()
    assert bits.below(1) == 0
    assert all(0 <= bits.below(2**256 + 297) < 2**256 + 297 for _ in range(20))
    assert {bits.below(2) for _ in range(200)} == {0, 1}
    with pytest.raises(ValueError, match="bound"):
        bits.below(0)


def test_the_source_shows_nothing_of_itself() -> None:
    assert repr(SecureBits()) == "SecureBits(<hidden>)"
