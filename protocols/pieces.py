"""Vectors on the wire: in pieces of one size, so that no message grows with the model."""

from __future__ import annotations

from collections.abc import Iterator

PIECE_BYTES = 2**21  # half of what gRPC takes by default; a piece is masked or added in milliseconds


def pieces(length: int) -> Iterator[slice]:
    """Yield where each piece of a vector of `length` words, of eight bytes, begins and ends.

    >>> [(piece.start, piece.stop) for piece in pieces(600_000)]
    [(0, 262144), (262144, 524288), (524288, 600000)]
    """
    words = PIECE_BYTES // 8
    for start in range(0, length, words):
        yield slice(start, min(start + words, length))
