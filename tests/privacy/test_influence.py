"""What one site can do to a model within its bound, step by step: docs/threat-model.md states it."""

import numpy as np
import pytest

from privacy import descent, study_noise
from privacy.descent import Descent
from privacy.norm_bound import Implausible
from protocols.study import Study
from tests.protocols.study_forms import study_form

SITES, PATIENTS = 4, 200


def study(**training: object) -> Study:
    form = study_form(aggregation={"site_patients": PATIENTS})
    form["training"] |= {"steps_per_round": 6, "momentum": 0.0, **training}
    return Study.from_json(form)


def walked(plan: Study, extra: np.ndarray | None, *, at: int) -> list[np.ndarray]:
    """Return the models of a round in which one site adds `extra` to the total of one step."""
    rng = np.random.default_rng(7)
    walk = Descent(plan, descent.initial(plan))
    models = []
    for step in range(plan.training.steps_per_round):
        total = rng.normal(0.0, 10.0, plan.parameters)
        if extra is not None and step == at:
            total = total + extra
        models.append(walk.apply(total))
    return models


def unit(plan: Study) -> np.ndarray:
    found = np.random.default_rng(3).standard_normal(plan.parameters)
    return found / np.linalg.norm(found)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_largest_allowed_vector_moves_a_model_by_no_more_than_stated(momentum: float) -> None:
    """learning rate × site_patients × clip norm / expected_patients; over 1 − momentum in the long run."""
    plan = study(momentum=momentum)
    longest = PATIENTS * plan.privacy.clip_norm
    once = plan.training.learning_rate * longest / plan.training.expected_patients
    honest = walked(plan, None, at=1)
    bent = walked(plan, longest * unit(plan), at=1)
    moved = [float(np.linalg.norm(a - b)) for a, b in zip(bent, honest, strict=True)]
    assert moved[0] == 0.0
    assert moved[1] == pytest.approx(once)  # and it is reached
    assert max(moved) <= once / (1.0 - momentum) * (1 + 1e-9)
    assert np.linalg.norm(walked(plan, 2 * longest * unit(plan), at=1)[1] - honest[1]) > 1.5 * once


def test_a_site_that_keeps_to_its_code_cannot_send_more() -> None:
    plan = study()
    noise = study_noise.noise_plan(plan, participants=SITES, tolerance=1)
    longest = PATIENTS * plan.privacy.clip_norm
    sent = noise.decode(noise.to_send(noise.encode(1e6 * longest * unit(plan))))
    assert np.linalg.norm(sent) == pytest.approx(longest, rel=1e-4)


def test_a_site_that_does_not_is_seen_beyond_twice_the_totals_bound_and_no_sooner() -> None:
    plan = study()
    noise = study_noise.noise_plan(plan, participants=SITES, tolerance=1)
    bounds = study_noise.total_bounds(plan, noise, contributors=SITES)
    deviation = noise.standard_deviation(contributors=SITES)
    rng = np.random.default_rng(5)
    for _ in range(100):
        total = deviation * rng.standard_normal(plan.parameters)
        bounds.check(total + 0.5 * bounds.longest * unit(plan))
        with pytest.raises(Implausible):
            bounds.check(total + 2.1 * bounds.longest * unit(plan))
