"""What privacy.masks promises."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scipy import stats

from privacy import masks
from privacy.errors import BadParameters
from privacy.masks import add_mask, derive, subtract_mask
from privacy.rng import Words

SEED, CONTEXT = bytes(range(32)), bytes(32)


def mask(length: int, *, seed: bytes = SEED, context: bytes = CONTEXT) -> Words:
    words = np.zeros(length, dtype=np.uint64)
    add_mask(words, seed=seed, context=context)
    return words


@pytest.mark.parametrize("length", [9, 16_383, 16_384, 16_385, 100_000])
def test_a_mask_is_the_aes_stream_of_its_derived_key(length: int) -> None:
    """An independent way to the same words: one call of the cipher, without pieces."""
    key = derive(SEED, masks.LABEL, CONTEXT)
    # SP 800-38D 7.1: with a nonce of twelve zeros GCM encrypts from counter 2 on; a mask starts at counter 0.
    stream = AESGCM(key).encrypt(bytes(12), bytes(8 * length), None)[: 8 * length - 32]
    assert mask(length).astype("<u8").tobytes()[32:] == stream


@pytest.mark.parametrize("length", [1, 40_000])
def test_a_mask_comes_off_as_it_went_on(length: int) -> None:
    vector = np.arange(length, dtype=np.uint64) - np.uint64(5)
    masked = vector.copy()
    add_mask(masked, seed=SEED, context=CONTEXT)
    assert not np.array_equal(masked, vector)
    subtract_mask(masked, seed=SEED, context=CONTEXT)
    np.testing.assert_array_equal(masked, vector)


def test_a_shorter_mask_is_the_start_of_a_longer_one() -> None:
    np.testing.assert_array_equal(mask(10), mask(50_000)[:10])


def test_another_seed_or_context_gives_an_unrelated_mask() -> None:
    first = mask(1000)
    for other in (mask(1000, seed=bytes(32)), mask(1000, context=bytes([1]) * 32)):
        assert not np.any(first == other)


def test_words_of_another_type_are_refused() -> None:
    with pytest.raises(BadParameters, match="uint64"):
        masks.MaskStream(seed=SEED, context=CONTEXT).apply(np.zeros(4, dtype=np.uint32))  # type: ignore[arg-type]


def test_mask_words_are_uniform() -> None:
    """Chi-square on all bytes; the control, words below 2^63, is rejected by the same test."""
    words = mask(1 << 17)
    assert stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-6
    halved = words >> np.uint64(1)
    assert stats.chisquare(np.bincount(halved.view(np.uint8), minlength=256)).pvalue < 1e-6


def test_parts_of_a_derivation_do_not_run_into_each_other() -> None:
    made = {derive(SEED, *args) for args in [("a", b"bc"), ("ab", b"c"), ("a", b"b", b"c"), ("abc",)]}  # type: ignore[arg-type]
    assert len(made) == 4


@pytest.mark.parametrize(("seed", "context"), [(bytes(31), CONTEXT), (SEED, bytes(33)), (SEED, b"")])
def test_a_seed_or_context_of_another_size_is_refused(seed: bytes, context: bytes) -> None:
    with pytest.raises(BadParameters):
        mask(1, seed=seed, context=context)


def test_too_long_a_vector_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MAX_WORDS", 10)
    with pytest.raises(BadParameters):
        mask(11)
