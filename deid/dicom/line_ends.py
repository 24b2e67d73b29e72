"""What goes on at the ends of a line of writing: characters that no chain reached.

A character that touches the edge of what it stands on, or something that crosses it, is no piece of its own.
In the row of a line that was found, what has its shade and the size of its characters is taken for one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deid.dicom.strokes import Image, Line, Mask

_SHADE = 0.45  # of the line's contrast: so far is a shade the line's own
_FAINT = 0.5  # of the line's contrast
_GAP = 1.3  # heights, as between neighbours in a chain
_REACH = 12  # heights: a date and a time beyond a line that crosses
_SMALLEST, _WIDEST = 0.3, 2.2  # heights: small letters beside capitals; characters that touch


def further(line: Line) -> NDArray[np.int64]:
    """Return boxes (top, bottom, left, right) of what continues a line, in the image it was found in."""
    pieces, field = line.within, line.field
    tall = float(np.median(pieces.bottom - pieces.top))
    start, end = float(pieces.left.min()), float(pieces.right.max())
    found = [
        *_beyond(line, end, end + _REACH * tall, tall, forward=True),
        *_beyond(line, start - _REACH * tall, start, tall, forward=False),
    ]
    boxes = np.array(found, dtype=np.int64).reshape(-1, 4)
    return field.scale * (boxes[:, [2, 3, 0, 1]] if field.upright else boxes)


def _beyond(
    line: Line, start: float, stop: float, tall: float, *, forward: bool
) -> list[tuple[int, int, int, int]]:
    """Return boxes of the characters between two columns in the row of a line."""
    hat, shade, contrast = _ink_of(line)
    left, right = max(int(start), 0), min(int(stop), hat.shape[1])
    slope, top, bottom = _band(line)
    x = np.arange(left, right)
    above, below = slope * x + top, slope * x + bottom
    if right - left < 2:
        return []
    first, last = max(int(above.min()), 0), min(int(np.ceil(below.max())), hat.shape[0])
    if last - first < 3:
        return []
    window = np.s_[first:last, left:right]
    rows = np.arange(first, last)[:, None]
    thin = (hat[window] > _FAINT * contrast) & (rows >= above) & (rows < below)
    ink = thin & (np.abs(line.field.shades[window] - shade) <= _SHADE * contrast)
    return [
        (first + box[0], first + box[1], left + box[2], left + box[3])
        for box in _row(ink, np.atleast_1d(thin.any(axis=0)), tall, forward)
    ]


def _ink_of(line: Line) -> tuple[Image, float, float]:
    """Return the hat in which a line's ink stands, bright or dark, its shade and its contrast."""
    pieces, field = line.within, line.field
    box = np.s_[
        int(pieces.top.min()) : int(pieces.bottom.max()), int(pieces.left.min()) : int(pieces.right.max())
    ]
    hat = max((field.bright, field.dark), key=lambda hat: float(hat[box].sum()))
    strong = hat[box] > 0.5 * np.percentile(hat[box], 95)
    return hat, float(np.median(field.shades[box][strong])), float(np.median(hat[box][strong]))


def _band(line: Line) -> tuple[float, float, float]:
    """Return the slope of a line's row, and where its upper and its lower edge are at column 0."""
    pieces = line.within
    middle = (pieces.left + pieces.right) / 2
    slope = 0.0
    if len(middle) > 4 and np.ptp(middle) > 0:
        slope = float(np.clip(np.polyfit(middle, (pieces.top + pieces.bottom) / 2, 1)[0], -0.12, 0.12))
    top = float(np.percentile(pieces.top - slope * middle, 10)) - 1
    bottom = float(np.percentile(pieces.bottom - slope * middle, 90)) + 1
    return slope, top, bottom


def _row(ink: Mask, crossed: Mask, tall: float, forward: bool) -> list[tuple[int, int, int, int]]:
    """Return boxes of pieces in a row that follow one another from one of its ends.

    What crosses the row (`crossed`, by column) makes no gap in it.
    """
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    if count == 0:
        return []
    width = ink.shape[1]
    boxes = []
    for rows, columns in ndimage.find_objects(labels):
        near, far = (
            (columns.start, columns.stop) if forward else (width - columns.stop, width - columns.start)
        )
        fits = rows.stop - rows.start >= _SMALLEST * tall and far - near <= _WIDEST * tall
        if fits:
            boxes.append((near, far, (rows.start, rows.stop, columns.start, columns.stop)))
    taken, end = [], 0
    empty = ~(crossed if forward else crossed[::-1])
    for near, far, box in sorted(boxes):
        if np.count_nonzero(empty[end:near]) > _GAP * tall:
            break
        taken.append(box)
        end = max(end, far)
    return taken
