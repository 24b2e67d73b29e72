"""Images with text that no weight was fitted on: other fonts, grounds, places, sizes and noise.

No error in them was looked at. The area blanked of the slices, of one seed, had a say in one limit
(deid.dicom.burned_in: from which odds on a line is doubtful).

Grounds are real ones (an MR slice that matplotlib ships, the CT and MR slices of pydicom's tests, a
photograph) and textures of many scales. Text stands alone anywhere, or in blocks of lines close together as
devices write them; it is outlined, on a plate of its own, blocky as a screen's font, or blurred; turned by
0, 90, 180 and 270 degrees and slightly tilted; the image is noisy, and sometimes was a JPEG. What text is and
when a line counts as visible is as in `burned_in_images`.
"""

import gzip
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.data import get_testdata_file
from scipy import ndimage

from tests.deid.dicom.burned_in_images import VISIBLE, Line, Written, identifying

KINDS = ("slice", "texture", "photograph", "page")
_PACKAGED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_SYSTEM = Path("/usr/share/fonts")  # Debian: fonts-urw-base35, fonts-noto-mono
_NAMES = (
    "cmss10", "cmtt10", "cmr10", "cmb10", "STIXGeneralItalic", "STIXGeneralBolIta", "DejaVuSerif-BoldItalic",
    "DejaVuSansMono-BoldOblique",
)  # fmt: skip
_SYSTEM_NAMES = (
    "NimbusSans-Regular", "NimbusSans-Bold", "NimbusSansNarrow-Regular", "NimbusMonoPS-Bold",
    "NimbusRoman-Regular", "URWGothic-Book", "URWBookman-Light", "P052-Italic", "C059-Bold",
    "NotoSansMono-Regular", "DroidSansFallbackFull",
)  # fmt: skip
_TURNS = (0.0,) * 10 + (90.0, 90.0, 270.0, 270.0, 180.0, 180.0)
_SMALLEST, _LARGEST = 10, 40  # pixels


@cache
def fonts() -> tuple[Path, ...]:
    """Return those of the packages, and those of the machine that are there."""
    found = [_PACKAGED / f"{name}.ttf" for name in _NAMES]
    for name in _SYSTEM_NAMES:
        found += sorted(_SYSTEM.rglob(f"{name}.[ot]tf"))[:1]
    return tuple(found)


def images(rng: Generator, count: int) -> Iterator[Written]:
    """Yield images of the four kinds in turn."""
    for place in range(count):
        yield image(KINDS[place % len(KINDS)], rng)


def image(kind: str, rng: Generator) -> Written:
    """Return one image with lines that stand alone, or one block of them, or both."""
    ground = _GROUNDS[kind](rng)
    taken = np.zeros(ground.shape, bool)
    written: list[Line] = []
    for _ in range(int(rng.integers(0, 4))):
        written += _block(rng, ground, taken, 1)
    if rng.random() < 0.6 or not written:
        written += _block(rng, ground, taken, int(rng.integers(2, 6)))
    ground = ground + rng.normal(0, rng.uniform(0.002, 0.02), ground.shape)
    if rng.random() < 0.3:
        ground = _as_jpeg(ground, int(rng.integers(60, 96)))
    return Written(kind, np.clip(ground, 0, 1).astype(np.float32), tuple(written), None)


def _block(rng: Generator, ground: NDArray[np.float32], taken: NDArray[np.bool_], count: int) -> list[Line]:
    """Write lines of one look below each other somewhere; none where that cannot be read."""
    for _ in range(40):
        largest = _LARGEST if count == 1 else 24
        size = int(rng.integers(_SMALLEST, min(largest, min(ground.shape) // 14)))
        texts = [identifying(rng) for _ in range(count)]
        turned = float(rng.choice(_TURNS))
        if rng.random() < 0.15:
            turned += float(rng.uniform(-4, 4))
        drawn = _drawn(rng, texts, size, turned)
        height, width = drawn.shape[1:]
        if height + 8 >= ground.shape[0] or width + 8 >= ground.shape[1]:
            continue
        top = int(rng.integers(3, ground.shape[0] - height - 3))
        left = int(rng.integers(3, ground.shape[1] - width - 3))
        margin = np.s_[top - 3 : top + height + 3, left - 3 : left + width + 3]
        if taken[margin].any():
            continue
        lines = _put(rng, ground, drawn, (top, left), texts, size, turned)
        if lines:
            taken[margin] = True
            return lines
    return []


def _put(
    rng: Generator,
    ground: NDArray[np.float32],
    drawn: NDArray[np.float32],
    corner: tuple[int, int],
    texts: list[str],
    size: int,
    turned: float,
) -> list[Line]:
    """Blend drawn lines into the ground, plain, with a dark or light outline, or on a plate."""
    window = np.s_[corner[0] : corner[0] + drawn.shape[1], corner[1] : corner[1] + drawn.shape[2]]
    patch = ground[window].copy()
    whole = drawn.max(axis=0)
    look = float(rng.random())
    if look < 0.15:
        patch[:] = np.round(rng.random(), 2)
    around = float(np.median(patch))
    contrast = float(rng.uniform(0.15, 1.0))
    value = around + contrast if around < 0.5 else around - contrast
    if not 0 <= value <= 1 or np.std(patch) > 0.5 * contrast:
        return []
    if 0.15 <= look < 0.3:
        outline = np.clip(ndimage.grey_dilation(whole, size=(3, 3)) - whole, 0, 1)
        patch = patch * (1 - outline) + (1.0 - np.round(value)) * outline
    ground[window] = patch * (1 - whole) + value * whole
    lines = []
    for text, ink in zip(texts, drawn, strict=True):
        mask = np.zeros(ground.shape, bool)
        mask[window] = (ink > 0.35) & (np.abs(patch - value) >= VISIBLE)
        if mask.any():
            lines.append(Line(text, mask, size, abs(value - around), turned))
    return lines


def _drawn(rng: Generator, texts: list[str], size: int, turned: float) -> NDArray[np.float32]:
    """Return a block of lines, each on a canvas of its own."""
    blocky = rng.random() < 0.2
    faces = fonts()
    face = faces[int(rng.integers(len(faces)))]
    font = ImageFont.load_default_imagefont() if blocky else ImageFont.truetype(str(face), size)
    step = round((11 if blocky else size) * rng.uniform(1.1, 1.5))
    edges = [font.getbbox(text) for text in texts]
    width = int(max(right - min(left, 0) for left, _, right, _ in edges)) + 6
    height = step * (len(texts) - 1) + int(max(bottom for *_, bottom in edges)) + 6
    right_aligned = rng.random() < 0.3
    blur = float(rng.choice([0.0, 0.0, 0.6]))
    canvases = []
    for place, (text, box) in enumerate(zip(texts, edges, strict=True)):
        canvas = Image.new("L", (width, height), 0)
        x = width - 3 - int(box[2]) if right_aligned else 3 - min(int(box[0]), 0)
        ImageDraw.Draw(canvas).text((x, 2 + place * step), text, fill=255, font=font)
        if blocky and size >= 16:
            times = size // 8
            canvas = canvas.resize((width * times, height * times), Image.Resampling.NEAREST)
        if turned:
            canvas = canvas.rotate(turned, expand=True, resample=Image.Resampling.BICUBIC)
        ink = np.asarray(canvas, dtype=np.float32) / 255
        canvases.append(ndimage.gaussian_filter(ink, blur) if blur and size > 14 else ink)
    return np.stack(canvases)


def _as_jpeg(ground: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    held = io.BytesIO()
    Image.fromarray((np.clip(ground, 0, 1) * 255).astype(np.uint8)).save(held, "JPEG", quality=quality)
    return np.asarray(Image.open(held), dtype=np.float32) / 255


def _stretched(values: NDArray[np.generic], rng: Generator) -> NDArray[np.float32]:
    low, high = np.percentile(values, (0.5, 99.5))
    shades: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return shades ** np.float32(rng.uniform(0.6, 1.3))


@cache
def _slices() -> tuple[NDArray[np.float32], ...]:
    with gzip.open(Path(matplotlib.get_data_path()) / "sample_data" / "s1045.ima.gz") as file:
        found = [np.frombuffer(file.read(), np.uint16).reshape(256, 256).astype(np.float32)]
    for name in ("CT_small.dcm", "MR_small.dcm"):
        path = get_testdata_file(name)
        assert isinstance(path, str)
        found.append(dcmread(path).pixel_array.astype(np.float32))
    return tuple(found)


def _slice(rng: Generator) -> NDArray[np.float32]:
    chosen = _slices()[int(rng.integers(3))]
    chosen = np.rot90(chosen, int(rng.integers(4)))
    large = ndimage.zoom(chosen, 512 / chosen.shape[0], order=3)
    framed = np.pad(_stretched(large, rng), int(rng.integers(0, 90)))
    return framed.astype(np.float32)


def _texture(rng: Generator) -> NDArray[np.float32]:
    """Noise whose power falls with frequency as in radiographs of bone or breast, with a bright edge."""
    rows, columns = 700, 640
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(0, 1, (rows, columns))) / frequency ** rng.uniform(1.3, 2.0)
    field = _stretched(np.fft.irfft2(spectrum, (rows, columns)), rng) * 0.8
    y, x = np.mgrid[0:rows, 0:columns]
    beyond = x > columns * rng.uniform(0.5, 0.95) + 60 * np.sin(y / rng.uniform(60, 200))
    field[beyond] = rng.choice([0.0, 0.02, 0.97])
    return field.astype(np.float32)


@cache
def _portrait() -> NDArray[np.float32]:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255


def _photograph(rng: Generator) -> NDArray[np.float32]:
    whole = _portrait()
    top = int(rng.integers(0, whole.shape[0] - 480))
    part = whole[top : top + 480]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return np.ascontiguousarray(ndimage.zoom(part, rng.uniform(1.0, 1.5), order=1).clip(0, 1))


def _page(rng: Generator) -> NDArray[np.float32]:
    """A scanned sheet: uneven light, frames, specks and fold lines."""
    rows, columns = 640, 720
    light = ndimage.gaussian_filter(rng.normal(0, 1, (rows, columns)), 120)
    sheet = 0.9 + 0.08 * light / np.abs(light).max()
    for _ in range(int(rng.integers(0, 4))):
        top, left = int(rng.integers(10, 500)), int(rng.integers(10, 500))
        bottom, right = top + int(rng.integers(40, 130)), left + int(rng.integers(60, 210))
        sheet[top:bottom, left:right] -= 0.15
        sheet[top : top + 2, left:right] = sheet[bottom - 2 : bottom, left:right] = 0.2
        sheet[top:bottom, left : left + 2] = sheet[top:bottom, right - 2 : right] = 0.2
    for _ in range(60):
        row, column = int(rng.integers(2, rows - 4)), int(rng.integers(2, columns - 4))
        sheet[row : row + int(rng.integers(1, 4)), column : column + int(rng.integers(1, 4))] -= 0.4
    return np.clip(sheet, 0, 1).astype(np.float32)


_GROUNDS = {"slice": _slice, "texture": _texture, "photograph": _photograph, "page": _page}
