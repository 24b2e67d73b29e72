"""No vector that is too long is masked, and totals that honest sites do not give are seen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.lattice import NoisePlan, NotEncodable
from privacy.norm_bound import Implausible, TotalBounds, fits, length, projected
from tests.privacy.seeded_bits import SeededBits

CHANCE = 1e-2
DRAWS = 5_000


def alarms(bounds: TotalBounds, norms: np.ndarray) -> float:
    return float(np.mean((norms < bounds.shortest) | (norms > bounds.longest)))


def norms_of(
    *, honest: np.ndarray, noise_sd: float, draws: int = DRAWS, rng: np.random.Generator
) -> np.ndarray:
    """Return the norms of honest sums under noise."""
    size = 10**6 // honest.size
    parts = [
        np.linalg.norm(honest + noise_sd * rng.standard_normal((size, honest.size)), axis=1)
        for _ in range(-(-draws // size))
    ]
    return np.concatenate(parts)[:draws]


@pytest.mark.parametrize("dimension", [1, 3, 30, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_honest_totals_raise_no_more_alarms_than_stated_and_wrong_bounds_do(
    dimension: int, share: float
) -> None:
    rng = np.random.default_rng(dimension)
    noise_sd, longest = 2.0, 5.0
    direction = rng.standard_normal(dimension)
    honest = share * longest * direction / np.linalg.norm(direction)
    norms = norms_of(honest=honest, noise_sd=noise_sd, rng=rng)
    right = TotalBounds.of(honest=longest, noise_sd=noise_sd, dimension=dimension, false_alarm=CHANCE)
    limit = CHANCE + 4 * (CHANCE / DRAWS) ** 0.5
    assert alarms(right, norms) <= limit
    half = TotalBounds.of(honest=0.0, noise_sd=noise_sd / 2, dimension=dimension, false_alarm=CHANCE)
    double = TotalBounds.of(honest=longest, noise_sd=2 * noise_sd, dimension=dimension, false_alarm=CHANCE)
    if dimension >= 30:
        assert alarms(half, norms) > 0.9, "noise of twice the size is seen"
    if dimension >= 1000:
        assert alarms(double, norms) > 0.95, "noise of half the size is seen"


def test_noise_of_the_lattice_keeps_to_the_bounds() -> None:
    """The real sampler's totals, not a model of them."""
    sites, dimension, false = 4, 50, 0.2
    plan = NoisePlan.for_reals(
        sigma=3.0,
        l2_clip_norm=1.0,
        sites_per_patient=1,
        participants=sites,
        tolerance=0,
        dimension=dimension,
        largest=100.0,
    )
    bits = SeededBits(5)
    bounds = TotalBounds.of(
        honest=0.0,
        noise_sd=plan.standard_deviation(contributors=sites),
        dimension=dimension,
        false_alarm=false,
    )
    norms = []
    for _ in range(400):
        sent = [plan.to_send(plan.noise(bits=bits)) for _ in range(sites)]
        total = np.sum(sent, axis=0, dtype=np.uint64)
        norms.append(np.linalg.norm(plan.decode(total)))
    assert alarms(bounds, np.array(norms)) <= false
    assert min(norms) > 0.5 * max(norms), "they are spread around one length"


@pytest.mark.parametrize("dimension", [100, 10_000])
def test_one_vector_of_more_than_twice_the_bound_is_always_seen(dimension: int) -> None:
    rng = np.random.default_rng(1)
    bounds = TotalBounds.of(honest=10.0, noise_sd=1.0, dimension=dimension)
    for times in (2.0, 10.0):
        wrong = np.zeros(dimension)
        wrong[0] = times * bounds.longest * 1.001
        against = -10.0 * wrong / np.linalg.norm(wrong)  # the honest rest happens to point the other way
        for _ in range(50):
            with pytest.raises(Implausible):
                bounds.check(wrong + against + rng.standard_normal(dimension))


def test_a_vector_within_the_bound_is_not_seen_whatever_it_says() -> None:
    rng = np.random.default_rng(2)
    bounds = TotalBounds.of(honest=1000.0, noise_sd=1.0, dimension=100)
    wrong = np.zeros(100)
    wrong[0] = -999.0
    for _ in range(200):
        bounds.check(wrong + rng.standard_normal(100))


def test_missing_noise_is_seen_where_there_are_many_coordinates() -> None:
    rng = np.random.default_rng(3)
    dimension = 10_000
    bounds = TotalBounds.of(honest=50.0, noise_sd=1.0, dimension=dimension)
    whole = rng.standard_normal((20, dimension))
    for noise in whole:
        bounds.check(noise)
        with pytest.raises(Implausible):
            bounds.check(0.5**0.5 * noise)  # half of the shares
        with pytest.raises(Implausible):
            bounds.check(np.zeros(dimension))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_implausible(value: float) -> None:
    with pytest.raises(Implausible):
        TotalBounds.of(honest=1.0, noise_sd=1.0, dimension=2).check(np.array([0.0, value]))


@pytest.mark.parametrize(
    "wrong",
    [{"honest": -1.0}, {"noise_sd": np.nan}, {"dimension": 0}, {"false_alarm": 0.0}, {"honest": np.inf}],
)
def test_bounds_of_nothing_cannot_be(wrong: dict) -> None:
    with pytest.raises(ValueError, match="n"):
        TotalBounds.of(**({"honest": 1.0, "noise_sd": 1.0, "dimension": 2} | wrong))


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=2, max_size=2),
    longest=st.floats(0.01, 1e3),
)
def test_projection_moves_no_two_vectors_apart(rows: list[list[float]], longest: float) -> None:
    one, other = (np.array(row) for row in rows)
    near, far = (projected(row, longest=longest) for row in (one, other))
    assert fits(near, longest=longest)
    assert fits(far, longest=longest)
    assert np.linalg.norm(near - far) <= np.linalg.norm(one - other) + 1e-9 * longest


def test_projection_leaves_what_fits_and_shortens_what_does_not() -> None:
    np.testing.assert_array_equal(projected(np.array([3.0, 4.0]), longest=5.0), [3.0, 4.0])
    np.testing.assert_allclose(projected(np.array([6.0, 8.0]), longest=5.0), [3.0, 4.0])


def test_a_plan_encodes_no_vector_beyond_its_norm() -> None:
    plan = NoisePlan.for_reals(
        sigma=3.0,
        l2_clip_norm=1.0,
        sites_per_patient=1,
        participants=4,
        tolerance=0,
        dimension=4,
        largest=100.0,
        largest_norm=100.0,
    )
    for each, left in ((40.0, 40.0), (50.0, 50.0), (50.1, 50.0), (1e9, 50.0), (1e200, 50.0)):
        np.testing.assert_allclose(plan.encode(np.full(4, each)) * 2.0**-plan.scale_bits, left, rtol=1e-6)
    for wrong in (np.nan, np.inf):
        with pytest.raises(NotEncodable):
            plan.encode(np.array([0.0, 0.0, 0.0, wrong]))
    plan.encode_rows(np.full((50, 4), 1.0))
    with pytest.raises(NotEncodable, match="long"):
        plan.encode_rows(np.full((51, 4), 1.0))


def test_a_length_is_that_of_exact_arithmetic_and_one_bad_value_anywhere_is_seen() -> None:
    values = np.random.default_rng(2).normal(size=50_001) * 1e3
    exact = math.sqrt(math.fsum(value * value for value in values.tolist()))
    assert length(values) == pytest.approx(exact, rel=1e-13)
    assert length(values.reshape(3, -1)) == length(values)
    assert length(np.full(20_000, 1e200)) == math.inf
    for bad in (np.nan, np.inf):
        values[-1] = bad
        assert not fits(values, longest=1e300)
