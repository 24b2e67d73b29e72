"""A feature set says of every column what it is, and cannot look past the index date."""

import json

import pytest
import tomli_w

from protocols import comorbidity
from protocols.feature_set import FeatureSet
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.feature_set_forms import feature_set_form
from tests.protocols.study_forms import study_form

GROUPS = len(comorbidity.groups("charlson"))
AFTER = {"kind": "present", "table": "condition_occurrence", "concept_id": 316139, "window": [1, 365]}


def test_a_set_reads_the_same_from_toml_and_from_its_own_form() -> None:
    found = FeatureSet.parse(tomli_w.dumps(feature_set_form()).encode())
    assert FeatureSet.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert FeatureSet.from_json(found.to_json()).hash() == found.hash()


def test_every_modality_has_a_stated_shape() -> None:
    shapes = FeatureSet.from_json(feature_set_form()).shapes()
    assert shapes == {
        "person": 1,
        "codes": GROUPS + 1 + 4,
        "labs": 3,
        "claims": 2,
        "imaging": 1,
        "genomics": 1,
        "wearables": 1,
    }


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [(3, "range", [90, 191]), (6, "window", [-364, 0]), (2, "half_lives_days", [31, 365])],
)
def test_whatever_changes_a_column_changes_the_hash(place: int, key: str, value: object) -> None:
    form = feature_set_form()
    form["features"][place][key] = value
    assert FeatureSet.from_json(form).hash() != FeatureSet.from_json(feature_set_form()).hash()


@pytest.mark.parametrize(
    ("place", "change", "path"),
    [
        (3, {"window": [-365, 1]}, "features[3].window"),
        (3, {"window": None}, "features[3].window"),
        (3, {"unit_concept_id": None}, "features[3].unit_concept_id"),
        (3, {"unitless": True}, "features[3].unit_concept_id"),
        (0, {"unitless": True}, "features[0].unit_concept_id"),
        (0, {"modality": None}, "features[0].modality"),
        (0, {"modality": "notes"}, "modalities"),
        (2, {"half_lives_days": []}, "features[2].half_lives_days"),
        (1, {"index": "hippocrates"}, "features[1].index"),
        (5, {"most": 0}, "features[5].most"),
    ],
)
def test_a_set_that_leaks_or_leaves_something_open_is_refused(place: int, change: dict, path: str) -> None:
    form = feature_set_form()
    form["features"][place] |= change
    form["features"][place] = {k: v for k, v in form["features"][place].items() if v is not None}
    with pytest.raises(MalformedStudy) as refused:
        FeatureSet.from_json(form)
    assert refused.value.path == path


def study_over_a_set(outcome: dict) -> dict:
    form = study_form(outcome=outcome)
    del form["features"]
    return form | {"feature_set": feature_set_form()}


def test_a_study_holds_the_whole_set_and_its_hash_covers_it() -> None:
    study = Study.from_json(study_over_a_set(AFTER))
    assert Study.from_json(study.to_json()) == study
    assert len(study.columns) == sum(FeatureSet.from_json(feature_set_form()).shapes().values())
    assert "visit_occurrence" in study.tables
    other = study_over_a_set(AFTER)
    other["feature_set"]["features"][3]["range"] = [91, 190]
    assert Study.from_json(other).plan_hash() != study.plan_hash()


@pytest.mark.parametrize("window", [None, [0, 365], [-5, 5]])
def test_an_outcome_of_days_that_the_features_look_at_is_refused(window: list[int] | None) -> None:
    outcome = {key: value for key, value in (AFTER | {"window": window}).items() if value is not None}
    with pytest.raises(MalformedStudy, match=r"outcome\.window"):
        Study.from_json(study_over_a_set(outcome))


@pytest.mark.parametrize(
    ("index", "code", "names"),
    [
        ("charlson", "E11.9", ["diabetes"]),
        ("charlson", "e1122", ["diabetes-complicated"]),
        ("charlson", "I50", ["heart-failure"]),
        ("charlson", "I5", []),
        ("charlson", "C79.31", ["metastatic-cancer"]),
        ("charlson", "I63.9", ["cerebrovascular"]),
        ("charlson", "not a code", []),
        ("elixhauser", "I10", ["hypertension"]),
        ("elixhauser", "I11.0", ["heart-failure", "hypertension-complicated"]),
        ("elixhauser", "F20.4", ["psychosis", "depression"]),
        ("elixhauser", "D50.0", ["blood-loss-anaemia"]),
    ],
)
def test_codes_belong_to_the_groups_of_the_published_tables(index: str, code: str, names: list[str]) -> None:
    found = [comorbidity.groups(index)[place].name for place in comorbidity.groups_of(index, code)]
    assert found == names


def test_the_indices_have_the_published_number_of_groups_and_largest_scores() -> None:
    assert len(comorbidity.groups("charlson")) == 17
    assert len(comorbidity.groups("elixhauser")) == 31
    assert sum(group.weight for group in comorbidity.groups("charlson")) == 33
    assert sum(group.weight for group in comorbidity.groups("elixhauser")) == 70
