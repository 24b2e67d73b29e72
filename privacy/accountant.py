"""What a history of noisy releases has cost: events are data, and one function composes all of them.

Which figure is charged. A Gaussian release with noise multiplier z (standard deviation over L2 sensitivity)
is exactly μ-GDP with μ = 1/z, and adaptive compositions of Gaussian releases are exactly one Gaussian with
μ² = Σ count / z² (Dong, Roth, Su 2022, Corollary 3.3). Its δ(ε) has the closed form of Balle and Wang 2018,
Theorem 8, and *that* is charged where all releases were Gaussian: no smaller ε holds for continuous Gaussian
noise, RDP and zCDP figures are larger (tests/privacy/test_accountant.py prints them side by side with
dp_accounting's PLD). As soon as a pure release (ε, 0) or one of a random sample is among them,
`privacy.mixture` composes the folded Gaussian with the others, in several ways that each give an upper bound,
and the smallest is charged.

Why it stays an upper bound for the noise that is really drawn, which is discrete: the sum of the drawn shares
lies, in total variation, at most `DISTANCE_PER_RELEASE` from a randomised rounding (so a post-processing)
of what is charged here. Each release therefore costs (1 + e^ε) · DISTANCE_PER_RELEASE of δ besides, and
`epsilon` subtracts it. The solvers round ε up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from protocols.canonical import JsonValue

DISTANCE_PER_RELEASE = 2.0**-128  # a plan whose releases lie farther from the ideal is refused
ROUNDING = 1e-12  # relative margin over float64 sums of up to a million terms; ε is rounded up by it
GRID = 1e-6  # noise multipliers are rounded up to this grid, so that libm's last bit changes no plan
SAMPLED_GRID = 2.0**-13  # the same for releases of samples, whose distributions libraries convolve: 1e-4
LARGEST_EPSILON = 75.0  # beyond it (1 + e^ε) · DISTANCE_PER_RELEASE nears 1e-6, and no guarantee is left
SMALLEST_MU_SQUARED = 1e-12  # one release with noise a million times its sensitivity; less is nothing
MAX_COUNT = 10**9  # releases in one event; more is a mistake


class UnknownEvent(ValueError):
    """The event is of a kind this accountant cannot compose, or is malformed. Nothing is charged as zero."""


@dataclass(frozen=True, slots=True)
class GaussianEvent:
    """`count` releases with Gaussian noise of standard deviation noise_multiplier × L2 sensitivity."""

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.noise_multiplier, float) or not math.isfinite(self.noise_multiplier):
            raise UnknownEvent("noise_multiplier must be a finite float")
        if self.noise_multiplier <= 0.0:
            raise UnknownEvent("noise_multiplier must be above 0")
        _check_count(self.count)

    def times(self, count: int) -> GaussianEvent:
        """Return the same kind of release, `count` times. Raises: UnknownEvent."""
        return GaussianEvent(self.noise_multiplier, count)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the event as JSON.

        >>> GaussianEvent(2.0, count=3).to_json()
        {'kind': 'gaussian', 'noise_multiplier': 2.0, 'count': 3}
        """
        return {"kind": "gaussian", "noise_multiplier": self.noise_multiplier, "count": self.count}


@dataclass(frozen=True, slots=True)
class PureEvent:
    """`count` releases that are each (epsilon, 0)-DP for the unit of privacy, whatever their noise."""

    epsilon: float
    count: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.epsilon, float) or not math.isfinite(self.epsilon) or self.epsilon <= 0.0:
            raise UnknownEvent("epsilon must be a finite float above 0")
        _check_count(self.count)

    def times(self, count: int) -> PureEvent:
        """Return the same kind of release, `count` times. Raises: UnknownEvent."""
        return PureEvent(self.epsilon, count)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the event as JSON.

        >>> PureEvent(0.5).to_json()
        {'kind': 'pure', 'epsilon': 0.5, 'count': 1}
        """
        return {"kind": "pure", "epsilon": self.epsilon, "count": self.count}


@dataclass(frozen=True, slots=True)
class SampledGaussianEvent:
    """`count` Gaussian releases, each of a secret random sample: every patient by a coin of `sampling_rate`.

    The unit is one patient, added or removed, at one site. A patient of m sites is drawn at each by another
    coin, and counts m times: m sites that each add vectors of norm 1 to a total with noise of deviation σ are
    post-processing of m releases with deviation σ/√m each, one a site (the noises add up), adaptive or not.
    So such a total costs `SampledGaussianEvent(σ/√m, q, m)`, which for q = 1 is exactly the Gaussian of
    sensitivity m, and for small q nearly as tight (tests/privacy/test_sampled_gaussian.py). Where each site
    adds its own noise of σ to its own release, it is m releases with σ.
    """

    noise_multiplier: float
    sampling_rate: float
    count: int = 1

    def __post_init__(self) -> None:
        GaussianEvent(self.noise_multiplier, self.count)  # the same checks
        if not isinstance(self.sampling_rate, float) or not 0.0 < self.sampling_rate <= 1.0:
            raise UnknownEvent("sampling_rate must be a float above 0 and at most 1")

    def times(self, count: int) -> SampledGaussianEvent:
        """Return the same kind of release, `count` times. Raises: UnknownEvent."""
        return SampledGaussianEvent(self.noise_multiplier, self.sampling_rate, count)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the event as JSON.

        >>> SampledGaussianEvent(1.0, 0.05, count=3).to_json()["kind"]
        'sampled-gaussian'
        """
        return {
            "kind": "sampled-gaussian",
            "noise_multiplier": self.noise_multiplier,
            "sampling_rate": self.sampling_rate,
            "count": self.count,
        }


Event = GaussianEvent | PureEvent | SampledGaussianEvent
Sampled = tuple[tuple[tuple[float, float], int], ...]  # ((noise multiplier, sampling rate), how many)


def event_from_json(value: JsonValue) -> Event:
    """Return the event that `value` describes. Raises: UnknownEvent for any other kind, field or type."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(value, dict) and kind == "gaussian" and set(value) == {"kind", "noise_multiplier", "count"}:
        return GaussianEvent(value["noise_multiplier"], value["count"])
    if isinstance(value, dict) and kind == "pure" and set(value) == {"kind", "epsilon", "count"}:
        return PureEvent(value["epsilon"], value["count"])
    sampled = {"kind", "noise_multiplier", "sampling_rate", "count"}
    if isinstance(value, dict) and kind == "sampled-gaussian" and set(value) == sampled:
        return SampledGaussianEvent(value["noise_multiplier"], value["sampling_rate"], value["count"])
    raise UnknownEvent("unknown kind of event, or other fields than its own")


@dataclass(frozen=True, slots=True)
class Composition:
    """Any number of releases, folded: the Gaussian that some equal (μ²), and the pure ones by their ε.

    `releases` counts all of them. `pure` holds (ε, how many), sorted, each ε once; `sampled` the releases of
    samples in the same way. A sample of everybody is a Gaussian release like any other.
    """

    mu_squared: float = 0.0
    releases: int = 0
    pure: tuple[tuple[float, int], ...] = ()
    sampled: Sampled = ()

    def plus(self, event: Event) -> Composition:
        """Return this and `event`. Raises: UnknownEvent for anything that is no event."""
        releases = self.releases + event.count if isinstance(event, Event) else 0
        if isinstance(event, SampledGaussianEvent) and event.sampling_rate == 1.0:
            event = GaussianEvent(event.noise_multiplier, event.count)
        if isinstance(event, GaussianEvent):
            added = event.count / event.noise_multiplier**2
            return replace(self, mu_squared=self.mu_squared + added, releases=releases)
        if isinstance(event, PureEvent):
            counts = dict(self.pure)
            counts[event.epsilon] = counts.get(event.epsilon, 0) + event.count
            return replace(self, releases=releases, pure=tuple(sorted(counts.items())))
        if isinstance(event, SampledGaussianEvent):
            samples = dict(self.sampled)
            kind = (event.noise_multiplier, event.sampling_rate)
            samples[kind] = samples.get(kind, 0) + event.count
            return replace(self, releases=releases, sampled=tuple(sorted(samples.items())))
        raise UnknownEvent("only Gaussian and pure events, and those of samples, can be composed")

    @property
    def gaussian(self) -> bool:
        """Whether all of it is one Gaussian, whose cost has a closed form."""
        return not self.pure and not self.sampled

    def epsilon(self, *, delta: float) -> float:
        """Return the smallest known ε, rounded up, at which these are (ε, `delta`)-DP; inf if none."""
        delta = _checked_delta(delta)
        if self.gaussian:
            return gaussian_epsilon(self.mu_squared, self.releases, delta)
        from privacy import mixture  # only nodes with other noise than Gaussian pay for what it imports

        return mixture.epsilon(self, delta=delta)

    def within(self, cap: float, *, delta: float) -> bool:
        """Return whether these releases are (`cap`, `delta`)-DP; as `epsilon` says, and often faster."""
        delta = _checked_delta(delta)
        if self.gaussian:
            return gaussian_epsilon(self.mu_squared, self.releases, delta) <= cap
        from privacy import mixture

        return mixture.within(self, cap, delta=delta)


def fold(events: Iterable[Event]) -> Composition:
    """Return the composition of `events`. Raises: UnknownEvent."""
    total = Composition()
    for event in events:
        total = total.plus(event)
    return total


def epsilon(events: Iterable[Event], *, delta: float) -> float:
    """Return ε of all `events` together at `delta`, under adaptive composition.

    Guarantee: the releases, with the discrete noise that is drawn, are (ε, delta)-DP for the unit of privacy
    whose sensitivity the noise multipliers were computed with. inf if no ε up to 75 holds.

    >>> round(epsilon([GaussianEvent(4.0)], delta=1e-6), 2)
    1.06

    Raises: UnknownEvent; ValueError for a delta outside (0, 1).
    """
    return fold(events).epsilon(delta=delta)


def calibrate(
    *,
    epsilon: float,
    delta: float,
    count: int,
    sampling_rate: float = 1.0,
    beside: Composition = Composition(),
) -> float:
    """Return the smallest noise multiplier, on a grid of 1e-6, that keeps `count` releases within ε at δ.

    With a `sampling_rate` below 1 the releases are `SampledGaussianEvent`, and the grid is `SAMPLED_GRID`;
    then releases may be given that are made `beside` them, and must fit in as well.

    Args: epsilon above 0 and at most 75, delta in (0, 1), count at least 1, sampling_rate in (0, 1].
    Raises: ValueError outside these ranges, or where rounding alone would cost more than delta.
    """
    delta = _checked_delta(delta)
    if not 0.0 < epsilon <= LARGEST_EPSILON:
        raise ValueError(f"epsilon must be above 0 and at most {LARGEST_EPSILON}")
    if not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise ValueError(f"count must be an integer from 1 to {MAX_COUNT}")
    if not 0.0 < sampling_rate <= 1.0:
        raise ValueError("sampling_rate must be above 0 and at most 1")
    if sampling_rate == 1.0 and not beside.releases:
        return _calibrate(float(epsilon), delta, count)
    return _calibrate_sampled(float(epsilon), delta, count, float(sampling_rate), beside)


def largest_further_epsilon(spent: Composition, *, cap: float, delta: float) -> float:
    """Return the ε at `delta` of the largest Gaussian release that `cap` covers after `spent`; 0 if none.

    Composition is sublinear, so this is more than cap minus what is spent.
    """
    if not spent.within(cap, delta=delta):
        return 0.0

    def fits(mu_squared: float) -> bool:
        further = replace(spent, mu_squared=spent.mu_squared + mu_squared, releases=spent.releases + 1)
        return further.within(cap, delta=delta)

    high = 1.0
    while fits(high):
        high *= 2.0
    low = high
    while not fits(low):
        if low < SMALLEST_MU_SQUARED:
            return 0.0
        low /= 4.0
    high = min(high, 4.0 * low)
    for _ in range(50 if spent.gaussian else 12):  # a mixture takes milliseconds a step: three digits will do
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(gaussian_epsilon(low, 1, _checked_delta(delta)), cap)


@lru_cache(maxsize=4096)
def gaussian_epsilon(mu_squared: float, releases: int, delta: float) -> float:
    """Return ε at `delta` of a μ-GDP Gaussian that was drawn as `releases` discrete releases; inf if none."""
    if releases == 0:
        return 0.0
    mu = math.sqrt(mu_squared) * (1.0 + ROUNDING)
    if _delta_of(0.0, mu, releases) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while _delta_of(high, mu, releases) > delta:
        if high >= LARGEST_EPSILON:
            return math.inf
        low, high = high, min(2.0 * high, LARGEST_EPSILON)
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if _delta_of(middle, mu, releases) <= delta else (middle, high)
    return high * (1.0 + ROUNDING)


@lru_cache(maxsize=1024)
def _calibrate(epsilon_: float, delta: float, count: int) -> float:
    def holds(multiplier: float) -> bool:
        return gaussian_epsilon(count / multiplier**2, count, delta) <= epsilon_

    high = 1.0
    while not holds(high):
        high *= 2.0
        if high > 2.0**40:
            raise ValueError("no noise multiplier reaches this epsilon and delta")
    low = high / 2.0
    while holds(low):
        low, high = low / 2.0, low
    low_steps, high_steps = math.floor(low / GRID), math.ceil(high / GRID)
    while high_steps - low_steps > 1:
        middle = (low_steps + high_steps) // 2
        low_steps, high_steps = (low_steps, middle) if holds(middle * GRID) else (middle, high_steps)
    return high_steps * GRID


@lru_cache(maxsize=1024)
def _calibrate_sampled(
    epsilon_: float, delta: float, count: int, sampling_rate: float, beside: Composition
) -> float:
    def holds(steps: int) -> bool:
        event = SampledGaussianEvent(steps * SAMPLED_GRID, sampling_rate, count)
        return beside.plus(event).within(epsilon_, delta=delta)

    high = math.ceil(_calibrate(epsilon_, delta, count) / SAMPLED_GRID)  # what it takes without samples
    low = max(1, math.floor(high * sampling_rate / 4.0))
    while not holds(high):
        low, high = high, 2 * high
        if high * SAMPLED_GRID > 2.0**40:
            raise ValueError("what stands beside leaves nothing of this epsilon and delta")
    while low > 1 and holds(low):
        low, high = max(1, low // 4), low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high * SAMPLED_GRID


def _delta_of(epsilon_: float, mu: float, releases: int) -> float:
    """Return an upper bound of δ at ε for one μ-GDP Gaussian, plus what discrete noise costs besides.

    Source: Balle, Wang 2018, Theorem 8, as φ(a)·(R(−a) − R(−b)) with Mills' ratio R, which does not cancel
    e^ε against a tail that underflows.
    """
    a, b = mu / 2.0 - epsilon_ / mu, -mu / 2.0 - epsilon_ / mu
    density = math.exp(-a * a / 2.0) / math.sqrt(2.0 * math.pi)
    below = 0.5 * math.erfc(-a / math.sqrt(2.0))
    exact = max(0.0, below - density * _mills(-b))
    slack = releases * DISTANCE_PER_RELEASE * (1.0 + math.exp(min(epsilon_, 700.0)))
    return exact + below * 1e-13 + slack  # 1e-13: what exp and the subtraction may have rounded away


def _mills(x: float) -> float:
    """Return Φ(−x)/φ(x) for x ≥ 0, rounded down where the asymptotic series is used."""
    if x < 25.0:
        return 0.5 * math.erfc(x / math.sqrt(2.0)) * math.sqrt(2.0 * math.pi) * math.exp(x * x / 2.0)
    inverse = 1.0 / (x * x)  # an alternating series, cut after a negative term: a lower bound, off by < 1e-11
    total = 1.0
    for odd in (9.0, 7.0, 5.0, 3.0, 1.0):
        total = 1.0 - odd * inverse * total
    return total / x


def _check_count(count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
        raise UnknownEvent(f"count must be an integer from 1 to {MAX_COUNT}")


def _checked_delta(delta: float) -> float:
    if not 0.0 < delta < 1.0:
        raise ValueError("delta must lie strictly between 0 and 1")
    return float(delta)
