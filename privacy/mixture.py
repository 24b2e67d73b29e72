"""The cost of Gaussian, sampled and pure releases together: three upper bounds; the smallest is charged.

The Gaussian releases are one Gaussian (μ²). A pure release of ε is dominated by randomised response with that
ε (Kairouz, Oh, Viswanath 2015, Theorem 3.4), so composing randomised responses bounds any pure releases.

    basic  ε of the Gaussian at δ, plus the sum of the pure ε; releases of samples as if everybody had been
           drawn, which never costs less. Needs no other package.
    RDP    Rényi divergences add up; `dp_accounting` turns their sum into (ε, δ).
    PLD    privacy loss distributions convolve, by `dp_accounting`, on a grid. Nearly exact, and the slowest.

Guarantee: each is an upper bound of the smallest ε at δ. The grid is made by connecting the dots (Doroshenko
et al. 2022), which never understates, and coarsens with the spread of the loss in powers of two, so that a
grid point stays one. A ten-thousandth of δ is set aside at first: for the distance between the drawn noise
and the ideal one, and for what the convolutions round away. Below δ = 1e-9 that could be too little for them,
and the PLD is not used.

`dp_accounting` takes a second or two to import: it is imported when the basic bound does not decide.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy import sampled_gaussian
from privacy.accountant import (
    DISTANCE_PER_RELEASE,
    LARGEST_EPSILON,
    ROUNDING,
    Composition,
    gaussian_epsilon,
)

DISCRETE_SHARE = 1e-4  # of δ, for the distance between the drawn noise and the ideal one
SMALLEST_DELTA_OF_PLD = 1e-9  # a thousand convolutions in float64 round away 1e-13 at most
MOST_PURE_OF_PLD = 20_000  # beyond, convolving takes seconds and RDP is as good
POINTS_PER_SPREAD = 100  # grid points per standard deviation of the privacy loss
FINEST_GRID = 2.0**-14
ORDERS = np.concatenate([np.linspace(1.05, 8.0, 40), np.geomspace(8.5, 4096.0, 60)])  # where RDP is evaluated

_Pure = tuple[tuple[float, int], ...]


def epsilon(composition: Composition, *, delta: float) -> float:
    """Return the smallest of the three bounds, rounded up; inf if none is up to 75."""
    share = delta * (1.0 - DISCRETE_SHARE)
    best = min(bound(composition, share) for bound in _bounds(composition))
    return _with_discrete_noise(best, composition, delta)


def within(composition: Composition, cap: float, *, delta: float) -> bool:
    """Return whether `epsilon` is at most `cap`; the bounds are tried in the order of what they take."""
    share = delta * (1.0 - DISCRETE_SHARE)
    return any(
        _with_discrete_noise(bound(composition, share), composition, delta) <= cap
        for bound in _bounds(composition)
    )


def _bounds(composition: Composition) -> tuple[Callable[[Composition, float], float], ...]:
    """Return the bounds to try, the cheapest first; a single pure release costs its own ε."""
    if composition.releases == 1 and not composition.sampled:
        return (_basic,)
    return (_basic, _rdp, _pld)


def _with_discrete_noise(bound: float, composition: Composition, delta: float) -> float:
    """Return the ideal noise's ε for the drawn noise; inf where δ has no room for the difference."""
    if not bound <= LARGEST_EPSILON:
        return math.inf
    distance = composition.releases * DISTANCE_PER_RELEASE * (1.0 + math.exp(bound))
    return bound * (1.0 + ROUNDING) if distance <= delta * DISCRETE_SHARE else math.inf


def _basic(composition: Composition, delta: float) -> float:
    gaussian = 0.0
    whole = composition.mu_squared + sum(n / z**2 for (z, _), n in composition.sampled)
    if whole:
        gaussian = gaussian_epsilon(whole, composition.releases, delta)
    return gaussian + sum(epsilon_ * count for epsilon_, count in composition.pure)


# ---- Rényi ----


@lru_cache(maxsize=64)  # the four caps of one reservation often hold the same releases
def _rdp(composition: Composition, delta: float) -> float:
    from dp_accounting.rdp import compute_epsilon

    total = ORDERS * (composition.mu_squared / 2.0)
    for epsilon_, count in composition.pure:
        total = total + count * _rdp_of_pure(epsilon_)
    for (multiplier, rate), count in composition.sampled:
        total = total + count * sampled_gaussian.rdp(multiplier, rate, ORDERS)
    return float(compute_epsilon(ORDERS, total * (1.0 + ROUNDING), delta)[0])


@lru_cache(maxsize=4096)
def _rdp_of_pure(epsilon_: float) -> NDArray[np.float64]:
    """Return the Rényi divergences of randomised response at `ORDERS` (Mironov 2017, Proposition 5)."""
    high, low = -math.log1p(math.exp(-epsilon_)), -math.log1p(math.exp(epsilon_))
    log_moment = np.logaddexp(ORDERS * high + (1 - ORDERS) * low, ORDERS * low + (1 - ORDERS) * high)
    divergences: NDArray[np.float64] = np.maximum(log_moment / (ORDERS - 1), 0.0)
    return divergences


# ---- privacy loss distributions ----


@lru_cache(maxsize=64)
def _pld(composition: Composition, delta: float) -> float:
    if delta < SMALLEST_DELTA_OF_PLD * (1.0 - DISCRETE_SHARE):
        return math.inf
    if sum(count for _, count in composition.pure) > MOST_PURE_OF_PLD:
        return math.inf
    if any(z < sampled_gaussian.SMALLEST_MULTIPLIER_OF_PLD for (z, _), _ in composition.sampled):
        return math.inf
    grid = _grid(composition)
    parts = [sampled_gaussian.pld(z, rate, count, grid) for (z, rate), count in composition.sampled]
    if composition.mu_squared:
        parts.append(_gaussian_pld(composition.mu_squared, grid))
    total = _pure_pld(composition.pure, grid) if composition.pure else parts.pop(0)
    for part in parts:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _grid(composition: Composition) -> float:
    """Return the distance of grid points, a power of two: fine for the whole and for one sample's release."""
    samples = [(sampled_gaussian.spread(z, rate), count) for (z, rate), count in composition.sampled]
    squares = composition.mu_squared + sum(e * e * n for e, n in composition.pure)
    wanted = math.sqrt(squares + sum(s * s * n for s, n in samples)) / POINTS_PER_SPREAD
    for one, _ in samples:
        wanted = min(wanted, one / sampled_gaussian.POINTS_PER_RELEASE)
    return max(FINEST_GRID, 2.0 ** math.floor(math.log2(wanted)))


@lru_cache(maxsize=256)
def _gaussian_pld(mu_squared: float, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as plds

    deviation = 1.0 / (math.sqrt(mu_squared) * (1.0 + ROUNDING))
    return plds.from_gaussian_mechanism(deviation, value_discretization_interval=grid)


_kept: OrderedDict[tuple[_Pure, float], Any] = OrderedDict()  # for the next event to build on; newest last
_KEPT = 32
_mutex = threading.Lock()


def _pure_pld(pure: _Pure, grid: float) -> Any:
    """Return the composition of randomised responses, built on the nearest one that was composed lately."""
    with _mutex:
        found = _kept.get((pure, grid))
        if found is None:
            base, missing = _nearest(pure, grid)
            found = _kept.get((base, grid))
            for epsilon_, count in missing:
                part = _response_pld(epsilon_, grid)
                part = part if count == 1 else part.self_compose(count)
                found = part if found is None else found.compose(part)
        _kept[(pure, grid)] = found
        _kept.move_to_end((pure, grid))
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
        return found


def _nearest(pure: _Pure, grid: float) -> tuple[_Pure, _Pure]:
    """Return the kept composition that `pure` contains and the fewest steps from it, and those steps."""
    base: _Pure = ()
    missing = pure
    wanted = dict(pure)
    for kept, kept_grid in reversed(_kept):
        if kept_grid == grid and all(wanted.get(e, 0) >= n for e, n in kept):
            have = dict(kept)
            steps = tuple((e, n - have.get(e, 0)) for e, n in pure if n > have.get(e, 0))
            if len(steps) < len(missing):
                base, missing = kept, steps
            if len(missing) <= 1:
                break
    return base, missing


@lru_cache(maxsize=4096)
def _response_pld(epsilon_: float, grid: float) -> Any:
    """Return the loss of randomised response with this ε on a grid, never understated."""
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as plds

    low, high = math.floor(epsilon_ / grid), math.ceil(epsilon_ / grid)
    points = np.unique(np.array([-high, -low, low, high], dtype=np.int64))
    # δ(x) of randomised response, from E[(1 − e^(x − loss))+]: piecewise, with kinks at −ε and ε
    x = points * grid
    p = 1.0 / (1.0 + math.exp(-epsilon_))
    deltas = np.where(x <= -epsilon_, -np.expm1(x), np.maximum(0.0, p - (1.0 - p) * np.exp(x)))
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots(grid, points, deltas)
    return plds.PrivacyLossDistribution(pmf)
