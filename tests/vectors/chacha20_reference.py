"""ChaCha20 and HKDF-Expand written out from their RFCs: another way to the masks than the product's."""

import hashlib
import hmac

WORD = 0xFFFFFFFF


def hkdf_expand_32(key: bytes, info: bytes) -> bytes:
    """Return the first 32 bytes of HKDF-Expand with SHA-256 (RFC 5869, section 2.3: one block)."""
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def chacha20_stream(key: bytes, length: int) -> bytes:
    """Return the key stream for a zero nonce from block 0 on (RFC 8439, section 2.3)."""
    blocks = (_block(key, counter) for counter in range(-(-length // 64)))
    return b"".join(blocks)[:length]


def _block(key: bytes, counter: int) -> bytes:
    words = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    words += [int.from_bytes(key[at : at + 4], "little") for at in range(0, 32, 4)]
    words += [counter, 0, 0, 0]
    state = list(words)
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            _quarter_round(state, a, b, c, d)
        for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            _quarter_round(state, a, b, c, d)
    return b"".join(((x + y) & WORD).to_bytes(4, "little") for x, y in zip(state, words, strict=True))


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for first, second, other, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[first] = (state[first] + state[second]) & WORD
        mixed = state[other] ^ state[first]
        state[other] = ((mixed << turn) | (mixed >> (32 - turn))) & WORD
