"""The Poisson-subsampled Gaussian: what one release costs, in two ways that never understate it.

One release is N(sum over the drawn patients of a vector of L2 norm at most 1, z²·I), where each patient is
drawn by a coin of their own with probability q, and nobody learns who was. Adding or removing one patient
compares N(0, z²) with the mixture (1 − q)·N(0, z²) + q·N(1, z²) (Mironov, Talwar, Zhang 2019; Zhu, Dong, Wang
2022), in both directions: the privacy loss distributions of either are composed apart; the larger δ counts.

    RDP   the moment of the mixture in closed form at whole orders; between two of them, log moments being
          convex in the order, the straight line lies above.
    PLD   the loss distributions on a grid, by `dp_accounting`, connecting the dots, never understated.

Both are of one release; `privacy.mixture` composes them. dp_accounting takes a second to import, so it is
imported when it is needed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import ROUNDING

Reals = NDArray[np.float64]

SMALLEST_MULTIPLIER_OF_PLD = 0.1  # with less noise the loss reaches hundreds: the grid would fill the memory
POINTS_PER_RELEASE = 16  # grid points per standard deviation of one release's loss: overstates ε by < 0.1 %


def spread(noise_multiplier: float, sampling_rate: float) -> float:
    """Return about the standard deviation of one release's privacy loss: grids are made by it.

    For small rates it is q·√(e^(1/z²) − 1); it is never above that of the release of all patients, 1/z.
    """
    exponent = min(noise_multiplier**-2, 700.0)
    return min(sampling_rate * math.sqrt(math.expm1(exponent)), 1.0 / noise_multiplier)


@lru_cache(maxsize=256)
def pld(noise_multiplier: float, sampling_rate: float, count: int, grid: float) -> Any:
    """Return the privacy loss distribution of `count` releases, both directions, never understated.

    Raises: ValueError for less noise than `SMALLEST_MULTIPLIER_OF_PLD`.
    """
    if noise_multiplier < SMALLEST_MULTIPLIER_OF_PLD:
        raise ValueError("so little noise makes no distribution on a grid")
    from dp_accounting.pld import privacy_loss_distribution as plds

    one = plds.from_gaussian_mechanism(
        noise_multiplier * (1.0 - ROUNDING),
        value_discretization_interval=grid,
        sampling_prob=min(1.0, sampling_rate * (1.0 + ROUNDING)),
    )
    return one if count == 1 else one.self_compose(count)


def rdp(noise_multiplier: float, sampling_rate: float, orders: Reals) -> Reals:
    """Return upper bounds of the Rényi divergence of one release at `orders`, all above 1.

    Source: Mironov, Talwar, Zhang 2019, section 3.3, equation 30, for whole orders; the direction that is
    computed is the larger one (their theorem 5).
    """
    low = np.floor(orders)
    share = orders - low
    below = np.array([_log_moment(int(order), noise_multiplier, sampling_rate) for order in low])
    above = np.array(
        [
            _log_moment(int(order) + 1, noise_multiplier, sampling_rate) if part else 0.0
            for order, part in zip(low, share, strict=True)
        ]
    )
    with np.errstate(invalid="ignore"):
        log_moments = np.where(share > 0.0, (1.0 - share) * below + share * above, below)
    divergences: Reals = np.maximum(log_moments, 0.0) / (orders - 1.0) * (1.0 + ROUNDING)
    return divergences


@lru_cache(maxsize=65_536)
def _log_moment(order: int, noise_multiplier: float, sampling_rate: float) -> float:
    """Return ln Σ_k C(order, k) (1−q)^(order−k) q^k e^((k²−k)/2z²), rounded up."""
    if order <= 1:
        return 0.0
    k = np.arange(order + 1, dtype=np.float64)
    binomials = math.lgamma(order + 1) - _log_factorials(order) - _log_factorials(order)[::-1]
    inside = k * math.log(sampling_rate)
    outside = np.zeros_like(k)
    if sampling_rate < 1.0:
        outside = (order - k) * math.log1p(-sampling_rate)
    else:
        outside[:-1] = -math.inf
    terms = binomials + inside + outside + (k * k - k) / (2.0 * noise_multiplier**2)
    largest = float(terms.max())
    # lgamma and the sum are right to about 1e-15 of their size, which grows with order·ln(order)
    error = 1e-14 * (order * math.log(order + 1.0) + abs(largest) + 1.0)
    return largest + math.log(float(np.exp(terms - largest).sum())) + error


@lru_cache(maxsize=256)
def _log_factorials(order: int) -> Reals:
    return np.array([math.lgamma(k + 1.0) for k in range(order + 1)])
