"""Ciphertexts and public keys of BFV and CKKS as plain numbers: checked, packed and added without C++.

Both schemes keep two polynomials modulo a few primes. On our wire each coefficient is a residue of five
bytes, in a fixed order, and nothing else: no header, no scale, no compression. So a vector has one encoding;
whoever receives one compares every residue with its prime before any library sees it; and the sum of
ciphertexts is an addition of residues, which gives the same bytes wherever it is done. The library's own form
is put around residues that have passed this check (privacy.bfv, privacy.ckks), by who encrypts or decrypts;
who only adds needs no library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import BadParameters, DoesNotFit, ProtocolViolation
from privacy.rng import Words

POLYNOMIALS = 2
RESIDUE_BYTES = 5  # every prime below is under 2^40


@dataclass(frozen=True, slots=True)
class RingForm:
    """The parameters of one scheme: a consortium that names the scheme has agreed on all of them.

    Args:
        degree: n of the ring Z[x]/(x^n + 1).
        primes: of the ciphertext modulus; of the key modulus, which has one more.
        slots: integers in one block of 2·n·len(data primes) residues.
        largest_total: the largest absolute value of a sum; beyond it a sum is refused, never wrapped.
    """

    scheme: str
    degree: int
    data_primes: tuple[int, ...]
    key_primes: tuple[int, ...]
    slots: int
    largest_total: int

    @property
    def block_bytes(self) -> int:
        """The packed size of one block."""
        return POLYNOMIALS * len(self.data_primes) * self.degree * RESIDUE_BYTES

    @property
    def key_bytes(self) -> int:
        """The packed size of a public key."""
        return POLYNOMIALS * len(self.key_primes) * self.degree * RESIDUE_BYTES

    def blocks(self, length: int) -> int:
        """Return how many blocks hold `length` integers."""
        return -(-length // self.slots)

    def ciphertext_bytes(self, length: int) -> int:
        """Return the packed size of an encrypted vector of `length` integers."""
        return self.blocks(length) * self.block_bytes

    def largest_input(self, participants: int) -> int:
        """Return the largest absolute value that one of so many participants may add."""
        return self.largest_total // participants

    def pack(self, residues: NDArray[np.uint64]) -> bytes:
        """Return residues in five bytes each, least significant first."""
        data = np.ascontiguousarray(residues, dtype="<u8").view(np.uint8).reshape(-1, 8)
        packed: bytes = data[:, :RESIDUE_BYTES].tobytes()
        return packed

    def unpack(self, packed: bytes, *, length: int) -> Words:
        """Return the residues of an encrypted vector: (block, polynomial, prime, coefficient).

        Raises: ProtocolViolation for another size, or a residue that is none of its prime.
        """
        if len(packed) != self.ciphertext_bytes(length):
            raise ProtocolViolation("a ciphertext of another size")
        return self._unpacked(packed, self.data_primes)

    def unpack_key(self, packed: bytes) -> Words:
        """Return the residues of a public key. Raises: ProtocolViolation."""
        if len(packed) != self.key_bytes:
            raise ProtocolViolation("a public key of another size")
        residues: Words = self._unpacked(packed, self.key_primes)[0]
        return residues

    def empty_sum(self, length: int) -> Words:
        """Return the residues that `add` adds to."""
        shape = (self.blocks(length), POLYNOMIALS, len(self.data_primes), self.degree)
        return np.zeros(shape, dtype=np.uint64)

    def add(self, total: Words, packed: bytes, *, length: int) -> None:
        """Add an encrypted vector to `total`, in place. Raises: ProtocolViolation."""
        np.add(total, self.unpack(packed, length=length), out=total)
        np.remainder(total, _column(self.data_primes), out=total)

    def _unpacked(self, packed: bytes, primes: tuple[int, ...]) -> Words:
        wide = np.zeros((len(packed) // RESIDUE_BYTES, 8), dtype=np.uint8)
        wide[:, :RESIDUE_BYTES] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, RESIDUE_BYTES)
        words = wide.view("<u8").astype(np.uint64, copy=False)
        residues: Words = words.reshape(-1, POLYNOMIALS, len(primes), self.degree)
        if (residues >= _column(primes)).any():
            raise ProtocolViolation("a residue is not below its prime")
        return residues


def signed_values(vector: Words, *, largest: int) -> NDArray[np.int64]:
    """Return a vector of uint64 as the signed integers it stands for. Raises: BadParameters, DoesNotFit."""
    if not isinstance(vector, np.ndarray) or vector.dtype != np.uint64 or vector.ndim != 1 or not vector.size:
        raise BadParameters("a vector is a one-dimensional array of uint64")
    values = np.ascontiguousarray(vector).view(np.int64)
    if int(values.max()) > largest or int(values.min()) < -largest:
        raise DoesNotFit(largest=largest)
    return values


def _column(primes: tuple[int, ...]) -> Words:
    return np.array(primes, dtype=np.uint64)[:, None]
