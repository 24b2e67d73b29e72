"""Masks: ChaCha20 streams read as uint64 words, and the seeds they are made from.

Guarantee: without the seed a mask is indistinguishable from uniform words (ChaCha20 as a generator, HKDF with
SHA-256 as a key derivation), so a vector plus a mask modulo 2^64 says nothing about the vector. A seed gives
unrelated masks for different contexts.
Source: RFC 8439 (ChaCha20), RFC 5869 (HKDF).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from privacy.errors import BadParameters
from privacy.rng import Words

SEED_BYTES = 32
CONTEXT_BYTES = 32
MAX_WORDS = 2**31  # 16 GiB; a ChaCha20 stream wraps its block counter at 2^35 words
_CHUNK_BYTES = 2**18  # the stream is added piece by piece: stays in the cache, and memory stays flat
_NONCE = bytes(16)  # every key is derived for one stream, so the nonce may stay zero
_ZEROS = bytes(_CHUNK_BYTES)


def derive(key: bytes, label: str, *parts: bytes) -> bytes:
    """Return 32 bytes for one use of `key`, named by `label` and `parts` (HKDF-Expand).

    Lengths are part of the input, so no two lists of parts share an encoding.
    """
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *parts))
    return HKDFExpand(algorithm=hashes.SHA256(), length=SEED_BYTES, info=info).derive(key)


def agree(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return a uniform 32-byte key from the secret of a key agreement (HKDF)."""
    return HKDF(algorithm=hashes.SHA256(), length=SEED_BYTES, salt=salt, info=info).derive(secret)


def add_mask(total: Words, *, seed: bytes, context: bytes) -> None:
    """Add the mask of `seed` and `context` to `total`, modulo 2^64, in place.

    Raises: BadParameters for a seed or context of another size, or too long a vector.
    """
    _apply(total, seed=seed, context=context, ufunc=np.add)


def subtract_mask(total: Words, *, seed: bytes, context: bytes) -> None:
    """Subtract the mask of `seed` and `context` from `total`, modulo 2^64, in place.

    Raises: BadParameters for a seed or context of another size, or too long a vector.
    """
    _apply(total, seed=seed, context=context, ufunc=np.subtract)


def _apply(total: Words, *, seed: bytes, context: bytes, ufunc: np.ufunc) -> None:
    if len(seed) != SEED_BYTES or len(context) != CONTEXT_BYTES:
        raise BadParameters(f"a seed has {SEED_BYTES} bytes and a context {CONTEXT_BYTES}")
    if total.size > MAX_WORDS:
        raise BadParameters(f"at most {MAX_WORDS} words, got {total.size}")
    stream = Cipher(ChaCha20(derive(seed, "mask", context), _NONCE), mode=None).encryptor()
    buffer = bytearray(min(_CHUNK_BYTES, 8 * total.size))
    words = np.frombuffer(buffer, dtype="<u8")
    for start in range(0, total.size, _CHUNK_BYTES // 8):
        part = total[start : start + _CHUNK_BYTES // 8]
        stream.update_into(_ZEROS[: 8 * part.size], buffer)
        ufunc(part, words[: part.size], out=part)
