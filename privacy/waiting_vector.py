"""A vector that comes in pieces, until it is whole: in memory as far as it is short, then in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from privacy.errors import BadParameters, ProtocolViolation
from privacy.lanes import WORD_BYTES, words_for
from privacy.masks import CONTEXT_BYTES, MAX_WORDS
from privacy.rng import Words

HELD_BYTES = 8 * 2**20  # of one party's pieces in memory; what is more waits in a file


@dataclass(frozen=True, slots=True)
class Form:
    """What a vector says it is; only vectors of one form are summed. Raises: BadParameters.

    Args: length: of the vector, in numbers; lanes: numbers in a word (privacy.lanes).
    """

    context: bytes
    length: int
    lanes: int = 1

    def __post_init__(self) -> None:
        if len(self.context) != CONTEXT_BYTES or self.length < 1 or self.words > MAX_WORDS:
            raise BadParameters(f"a context of {CONTEXT_BYTES} bytes and 1 to {MAX_WORDS} words")

    @property
    def words(self) -> int:
        """How many words the vector takes."""
        return words_for(self.length, lanes=self.lanes)


class WaitingVector:
    """The pieces of one party's vector, in order, until all are here."""

    def __init__(self, form: Form, folder: Path | None) -> None:
        self.form = form
        self.words = 0
        self.piece_bytes = 0  # of each but the last
        self.folder = folder
        self.held: list[bytes] = []
        self.file: IO[bytes] | None = None

    def close(self) -> None:
        """Forget what has come."""
        self.held.clear()
        if self.file is not None:
            self.file.close()

    __del__ = close

    @property
    def whole(self) -> bool:
        """Whether the last piece is here."""
        return self.words == self.form.words

    def take(self, data: bytes, *, offset: int) -> bool:
        """Keep the next piece; return whether it follows those before it, and is as long."""
        words = len(data) // WORD_BYTES
        self.piece_bytes = self.piece_bytes or len(data)
        last = offset + words == self.form.words
        if (
            offset != self.words
            or len(data) > self.piece_bytes
            or not (last or len(data) == self.piece_bytes)
        ):
            return False
        self.held.append(data)
        self.words += words
        if self.file is not None or len(self.held) * self.piece_bytes > HELD_BYTES:
            if self.file is None:
                self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # it outlives this call
            self.file.writelines(self.held)
            self.held.clear()
        return True

    def add_to(self, total: Words) -> None:
        """Add the whole vector, a piece at a time."""
        at = 0
        for data in self._in_order():
            piece = np.frombuffer(data, dtype="<u8")
            total[at : at + piece.size] += piece
            at += piece.size
        if at != self.form.words:
            raise OSError("the file of a vector is not whole")

    def _in_order(self) -> Iterator[bytes]:
        if self.file is not None:
            self.file.seek(0)
            while data := self.file.read(self.piece_bytes):
                yield data
        yield from self.held


def form_of(context: bytes, length: int, lanes: int) -> Form:
    """Return what a vector says it is. Raises: ProtocolViolation."""
    try:
        return Form(context, length, lanes)
    except BadParameters as error:
        raise ProtocolViolation(str(error)) from error
