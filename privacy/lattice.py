"""From values to integers modulo 2^64 and back, with a share of noise that is enough for the sum.

What a `NoisePlan` guarantees. Let at least n − t of n sites add their share honestly. Then the total they
open is, up to a total-variation distance of `plan.distance` (never above 2^-128), a post-processing of

    (sum of the sites' exact values) + N(0, σ²·I)

with the σ the plan was made with, so `GaussianEvent(plan.noise_multiplier)` is what it costs. Five steps,
each with its own constant below:

1. Integers. Values are multiplied by a power of two and rounded. Counts are integers already: no rounding.
   For real vectors of dimension d, one patient more or less moves each site's rounded sum by at most
   scale·(clip norm) + √d·(1 + f) in L2: 1 for the rounding of two neighbouring sums, f for what float64
   summation over N = largest/clip norm patients may add (N·2^-53·largest, Higham 2002, section 4.2, for each
   of the two, twice over for the products inside; `encode_rows` sums in integers and needs none). A patient
   known to m sites counts m times. The noise is scaled up with it, so the noise multiplier stays exact.
2. Shares. Each site draws N_Z(0, V/(n−t)); n − t of them add up to N_Z(0, V) within the max-divergence of
   Kairouz, Liu, Steinke 2021. Shares of dropouts below t are surplus; colluders know theirs, up to t of them.
3. Discrete against continuous. Drawing G ~ N(0, s²) and then N_Z centred at G with variance r² gives
   N_Z(0, s² + r²) with every probability within (1 ± e)-factors, e = 2·exp(−2π²r²). So N_Z(0, V) is a
   post-processing of N(0, V − r²): V is chosen as (lattice σ)² + r², with r² = 6q² for the q of step 4.
4. Fewer bits. The lattice is finer than a noisy number needs to be. So of y = value + share a site sends
   R(y) = ⌊(y + q/2)/q⌋ for a power of two q, 1 for counts. What is cut off, ρ = (y + q/2) mod q, says next to
   nothing: a share lies in each class modulo q with probability 1/q·(1 ± e), e = 2·exp(−2π²v/q²), whatever
   the value is. Given all sites' ρ, each share is Gaussian on its class, their sum is Gaussian on the class
   modulo q that the ρ name, with variance V, within what step 2 says for shares of σ/q (its proof compares
   sums over shifted lattices, which these are), and q·ΣR(y) = Σy + nq/2 − Σρ. So a total is a post-processing
   of ρ drawn uniformly and a Gaussian around Σ values on a class named by them; by step 3, over q-fold
   integers, that is one of N(0, V − r²). No value is rounded before its noise is in: sensitivity stays as it
   is in step 1. Each rounding adds q²/12 to a total's variance, a
   768th of a share's at most, and r² = 6q² a 682nd of the whole, at the coarsest q that is allowed: then the
   σ of a total is 2^6·q and that of a share 2^3·q at least. q is finer where that takes no more room.
5. No wrap. The samplers are bounded, so y lies within ±b with certainty, b = largest value on the lattice,
   rounded up, + largest noise, and R(y) within ±R(b); the sum of n lies within ±n·R(b), and `lanes` of them
   fit into a word (the proof is in privacy/lanes.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy import discrete_gaussian, norm_bound
from privacy.accountant import DISTANCE_PER_RELEASE, GaussianEvent
from privacy.inversion import Bits
from privacy.lanes import most_lanes

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

COUNT_SHARE_SIGMA = 64  # variance ≥ 4096, far above the 4 below which sums of shares collapse; r² costs 0.1 %
REAL_SHARE_SIGMA = 2**20  # rounding is then 1e-6 of the noise
SENT_SUM_BITS = 6  # the σ of a total in what is sent of a real vector: at least 2^6 units,
SENT_SHARE_BITS = 3  # and that of a share at least 2^3,
FINEST_SHARE_BITS = 12  # and up to 2^13 where they take no more room
ROUNDING_SHARE = 2**-10  # rounding may raise a real vector's sensitivity, and so its noise, by this fraction
MOST_EXTRA = Fraction(1, 4)  # a plan whose rounding and float error cost more noise than this is refused
FLOAT_ERROR = 5 * 2.0**-53  # of patients × largest: two neighbouring sums, the products inside each, and a
# projection of the sum (privacy.norm_bound), whose own error is far less
_CHUNK = 2**17  # of a long vector at a time: what is computed on the way stays in the cache
_WHOLE = (
    1.5 * 2.0**52
)  # floats near it are the integers: within a quarter of it a sum with it is rounded to one
_WHOLE_BITS = np.float64(_WHOLE).view(np.int64)
KERNEL_VARIANCE = 6  # r² of step 3: e < 2^-169
SIGMA_GRID = 2**10  # share sigmas are rounded up to multiples of 1/1024: they stay exact and few
MAX_SITES = 2**14
MAX_DIMENSION = 2**32


class NotEncodable(ValueError):
    """The values do not fit the plan: shape, type, range or finiteness. Says which, never the values."""


def check_sites(*, participants: int, tolerance: int, dimension: int) -> None:
    """Raises: ValueError unless so many sites, of which `tolerance` may be missing, can add such vectors."""
    if not 1 <= participants <= MAX_SITES or not 0 <= tolerance < participants:
        raise ValueError("needs 0 <= tolerance < participants")
    if not 1 <= dimension <= MAX_DIMENSION:
        raise ValueError("dimension must be at least 1")


def check_contributors(contributors: int, *, participants: int, tolerance: int) -> None:
    """Raises: ValueError for fewer contributors than the noise tolerates, or more than there are."""
    if not participants - tolerance <= contributors <= participants:
        raise ValueError("the noise of this total is not what the plan promises")


def check_level(level: float) -> None:
    """Raises: ValueError for a confidence level outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError("level must lie strictly between 0 and 1")


def whole_numbers(vector: NDArray[Any], *, dimension: int, largest: float) -> NDArray[np.int64]:
    """Return a site's vector of whole numbers. Raises: NotEncodable for another shape, type or range."""
    values = np.asarray(vector)
    if values.shape != (dimension,):
        raise NotEncodable("another dimension than the plan's")
    if values.dtype.kind not in "iu":
        raise NotEncodable("the plan is for integers")
    if values.size and max(abs(int(values.max())), abs(int(values.min()))) > largest:
        raise NotEncodable("a value is larger than the plan's largest")
    return values.astype(np.int64)


def real_numbers(values: NDArray[Any], *, largest: float) -> Reals:
    """Return a site's real values as float64. Raises: NotEncodable for another type, or out of range."""
    if values.dtype.kind != "f":
        raise NotEncodable("the plan is for real values")
    exact: Reals = values.astype(np.float64, copy=False)
    if exact.size and not (exact.min() >= -largest and exact.max() <= largest):  # also catches NaN
        raise NotEncodable("a value is not finite, or larger than the plan's largest")
    return exact


def signed(total: Words, *, dimension: int) -> NDArray[np.int64]:
    """Return the signed numbers that a total modulo 2^64 stands for. Raises: NotEncodable for a shape."""
    if total.dtype != np.uint64 or total.shape != (dimension,):
        raise NotEncodable("a total is uint64, of the plan's dimension")
    return np.ascontiguousarray(total).view(np.int64)


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """How a site turns its values into its masked-sum input. Build with `for_counts` or `for_reals`.

    `scale_bits`, `cut_bits` and `lanes` depend on public parameters only, not on the tolerance: sites with
    different tolerances add on the same lattice.
    """

    sigma: float
    sensitivity: float
    participants: int
    tolerance: int
    dimension: int
    largest: float
    integral: bool
    sites_per_patient: int
    largest_norm: float = math.inf  # L2, of one site's vector before noise; nothing longer is encoded
    scale_bits: int = field(init=False)
    cut_bits: int = field(init=False)  # log2 of q
    lanes: int = field(init=False)  # of a word: so many values travel in it, and no total wraps
    share_sigma: Fraction = field(init=False)

    def __post_init__(self) -> None:
        for name in ("sigma", "sensitivity", "largest"):
            value = getattr(self, name)
            if not (isinstance(value, float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite float above 0")
        check_sites(participants=self.participants, tolerance=self.tolerance, dimension=self.dimension)
        if self.sites_per_patient < 1:
            raise ValueError("sites_per_patient must be at least 1")
        object.__setattr__(self, "scale_bits", self._scale_bits())
        object.__setattr__(self, "cut_bits", self._cut_bits())
        object.__setattr__(self, "lanes", self._lanes(self.cut_bits))
        honest = self.participants - self.tolerance
        object.__setattr__(self, "share_sigma", self._sigma_of(honest, cut_bits=self.cut_bits))
        if self.participants * (self._largest() + 1) >= 2**63:
            raise ValueError("the sum could wrap modulo 2^64: fewer sites, smaller values or more noise")
        if self.distance > DISTANCE_PER_RELEASE:
            raise ValueError("the noise would be too far from the ideal one")

    @classmethod
    def for_counts(
        cls,
        *,
        sigma: float,
        sensitivity: float,
        participants: int,
        tolerance: int,
        dimension: int = 1,
        largest: int = 2**32,
    ) -> NoisePlan:
        """Return the plan for whole numbers.

        Args: sigma, standard deviation of the total; sensitivity, L2, of one patient over all their sites (a
        patient who is in one cell at each of m sites: m); largest, the largest absolute value of one site.
        Raises: ValueError.
        """
        return cls(
            float(sigma), float(sensitivity), participants, tolerance, dimension, float(largest), True, 1
        )

    @classmethod
    def for_reals(
        cls,
        *,
        sigma: float,
        l2_clip_norm: float,
        sites_per_patient: int,
        participants: int,
        tolerance: int,
        dimension: int,
        largest: float,
        largest_norm: float = math.inf,
    ) -> NoisePlan:
        """Return the plan for a real vector: a sum over patients, each clipped to `l2_clip_norm` at a site.

        Args: sigma, standard deviation of the total, per coordinate; largest, the largest absolute value of
        one coordinate at one site (patients × clip norm); largest_norm, that of one site's vector.
        Raises: ValueError.
        """
        sensitivity = float(l2_clip_norm) * sites_per_patient
        return cls(
            float(sigma),
            sensitivity,
            participants,
            tolerance,
            dimension,
            float(largest),
            False,
            sites_per_patient,
            float(largest_norm),
        )

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise over L2 sensitivity, discretisation included."""
        return self.sigma / self.sensitivity

    def event(self, *, count: int = 1) -> GaussianEvent:
        """Return what `count` totals under this plan cost."""
        return GaussianEvent(self.noise_multiplier, count)

    @property
    def scale(self) -> Fraction:
        """Lattice units per unit of the value: a power of two."""
        return Fraction(2) ** self.scale_bits

    @property
    def largest_contribution(self) -> int:
        """The largest absolute value of a coordinate of what one site sends."""
        return (self._largest() + self._half) >> self.cut_bits

    @property
    def distance(self) -> float:
        """Total-variation distance of one total to a post-processing of the Gaussian that is charged."""
        sampling = self.participants * discrete_gaussian.distance(self.share_sigma)
        sent = self.share_sigma / 2**self.cut_bits
        cutting = self.participants * 4.0 * discrete_gaussian.smoothing_error(float(sent**2))
        summing = discrete_gaussian.sum_divergence(sent, self.participants)
        kernel = 4.0 * discrete_gaussian.smoothing_error(KERNEL_VARIANCE)
        return self.dimension * (sampling + cutting + summing + kernel)

    def standard_deviation(self, *, contributors: int) -> float:
        """Return the standard deviation of one coordinate of a total that `contributors` sites are in.

        Raises: ValueError for fewer contributors than the noise tolerates, or more than there are.
        """
        check_contributors(contributors, participants=self.participants, tolerance=self.tolerance)
        return math.sqrt(contributors) * float(self.share_sigma / self.scale)

    def half_width(self, *, contributors: int, level: float) -> float:
        """Return h such that a coordinate's noise lies within ±h with probability `level`.

        Raises: ValueError for contributors that do not fit, or a level outside (0, 1).

        >>> plan = NoisePlan.for_counts(sigma=4.2, sensitivity=1, participants=5, tolerance=0)
        >>> round(plan.half_width(contributors=5, level=0.95), 1)
        8.2
        """
        check_level(level)
        deviation = self.standard_deviation(contributors=contributors)
        return NormalDist(0.0, deviation).inv_cdf(0.5 + level / 2.0)

    def simulated_noise(
        self, shape: tuple[int, ...], *, contributors: int, rng: np.random.Generator
    ) -> Reals:
        """Return noise as the total's coordinates carry it, for error bars. It protects nothing."""
        return rng.normal(0.0, self.standard_deviation(contributors=contributors), shape)

    def encode(self, vector: NDArray[Any]) -> Words:
        """Return `vector` on the lattice, rounded to the nearest unit. Raises: NotEncodable.

        A vector longer than the plan's longest is projected first: that moves no two vectors apart.
        """
        if self.integral:
            whole = whole_numbers(vector, dimension=self.dimension, largest=self.largest)
            return (whole * np.int64(2**self.scale_bits)).view(np.uint64)
        values = np.asarray(vector)
        if values.shape != (self.dimension,):
            raise NotEncodable("another dimension than the plan's")
        if self.largest_norm < math.inf:
            values = norm_bound.projected(values, longest=self.largest_norm)
        self._check_norm(values, longest=self.largest_norm)
        return self._rounded(values).view(np.uint64)

    def encode_rows(self, rows: NDArray[Any]) -> Words:
        """Return the sum of clipped per-patient rows, each rounded to the lattice first.

        The sum is over integers, so no order of summation matters and a neighbour differs by one row exactly.
        Raises: NotEncodable.
        """
        values = np.asarray(rows)
        if values.ndim != 2 or values.shape[1] != self.dimension or self.integral:
            raise NotEncodable("encode_rows takes one row per patient, of real values")
        total = self._rounded(values).sum(axis=0, dtype=np.int64)
        if values.size and int(np.abs(total).max()) > math.ceil(Fraction(self.largest) * self.scale):
            raise NotEncodable("a sum is larger than the plan's largest")
        rounded = self.largest_norm * (1.0 + ROUNDING_SHARE)  # each row was, by itself
        self._check_norm(total.astype(np.float64) * 2.0**-self.scale_bits, longest=rounded)
        words: Words = total.view(np.uint64)
        return words

    def noise(self, *, bits: Bits) -> Words:
        """Return a fresh share of the noise, on the lattice. Never use one twice."""
        return discrete_gaussian.sample(self.share_sigma, self.dimension, bits=bits).view(np.uint64)

    def to_send(self, noisy: Words) -> Words:
        """Return what leaves of an encoded vector with a share of the noise on it: its upper bits, rounded.

        `noisy` is written over. Without the noise it hides nothing that the vector does not.
        """
        exact = noisy.view(np.int64)
        if self.cut_bits:
            for start in range(0, exact.size, _CHUNK):
                part = exact[start : start + _CHUNK]
                np.add(part, self._half, out=part)
                np.right_shift(part, self.cut_bits, out=part)
        return noisy

    def contribution(self, vector: NDArray[Any], *, bits: Bits) -> Words:
        """Return what a site sends of `vector`, with a fresh share of the noise. Raises: NotEncodable."""
        return self.to_send(self.encode(vector) + self.noise(bits=bits))

    def contribution_of_rows(self, rows: NDArray[Any], *, bits: Bits) -> Words:
        """Return what a site sends of a sum of per-patient rows, as `contribution`. Raises: NotEncodable."""
        return self.to_send(self.encode_rows(rows) + self.noise(bits=bits))

    def decode(self, total: Words) -> Reals:
        """Return the sum of what sites sent, in the unit of the value. Raises: NotEncodable for a shape."""
        values = signed(total, dimension=self.dimension).astype(np.float64)
        values *= 2.0 ** (self.cut_bits - self.scale_bits)
        return values

    @property
    def _half(self) -> int:
        return (1 << self.cut_bits) >> 1

    def _largest(self) -> int:
        """Return the largest absolute value of a coordinate with its noise, on the lattice."""
        return math.ceil(Fraction(self.largest) * self.scale) + discrete_gaussian.largest(self.share_sigma)

    def _rounded(self, values: NDArray[Any]) -> NDArray[np.int64]:
        exact = np.ravel(values)
        rounded, scale = np.empty(exact.size, dtype=np.int64), 2.0**self.scale_bits
        small = self.largest * scale < _WHOLE / 4
        for start in range(0, exact.size, _CHUNK):
            part = real_numbers(exact[start : start + _CHUNK], largest=self.largest)
            into = rounded[start : start + _CHUNK]
            # a product with a power of two is exact, and both ways round it to the nearest integer
            if small:
                floats = into.view(np.float64)
                np.multiply(part, scale, out=floats)
                np.add(floats, _WHOLE, out=floats)  # what is left of its significand counts ones
                np.subtract(into, _WHOLE_BITS, out=into)
            else:
                into[:] = np.rint(part * scale)
        return rounded.reshape(values.shape)

    def _check_norm(self, vector: NDArray[Any], *, longest: float) -> None:
        if longest < math.inf and not norm_bound.fits(vector, longest=longest):
            raise NotEncodable("the vector is longer than the plan's longest")

    def _scale_bits(self) -> int:
        """Return the smallest power of two that gives the smallest share its sigma."""
        share = self._smallest_share()
        target = COUNT_SHARE_SIGMA if self.integral else REAL_SHARE_SIGMA
        bits = math.ceil(math.log2(target / share))
        if self.integral:
            return max(0, bits)
        fine = self._coordinates() / (ROUNDING_SHARE * self.sensitivity)
        return max(bits, math.ceil(math.log2(fine)))

    def _cut_bits(self) -> int:
        """Return how many bits of a noisy number are more than it needs."""
        if self.integral:
            return 0
        share, total = (self._log2_units(sigma) for sigma in (self._smallest_share(), self.sigma))
        finest, coarsest = share - FINEST_SHARE_BITS, min(share - SENT_SHARE_BITS, total - SENT_SUM_BITS)
        lanes = self._lanes(coarsest)
        return next(cut for cut in range(finest, coarsest + 1) if self._lanes(cut) == lanes)

    def _log2_units(self, sigma: float) -> int:
        """Return log2 of a sigma in lattice units, rounded down."""
        return math.frexp(math.ldexp(sigma, self.scale_bits))[1] - 1

    def _lanes(self, cut_bits: int) -> int:
        """Return how many values fit into a word if so many bits are cut off: with all noise on one site."""
        noise = discrete_gaussian.largest(self._sigma_of(1, cut_bits=cut_bits))
        sent = (math.ceil(Fraction(self.largest) * self.scale) + noise + (1 << cut_bits)) >> cut_bits
        return most_lanes(participants=self.participants, largest=sent + 1)

    def _smallest_share(self) -> float:
        """Return the sigma of a share of tolerance 0, in the unit of the value."""
        return self.sigma / math.sqrt(self.participants)

    def _coordinates(self) -> float:
        """Return the L2 norm of one lattice unit in each coordinate at each of a patient's sites."""
        return self.sites_per_patient * math.sqrt(self.dimension) * (1.0 + 1e-12)

    def _sigma_of(self, honest: int, *, cut_bits: int) -> Fraction:
        """Return the sigma of a share, on the lattice, of which `honest` ones make the noise."""
        on_lattice = Fraction(self.sigma) * self.scale
        if not self.integral:
            patients = Fraction(self.largest) * self.sites_per_patient / Fraction(self.sensitivity)
            units = 1 + self.scale * Fraction(FLOAT_ERROR) * patients * Fraction(self.largest)
            extra = Fraction(self._coordinates()) * units / (Fraction(self.sensitivity) * self.scale)
            if extra > MOST_EXTRA:
                raise ValueError(
                    "float64 sums over so many patients may move more than the noise can pay for"
                )
            on_lattice *= 1 + extra
        variance = (on_lattice**2 + KERNEL_VARIANCE * 4**cut_bits) / honest
        steps = math.isqrt(math.floor(variance * SIGMA_GRID**2)) + 1  # rounded up
        return Fraction(steps, SIGMA_GRID)
