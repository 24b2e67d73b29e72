"""Shamir's secret sharing of 32-byte secrets, in the prime field just above 2^256.

Guarantee: any `threshold` shares give the secret; fewer say nothing about it (up to a distance of 2^-126 per
coefficient, because coefficients are 384 random bits modulo the prime).
Source: Shamir, How to share a secret, 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from privacy.errors import BadParameters
from privacy.rng import SecureBits

PRIME = 2**256 + 297  # the smallest prime above 2^256: every 32-byte secret is a field element
SECRET_BYTES = 32
SHARE_BYTES = 33  # a field element needs 257 bits
WIDE_BYTES = 48  # 128 bits more than a secret, so that the remainder modulo PRIME is as good as uniform


def split(secret: bytes, *, threshold: int, shares: int, bits: SecureBits) -> list[bytes]:
    """Return the shares of `secret` at the points 1 .. `shares`, each of 33 bytes.

    Args:
        threshold: how many shares give the secret, 1 to `shares`.
    Raises: BadParameters.
    """
    if len(secret) != SECRET_BYTES:
        raise BadParameters(f"a secret has {SECRET_BYTES} bytes, got {len(secret)}")
    if not 1 <= threshold <= shares:
        raise BadParameters(f"the threshold is between 1 and {shares}, got {threshold}")
    wide = bits.bytes(WIDE_BYTES * (threshold - 1))
    coefficients = [
        int.from_bytes(wide[at : at + WIDE_BYTES], "big") % PRIME for at in range(0, len(wide), WIDE_BYTES)
    ]
    coefficients.append(int.from_bytes(secret, "big"))
    return [(_value(coefficients, at=x) % PRIME).to_bytes(SHARE_BYTES, "big") for x in range(1, shares + 1)]


def recover(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret of exactly as many `shares` (by point) as the threshold.

    None if they are not shares of one 32-byte secret and that shows; wrong shares may also give a wrong
    secret, so the caller compares it with something.
    Raises: BadParameters for a point below 1 or a share that is no field element.
    """
    points = tuple(shares)
    if not points or min(points) < 1:
        raise BadParameters("points start at 1")
    secret = 0
    for weight, share in zip(_weights_at_zero(points), shares.values(), strict=True):
        secret += weight * _element(share)
    secret %= PRIME
    return secret.to_bytes(SECRET_BYTES, "big") if secret < 2**256 else None


def is_share(data: bytes) -> bool:
    """Return whether `data` is the encoding of a field element."""
    return len(data) == SHARE_BYTES and int.from_bytes(data, "big") < PRIME


def _element(share: bytes) -> int:
    if not is_share(share):
        raise BadParameters(f"a share is {SHARE_BYTES} bytes below the prime")
    return int.from_bytes(share, "big")


def _value(coefficients: list[int], *, at: int) -> int:
    """Horner's rule, highest power first; points are small, so one reduction at the end is cheapest."""
    value = 0
    for coefficient in coefficients:
        value = value * at + coefficient
    return value


@lru_cache(maxsize=1024)  # every secret of a step is recovered from the same points
def _weights_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights: a polynomial at 0 is the weighted sum of its values at `points`."""
    weights = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
