"""Masks: AES-256 streams in counter mode read as words of 64 bits, and the seeds they are made from.

Guarantee: without the seed a mask is indistinguishable from uniform words (AES-256 as a pseudorandom
permutation, HKDF with SHA-256 as a key derivation), so a vector plus a mask modulo 2^64 says nothing about
the vector. A seed gives unrelated masks for different contexts, and each key gives one stream.

Blocks of a permutation never repeat, uniform ones may: that tells q blocks from uniform ones with an
advantage of at most q²/2^129 (the PRP/PRF switching lemma), 2^-91 for a million words and 2^-69 for the
longest mask. ChaCha20 has no such term, and takes 1.6 times as long where the processor has instructions for
AES, as hospitals' servers do. Parties with other streams refuse each other: the domain of a session names
the version of the protocol (privacy.secure_sum).
Source: FIPS 197 (AES), SP 800-38A (counter mode), RFC 5869 (HKDF).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from privacy.errors import BadParameters
from privacy.lanes import WORD_BYTES
from privacy.rng import Words

LABEL = "mask aes-256-ctr"  # of the keys of streams
SEED_BYTES = 32
CONTEXT_BYTES = 32
MAX_WORDS = 2**31  # 16 GiB; the counter of a stream has 128 bits
CHUNK_WORDS = 2**17  # added at a time: threads hand over the interpreter rarely, and a cache holds them
_FIRST_COUNTER = bytes(16)  # every key is derived for one stream, so each begins at zero
_ZEROS = bytes(WORD_BYTES * CHUNK_WORDS)


def derive(key: bytes, label: str, *parts: bytes) -> bytes:
    """Return 32 bytes for one use of `key`, named by `label` and `parts` (HKDF-Expand).

    Lengths are part of the input, so no two lists of parts share an encoding.
    """
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *parts))
    return HKDFExpand(algorithm=hashes.SHA256(), length=SEED_BYTES, info=info).derive(key)


def agree(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return a uniform 32-byte key from the secret of a key agreement (HKDF)."""
    return HKDF(algorithm=hashes.SHA256(), length=SEED_BYTES, salt=salt, info=info).derive(secret)


def scratch_for(words: int) -> Words:
    """Return room for the mask of a chunk of a vector of so many words."""
    return np.empty(min(words, CHUNK_WORDS), dtype=np.uint64)


class MaskStream:
    """One mask, from its first word to its last, piece after piece: memory stays flat however long it is.

    Raises: BadParameters for a seed or context of another size, or more than MAX_WORDS words.
    """

    def __init__(self, *, seed: bytes, context: bytes, subtract: bool = False) -> None:
        if len(seed) != SEED_BYTES or len(context) != CONTEXT_BYTES:
            raise BadParameters(f"a seed has {SEED_BYTES} bytes and a context {CONTEXT_BYTES}")
        key = derive(seed, LABEL, context)
        self._stream = Cipher(AES(key), CTR(_FIRST_COUNTER)).encryptor()
        self._apply = np.subtract if subtract else np.add
        self._used = 0

    def apply(self, words: Words, *, scratch: Words | None = None) -> None:
        """Add (or subtract) the mask's next words to `words`, in place.

        Args: scratch: from `scratch_for`, for streams that take turns over the same chunk.
        Raises: BadParameters for words of another type, or too many.
        """
        self._used += words.size
        if self._used > MAX_WORDS or words.dtype != np.uint64:
            raise BadParameters(f"at most {MAX_WORDS} words, of uint64")
        mask = scratch_for(words.size) if scratch is None else scratch
        data = mask.view(np.uint8).data
        for start in range(0, words.size, CHUNK_WORDS):
            part = words[start : start + CHUNK_WORDS]
            self._stream.update_into(_ZEROS[: part.nbytes], data)
            self._apply(part, mask[: part.size], out=part)

    def __repr__(self) -> str:
        return "MaskStream(<hidden>)"


class Stream(Protocol):
    """Masks in the order of a vector's words."""

    def apply(self, words: Words, *, scratch: Words | None = None) -> None:
        """Add (or subtract) the next words to `words`, in place. Args: scratch: from `scratch_for`."""


def apply_all(streams: Sequence[Stream], words: Words) -> None:
    """Add (or subtract) the next words of several masks to `words`, in place, chunk by chunk."""
    scratch = scratch_for(words.size)
    for start in range(0, words.size, CHUNK_WORDS):
        chunk = words[start : start + CHUNK_WORDS]
        for stream in streams:
            stream.apply(chunk, scratch=scratch)
    scratch.fill(0)  # freed memory may stay with the process


def add_mask(total: Words, *, seed: bytes, context: bytes) -> None:
    """Add the mask of `seed` and `context` to `total`, in place.

    Raises: BadParameters for a seed or context of another size, or too long a vector.
    """
    MaskStream(seed=seed, context=context).apply(total)


def subtract_mask(total: Words, *, seed: bytes, context: bytes) -> None:
    """Subtract the mask of `seed` and `context` from `total`, in place.

    Raises: BadParameters for a seed or context of another size, or too long a vector.
    """
    MaskStream(seed=seed, context=context, subtract=True).apply(total)
