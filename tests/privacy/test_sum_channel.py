"""What privacy.sum_channel promises: each key has one use, one direction and one session."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.errors import BadShares
from privacy.sum_channel import PairChannel
from tests.privacy.sum_network import node

KEYS = [X25519PrivateKey.from_private_bytes(bytes([index]) * 32) for index in (1, 2)]


def channel(me: int, *, digest: bytes = bytes(32)) -> PairChannel:
    """Return the channel as party 0 or party 1 holds it."""
    public = KEYS[1 - me].public_key().public_bytes_raw()
    return PairChannel(KEYS[me], public, digest=digest, me=node(me), peer=node(1 - me))


def test_both_ends_agree_on_the_pair_seeds_and_open_what_the_other_sealed() -> None:
    mine, theirs = channel(0), channel(1)
    assert [mine.pair_seed(step) for step in range(3)] == [theirs.pair_seed(step) for step in range(3)]
    assert theirs.open(mine.seal(b"shares")) == b"shares"
    assert mine.open(theirs.seal(b"shares")) == b"shares"


def test_the_two_directions_have_different_key_streams() -> None:
    """One stream for both would show the difference of what the two parties seal for each other."""
    plain = bytes(64)
    there, back = channel(0).seal(plain), channel(1).seal(plain)
    assert there[:64] != back[:64]
    with pytest.raises(BadShares):
        channel(0).open(there)


def test_the_same_keys_in_another_session_agree_on_other_secrets() -> None:
    mine, other = channel(0), channel(0, digest=bytes([1]) * 32)
    assert mine.pair_seed(0) != other.pair_seed(0)
    assert mine.seal(bytes(64))[:64] != other.seal(bytes(64))[:64]


def test_no_two_steps_share_a_pair_seed() -> None:
    mine = channel(0)
    assert len({mine.pair_seed(step) for step in range(500)}) == 500


def test_the_channel_shows_nothing_of_its_secret() -> None:
    assert repr(channel(0)).startswith("PairChannel(<hidden>")
