"""The claim of `python -m tests.bench error` at fixed seeds: a federated answer errs like a central one."""

import math

import numpy as np
import pytest

from privacy.accountant import calibrate
from tests.bench import error
from tests.privacy.seeded_bits import SeededBits

CHANCE = 3.0 / math.sqrt(2 * error.DRAWS)  # three standard errors of an RMSE of normal noise: 2 %


def central() -> float:
    return error.central_gaussian_sigma(
        epsilon=error.EPSILON, delta=error.DELTA, sensitivity=error.SENSITIVITY
    )


@pytest.mark.parametrize(("sites", "tolerance"), error.GAUSSIAN_CASES)
def test_a_gaussian_answer_errs_no_more_than_the_central_one_but_for_the_tolerance(
    sites: int, tolerance: int
) -> None:
    noise = error.gaussian_noise(sites, tolerance, bits_of=lambda site: SeededBits(100 * sites + site))
    ratio = error.rmse(noise) / central()
    exact = math.sqrt(sites / (sites - tolerance))
    print(f"{sites} sites, {tolerance} may be missing: {ratio:.4f}, √(n/(n − t)) = {exact:.4f}")
    assert ratio <= exact * error.SLACK
    assert ratio >= exact * (1 - CHANCE), "less error than the central mechanism would be less privacy"


def test_a_polya_answer_errs_at_most_eight_percent_more_than_the_central_one() -> None:
    noise = error.polya_noise(10, 1, bits_of=lambda site: SeededBits(site))
    rate = error.EPSILON / error.SENSITIVITY
    mean = error.mean_error(noise) / error.laplace_mean_error(rate)
    square = error.rmse(noise) / error.laplace_rmse(rate)
    print(f"Pólya, ten sites, one may be missing: mean error {mean:.4f}, RMSE {square:.4f}")
    assert 1.06 < mean <= error.POLYA_GOAL
    assert square == pytest.approx(math.sqrt(10 / 9), rel=0.01)


def test_noise_added_by_each_site_for_itself_would_miss_the_goal_by_far() -> None:
    """What the shares are for, and that the measure sees it: √n of the error."""
    alone = sum(
        error.gaussian_noise(1, 0, bits_of=lambda _, site=site: SeededBits(site))  # type: ignore[misc]
        for site in range(5)
    )
    assert error.rmse(np.asarray(alone)) / central() == pytest.approx(math.sqrt(5), rel=0.03)


def test_the_central_gaussian_is_the_best_of_its_kind() -> None:
    """Its exact δ is within δ, that of a σ one percent smaller is not; the continuous one is no smaller."""
    sigma = central()
    within = {"epsilon": error.EPSILON, "sensitivity": error.SENSITIVITY}
    assert error.discrete_gaussian_delta(sigma, **within) <= error.DELTA  # type: ignore[arg-type]
    assert error.discrete_gaussian_delta(0.99 * sigma, **within) > error.DELTA  # type: ignore[arg-type]
    continuous = calibrate(epsilon=error.EPSILON, delta=error.DELTA, count=1) * error.SENSITIVITY
    assert sigma == pytest.approx(continuous, rel=2e-3)
