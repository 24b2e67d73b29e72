"""A small study for tests, as a form that a test may change before it parses it."""

from typing import Any


def study_form(**changes: Any) -> dict[str, Any]:
    """Return a form with a handful of features; `changes` replace keys, written `section__key`."""
    form: dict[str, Any] = {
        "study": {"name": "made-up", "project": "tests", "model": "logistic"},
        "cohort": {"include": [{"kind": "age", "min_years": 0}]},
        "outcome": {"kind": "present", "table": "condition_occurrence", "concept_id": 316139},
        "features": [
            {"name": "age", "kind": "age", "range": [30, 90]},
            {"name": "male", "kind": "sex", "concept_id": 8507},
            {
                "name": "sbp",
                "kind": "value",
                "table": "measurement",
                "concept_id": 3004249,
                "unit_concept_id": 8876,
                "range": [90, 190],
                "missing_flag": True,
            },
            {"name": "af", "kind": "present", "table": "condition_occurrence", "concept_id": 313217},
            {
                "name": "smoker",
                "kind": "category",
                "table": "observation",
                "concept_id": 4298794,
                "categories": [4188539],
            },
        ],
        "privacy": {"epsilon": 1.0, "delta": 1e-5, "clip_norm": 1.0, "max_sites_per_patient": 1},
        "training": {
            "rounds": 2,
            "steps_per_round": 3,
            "learning_rate": 1.0,
            "momentum": 0.5,
            "expected_patients": 200,
            "train_fraction": 0.8,
        },
        "sites": {"minimum": 3, "tolerance": 1},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            form[section][name] = value
        else:
            form[section] = value
    return form


def fusion_form(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a form of a fusion model over four modalities, with 2, 2, 1 and 2 columns."""
    form = study_form(study__model="fusion")
    groups = ("person", "person", "vitals", "history", "habits")
    for feature, modality in zip(form["features"], groups, strict=True):
        feature["modality"] = modality
    form["features"][4]["categories"] = [4188539, 4188540]
    form["fusion"] = {"kind": kind} if kind == "early" else {"kind": kind, "width": 3}
    if kind != "late":
        form["study"]["hidden"] = [4]
    for key, value in changes.items():
        section, _, name = key.partition("__")
        form[section][name] = value
    return form
