"""The bytes of a secure sum are fixed: a change of the wire shows here, not between two hospitals."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from privacy import errors, masks
from privacy.shamir import recover
from tests.privacy.sum_network import CONTEXT, node
from tests.vectors.aes_reference import aes256_block, aes256_ctr_stream, hkdf_expand_32
from tests.vectors.make_secure_sum import PATH, made, network

VECTORS: dict[str, Any] = json.loads(PATH.read_text())

# SP 800-38A, appendix F.5.5: AES-256 in counter mode, the first block
SP_800_38A_KEY = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
SP_800_38A_COUNTER = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
SP_800_38A_BLOCK = "0bdf7df1591716335e9a8b15c860c502"


def test_numbers_lie_in_words_as_recorded() -> None:
    """By plain integers: 7 numbers in 3 words, first those of the lowest lanes, then those 21 bits above."""
    recorded = VECTORS["laid"]
    numbers, bits = recorded["numbers"], 64 // recorded["lanes"]
    expected = [
        sum(number << (bits * lane) for lane, number in enumerate(numbers[word::3])) % 2**64
        for word in range(3)
    ]
    assert np.frombuffer(bytes.fromhex(recorded["words"]), dtype="<u8").tolist() == expected


def test_the_session_makes_the_recorded_bytes() -> None:
    again = json.loads(json.dumps(made()))
    assert again.keys() == VECTORS.keys()
    for part in VECTORS:
        assert again[part] == VECTORS[part], part


def test_the_recorded_totals_are_the_sums_of_the_recorded_vectors() -> None:
    vectors = [np.frombuffer(bytes.fromhex(text), dtype="<u8") for text in VECTORS["vectors"]]
    for total, contributors in zip(VECTORS["totals"], [(0, 1, 2, 3), (0, 1, 3)], strict=True):
        expected = np.sum([vectors[index] for index in contributors], axis=0, dtype=np.uint64)
        assert bytes.fromhex(total) == expected.tobytes()


def test_the_reference_cipher_agrees_with_its_standard() -> None:
    key, counter = bytes.fromhex(SP_800_38A_KEY), bytes.fromhex(SP_800_38A_COUNTER)
    assert aes256_block(key, counter).hex() == SP_800_38A_BLOCK


def test_a_mask_is_what_the_standards_say() -> None:
    """The same words from HMAC and AES as their standards write them, without the product's library."""
    seed, label = bytes(range(32)), b"mask aes-256-ctr"
    info = len(label).to_bytes(4, "big") + label + (32).to_bytes(4, "big") + CONTEXT
    expected = aes256_ctr_stream(hkdf_expand_32(seed, info), 8 * 100)
    mask = np.zeros(100, dtype=np.uint64)
    masks.add_mask(mask, seed=seed, context=CONTEXT)
    assert mask.astype("<u8").tobytes() == expected


def test_recorded_shares_give_the_recorded_secret() -> None:
    recorded = VECTORS["shamir"]
    shares = {point: bytes.fromhex(text) for point, text in enumerate(recorded["shares"], start=1)}
    for points in combinations(shares, recorded["threshold"]):
        assert recover({point: shares[point] for point in points}) == bytes.fromhex(recorded["secret"])
    for points in combinations(shares, recorded["threshold"] - 1):
        assert recover({point: shares[point] for point in points}) != bytes.fromhex(recorded["secret"])


@pytest.mark.parametrize("vector", VECTORS["must_fail"], ids=[v["what"] for v in VECTORS["must_fail"]])
def test_a_recorded_bad_message_is_refused(vector: dict[str, str]) -> None:
    session = network()
    session.advertise()
    adverts = session.collector.adverts()
    refused = getattr(errors, vector["error"])
    if "advert" in vector:
        with pytest.raises(refused):
            session.parties[0].shares(adverts | {node(1): vector["advert"].encode()})
        return
    session.share()
    outgoing = session.collector.outgoing(node(0))
    with pytest.raises(refused):
        session.parties[0].deliver(outgoing | {node(1): bytes.fromhex(vector["sealed"])})
    session.parties[0].deliver(outgoing)
