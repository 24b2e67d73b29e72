"""One noisy sum of statistics, attacked: the claim stands, and a node that adds too little noise is found."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from protocols.study import Study
from sim.attacked_run import Totals
from sim.one_run_audit import audit_in_one_run
from sim.privacy_audit import Audit, audit, noisy_total
from tests.node.test_one_shot import form
from tests.privacy.seeded_bits import SeededBits

Vector = NDArray[np.float64]


def plan(epsilon: float, *, columns: int = 5, linear: bool = False) -> Study:
    found = form(columns=columns, linear=linear)
    found["privacy"]["epsilon"] = epsilon
    return Study.from_json(found)


def attacked(study: Study, *, runs: int, totals: Totals = noisy_total) -> Audit:
    return audit(
        study,
        runs=runs,
        sites=3,
        confidence=0.95,
        bits=SeededBits(7),
        generator=np.random.default_rng(7),
        totals=totals,
    )


@pytest.mark.parametrize("linear", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_claim_stands_and_the_attack_comes_close_to_it(linear: bool) -> None:
    found = attacked(plan(8.0, linear=linear), runs=400)
    assert not found.refuted
    assert found.attainable == pytest.approx(8.0, rel=2e-3)
    assert found.gaussian >= 5.5


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_claim_stands_at_smaller_prices(epsilon: float) -> None:
    assert not attacked(plan(epsilon), runs=300).refuted


def test_half_the_noise_is_found() -> None:
    def halved(found: NoisePlan, sums: Sequence[Vector], bits: SecureBits) -> Vector:
        exact = np.sum(sums, axis=0)
        return exact + 0.5 * (noisy_total(found, sums, bits) - exact)

    assert attacked(plan(3.0), runs=400, totals=halved).refuted


def test_one_run_with_many_canaries_shows_no_more_than_is_claimed() -> None:
    found = audit_in_one_run(
        plan(8.0, columns=40),
        canaries=200,
        sites=3,
        confidence=0.95,
        bits=SeededBits(1),
        generator=np.random.default_rng(1),
    )
    assert not found.refuted
    assert found.bound > 0.1
