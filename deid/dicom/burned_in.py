"""Where in an image text stands: by strokes and lines (deid.dicom.strokes) and by OCR, level and upright.

All text is found, not what looks like a name only: a number in a corner may be anybody's. Measured by
`python -m tests.bench deid_dicom` on generated images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deid.dicom.line_ends import further
from deid.dicom.ocr import Box, Ocr
from deid.dicom.strokes import STROKE, Image, Line, Mask, lines, local_noise

# A logistic regression over strokes.FEATURES, fitted on 100 generated images (tests/deid/dicom), not those of
# the measurement: log-odds that a chain of pieces is writing.
_WEIGHTS = np.array([2.394, -0.889, -3.095, 0.322, -0.603, 2.042, 11.198, 5.158, -4.311, -0.732, 23.661])
_INTERCEPT = -14.954
_WRITING = -1.0  # log-odds from which a line is blanked
_DOUBTFUL = -2.0  # for what continues a line that was found, and where there is nothing to lose
_PLAIN = 3.0  # log-odds of a line whose ends are followed: below, speckle is lengthened
_TALLER = 1.4  # times the height of what was found: an end of the same line
_THERE = 0.92  # of a piece's box: it is blanked
_MARGIN = 0.15  # of a line's height, blanked around it: accents, descenders, smooth edges
_NOISES = 4.0  # times the local noise: what is fainter is not shown to OCR
_READABLE = 0.2  # of the range of shades: what stands out by this much is shown black
_LEAST_INK = 40  # pixels: a short word in the smallest writing


def text_mask(image: Image, ocr: Ocr | None, *, beside: Mask | None = None) -> Mask:
    """Return the pixels to blank, of an image whose shades go from 0 to 1.

    Args:
        ocr: None for strokes and lines alone.
        beside: where no anatomy is shown: there, less makes a line.
    Raises: NotDeidentified.
    """
    mask = np.zeros(image.shape, dtype=bool)
    found = list(lines(image))
    odds = np.array([float(_WEIGHTS @ line.features) + _INTERCEPT for line in found])
    least = np.full(len(found), _WRITING)
    if beside is not None:
        least[[_inside(line, beside) for line in found]] = _DOUBTFUL
    surely = odds > least
    for place in sorted(np.flatnonzero(surely), key=lambda place: -odds[place]):
        _take(mask, found[place], least[place])
    for place in np.flatnonzero(odds > _PLAIN):
        _paint(mask, further(found[place]), _MARGIN)
    _continue(mask, [found[place] for place in np.flatnonzero((odds > _DOUBTFUL) & ~surely)])
    if ocr is not None:
        for box in list(_read(image, ocr, mask)):
            _paint(mask, np.array([[box.top, box.bottom, box.left, box.right]]), _MARGIN)
    return mask


def _take(mask: Mask, line: Line, least: float) -> None:
    """Blank a line. Where part of it is blanked already as a better line, the rest must be one by itself.

    What else stands in the row is blanked if it is of the size of what was found.
    """
    there = np.array(
        [mask[top:bottom, left:right].mean() >= _THERE for top, bottom, left, right in line.pieces.tolist()]
    )
    if not there.any():
        _paint(mask, line.boxes, _MARGIN)
        return
    if there.all():
        return
    rest = line.only(~there)
    if rest is not None and float(_WEIGHTS @ rest.features) + _INTERCEPT > least:
        _paint(mask, rest.boxes, _MARGIN)
    heights = line.heights()
    alike = there | (heights <= _TALLER * float(np.median(heights[there])))
    taken, before = there.copy(), 0
    while np.count_nonzero(taken) > before:
        before = int(np.count_nonzero(taken))
        taken[line.links[alike[line.links].all(axis=1) & taken[line.links].any(axis=1)]] = True
    new = (taken & ~there)[line.links].any(axis=1) & taken[line.links].all(axis=1)
    _paint(mask, line.boxes[new], _MARGIN)


def _inside(line: Line, field: Mask) -> bool:
    top, left = line.boxes[:, [0, 2]].min(axis=0)
    bottom, right = line.boxes[:, [1, 3]].max(axis=0)
    return bool(field[top:bottom, left:right].all())


def _paint(mask: Mask, boxes: NDArray[np.int64], margin: float) -> None:
    for top, bottom, left, right in boxes.tolist():
        around = max(2, round(margin * min(bottom - top, right - left)))
        mask[max(top - around, 0) : bottom + around, max(left - around, 0) : right + around] = True


def _continue(mask: Mask, doubtful: list[Line]) -> None:
    """Take in doubtful lines that stand in the row, or in the column, of a line that was found."""
    for line in doubtful:
        top, left = line.boxes[:, [0, 2]].min(axis=0)
        bottom, right = line.boxes[:, [1, 3]].max(axis=0)
        height, width = bottom - top, right - left
        if width >= height:
            near = mask[top:bottom, max(left - height, 0) : right + height]
            beside = np.count_nonzero(near.any(axis=1)) >= 0.6 * height
        else:
            near = mask[max(top - width, 0) : bottom + width, left:right]
            beside = np.count_nonzero(near.any(axis=0)) >= 0.6 * width
        if beside and near.mean() > 0.1:
            _paint(mask, line.boxes, _MARGIN)


def _read(image: Image, ocr: Ocr, mask: Mask) -> Iterator[Box]:
    """Yield where OCR reads words in what is left: bright and dark, level and turned both ways."""
    for sign in (1.0, -1.0):
        flat = _flattened(np.float32(sign) * image, mask)
        if flat is not None:
            for turns in (0, 1, 3):
                for box in ocr.words(np.rot90(flat, turns)):
                    yield _turned_back(box, turns, image.shape)


def _turned_back(box: Box, turns: int, shape: tuple[int, ...]) -> Box:
    """Return the box in the image before `np.rot90(image, turns)`."""
    rows, columns = shape
    if turns == 1:  # row r, column c of the turned image is row c, column columns - 1 - r
        return Box(box.left, box.right, columns - box.bottom, columns - box.top)
    if turns == 3:  # row rows - 1 - c, column r
        return Box(rows - box.right, rows - box.left, box.top, box.bottom)
    return box


def _flattened(image: Image, mask: Mask) -> NDArray[np.uint8] | None:
    """Return what is bright and thinner than a stroke as dark writing on white; None if there is nothing."""
    hat = image - ndimage.grey_opening(image, size=(2 * STROKE, 2 * STROKE))
    signal = np.clip((hat - _NOISES * local_noise(image)) / _READABLE, 0, 1)
    signal[mask] = 0
    if np.count_nonzero(signal > 0.5) < _LEAST_INK:
        return None
    return np.ascontiguousarray(255 * (1 - signal)).astype(np.uint8)
