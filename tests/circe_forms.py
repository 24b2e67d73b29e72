"""Small Circe definitions for tests, and the vocabulary they need."""

from typing import Any

NEW_CONCEPT = (  # into the vocabulary of a DuckDB store
    "INSERT INTO concept VALUES (?, 'c', 'd', 'v', 'c', 'S', 'c', '1970-01-01', '2099-12-31', NULL)"
)
ALL_DAYS = {"Start": {"Coeff": -1}, "End": {"Coeff": 1}}


def concept_set(number: int, concepts: list[int], *, descendants: bool = False) -> dict[str, Any]:
    """A concept set as ATLAS writes it."""
    return {
        "id": number,
        "name": f"set {number}",
        "expression": {
            "items": [
                {
                    "concept": {"CONCEPT_ID": concept, "CONCEPT_NAME": "a name", "STANDARD_CONCEPT": "S"},
                    "includeDescendants": descendants,
                }
                for concept in concepts
            ]
        },
    }


def definition(*criteria: dict[str, Any], sets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A definition of all events of `criteria`, the first of each person."""
    return {
        "cdmVersionRange": ">=5.0.0",
        "PrimaryCriteria": {
            "CriteriaList": list(criteria),
            "ObservationWindow": {"PriorDays": 0, "PostDays": 0},
            "PrimaryCriteriaLimit": {"Type": "First"},
        },
        "ConceptSets": sets,
        "QualifiedLimit": {"Type": "First"},
        "ExpressionLimit": {"Type": "First"},
        "InclusionRules": [],
        "CensoringCriteria": [],
        "CollapseSettings": {"CollapseType": "ERA", "EraPad": 0},
        "CensorWindow": {},
        **more,
    }


def rule(criterion: dict[str, Any], *, at_least: int, window: dict[str, Any] | None = None) -> dict[str, Any]:
    """An inclusion rule: `criterion` at least so many times."""
    return {
        "name": "a rule",
        "expression": {
            "Type": "ALL",
            "CriteriaList": [
                {
                    "Criteria": criterion,
                    "StartWindow": window or ALL_DAYS,
                    "Occurrence": {"Type": 2, "Count": at_least},
                }
            ],
            "DemographicCriteriaList": [],
            "Groups": [],
        },
    }
