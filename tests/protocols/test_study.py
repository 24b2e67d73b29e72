"""A plan means one thing, and what nobody defined is refused."""

import json

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from protocols import canonical
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.study_forms import fusion_form, study_form


def test_a_plan_reads_the_same_from_toml_and_from_its_canonical_form() -> None:
    study = Study.parse(tomli_w.dumps(study_form()).encode())
    again = Study.from_json(canonical.decode(study.canonical(), max_bytes=100_000))
    assert again == study
    assert again.plan_hash() == study.plan_hash()


def test_columns_layers_and_parameter_count_follow_from_the_features() -> None:
    study = Study.from_json(study_form(study__model="mlp", study__hidden=[4]))
    assert study.columns == ("age", "male", "sbp", "sbp:missing", "af", "smoker=4188539")
    assert [(layer.inputs, layer.outputs) for layer in study.layout] == [(6, 4), (4, 1)]
    assert study.parameters == (6 + 1) * 4 + (4 + 1)
    assert study.tables == {"person", "measurement", "observation", "condition_occurrence"}


def test_the_order_of_keys_and_written_defaults_change_no_hash() -> None:
    form = study_form()
    turned = json.loads(json.dumps(form))
    turned = {key: turned[key] for key in reversed(list(turned))}
    turned["features"][2]["fill"] = 140
    turned["training"]["l2"] = 0
    assert Study.from_json(turned).plan_hash() == Study.from_json(form).plan_hash()


def test_a_signed_feature_is_part_of_the_plan_and_an_unsigned_one_says_nothing() -> None:
    sex = {"name": "male", "kind": "sex", "concept_id": 8507}
    plain, unsigned, signed = (
        Study.from_json(study_form(features=[sex | more]))
        for more in ({}, {"signed": False}, {"signed": True})
    )
    assert plain.plan_hash() == unsigned.plan_hash() != signed.plan_hash()
    assert Study.from_json(signed.to_json()) == signed


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("privacy__epsilon", 1.1),
        ("privacy__clip_norm", 2.0),
        ("privacy__max_sites_per_patient", 2),
        ("training__rounds", 3),
        ("training__expected_patients", 201),
        ("sites__tolerance", 0),
        ("study__project", "other"),
        ("cohort", {"include": [{"kind": "age", "min_years": 1}]}),
    ],
)
def test_whatever_changes_the_plan_changes_its_hash(change: str, value: object) -> None:
    assert (
        Study.from_json(study_form(**{change: value})).plan_hash()
        != Study.from_json(study_form()).plan_hash()
    )


@pytest.mark.parametrize(
    ("change", "value", "path"),
    [
        ("study__modle", "mlp", "study.modle"),
        ("extra", {}, "extra"),
        ("privacy__noise_multiplier", 0.1, "privacy.noise_multiplier"),
        ("privacy__epsilon", 0, "privacy.epsilon"),
        ("privacy__epsilon", True, "privacy.epsilon"),
        ("privacy__epsilon", float("nan"), "privacy.epsilon"),
        ("privacy__delta", 0.5, "privacy.delta"),
        ("privacy__clip_norm", float("inf"), "privacy.clip_norm"),
        ("training__rounds", 10_001, "training.rounds"),
        ("training__rounds", 2.0, "training.rounds"),
        ("sites__minimum", 1, "sites.minimum"),
        ("sites__tolerance", 2, "sites.tolerance"),
        ("study__hidden", [4], "study.hidden"),
        ("study__name", "Ärzte\n", "study.name"),
        ("features", [], "features"),
        ("features", [{"name": "age", "kind": "age", "range": [90, 30]}], "features[0].range"),
        ("features", [{"name": "age", "kind": "age", "range": [30, 90], "unit": "a"}], "features[0].unit"),
        ("features", [{"name": "a", "kind": "age", "range": [0, 9]}] * 2, "features"),
        ("features", [{"name": "a", "kind": "age", "range": [0, 9], "signed": True}], "features[0].signed"),
        ("features", [{"name": "a", "kind": "sex", "concept_id": 1, "signed": 1}], "features[0].signed"),
        (
            "features",
            [{"name": "a", "kind": "present", "table": "person", "concept_id": 1}],
            "features[0].table",
        ),
        (
            "features",
            [{"name": "a", "kind": "present", "table": "observation", "concept_id": []}],
            "features[0].concept_id",
        ),
        ("outcome__table", "note", "outcome.table"),
        ("outcome__at_least", 1, "outcome.at_least"),
        ("cohort", {"include": [{"kind": "age", "min": 0}]}, "cohort.include[0].min"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_path_of_the_mistake(change: str, value: object, path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(study_form(**{change: value}))
    assert refused.value.path == path


def test_a_missing_key_is_named() -> None:
    form = study_form()
    del form["privacy"]["delta"]
    with pytest.raises(MalformedStudy, match=r"privacy\.delta: is missing"):
        Study.from_json(form)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_plan_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(MalformedStudy):
        Study.parse(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["study", "cohort", "outcome", "features", "privacy", "training", "sites"]),
)
def test_no_value_in_any_section_raises_anything_but_a_refusal(value: object, section: str) -> None:
    with pytest.raises(MalformedStudy):
        Study.from_json(study_form(**{section: value}))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("early", (7 + 4 + 1) * 4 + 5),
        ("intermediate", (7 + 4) * 3 + (4 * 3 + 4 + 1) * 4 + 5),
        ("late", (7 + 4) * 3 + 4 * 4 + 5),
        ("attention", (7 + 4) * 3 + 4 * (3 + 1) * 3 + (3 + 4 + 1) * 4 + 5),
    ],
)
def test_a_fusion_model_is_laid_out_by_its_plan(kind: str, parameters: int) -> None:
    study = Study.from_json(fusion_form(kind))
    assert [(m.name, m.columns, m.observed_by) for m in study.modalities] == [
        ("person", (0, 1), (0, 1)),
        ("vitals", (2, 3), (2,)),
        ("history", (4,), (4,)),
        ("habits", (5, 6), (5, 6)),
    ]
    assert study.parameters == parameters
    again = Study.from_json(canonical.decode(study.canonical(), max_bytes=100_000))
    assert again == study


@pytest.mark.parametrize(
    ("change", "value", "path"),
    [
        ("fusion__kind", "quantum", "fusion.kind"),
        ("fusion__modality_dropout", 1.0, "fusion.modality_dropout"),
        ("fusion__views", 2, "fusion.views"),
        ("fusion__heads", 2, "fusion.heads"),
        ("study__model", "mlp", "fusion"),
        ("study__local", "body", "study.local"),
        ("training__optimizer", "lion", "training.optimizer"),
    ],
)
def test_a_wrong_fusion_is_refused(change: str, value: object, path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(fusion_form("attention", **{change: value}))
    assert refused.value.path == path


def test_late_fusion_has_no_last_layer_and_every_feature_of_a_fusion_a_modality() -> None:
    with pytest.raises(MalformedStudy, match=r"study\.local"):
        Study.from_json(fusion_form("late", study__local="head"))
    form = fusion_form("early")
    del form["features"][2]["modality"]
    with pytest.raises(MalformedStudy, match=r"features\[2\]\.modality"):
        Study.from_json(form)


def test_knots_make_a_column_for_each_interval() -> None:
    form = study_form()
    form["features"][0] = {"name": "age", "kind": "age", "knots": [40, 60, 80]}
    assert Study.from_json(form).columns[:2] == ("age>40", "age>60")
    form["features"][0]["knots"] = [40, 40]
    with pytest.raises(MalformedStudy, match=r"features\[0\]\.knots"):
        Study.from_json(form)


def test_only_a_logistic_model_of_single_columns_starts_from_priors() -> None:
    with pytest.raises(MalformedStudy, match=r"study\.prior_bias"):
        Study.from_json(study_form(study__model="mlp", study__hidden=[4], study__prior_bias=1.0))
    form = study_form()
    form["features"][4] |= {"prior": 1.0, "categories": [1, 2]}  # a column for each
    with pytest.raises(MalformedStudy, match=r"features\[4\]\.prior"):
        Study.from_json(form)
    form["features"][4]["categories"] = [1]
    assert Study.from_json(form).priors == (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
