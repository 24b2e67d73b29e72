"""The single-component cosinor: a wave of 24 hours through the hours of a day.

Source: Cornelissen 2014, Cosinor-based rhythmometry, Theor Biol Med Model 11:16 (equations 1-6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_HOURS = 18  # of 24: with fewer the wave bends through hours in which nobody looked
PERIOD_H = 24.0


@dataclass(frozen=True, slots=True)
class Cosinor:
    """mesor: the wave's mean; amplitude: half of its swing; acrophase_h: its top, local clock."""

    mesor: float
    amplitude: float
    acrophase_h: float


def cosinor(hours: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]) -> Cosinor | None:
    """Return the least-squares wave through (hour of the clock, value), or None with fewer than 18 hours.

    >>> hours = np.arange(24) + 0.5
    >>> fit = cosinor(hours, 70 + 8 * np.cos(2 * np.pi * (hours - 16) / 24))
    >>> round(fit.mesor, 6), round(fit.amplitude, 6), round(fit.acrophase_h, 6)
    (70.0, 8.0, 16.0)
    """
    if len(np.unique(np.floor(hours))) < MIN_HOURS:
        return None
    angle = 2 * np.pi * hours / PERIOD_H
    design = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    solution = np.linalg.solve(design.T @ design, design.T @ values)
    mesor, beta, gamma = (float(number) for number in solution)
    top = math.atan2(gamma, beta) * PERIOD_H / (2 * math.pi) % PERIOD_H
    return Cosinor(mesor, math.hypot(beta, gamma), top)
