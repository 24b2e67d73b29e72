"""The one source of secrets and noise: ChaCha20 streams keyed by the operating system."""

from __future__ import annotations

import builtins
import os
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Words: TypeAlias = npt.NDArray[np.uint64]

SMALL_BYTES = 256  # up to here asking the operating system is as fast as keying a stream
LARGEST_BYTES = 2**37  # half of what a ChaCha20 stream gives before its 32-bit block counter wraps


class SecureBits:
    """Uniform bits that nobody can predict.

    Guarantee: every call keys its own stream from the operating system and forgets it, so nothing is kept
    between calls: a forked child or another thread never repeats bits, and a later look into the memory
    does not show earlier ones.
    """

    def bytes(self, n: int) -> builtins.bytes:
        """Return `n` uniform bytes. Raises: ValueError unless 0 <= n <= 2^37."""
        if not 0 <= n <= LARGEST_BYTES:
            raise ValueError(f"between 0 and {LARGEST_BYTES} bytes, asked for {n}")
        return self._stream(n)

    def uint64(self, n: int) -> Words:
        """Return `n` uniform 64-bit words in a new, writable array. Raises: ValueError for n < 0."""
        return np.frombuffer(bytearray(self.bytes(8 * n)), dtype="<u8").astype(np.uint64, copy=False)

    def below(self, bound: int) -> int:
        """Return an integer uniform over 0 .. bound - 1, without bias (rejection), for a bound of any size.

        Raises: ValueError for bound < 1.
        """
        if bound < 1:
            raise ValueError(f"bound is at least 1, got {bound}")
        bits = (bound - 1).bit_length()
        while True:
            drawn = int.from_bytes(self.bytes((bits + 7) // 8), "big") >> (-bits % 8)
            if drawn < bound:
                return drawn

    def _stream(self, n: int) -> builtins.bytes:
        if n <= SMALL_BYTES:
            return os.urandom(n)
        cipher = Cipher(ChaCha20(os.urandom(32), builtins.bytes(16)), mode=None)  # key used once: nonce 0
        return cipher.encryptor().update(builtins.bytes(n))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"
