"""What a plan may say about its sums, and that saying nothing leaves its hash alone."""

from typing import Any

import pytest

from privacy import study_noise
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.study_forms import study_form

MLP: dict[str, Any] = {"study__model": "mlp", "study__hidden": [4, 3]}


def of(**aggregation: Any) -> Study:
    return Study.from_json(study_form(**MLP, aggregation=aggregation))


def test_what_is_usual_does_not_count_for_the_hash() -> None:
    plain = Study.from_json(study_form(**MLP))
    assert of().plan_hash() == plain.plan_hash()
    assert of(site_patients=100_000, encrypted_layers=[], scheme="ckks").plan_hash() == plain.plan_hash()
    assert "aggregation" not in plain.to_json()


@pytest.mark.parametrize(
    "given",
    [{"site_patients": 500}, {"encrypted_layers": ["out"]}, {"encrypted_layers": ["out"], "scheme": "bfv"}],
)
def test_what_is_said_counts_and_is_read_again(given: dict[str, Any]) -> None:
    study = of(**given)
    assert study.plan_hash() != of().plan_hash()
    assert Study.from_json(study.to_json()) == study


def test_the_order_of_layers_does_not_count() -> None:
    one, other = of(encrypted_layers=["out", "hidden.0"]), of(encrypted_layers=["hidden.0", "out"])
    assert one.plan_hash() == other.plan_hash()


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"site_patients": 99}, "aggregation.site_patients"),
        ({"site_patients": 100_001}, "aggregation.site_patients"),
        ({"encrypted_layers": ["nowhere"]}, "aggregation.encrypted_layers"),
        ({"encrypted_layers": ["out", "out"]}, "aggregation.encrypted_layers"),
        ({"encrypted_layers": [1]}, "aggregation.encrypted_layers"),
        ({"encrypted_layers": ["hidden.0", "hidden.1", "out"]}, "aggregation.encrypted_layers"),
        ({"encrypted_layers": ["out"], "scheme": "rot13"}, "aggregation.scheme"),
        ({"scheme": "bfv"}, "aggregation.scheme"),
        ({"more": 1}, "aggregation"),
    ],
)
def test_anything_else_is_refused(given: dict[str, Any], path: str) -> None:
    with pytest.raises(MalformedStudy, match=path.replace(".", r"\.")):
        of(**given)


def test_fewer_patients_a_site_make_more_lanes_and_the_same_noise() -> None:
    lanes = []
    for patients in (100_000, 5_000, 100):
        study = of(site_patients=patients)
        plan = study_noise.noise_plan(study, participants=8, tolerance=1)
        assert plan.largest_norm == patients * study.privacy.clip_norm
        assert plan.noise_multiplier == pytest.approx(study_noise.noise_multiplier(study))
        lanes.append(plan.lanes)
    assert lanes == sorted(lanes)
    assert lanes[0] < lanes[-1]
