"""AES-256 in counter mode and HKDF-Expand written out from their standards: another way to the masks."""

import hashlib
import hmac

BLOCK = 16
ROUNDS = 14  # of a key of 256 bits


def hkdf_expand_32(key: bytes, info: bytes) -> bytes:
    """Return the first 32 bytes of HKDF-Expand with SHA-256 (RFC 5869, section 2.3: one block)."""
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def aes256_ctr_stream(key: bytes, length: int) -> bytes:
    """Return the key stream for counters from 0 on, of 128 bits, most significant byte first."""
    keys = _round_keys(key)
    blocks = (encrypted(counter.to_bytes(BLOCK, "big"), keys) for counter in range(-(-length // BLOCK)))
    return b"".join(blocks)[:length]


def aes256_block(key: bytes, block: bytes) -> bytes:
    """Return one block under `key` (FIPS 197, section 5.1)."""
    return encrypted(block, _round_keys(key))


def encrypted(block: bytes, keys: list[bytes]) -> bytes:
    """Return one block under the round keys. A state is its bytes in order: column after column."""
    state = _xor(block, keys[0])
    for number in range(1, ROUNDS + 1):
        state = bytes(_SBOX[byte] for byte in state)
        state = bytes(state[(at + 4 * (at % 4)) % BLOCK] for at in range(BLOCK))  # row r turns by r columns
        if number < ROUNDS:
            state = b"".join(_mixed(state[at : at + 4]) for at in range(0, BLOCK, 4))
        state = _xor(state, keys[number])
    return state


def _round_keys(key: bytes) -> list[bytes]:
    words = [key[at : at + 4] for at in range(0, 32, 4)]
    constant = 1
    for number in range(8, 4 * (ROUNDS + 1)):
        word = words[-1]
        if number % 8 == 0:
            word = bytes(_SBOX[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _times(constant, 2)
        elif number % 8 == 4:
            word = bytes(_SBOX[byte] for byte in word)
        words.append(_xor(words[-8], word))
    return [b"".join(words[at : at + 4]) for at in range(0, len(words), 4)]


def _mixed(column: bytes) -> bytes:
    return bytes(
        _times(column[at], 2) ^ _times(column[(at + 1) % 4], 3) ^ column[(at + 2) % 4] ^ column[(at + 3) % 4]
        for at in range(4)
    )


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _times(a: int, b: int) -> int:
    """Return a product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _substitute(byte: int) -> int:
    inverse = next((other for other in range(256) if _times(byte, other) == 1), 0)
    turned = inverse
    for _ in range(4):
        inverse = ((inverse << 1) | (inverse >> 7)) & 0xFF
        turned ^= inverse
    return turned ^ 0x63


_SBOX = [_substitute(byte) for byte in range(256)]
