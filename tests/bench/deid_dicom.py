"""Writing in the pixels of generated images: how many identifying lines are blanked, at which cost.

A line counts as covered when 95 % of its ink is blanked. The images (tests.deid.dicom.burned_in_images) are
of other seeds than those that the weights of the finder were fitted on and its limits chosen by. The same is
measured on images that no weight was fitted on (tests.deid.dicom.unfamiliar_images): other
fonts, real slices, textures and a photograph, blocks of lines, lines upside down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from deid.dicom.burned_in import text_mask
from deid.dicom.ocr import Ocr, Tesseract
from tests.bench.figure import Figure
from tests.deid.dicom import burned_in_images, unfamiliar_images
from tests.deid.dicom.burned_in_images import Written

COVERED = 0.95  # of the ink of a line: what is left of a name below that is not to be read
GOAL, MOST_AREA = 0.98, 0.06
AREA_GOAL = "goal: at most"
SEED = 20_261


@dataclass(frozen=True, slots=True)
class Measured:
    """Over all images; shares are from 0 to 1. `by_kind`: covered and blanked."""

    lines: int
    covered: float
    blanked: float
    seconds_per_image: float
    by_kind: dict[str, tuple[float, float]]


def measured(
    *, images_of: int, seed: int, ocr: Ocr | None, images: Callable[[Generator, int], Iterator[Written]]
) -> Measured:
    """Blank generated images and count."""
    covered: dict[str, list[bool]] = {}
    blanked: dict[str, list[float]] = {}
    seconds = 0.0
    for written in images(np.random.default_rng(seed), images_of):
        began = time.process_time()
        mask = text_mask(written.pixels, ocr)
        seconds += time.process_time() - began
        blanked.setdefault(written.kind, []).append(float(mask.mean()))
        covered.setdefault(written.kind, []).extend(
            bool(mask[line.ink].mean() >= COVERED) for line in written.lines
        )
    lines = [one for kind in covered for one in covered[kind]]
    areas = [one for kind in covered for one in blanked[kind]]
    return Measured(
        len(lines),
        float(np.mean(lines)),
        float(np.mean(areas)),
        seconds / images_of,
        {kind: (float(np.mean(covered[kind])), float(np.mean(blanked[kind]))) for kind in covered},
    )


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield shares of lines covered and of area blanked, without OCR and, where there is one, with it."""
    count = 16 if quick else 160
    yield from _figures("strokes", count, None, burned_in_images.images, AREA_GOAL)
    yield from _figures("unfamiliar images, strokes", count, None, unfamiliar_images.images, "")
    ocr = Tesseract.found()
    if ocr is not None:
        yield from _figures("strokes and tesseract", count // 4, ocr, burned_in_images.images, AREA_GOAL)


def _figures(
    name: str,
    count: int,
    ocr: Ocr | None,
    images: Callable[[Generator, int], Iterator[Written]],
    area_goal: str,
) -> Iterable[Figure]:
    found = measured(images_of=count, seed=SEED, ocr=ocr, images=images)
    most = MOST_AREA if area_goal else None
    yield Figure(f"burned-in lines covered, {name}, of {found.lines}", found.covered, "share", GOAL, "goal")
    yield Figure(f"area blanked, {name}", found.blanked, "share", most, area_goal)
    for kind, (covered, blanked) in found.by_kind.items():
        yield Figure(f"burned-in lines covered, {name}, {kind}", covered, "share", GOAL, "goal")
        yield Figure(f"area blanked, {name}, {kind}", blanked, "share", most, area_goal)
    yield Figure(
        f"finding writing, {name}", 1 / found.seconds_per_image, "images/s of CPU, without OCR's own"
    )
