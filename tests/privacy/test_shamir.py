"""What privacy.shamir promises."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.errors import BadParameters
from privacy.rng import SecureBits
from privacy.shamir import PRIME, SHARE_BYTES, is_share, recover, split
from tests.privacy.seeded_bits import SeededBits

SECRET = bytes(range(32))


def passes_miller_rabin(number: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def test_the_field_is_the_first_prime_above_all_secrets() -> None:
    assert passes_miller_rabin(PRIME)
    assert not any(passes_miller_rabin(number) for number in range(2**256 + 1, PRIME))


@settings(deadline=None, max_examples=60)
@given(secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, data: st.DataObject) -> None:
    shares = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, shares))
    points = data.draw(st.permutations(range(1, shares + 1)))[:threshold]
    made = split(secret, threshold=threshold, shares=shares, bits=SecureBits())
    assert all(len(share) == SHARE_BYTES for share in made)
    assert recover({point: made[point - 1] for point in points}) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret_come_back(secret: bytes) -> None:
    made = split(secret, threshold=2, shares=3, bits=SecureBits())
    assert recover({1: made[0], 3: made[2]}) == secret


def test_fewer_shares_than_the_threshold_give_something_else() -> None:
    made = split(SECRET, threshold=3, shares=5, bits=SecureBits())
    for points in combinations(range(1, 6), 2):
        assert recover({point: made[point - 1] for point in points}) != SECRET


def test_every_secret_fits_fewer_shares_than_the_threshold() -> None:
    """Perfect secrecy, shown: for any other secret there are third shares that lead to it."""
    made = split(SECRET, threshold=3, shares=5, bits=SecureBits())
    known = {1: made[0], 2: made[1]}
    with_zero = recover(known | {3: bytes(SHARE_BYTES)})
    one = (1).to_bytes(SHARE_BYTES, "big")
    with_one = recover(known | {3: one})
    assert with_zero != with_one  # the third share moves the secret, linearly: it reaches every one


def test_a_share_is_uniform_whatever_the_secret() -> None:
    """Chi-square on a middle byte of one share of one secret; the same test rejects the secret's own byte."""
    counts, bits = [0] * 256, SeededBits(1)
    for _ in range(8000):
        counts[split(SECRET, threshold=2, shares=2, bits=bits)[0][20]] += 1
    assert stats.chisquare(counts).pvalue > 1e-6
    unshared = [0] * 256
    unshared[SECRET[19]] = 8000
    assert stats.chisquare(unshared).pvalue < 1e-6


def test_a_wrong_share_gives_another_secret() -> None:
    made = split(SECRET, threshold=2, shares=3, bits=SecureBits())
    assert recover({1: made[0], 2: made[2]}) != SECRET


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_field_element_is_refused(share: bytes) -> None:
    assert not is_share(share)
    with pytest.raises(BadParameters):
        recover({1: share, 2: bytes(33)})


@pytest.mark.parametrize(("threshold", "shares"), [(0, 3), (4, 3), (-1, 3)])
def test_a_threshold_out_of_range_is_refused(threshold: int, shares: int) -> None:
    with pytest.raises(BadParameters):
        split(SECRET, threshold=threshold, shares=shares, bits=SecureBits())


def test_a_secret_of_another_size_and_a_point_at_the_secret_are_refused() -> None:
    with pytest.raises(BadParameters):
        split(bytes(31), threshold=1, shares=1, bits=SecureBits())
    with pytest.raises(BadParameters):
        recover({0: bytes(33)})
    with pytest.raises(BadParameters):
        recover({})
