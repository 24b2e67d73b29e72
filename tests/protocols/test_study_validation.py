"""The validation section of a plan: what it may say, and that plans without it keep their hash."""

from typing import Any

import pytest

from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.study_forms import study_form

SECTION: dict[str, Any] = {"every": 2, "fraction": 0.1, "share": 0.1, "loss_bound": 2.0, "patience": 3}


def test_it_is_read_with_its_defaults_and_written_out_again() -> None:
    study = Study.from_json(study_form(validation=SECTION))
    assert study.validation is not None
    assert (study.validation.metric, study.validation.min_delta) == ("loss", 0.0)
    assert Study.from_json(study.to_json()) == study
    assert [round_ for round_ in range(1, 6) if study.validation.due(round_)] == [2, 4]
    assert study.validation.looks(5) == 2


def test_a_plan_without_it_keeps_its_hash_and_each_key_of_it_changes_the_hash() -> None:
    plain = Study.from_json(study_form())
    assert "validation" not in plain.to_json()
    assert "step_deadline_s" not in plain.to_json()["sites"]
    hashes = {plain.plan_hash(), Study.from_json(study_form(validation=SECTION)).plan_hash()}
    for key, value in {"every": 1, "share": 0.2, "loss_bound": 3.0, "patience": 0, "min_delta": 0.1}.items():
        hashes.add(Study.from_json(study_form(validation=SECTION | {key: value})).plan_hash())
    hashes.add(Study.from_json(study_form(sites__step_deadline_s=5.0)).plan_hash())
    assert len(hashes) == 8


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"every": 3}, "validation.every"),  # the form has two rounds
        ({"every": 0}, "validation.every"),
        ({"fraction": 0.3}, "validation.fraction"),  # .8 are for training
        ({"share": 0.0}, "validation.share"),
        ({"share": 1.0}, "validation.share"),
        ({"loss_bound": 0.0}, "validation.loss_bound"),
        ({"metric": "auc"}, "validation.metric"),
        ({"patience": -1}, "validation.patience"),
        ({"noise": 1.0}, "validation.noise"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(study_form(validation=SECTION | changes))
    assert refused.value.path == path


def test_it_goes_with_samples_and_with_local_training() -> None:
    local = {"local_steps": 2, "sampling_rate": 0.5, "update_clip": 1.0}
    for form in (
        study_form(validation=SECTION, training__sampling_rate=0.5),
        study_form(validation=SECTION, training__mode="local") | {"local": local},
    ):
        assert Study.from_json(form).validation is not None


def test_accuracy_cannot_decide_where_nothing_is_right_or_wrong() -> None:
    outcome = {
        "kind": "amount",
        "table": "measurement",
        "concept_id": 3004249,
        "unit_concept_id": 8876,
        "range": [90, 190],
    }
    with pytest.raises(MalformedStudy, match="no classes"):
        Study.from_json(study_form(validation=SECTION | {"metric": "accuracy"}, outcome=outcome))
