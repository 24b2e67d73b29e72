"""Generated images with text in their pixels, and where each identifying line of it lies.

Ultrasound (a speckled sector on black, colour bar, scale, calipers), radiographs (soft gradients, ribs), CT
slices (a body on black, table) and secondary captures (screens with panels and curves), all noisy. In them
names, numbers, dates and institutions in several fonts and sizes, bright on dark and dark on bright, down to
a contrast of 0.15 of the range of shades, level, slightly tilted, and turned by 90 and 270 degrees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

KINDS = ("US", "CR", "CT", "SC")
_PACKAGED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONTS = tuple(
    _PACKAGED / f"{name}.ttf"
    for name in (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
        "DejaVuSans-Oblique", "STIXGeneral", "STIXGeneralBol",
    )
)  # fmt: skip
_SURNAMES = (
    "SMITH",
    "Okonkwo",
    "GARCIA",
    "Nguyen",
    "MÜLLER",
    "Ivanova",
    "O'BRIEN",
    "Li",
    "Dupont-Roy",
    "ROSSI",
)
_GIVEN = ("JOHN", "Amara", "MARIA", "Thi", "Hans", "OLGA", "Siobhan", "WEI", "Claire", "Luca")
_PLACES = ("ST MARY HOSPITAL", "County General", "UNIV. MED CTR", "Klinikum Nord", "Mercy Clinic Radiology")
VISIBLE = 0.1  # of the range of shades: strokes that stand out less from what they cross are not seen
_LARGEST = {"US": 25, "CR": 31, "CT": 20, "SC": 25}  # pixels
_LEVEL, _TILTED, _LEFT, _RIGHT = 0.0, 2.5, 90.0, 270.0


@dataclass(frozen=True, slots=True)
class Line:
    """One identifying line: its visible ink as a mask of the whole image, and how it was written."""

    text: str
    ink: NDArray[np.bool_]
    size: int
    contrast: float
    turned: float


@dataclass(frozen=True, slots=True)
class Written:
    """An image from 0 to 1, (rows, columns), and the lines in it. `region`: the box of the sector."""

    kind: str
    pixels: NDArray[np.float32]
    lines: tuple[Line, ...]
    region: tuple[int, int, int, int] | None  # x0, y0, x1, y1


def images(rng: Generator, count: int) -> Iterator[Written]:
    """Yield images of the four kinds in turn."""
    for place in range(count):
        yield image(KINDS[place % len(KINDS)], rng)


def image(kind: str, rng: Generator, *, lines: int | None = None) -> Written:
    """Return one image with 3 to 6 identifying lines, or as many as are asked for."""
    ground, region = _GROUNDS[kind](rng)
    wanted = int(rng.integers(3, 7)) if lines is None else lines
    taken = np.zeros(ground.shape, bool)
    written: list[Line] = []
    noise_sigma = float(rng.uniform(0.004, 0.02))
    for _ in range(wanted * 30):
        if len(written) == wanted:
            break
        line = _try(kind, rng, ground, taken)
        if line is not None:
            written.append(line)
    noisy = ground + rng.normal(0, noise_sigma, ground.shape)
    return Written(kind, np.clip(noisy, 0, 1).astype(np.float32), tuple(written), region)


def _try(kind: str, rng: Generator, ground: NDArray[np.float32], taken: NDArray[np.bool_]) -> Line | None:
    """Write one line somewhere that is free, into `ground`; None if the place is taken."""
    size = int(rng.integers(11, _LARGEST[kind]))
    text, turned = (
        identifying(rng),
        float(rng.choice([_LEVEL] * 12 + [_TILTED, -_TILTED, _LEFT, _LEFT, _RIGHT, _RIGHT])),
    )
    glyphs = _drawn(text, size, FONTS[int(rng.integers(len(FONTS)))], turned)
    rows, columns = ground.shape
    height, width = glyphs.shape
    if height + 8 >= rows or width + 8 >= columns:
        return None
    top, left = _place(rng, rows - height, columns - width)
    window = np.s_[top : top + height, left : left + width]
    margin = np.s_[max(top - 6, 0) : top + height + 6, max(left - 6, 0) : left + width + 6]
    if taken[margin].any():
        return None
    ink = glyphs > 0.35
    around = float(np.median(ground[margin]))
    contrast = float(rng.uniform(0.15, 1.0))
    bright = around < 0.5 if rng.random() < 0.9 else around >= 0.3
    value = min(around + contrast, 1.0) if bright else max(around - contrast, 0.0)
    if abs(value - around) < 0.15 or np.std(ground[margin]) > 0.6 * abs(value - around):
        return None  # not to be read by anybody
    taken[margin] = True
    patch = ground[window].copy()
    ground[window] = patch * (1 - glyphs) + value * glyphs
    mask = np.zeros(ground.shape, bool)
    mask[window] = ink & (np.abs(patch - value) >= VISIBLE)
    return Line(text, mask, size, abs(value - around), turned)


def _place(rng: Generator, rows: int, columns: int) -> tuple[int, int]:
    """Mostly near the corners and edges, where devices write; sometimes anywhere."""
    if rng.random() < 0.25:
        return int(rng.integers(4, rows - 3)), int(rng.integers(4, columns - 3))
    row = int(rng.integers(4, max(rows // 4, 6)))
    column = int(rng.integers(4, max(columns // 5, 6)))
    return (row if rng.random() < 0.5 else rows - row), (column if rng.random() < 0.5 else columns - column)


def identifying(rng: Generator) -> str:
    name = f"{_SURNAMES[rng.integers(10)]}, {_GIVEN[rng.integers(10)]}"
    year, month, day = int(rng.integers(1930, 2020)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    number = int(rng.integers(10**6, 10**8))
    clock = f"{rng.integers(24):02}:{rng.integers(60):02}:{rng.integers(60):02}"
    return str(
        rng.choice(
            [
                name,
                f"{name} {_GIVEN[rng.integers(10)][0]}",
                f"MRN: {number}",
                f"ID {number:08d}",
                f"DOB {month:02}/{day:02}/{year}",
                f"{day:02}.{month:02}.{year}  {clock}",
                f"ACC# A{number}",
                str(rng.choice(_PLACES)),
                f"Dr. {_SURNAMES[rng.integers(10)]}",
                f"{name} F/{rng.integers(20, 90)}Y",
            ]
        )
    )


def _drawn(text: str, size: int, font: Path, turned: float) -> NDArray[np.float32]:
    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = face.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4), 0)
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=face)
    if turned:
        canvas = canvas.rotate(turned, expand=True, resample=Image.Resampling.BICUBIC)
    return np.asarray(canvas, dtype=np.float32) / 255


def _ultrasound(rng: Generator) -> tuple[NDArray[np.float32], tuple[int, int, int, int]]:
    rows, columns = 600, 800
    ground = np.full((rows, columns), rng.uniform(0, 0.06), np.float32)
    y, x = np.mgrid[0:rows, 0:columns]
    apex = (40, columns // 2)
    radius, angle = np.hypot(y - apex[0], x - apex[1]), np.abs(np.arctan2(x - apex[1], y - apex[0]))
    sector = (radius > 40) & (radius < 500) & (angle < 0.65)
    speckle = ndimage.gaussian_filter(rng.rayleigh(1.0, (rows, columns)), (1.2, 2.0))
    organs = ndimage.gaussian_filter(rng.normal(0, 1, (rows, columns)), 40)
    organs = 0.28 + 0.18 * organs / np.abs(organs).max()
    ground[sector] = np.clip(organs * speckle / speckle.mean(), 0, 0.85)[sector]
    ground[120:420, columns - 40 : columns - 26] = np.linspace(0.95, 0.05, 300)[:, None]
    for tick in range(60, 540, 24):
        ground[tick : tick + 2, columns - 70 : columns - 62] = 0.8
    for _ in range(3):  # calipers
        row, column = int(rng.integers(150, 450)), int(rng.integers(250, 550))
        ground[row - 6 : row + 7, column] = ground[row, column - 6 : column + 7] = 0.95
    return ground, (110, 40, 690, 545)


def _radiograph(rng: Generator) -> tuple[NDArray[np.float32], None]:
    rows, columns = 880, 720
    field = ndimage.gaussian_filter(rng.normal(0, 1, (rows, columns)), 60)
    ground = 0.45 + 0.35 * field / np.abs(field).max()
    y, x = np.mgrid[0:rows, 0:columns]
    for _ in range(10):  # ribs
        centre, bow = rng.uniform(100, 780), rng.uniform(40, 90)
        rib = np.abs(y - centre - bow * ((x - columns / 2) / columns * 2) ** 2)
        ground += 0.08 * np.exp(-((rib / rng.uniform(6, 12)) ** 2))
    ground[:, : int(rng.integers(10, 60))] = 0.02  # collimation
    ground[:, columns - int(rng.integers(10, 60)) :] = 0.02
    return np.clip(ground, 0, 1).astype(np.float32), None


def _slice(rng: Generator) -> tuple[NDArray[np.float32], None]:
    size = 512
    y, x = np.mgrid[0:size, 0:size]
    ground = np.zeros((size, size), np.float32)
    body = ((x - 256) / rng.uniform(170, 210)) ** 2 + ((y - 260) / rng.uniform(120, 150)) ** 2 < 1
    ground[body] = 0.5
    for _ in range(8):
        organ = ((x - rng.uniform(140, 370)) / rng.uniform(10, 50)) ** 2
        organ = organ + ((y - rng.uniform(170, 350)) / rng.uniform(10, 40)) ** 2 < 1
        ground[organ & body] = rng.uniform(0.3, 0.95)
    table = np.abs(y - 420 - ((x - 256) / 60) ** 2) < 2
    ground[table] = 0.6
    return ndimage.gaussian_filter(ground, 0.8) + 0, None


def _screen(rng: Generator) -> tuple[NDArray[np.float32], None]:
    rows, columns = 600, 800
    ground = np.full((rows, columns), rng.choice([0.0, 0.1, 0.75, 0.95, 1.0]), np.float32)
    for _ in range(int(rng.integers(2, 5))):  # panels
        top, left = int(rng.integers(0, 450)), int(rng.integers(0, 600))
        bottom, right = top + int(rng.integers(80, 300)), left + int(rng.integers(100, 400))
        ground[top:bottom, left:right] = rng.uniform(0, 1)
    x = np.arange(columns)
    for _ in range(2):  # curves
        curve = 300 + 120 * np.sin(x / rng.uniform(20, 80) + rng.uniform(0, 6)) * rng.uniform(0.2, 1)
        ground[curve.astype(int).clip(0, rows - 1), x] = rng.uniform(0, 1)
    return ground, None


_GROUNDS = {"US": _ultrasound, "CR": _radiograph, "CT": _slice, "SC": _screen}
