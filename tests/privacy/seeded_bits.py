"""Bits that repeat, for vectors and histories. Lives in tests only, so that nothing real can import it."""

import builtins
import hashlib

from privacy.rng import SecureBits


class SeededBits(SecureBits):
    """SHAKE-256 of a seed and a call counter in place of the operating system."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._calls = 0

    def _stream(self, n: int) -> builtins.bytes:
        self._calls += 1
        return hashlib.shake_256(f"{self._seed}/{self._calls}".encode()).digest(n)
