"""BFV through Pyfhel (Microsoft SEAL): integers, added exactly.

n = 4096 and a ciphertext modulus of 72 bits inside a key modulus of 109: 128-bit security by the homomorphic
encryption standard (Albrecht et al. 2018, ternary secrets). The plain modulus is a prime of 54 bits, so that
4,096 integers stand in the slots of one block; it leaves eleven bits of noise budget, of which a hundred
ciphertexts use four. Sums may be up to 2^49, a thirty-second of it: what does not come from honest
ciphertexts is spread over all of it, and the whole step is refused if one number is outside.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from privacy.errors import ProtocolViolation
from privacy.ring_vector import RingForm
from privacy.rng import Words

DEGREE = 4096
PLAIN_MODULUS = 18_014_398_509_309_953  # the largest prime of 54 bits that is 1 modulo 8192
KEY_PRIMES = (68_719_403_009, 68_719_230_977, 137_438_822_401)  # SEAL's for n = 4096 at 128 bits
FORM = RingForm(
    scheme="bfv",
    degree=DEGREE,
    data_primes=KEY_PRIMES[:2],
    key_primes=KEY_PRIMES,
    slots=DEGREE,
    largest_total=2**49,
)


class Secret:
    """A key pair whose secret half never leaves this object, and how to open a sum with it."""

    def __init__(self) -> None:
        self._context = _context()
        self._context.keyGen()
        _, residues = _split(self._context.to_bytes_public_key(compr_mode="none"), FORM.key_bytes)
        self.public_key = FORM.pack(residues)

    def decrypt(self, packed: bytes, *, length: int) -> Words:
        """Return the integers in an encrypted sum, as uint64. Raises: ProtocolViolation."""
        from Pyfhel import PyCtxt

        _, head = _heads()
        found = []
        for block in FORM.unpack(packed, length=length):
            ciphertext = PyCtxt(pyfhel=self._context)
            ciphertext.from_bytes(head + block.astype("<u8").tobytes(), "int")
            if self._context.noise_level(ciphertext) <= 0:
                raise ProtocolViolation("no sum of what honest hospitals encrypt: no message is left in it")
            found.append(self._context.decryptInt(ciphertext))
        return opened(np.concatenate(found), length=length)

    def __repr__(self) -> str:
        return "Secret(<hidden>)"


class Encryptor:
    """What a public key does."""

    def __init__(self, public_key: bytes) -> None:
        residues = FORM.unpack_key(public_key)
        self._context = _context()
        head, _ = _heads()
        self._context.from_bytes_public_key(head + residues.astype("<u8").tobytes())

    def encrypt(self, values: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
        """Return the packed ciphertext of `values`, which fit (privacy.ring_vector.signed_values)."""
        packed = bytearray()
        for start in range(0, values.size, FORM.slots):
            ciphertext = self._context.encryptInt(values[start : start + FORM.slots])
            packed += FORM.pack(_split(ciphertext.to_bytes("none"), FORM.block_bytes)[1])
        return bytes(packed)


def opened(values: np.ndarray[Any, Any], *, length: int) -> Words:
    """Return the first `length` of decrypted integers if all of them are what honest inputs give.

    Raises: ProtocolViolation if one is out of range, or one behind the end is not zero.
    """
    largest = FORM.largest_total
    if values[length:].any() or int(values.max()) > largest or int(values.min()) < -largest:
        raise ProtocolViolation("no sum of what honest hospitals encrypt")
    words: Words = values[:length].astype(np.int64).view(np.uint64)
    return words


def _context() -> Any:
    from Pyfhel import Pyfhel

    context = Pyfhel()
    context.contextGen("BFV", n=DEGREE, t=PLAIN_MODULUS, sec=128)
    if tuple(context.qi) != KEY_PRIMES:
        raise RuntimeError("this Pyfhel chooses other primes than the consortium agreed on")
    return context


@cache
def _heads() -> tuple[bytes, bytes]:
    """Return what the library writes before the residues of a public key, and of a ciphertext."""
    context = _context()
    context.keyGen()
    public, _ = _split(context.to_bytes_public_key(compr_mode="none"), FORM.key_bytes)
    ciphertext = context.encryptInt(np.zeros(1, np.int64)).to_bytes("none")
    return public, _split(ciphertext, FORM.block_bytes)[0]


def _split(data: bytes, packed_bytes: int) -> tuple[bytes, Words]:
    """Return the library's header and the residues behind it."""
    size = packed_bytes // 5 * 8
    residues: Words = np.frombuffer(data[-size:], dtype="<u8").astype(np.uint64, copy=False)
    return data[:-size], residues
