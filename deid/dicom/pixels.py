"""Pixels without writing: which images are looked at, and how what is found in them is blanked.

Looked at are all images, or those of kinds that often show names (`Scan`). In images of several frames the
first, middle and last one, and the brightest and darkest of each pixel over time; what is found goes from
all frames. Blanked is to black: no other pixel changes. Compressed images are decoded where a decoder is
installed, and stay compressed if nothing was found.

Refused (NotDeidentified): burned-in-text (at risk, and not to be cleaned), no-ocr (at risk, and no OCR on
this machine), no-decoder, pixels (they are not what the header says), too-large, ocr-failed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from deid.dicom.burned_in import text_mask
from deid.dicom.ocr import Ocr
from deid.dicom.strokes import Image, Mask
from deid.errors import NotDeidentified

AT_RISK = frozenset(  # modalities whose images often show names: screens, scanned film and paper, photographs
    (
        "US", "IVUS", "XA", "RF", "ES", "XC", "GM", "SC", "OT", "DOC", "OP", "OPT", "IO", "PX", "DG", "TG",
        "HC", "VL", "SM", "ECG", "BI", "DD", "FA", "LS", "CD", "CF", "EC", "VF", "ST", "DF", "DS", "HD",
        "PLAN", "REPORT",
    )
)  # fmt: skip
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAX_PIXELS = 1 << 26  # of one frame: 64 million, 256 MB as float32
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_EACH_FRAME = 3  # up to so many frames are looked at one by one
_COLOURED = 0.12  # of the range of shades: channels that differ by this much show coloured writing


class Scan(StrEnum):
    """Which images are looked at."""

    ALL = "all"
    AT_RISK = "at-risk"


@dataclass(frozen=True, slots=True)
class TextBlanker:
    """Blanks writing in pixels (deid.dicom.engine.PixelCleaner).

    Args:
        cleans: whether the profile's option to clean pixels is asked for; if not, images at risk are refused.
        ocr: None if the machine has none: images at risk are refused then, too.
    """

    cleans: bool
    ocr: Ocr | None
    scan: Scan = Scan.ALL

    def clean(self, dataset: Dataset) -> None:
        """Blank what is written in the pixels of `dataset`, a file's own. Raises: NotDeidentified."""
        there = [name for name in _PIXELS if name in dataset]
        if not there:
            return
        risk = at_risk(dataset)
        if risk and not self.cleans:
            raise NotDeidentified("burned-in-text")
        if risk and self.ocr is None:
            raise NotDeidentified("no-ocr")
        if there != ["PixelData"] or dataset.get("BitsAllocated") == 1:  # numbers and masks, not pictures
            if risk:
                raise NotDeidentified("pixels")
            return
        _clear_unused_bits(dataset)
        if self.cleans and (risk or self.scan is Scan.ALL):
            self._blank(dataset, self.ocr if risk else None)
        if self.cleans:
            dataset.BurnedInAnnotation = "NO"

    def _blank(self, dataset: Dataset, ocr: Ocr | None) -> None:
        decoded = _decoded(dataset)
        frames = _frames(decoded)
        if frames.shape[1] * frames.shape[2] > MAX_PIXELS:
            raise NotDeidentified("too-large")
        beside = _beside_regions(decoded, frames.shape[1:3])
        mask = np.zeros(frames.shape[1:3], dtype=bool)
        for image in _looked_at(decoded, frames):
            mask |= text_mask(image, ocr, beside=beside)
        if not mask.any():
            return
        blank = frames.copy()
        blank[:, mask] = _black(decoded, frames)
        if decoded.get("PlanarConfiguration") == 1 and blank.shape[-1] > 1:
            blank = np.moveaxis(blank, -1, 1)
        _write(dataset, decoded, blank)


def at_risk(dataset: Dataset) -> bool:
    """Return whether the pixels may show who it is: the header says so, or it is usual for what it is.

    A header that says NO is not believed: devices write it whatever their screens show.
    """
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        return True
    sop_class = str(dataset.get("SOPClassUID") or "")
    captured = sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}.")
    secondary = any(
        str(word).strip().upper() == "SECONDARY" for word in (dataset.get("ImageType") or [])[1:2]
    )
    screen = secondary and "ConversionType" in dataset
    return captured or screen or str(dataset.get("Modality") or "").strip().upper() in AT_RISK


def _decoded(dataset: Dataset) -> Dataset:
    """Return a data set with native pixels: this one, or a copy of its image."""
    meta = dataset.file_meta
    if not meta.TransferSyntaxUID.is_compressed or meta.TransferSyntaxUID.is_deflated:
        return dataset
    image = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 (a Dataset iterates over its elements)
        if tag.group in (0x0018, 0x0028, 0x7FE0):
            image[tag] = copy.copy(dataset[tag])
    decoded = FileDataset("", image, file_meta=copy.deepcopy(meta))
    try:
        decoded.decompress(generate_instance_uid=False)
    except Exception:  # no decoder, or bytes that no decoder reads: what it says may repeat them
        raise NotDeidentified("no-decoder") from None
    return decoded


def _frames(dataset: Dataset) -> NDArray[Any]:
    """Return native pixels as (frames, rows, columns, samples). Raises: NotDeidentified."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples, count = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("NumberOfFrames") or 1)
        kind = "i" if dataset.get("PixelRepresentation") == 1 else "u"
        order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        dtype = np.dtype(f"{order}{kind}{int(dataset.BitsAllocated) // 8}")
        if str(dataset.PhotometricInterpretation).endswith(("_422", "_420")):
            raise NotDeidentified("pixels")
        flat = np.frombuffer(dataset.PixelData, dtype, count=count * rows * columns * samples)
    except (AttributeError, TypeError, ValueError):
        raise NotDeidentified("pixels") from None
    if flat.size == 0:
        raise NotDeidentified("pixels")
    if samples > 1 and dataset.get("PlanarConfiguration") == 1:
        return np.moveaxis(flat.reshape(count, samples, rows, columns), 1, -1)
    return flat.reshape(count, rows, columns, samples)


def _looked_at(dataset: Dataset, frames: NDArray[Any]) -> list[Image]:
    """Return the pictures in which to look for writing, with shades from 0 to 1."""
    chosen = list(frames)
    if len(frames) > _EACH_FRAME:
        chosen = [frames[0], frames[len(frames) // 2], frames[-1], frames.min(axis=0), frames.max(axis=0)]
    return [shades for frame in chosen for shades in _shades(dataset, frame)]


def _shades(dataset: Dataset, frame: NDArray[Any]) -> list[Image]:
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        frame = apply_color_lut(frame[..., 0], dataset)
    elif kind.startswith("YBR"):
        frame = frame[..., :1]
    values = frame.astype(np.float32)
    low, high = np.percentile(values, (0.05, 99.95)) if values.max() > 255 else (values.min(), values.max())
    if high <= low:
        low, high = float(values.min()), float(max(values.max(), values.min() + 1))
    values = np.clip((values - low) / (high - low), 0, 1)
    if values.shape[-1] == 1:
        return [values[..., 0]]
    spread = values.max(axis=-1) - values.min(axis=-1)
    coloured = np.count_nonzero(spread > _COLOURED) > 20
    return [values.mean(axis=-1), spread] if coloured else [values.mean(axis=-1)]


def _black(dataset: Dataset, frames: NDArray[Any]) -> NDArray[Any]:
    """Return the darkest value of an image, by channel."""
    kind = str(dataset.PhotometricInterpretation)
    if kind == "MONOCHROME1":
        return np.array([frames.max()])
    if kind.startswith("YBR"):
        middle = 1 << (int(dataset.BitsStored) - 1)
        return np.array([0, middle, middle], frames.dtype)
    if kind == "PALETTE COLOR":
        used = np.unique(frames)
        return np.array([used[apply_color_lut(used, dataset).sum(axis=-1).argmin()]])
    return np.array([frames.min()]) if frames.shape[-1] == 1 else np.zeros(frames.shape[-1], frames.dtype)


def _beside_regions(dataset: Dataset, shape: tuple[int, ...]) -> Mask | None:
    """Return what lies outside the regions of an ultrasound image, None if it names none."""
    inside = np.zeros(shape, dtype=bool)
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        try:
            x0, y0 = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
            x1, y1 = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
        except (AttributeError, TypeError, ValueError):
            continue
        inside[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    return ~inside if inside.any() else None


def _clear_unused_bits(dataset: Dataset) -> None:
    """Clear bits that no pixel uses, where older objects keep overlays; sign bits stay what they are."""
    try:
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    except (AttributeError, TypeError, ValueError):
        raise NotDeidentified("pixels") from None
    syntax = dataset.file_meta.TransferSyntaxUID
    if allocated not in (8, 16, 32) or not 0 < stored < allocated or syntax.is_compressed:
        return
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise NotDeidentified("pixels")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    raw = bytes(dataset.PixelData)
    whole = len(raw) // (allocated // 8) * (allocated // 8)
    values = np.frombuffer(raw[:whole], f"{order}u{allocated // 8}")
    cleared = values & ((1 << stored) - 1)
    if dataset.get("PixelRepresentation") == 1:
        negative = (cleared >> (stored - 1)).astype(bool)
        cleared = np.where(negative, cleared | (((1 << allocated) - 1) ^ ((1 << stored) - 1)), cleared)
    if not np.array_equal(cleared, values):
        dataset.PixelData = cleared.astype(values.dtype).tobytes() + raw[whole:]


def _write(dataset: Dataset, decoded: Dataset, frames: NDArray[Any]) -> None:
    """Put native pixels into the object, with the attributes that describe them."""
    if decoded is not dataset:
        for tag in decoded.keys():  # noqa: SIM118 (a Dataset iterates over its elements)
            if tag.group in (0x0028, 0x7FE0):
                dataset[tag] = decoded[tag]
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            if name in dataset:
                del dataset[name]
    raw = frames.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].is_undefined_length = False
