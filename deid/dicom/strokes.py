"""Lines of writing in an image, found by their strokes: thin, of one width and one shade, side by side.

A white and a black top-hat take away whatever is wider than a stroke; what is left is cut at several heights
(as with maximally stable regions, text comes out whole at one of them, whatever lies under it); connected
pieces of the size of characters are chained to lines, level and upright; a line is kept or not by how regular
it is.
Large writing is found in the halved image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]

STROKE = 9  # pixels: wider than a stroke of writing up to the height below
LOWEST, HIGHEST = 6, 42  # pixels: heights of characters at one level; higher ones are found one level up
LEVELS = (0.07, 0.14, 0.28, 0.5)  # shares of the range of shades at which the top-hat is cut
_NOISES = 4.0  # times the local noise: the lowest cut
_MOST_PIECES = 6000  # of one cut: more is texture, and the next cut has less
_LARGEST_SHARE = 0.075  # of an image's shorter side: writing is not higher


@dataclass(frozen=True, slots=True)
class Field:
    """What a line was found in: shades, what of them is bright or dark and thin, and what was cut out.

    Halved to `scale`, turned if upright.
    """

    shades: Image
    bright: Image
    dark: Image
    cut: Mask
    scale: int
    upright: bool

    def turned(self) -> Field:
        """The same with rows and columns exchanged."""
        return Field(self.shades.T, self.bright.T, self.dark.T, self.cut.T, self.scale, not self.upright)


@dataclass(frozen=True, slots=True)
class Line:
    """A chain of pieces: their boxes and those of neighbours together (top, bottom, left, right).

    `links` are the places of two neighbours in `pieces`, a row for each of `boxes`. `features`: how it looks.
    `within` are the pieces as they lie in `field`.
    """

    pieces: NDArray[np.int64]
    boxes: NDArray[np.int64]
    links: NDArray[np.int64]
    features: Numbers
    within: Pieces
    field: Field

    def heights(self) -> Numbers:
        """Return the pieces' heights, across the line."""
        return self.within.bottom - self.within.top

    def only(self, chosen: Mask) -> Line | None:
        """Return the line of some of its pieces; None if no two neighbours are among them."""
        kept = chosen[self.links].all(axis=1)
        if not kept.any():
            return None
        places = np.cumsum(chosen) - 1
        within = self.within.only(chosen)
        return Line(
            self.pieces[chosen],
            self.boxes[kept],
            places[self.links[kept]],
            _features(within, self.field.cut),
            within,
            self.field,
        )


FEATURES = (
    "pieces", "length", "height_spread", "shade_spread", "stroke_spread", "stroke", "fill", "alone",
    "straight", "gap_spread", "contrast",
)  # fmt: skip


def lines(image: Image) -> Iterator[Line]:
    """Yield candidate lines of an image whose shades go from 0 to 1."""
    scale, largest = 1, max(_LARGEST_SHARE * min(image.shape), 24.0)
    while LOWEST * scale < largest / 2:
        noise = local_noise(image)
        size = (STROKE, STROKE)
        bright, dark = (
            image - ndimage.grey_opening(image, size=size),
            ndimage.grey_closing(image, size=size) - image,
        )
        for hat in (bright, dark):
            field = Field(image, bright, dark, np.zeros((0, 0), bool), scale, False)
            yield from _cuts(hat, field, noise, largest / scale)
        image = _halved(image)
        scale *= 2


def local_noise(image: Image) -> Image:
    """Return the noise's standard deviation around each pixel, from differences of diagonal neighbours."""
    residual = np.abs(ndimage.laplace(image)) / np.sqrt(20.0)
    block = 32
    rows, columns = (-(-side // block) for side in image.shape)
    padded = np.pad(
        residual, ((0, rows * block - image.shape[0]), (0, columns * block - image.shape[1])), mode="reflect"
    )
    blocks = padded.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, -1)
    sigma = ndimage.median_filter(np.median(blocks, axis=2) * 1.48, size=3)
    wide = np.repeat(np.repeat(sigma, block, 0), block, 1)
    return wide[: image.shape[0], : image.shape[1]].astype(np.float32)


def _halved(image: Image) -> Image:
    rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    halved: Image = image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return halved


def _cuts(hat: Image, field: Field, noise: Image, largest: float) -> Iterator[Line]:
    lowest = np.maximum(_NOISES * noise, 0.03)
    for lower in (0.0, *LEVELS):
        cut = hat > np.maximum(lowest, lower)
        labels, count = ndimage.label(cut, structure=np.ones((3, 3)))
        if count == 0:
            return
        pieces = _pieces(labels, count, hat, field.shades)
        if pieces is None or len(pieces.top) > _MOST_PIECES:
            continue
        level = replace(field, cut=cut)
        yield from _chained(pieces, level, largest)
        yield from _chained(pieces.turned(), level.turned(), largest)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Connected pieces: edges of their boxes (bottom and right are one past), area, shade, stroke width."""

    top: Numbers
    bottom: Numbers
    left: Numbers
    right: Numbers
    area: Numbers
    shade: Numbers
    contrast: Numbers
    stroke: Numbers

    def turned(self) -> Pieces:
        """The same with rows and columns exchanged."""
        return Pieces(
            self.left, self.right, self.top, self.bottom, self.area, self.shade, self.contrast, self.stroke
        )

    def only(self, chosen: NDArray[np.generic]) -> Pieces:
        """Those that are chosen."""
        return Pieces(*(getattr(self, name)[chosen] for name in self.__slots__))


def _pieces(labels: NDArray[np.int32], count: int, hat: Image, image: Image) -> Pieces | None:
    found = ndimage.find_objects(labels)
    edges = np.array([(r.start, r.stop, c.start, c.stop) for r, c in found], dtype=np.float64)
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count + 1)[1:].astype(np.float64)
    heights, widths = edges[:, 1] - edges[:, 0], edges[:, 3] - edges[:, 2]
    fits = (np.maximum(heights, widths) >= LOWEST) & (np.minimum(heights, widths) <= HIGHEST) & (area >= 6)
    if not fits.any():
        return None
    weight = np.bincount(flat, hat.ravel(), count + 1)[1:]
    shade = np.bincount(flat, (hat * image).ravel(), count + 1)[1:] / np.maximum(weight, 1e-9)
    inner = ndimage.distance_transform_cdt(labels > 0, metric="chessboard")
    stroke = (
        4 * np.bincount(flat, inner.ravel(), count + 1)[1:] / area - 1
    )  # the mean over a bar of width w is (w+1)/4
    top, bottom, left, right = edges.T
    whole = Pieces(top, bottom, left, right, area, shade, weight / area, stroke)
    return whole.only(fits)


def _chained(pieces: Pieces, field: Field, largest: float) -> Iterator[Line]:
    height = pieces.bottom - pieces.top
    width = pieces.right - pieces.left
    pieces = pieces.only((height >= LOWEST) & (height <= min(HIGHEST, largest)) & (width <= 8 * height))
    if len(pieces.top) < 2:
        return
    one, other = _neighbours(pieces)
    size = len(pieces.top)
    _, chain = connected_components(
        coo_array((np.ones(len(one)), (one, other)), shape=(size, size)), directed=False
    )
    order = np.argsort(chain, kind="stable")
    starts = np.flatnonzero(np.diff(chain[order], prepend=-1))
    by_chain = np.argsort(chain[one], kind="stable")
    link_starts = np.searchsorted(chain[one][by_chain], np.arange(len(starts) + 1))
    for nth, members in enumerate(np.split(order, starts[1:])):
        if len(members) < 2:
            continue
        links = by_chain[link_starts[nth] : link_starts[nth + 1]]
        yield _line(pieces, members, one[links], other[links], field)


def _neighbours(pieces: Pieces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of pieces of which the second stands where the next character of the first would."""
    order = np.argsort(pieces.left, kind="stable")
    left, right = pieces.left[order], pieces.right[order]
    top, bottom = pieces.top[order], pieces.bottom[order]
    height, middle = bottom - top, (top + bottom) / 2
    ends = np.searchsorted(left, right + 1.3 * np.minimum(2 * height, HIGHEST), side="right")
    ones, others = [], []
    for place in range(len(order)):
        nexts = np.arange(place + 1, ends[place])
        if not len(nexts):
            continue
        larger = np.maximum(height[nexts], height[place])
        near = left[nexts] - right[place] <= 1.3 * larger
        near &= left[nexts] + right[nexts] > left[place] + right[place]
        near &= np.abs(middle[nexts] - middle[place]) <= 0.4 * larger
        near &= larger <= 2.2 * np.minimum(height[nexts], height[place])
        chosen = nexts[near]
        ones.append(np.full(len(chosen), place))
        others.append(chosen)
    if not ones:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return order[np.concatenate(ones)], order[np.concatenate(others)]


def _line(
    pieces: Pieces,
    members: NDArray[np.int64],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    field: Field,
) -> Line:
    line = pieces.only(members)
    own = np.stack([line.top, line.bottom, line.left, line.right], axis=1)
    links = np.stack([np.searchsorted(members, one), np.searchsorted(members, other)], axis=1)
    firsts, seconds = own[links[:, 0]], own[links[:, 1]]
    low, high = np.minimum(firsts, seconds), np.maximum(firsts, seconds)
    boxes = np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], axis=1)
    if field.upright:
        own, boxes = own[:, [2, 3, 0, 1]], boxes[:, [2, 3, 0, 1]]
    return Line(
        (own * field.scale).astype(np.int64),
        (boxes * field.scale).astype(np.int64),
        links,
        _features(line, field.cut),
        line,
        field,
    )


def _features(line: Pieces, cut: Mask) -> Numbers:
    """Return how a line looks, in the order of FEATURES."""
    order = np.argsort(line.left)
    line = line.only(order)
    height = line.bottom - line.top
    tall = float(np.median(height))
    contrast = float(np.median(line.contrast))
    gaps = np.maximum(line.left[1:] - line.right[:-1], 0)
    length = float(line.right.max() - line.left.min())
    base = (line.left + line.right) / 2
    slope, level = (
        np.polyfit(base, line.bottom, 1) if len(base) > 2 and np.ptp(base) > 0 else (0.0, line.bottom.mean())
    )
    off = np.abs(line.bottom - slope * base - level)
    fill = line.area / np.maximum((line.right - line.left) * height, 1)
    return np.array(
        [
            np.log(len(height)),
            np.log(length / tall),
            float(np.std(height)) / tall,
            float(np.std(line.shade)) / max(contrast, 1e-3),
            float(np.std(line.stroke)) / max(float(np.mean(line.stroke)), 0.5),
            float(np.median(line.stroke)) / tall,
            float(np.mean(fill)),
            _alone(line, cut, tall),
            float(np.median(off)) / tall,
            float(np.std(gaps)) / tall if len(gaps) else 0.0,
            contrast,
        ]
    )


def _alone(line: Pieces, cut: Mask, tall: float) -> float:
    """Return how much of what is cut out around the line is the line: 1 is all of it."""
    margin = 0.5 * tall
    top, bottom = int(max(line.top.min() - margin, 0)), int(line.bottom.max() + margin) + 1
    left, right = int(max(line.left.min() - margin, 0)), int(line.right.max() + margin) + 1
    around = int(np.count_nonzero(cut[top:bottom, left:right]))
    return float(line.area.sum()) / max(around, 1)
