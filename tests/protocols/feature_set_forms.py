"""A feature set for tests, as a form that a test may change before it parses it."""

from typing import Any

HALF_A_YEAR = [-182, 0]
YEAR = [-365, 0]


def feature_set_form() -> dict[str, Any]:
    """Return a form with one modality of each kind that a hospital may have."""

    def measured(name: str, modality: str, concept: int, ends: list[float], **more: Any) -> dict[str, Any]:
        form = {"name": name, "kind": "value", "table": "measurement", "concept_id": concept, "range": ends}
        return form | {"modality": modality, "window": YEAR} | more

    return {
        "feature_set": {"name": "made-up", "version": 1},
        "modalities": [
            {"name": "person"},
            {"name": "codes", "observed_by": "visit_occurrence", "window": YEAR},
            {"name": "labs"},
            {"name": "claims", "observed_by": "visit_occurrence", "window": YEAR},
            {"name": "imaging"},
            {"name": "genomics"},
            {"name": "wearables"},
        ],
        "features": [
            {"name": "age", "kind": "age", "range": [30, 90], "modality": "person"},
            {
                "name": "charlson",
                "kind": "comorbidity",
                "index": "charlson",
                "most": 10,
                "window": [-3650, 0],
                "modality": "codes",
            },
            {
                "name": "recent",
                "kind": "sequence",
                "table": "condition_occurrence",
                "concept_id": [313217, 316139],
                "half_lives_days": [30, 365],
                "window": YEAR,
                "modality": "codes",
            },
            measured("sbp", "labs", 3004249, [90, 190], unit_concept_id=8876, missing_flag=True),
            measured("sbp-trend", "labs", 3004249, [-1, 1], unit_concept_id=8876, pick="slope"),
            {
                "name": "visits",
                "kind": "count",
                "table": "visit_occurrence",
                "most": 20,
                "window": HALF_A_YEAR,
                "modality": "claims",
            },
            {
                "name": "days-inside",
                "kind": "stay",
                "table": "visit_occurrence",
                "concept_id": 9201,
                "most": 60,
                "window": YEAR,
                "modality": "claims",
            },
            measured("nodule-volume", "imaging", 2000100005, [0, 500], unit_concept_id=9571),
            measured("risk-score", "genomics", 2000100007, [-3, 3], unitless=True),
            measured("steps", "wearables", 40771067, [0, 15000], unitless=True, pick="mean"),
        ],
    }
