"""Features of an image: first-order statistics of intensities, and the simple shape of what they are of.

Names and definitions are the Image Biomarker Standardisation Initiative's (Zwanenburg et al. 2020, Radiology
295:328; reference manual, sections 3.1 and 3.3), without discretisation: `stat_*` over the intensities of the
mask, `morph_*` by counting pixels (not by meshing, which the manual prefers for volumes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Feature:
    """One number. `code` as IBSI abbreviates it."""

    code: str
    name: str
    value: float
    unit: str


class Extractor(Protocol):
    """Computes features of one image. `version` changes whenever the numbers would."""

    name: str
    version: str

    def features(
        self, pixels: Pixels, *, spacing_mm: tuple[float, ...], mask: Mask | None = None
    ) -> tuple[Feature, ...]:
        """Return features of the pixels in the mask, or of all of them."""
        ...


class FirstOrder:
    """Intensity statistics (IBSI 3.3) and area, centre of mass and bounding box (3.1)."""

    name = "first-order"
    version = "1"

    def features(
        self, pixels: Pixels, *, spacing_mm: tuple[float, ...], mask: Mask | None = None
    ) -> tuple[Feature, ...]:
        """Return the features; none for an empty mask or values that are not finite.

        Raises: ValueError for a mask of another shape.
        """
        whole = np.ones(pixels.shape, dtype=bool) if mask is None else mask
        if whole.shape != pixels.shape:
            raise ValueError("a mask has the shape of its image")
        values = pixels[whole]
        if not len(values) or not np.isfinite(values).all():
            return ()
        return statistics(values) + shape(whole, spacing_mm)


def statistics(values: Pixels) -> tuple[Feature, ...]:
    """Return IBSI's intensity-based statistics (3.3.1-3.3.18).

    Skewness and kurtosis (excess) are 0 for a flat image, as the manual says.
    """
    mean, variance = float(values.mean()), float(values.var())
    moved = values - mean
    p10, p25, p50, p75, p90 = (float(number) for number in np.percentile(values, (10, 25, 50, 75, 90)))
    robust = values[(values >= p10) & (values <= p90)]
    found = (
        ("stat_mean", "mean intensity", mean),
        ("stat_var", "intensity variance", variance),
        ("stat_skew", "intensity skewness", float((moved**3).mean()) / variance**1.5 if variance else 0.0),
        (
            "stat_kurt",
            "excess intensity kurtosis",
            float((moved**4).mean()) / variance**2 - 3 if variance else 0.0,
        ),
        ("stat_median", "median intensity", p50),
        ("stat_min", "minimum intensity", float(values.min())),
        ("stat_p10", "10th intensity percentile", p10),
        ("stat_p90", "90th intensity percentile", p90),
        ("stat_max", "maximum intensity", float(values.max())),
        ("stat_iqr", "intensity interquartile range", p75 - p25),
        ("stat_range", "intensity range", float(np.ptp(values))),
        ("stat_mad", "intensity mean absolute deviation", float(np.abs(moved).mean())),
        ("stat_rmad", "robust mean absolute deviation", float(np.abs(robust - robust.mean()).mean())),
        ("stat_energy", "intensity energy", float((values**2).sum())),
        ("stat_rms", "root mean square intensity", float(np.sqrt((values**2).mean()))),
    )
    return tuple(Feature(code, name, value, "1") for code, name, value in found)


def shape(mask: Mask, spacing_mm: tuple[float, ...]) -> tuple[Feature, ...]:
    """Return area (mm2) and bounding box (mm) of a mask's last two axes, counted over all frames."""
    row_mm, column_mm = (*spacing_mm, 1.0, 1.0)[:2]
    places = np.nonzero(mask)
    rows, columns = places[-2], places[-1]
    return (
        Feature(
            "morph_area_pixels", "area by counting pixels", float(mask.sum()) * row_mm * column_mm, "mm2"
        ),
        Feature("morph_box_height", "bounding box, rows", (float(np.ptp(rows)) + 1) * row_mm, "mm"),
        Feature("morph_box_width", "bounding box, columns", (float(np.ptp(columns)) + 1) * column_mm, "mm"),
    )
