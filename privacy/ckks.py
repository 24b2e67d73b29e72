"""CKKS through TenSEAL (Microsoft SEAL): real numbers, added nearly; here integers, recovered exactly.

n = 4096 and a ciphertext modulus of 72 bits inside a key modulus of 109: 128-bit security, as privacy.bfv.
The scale is 2^26: what is decrypted is less than 0.02 of a lattice unit from the integer, noise and the
rounding of floats at full magnitude together. Sums may be up to 2^44. Whoever opens a sum rounds it, and
refuses if anything was further than a quarter from an integer: what comes out is the integer sum or nothing.

What is decrypted in CKKS holds the noise of the ciphertext, and with it a trace of the secret key (Li,
Micciancio 2021). Here the key-holder keeps the unrounded numbers to itself, publishes the integers, and uses
a key for one sum only.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np

from privacy.errors import ProtocolViolation
from privacy.ring_vector import POLYNOMIALS, RingForm
from privacy.rng import Words

DEGREE = 4096
BITS = [36, 36, 37]
KEY_PRIMES = (68_719_230_977, 68_719_403_009, 137_438_822_401)  # SEAL's for these sizes
SCALE = 2.0**26
FORM = RingForm(
    scheme="ckks",
    degree=DEGREE,
    data_primes=KEY_PRIMES[:2],
    key_primes=KEY_PRIMES,
    slots=DEGREE // 2,
    largest_total=2**44,
)
RESIDUAL = 0.25  # a dozen times what honest ciphertexts reach, see above
_PARAMETERS, _PUBLIC = 1, 2  # fields of TenSEAL's protobuf form of a context
_BYTES_FIELD = 2  # wire type


class Secret:
    """A key pair whose secret half never leaves this object, and how to open a sum with it."""

    def __init__(self) -> None:
        self._context = _context()
        self.public_key = FORM.pack(_residues(self._context.public_key().data.data(), FORM.key_primes))

    def decrypt(self, packed: bytes, *, length: int) -> Words:
        """Return the integers in an encrypted sum, as uint64. Raises: ProtocolViolation."""
        import tenseal

        blocks = FORM.unpack(packed, length=length)
        real = [tenseal.ckks_vector_from(self._context, _seal().vector(b)).decrypt() for b in blocks]
        values = np.array(real, dtype=np.float64).ravel()
        rounded = np.rint(values)
        inside = bool((np.abs(values - rounded) < RESIDUAL).all())  # false for what is no number, too
        if not inside or np.abs(rounded).max() > FORM.largest_total or rounded[length:].any():
            raise ProtocolViolation("no sum of what honest hospitals encrypt")
        words: Words = rounded[:length].astype(np.int64).view(np.uint64)
        return words

    def __repr__(self) -> str:
        return "Secret(<hidden>)"


class Encryptor:
    """What a public key does."""

    def __init__(self, public_key: bytes) -> None:
        import tenseal

        residues = FORM.unpack_key(public_key)
        self._context = tenseal.context_from(_seal().context(residues), n_threads=1)
        self._context.global_scale = SCALE

    def encrypt(self, values: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
        """Return the packed ciphertext of `values`, which fit (privacy.ring_vector.signed_values)."""
        import tenseal

        packed = bytearray()
        real = np.zeros(FORM.blocks(values.size) * FORM.slots)  # whole blocks: what is behind the end is 0
        real[: values.size] = values
        for start in range(0, real.size, FORM.slots):
            vector = tenseal.ckks_vector(self._context, real[start : start + FORM.slots].tolist())
            packed += FORM.pack(_residues(vector.ciphertext()[0], FORM.data_primes))
        return bytes(packed)


class _Seal:
    """SEAL's and TenSEAL's forms of numbers that have been checked here.

    SEAL writes a header of 16 bytes (its version is taken from what this installation writes itself), the
    parameters' hash, sizes, scale and residues; mode 0 is uncompressed.
    """

    def __init__(self, context: Any) -> None:
        public = context.public_key().data
        data = context.seal_context().data
        self._key_hash = struct.pack("<4Q", *public.data().parms_id())
        self._data_hash = struct.pack("<4Q", *data.first_parms_id())
        written = _field(context.serialize(True, False, False, False), _PUBLIC)
        self._version = _field(written, 1)[:5]  # magic, header size, major, minor
        self._parameters = _field(context.serialize(False, False, False, False), _PARAMETERS)

    def context(self, residues: Words) -> bytes:
        """Return a context with this public key and no other."""
        key = self._polynomials(residues, self._key_hash, scale=1.0, primes=len(FORM.key_primes))
        return _tagged(_PARAMETERS, self._parameters) + _tagged(_PUBLIC, _tagged(1, key))

    def vector(self, residues: Words) -> bytes:
        """Return a CKKSVector of one block."""
        ciphertext = self._polynomials(residues, self._data_hash, scale=SCALE, primes=len(FORM.data_primes))
        scale = bytes([3 << 3 | 1]) + struct.pack("<d", SCALE)
        return _tagged(1, _varint(FORM.slots)) + _tagged(2, ciphertext) + scale

    def _polynomials(self, residues: Words, parameters: bytes, *, scale: float, primes: int) -> bytes:
        numbers = struct.pack("<Q", residues.size) + residues.astype("<u8").tobytes()
        sizes = struct.pack("<QQQdQ", POLYNOMIALS, DEGREE, primes, scale, 1)
        return self._headed(parameters + b"\x01" + sizes + self._headed(numbers))  # 1: in NTT form

    def _headed(self, body: bytes) -> bytes:
        return self._version + bytes(3) + struct.pack("<Q", 16 + len(body)) + body


@cache
def _seal() -> _Seal:
    """Return the library's forms, as a throwaway context shows them."""
    return _Seal(_context())


def _context() -> Any:
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=BITS, n_threads=1)
    context.global_scale = SCALE
    return context


def _residues(ciphertext: Any, primes: tuple[int, ...]) -> Words:
    """Return the residues that a ciphertext of the library holds; it shows them one by one."""
    count = POLYNOMIALS * len(primes) * DEGREE
    return np.fromiter(map(ciphertext.__getitem__, range(count)), np.uint64, count=count)


# ---- protobuf, of our own bytes only ----


def _tagged(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | _BYTES_FIELD]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(message: bytes, number: int) -> bytes:
    """Return the first field of this number; fields before it are of bytes too."""
    at = 0
    while at < len(message):
        tag, at = message[at], at + 1
        size = shift = 0
        while True:
            byte, at = message[at], at + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if tag == number << 3 | _BYTES_FIELD:
            return message[at : at + size]
        at += size
    raise RuntimeError("this TenSEAL writes its contexts in another form")
