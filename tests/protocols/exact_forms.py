"""Small exact studies for tests, as forms that a test may change before it parses them."""

from typing import Any

from protocols.study import Study
from tests.protocols.study_forms import study_form

OUTCOMES: dict[str, dict[str, Any]] = {
    "logistic": {"kind": "present", "table": "condition_occurrence", "concept_id": 316139},
    "linear": {"kind": "amount", "table": "measurement", "concept_id": 3004249, "range": [90, 190]},
    "poisson": {"kind": "count", "table": "condition_occurrence", "concept_id": 316139, "most": 1000},
    "cox": {"kind": "days", "table": "condition_occurrence", "concept_id": 316139, "until_days": 300},
    "kaplan-meier": {
        "kind": "days",
        "table": "condition_occurrence",
        "concept_id": 316139,
        "until_days": 300,
    },
}


def exact_form(model: str, *, columns: int | None = None, **changes: Any) -> dict[str, Any]:
    """Return a form of this model; `changes` are keys of [exact]; with `columns`, so many plain features."""
    form = study_form()
    del form["privacy"], form["study"]["model"]
    form |= {
        "outcome": dict(OUTCOMES[model]),
        "exact": {"model": model} | changes,
        "training": {"mode": "exact"},
    }
    if columns is not None:
        form["features"] = [
            {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
            for i in range(columns)
        ]
    if model == "kaplan-meier":
        del form["features"]
        form["exact"] = {"every_days": 30} | form["exact"]
    return form


def exact_study(model: str, *, columns: int | None = None, **changes: Any) -> Study:
    """Return such a study."""
    return Study.from_json(exact_form(model, columns=columns, **changes))
