"""Writing in the pixels of generated images: how many identifying lines are blanked, at which cost.

A line counts as covered when 95 % of its ink is blanked. The images (tests.deid.dicom.burned_in_images) are
of other seeds than those that the weights of the finder were fitted on and its limits chosen by.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deid.dicom.burned_in import text_mask
from deid.dicom.ocr import Ocr, Tesseract
from tests.bench.figure import Figure
from tests.deid.dicom.burned_in_images import KINDS, images

COVERED = 0.95  # of the ink of a line: what is left of a name below that is not to be read
GOAL, MOST_AREA = 0.98, 0.06


@dataclass(frozen=True, slots=True)
class Measured:
    """Over all images; shares are from 0 to 1. `by_kind`: covered and blanked."""

    lines: int
    covered: float
    blanked: float
    seconds_per_image: float
    by_kind: dict[str, tuple[float, float]]


def measured(*, images_of: int, seed: int, ocr: Ocr | None) -> Measured:
    """Blank generated images and count."""
    covered: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    blanked: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seconds = 0.0
    for written in images(np.random.default_rng(seed), images_of):
        began = time.perf_counter()
        mask = text_mask(written.pixels, ocr)
        seconds += time.perf_counter() - began
        blanked[written.kind].append(float(mask.mean()))
        covered[written.kind] += [bool(mask[line.ink].mean() >= COVERED) for line in written.lines]
    lines = [one for kind in KINDS for one in covered[kind]]
    areas = [one for kind in KINDS for one in blanked[kind]]
    return Measured(
        len(lines),
        float(np.mean(lines)),
        float(np.mean(areas)),
        seconds / images_of,
        {kind: (float(np.mean(covered[kind])), float(np.mean(blanked[kind]))) for kind in KINDS},
    )


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield shares of lines covered and of area blanked, without OCR and, where there is one, with it."""
    count = 16 if quick else 80
    for name, ocr in (("strokes", None), ("strokes and tesseract", Tesseract.found())):
        if name != "strokes" and ocr is None:
            continue
        found = measured(images_of=count if ocr is None else count // 2, seed=20_261, ocr=ocr)
        yield Figure(
            f"burned-in lines covered, {name}, of {found.lines}", found.covered, "share", GOAL, "goal"
        )
        yield Figure(f"area blanked, {name}", found.blanked, "share", MOST_AREA, "goal: at most")
        for kind, (covered, blanked) in found.by_kind.items():
            yield Figure(f"burned-in lines covered, {name}, {kind}", covered, "share", GOAL, "goal")
            yield Figure(f"area blanked, {name}, {kind}", blanked, "share", MOST_AREA, "goal: at most")
        yield Figure(f"finding writing, {name}", found.seconds_per_image, "s/image")
