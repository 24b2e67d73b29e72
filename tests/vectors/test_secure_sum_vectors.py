"""The bytes of a secure sum are fixed: a change of the wire shows here, not between two hospitals."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from privacy import errors, masks
from privacy.shamir import recover
from tests.privacy.sum_network import CONTEXT, node
from tests.vectors.chacha20_reference import chacha20_stream, hkdf_expand_32
from tests.vectors.make_secure_sum import PATH, made, network

VECTORS: dict[str, Any] = json.loads(PATH.read_text())

# RFC 8439, appendix A.1, test vector 1: key, nonce and block counter zero
RFC_8439_A1_1 = (
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)


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


def test_the_reference_cipher_agrees_with_its_rfc() -> None:
    assert chacha20_stream(bytes(32), 64).hex() == RFC_8439_A1_1


def test_a_mask_is_what_the_rfcs_say() -> None:
    """The same words from HMAC and ChaCha20 as their RFCs write them, without the product's library."""
    seed = bytes(range(32))
    info = (4).to_bytes(4, "big") + b"mask" + (32).to_bytes(4, "big") + CONTEXT
    expected = chacha20_stream(hkdf_expand_32(seed, info), 8 * 100)
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
