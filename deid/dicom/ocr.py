"""Words in an image, read by tesseract: the program of that name, if the machine has it.

No text that it reads is kept or told: only where it stands.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from deid.errors import NotDeidentified

TIMEOUT_S = 120.0  # an image of the largest size takes a few seconds
_CONFIDENT = 60.0  # percent; below it, texture is read as letters
_ALONE = 90.0  # percent, for words of one or two characters


@dataclass(frozen=True, slots=True)
class Box:
    """Rows `top` up to, not including, `bottom`, and columns likewise."""

    top: int
    bottom: int
    left: int
    right: int


class Ocr(Protocol):
    """Finds words. `Tesseract` is ours; tests bring others."""

    def words(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return where words stand in an image of dark writing on white. Raises: NotDeidentified."""
        ...


class Tesseract:
    """The program, one process an image, one thread each."""

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def found(cls) -> Self | None:
        """Return it, None if it is not installed (Debian: tesseract-ocr)."""
        program = shutil.which("tesseract")
        return None if program is None else cls(program)

    def words(self, image: NDArray[np.uint8]) -> list[Box]:
        """Return where words stand. Raises: NotDeidentified ("ocr-failed")."""
        rows, columns = image.shape
        portable = b"P5\n%d %d\n255\n" % (columns, rows) + np.ascontiguousarray(image).tobytes()
        try:
            done = subprocess.run(
                [self._program, "stdin", "stdout", "--dpi", "150", "--psm", "11", "-l", "eng", "tsv"],
                input=portable,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=True,
                env=os.environ | {"OMP_THREAD_LIMIT": "1"},
            )
        except (OSError, subprocess.SubprocessError):
            raise NotDeidentified("ocr-failed") from None  # what it said may hold text
        return _boxes(done.stdout.decode("utf-8", "replace"), rows)


def _boxes(table: str, rows: int) -> list[Box]:
    """Return the boxes of tesseract's table (its columns are fixed) whose words are words."""
    boxes = []
    for line in table.splitlines()[1:]:
        fields = line.split("\t")
        if len(fields) != 12 or fields[0] != "5":  # 5: a word
            continue
        left, top, width, height = map(int, fields[6:10])
        confidence, letters = float(fields[10]), sum(sign.isalnum() for sign in fields[11])
        certain = confidence >= (_CONFIDENT if letters > 2 else _ALONE)
        if letters and certain and height <= 0.2 * rows and width > 0 and height > 0:
            boxes.append(Box(top, top + height, left, left + width))
    return boxes
