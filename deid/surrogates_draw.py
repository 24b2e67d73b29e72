"""Choices that look random and follow from a patient's key alone, and that avoid what identifies them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deid.vault import PseudonymKey

WORD = re.compile(r"[^\W_]+")
REDRAWS = 1_000  # a draw misses with a chance below one in two; this many misses mean that nothing fits
_FEWEST_LETTERS = 2  # a single letter stands in every text
_FEWEST_DIGITS = 5


class NothingFits(Exception):
    """No surrogate could be drawn. A tag takes its place."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws for one patient. The same label and value give the same draw. Prints as hidden."""

    key: PseudonymKey
    forbidden: frozenset[str]  # words of identifiers, in small letters

    def __repr__(self) -> str:
        return "Draw(<hidden>)"

    def choice(self, label: str, value: str, options: Sequence[str]) -> str:
        """Return one of `options`, none of whose words is forbidden. Raises: NothingFits."""
        return self.fitting(
            label, value, lambda stream: options[int.from_bytes(stream[:8], "big") % len(options)]
        )

    def fitting(
        self,
        label: str,
        value: str,
        make: Callable[[bytes], str],
        *,
        accept: Callable[[str], bool] = lambda made: True,
    ) -> str:
        """Return the first of `make`'s results over successive streams of bytes (32 each) that is accepted,
        holds no forbidden word, and is not `value`. Raises: NothingFits.
        """
        for attempt in range(REDRAWS):
            made = make(self.stream(label, value, attempt))
            if made != value and accept(made) and not words_of([made]) & self.forbidden:
                return made
        raise NothingFits

    def stream(self, label: str, value: str, attempt: int) -> bytes:
        """Return 32 bytes that nobody without the key can foretell."""
        return self.key.keyed(b"surrogate", label.encode(), value.encode(), attempt.to_bytes(4, "big"))


def expanded(stream: bytes, size: int) -> bytes:
    """Return `size` bytes that follow from a stream."""
    return hashlib.shake_256(stream).digest(size)


def words_of(values: Sequence[str]) -> frozenset[str]:
    """Return the words of identifiers in small letters, and each identifier with its separators left out.

    Short numbers (a house, a part of a telephone number) identify nobody without the rest.
    """
    words: set[str] = set()
    for value in values:
        found = [word.casefold() for word in WORD.findall(value)]
        words.update(
            word for word in found if len(word) >= (_FEWEST_DIGITS if word.isdigit() else _FEWEST_LETTERS)
        )
        words.add("".join(found))
    return frozenset(words - {""})
