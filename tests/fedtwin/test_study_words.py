"""A plan in words says what was not known on the index date, and a hospital reads it before it approves."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedtwin.study_words import looks_ahead, outcome_words, plan_words
from node.training.approvals import Approvals
from protocols.study import Study
from tests.fedtwin.conftest import Fedtwin
from tests.protocols.exact_forms import exact_study
from tests.protocols.feature_set_forms import feature_set_form
from tests.protocols.study_forms import study_form

EXAMPLE = Path(__file__).parents[2] / "sim" / "studies" / "heart_failure.toml"
PRESENT = {"kind": "present", "table": "condition_occurrence", "concept_id": 316139}
LATER = PRESENT | {"window": [1, 365]}


def over_a_set(**changes: Any) -> Study:
    form = study_form(outcome=LATER) | changes
    del form["features"]
    return Study.from_json(form | {"feature_set": feature_set_form()})


def seen(window: list[int] | None) -> Study:
    feature = {"name": "af", "kind": "present", "table": "condition_occurrence", "concept_id": 313217}
    form = study_form(outcome=LATER)
    form["features"] = [feature | ({} if window is None else {"window": window})]
    return Study.from_json(form)


@pytest.mark.parametrize(("window", "ahead"), [(None, True), ([-30, 1], True), ([-30, 0], False)])
def test_what_is_seen_after_the_index_date_is_said(window: list[int] | None, ahead: bool) -> None:
    study = seen(window)
    assert looks_ahead(study) is ahead
    assert ("af: ALSO AFTER the index date" in plan_words(study)["as of"]) is ahead


def test_a_set_is_as_of_the_index_date_and_empty_windows_are_noticed() -> None:
    cohort = {"index": {"kind": "condition", "concepts": [1]}}
    said = plan_words(over_a_set(cohort=cohort))["as of"]
    assert said == "what was recorded by the index date, day 0 at the latest"
    early = feature_set_form()
    for feature in early["features"]:
        if "window" in feature:
            feature["window"] = [-365, -1]
    form = study_form(outcome=LATER, cohort={"include": [{"kind": "age", "min_years": 18}]})
    del form["features"]
    assert "empty" in plan_words(Study.from_json(form | {"feature_set": early}))["as of"]
    form["cohort"] = cohort
    assert "empty" not in plan_words(Study.from_json(form | {"feature_set": early}))["as of"]


@pytest.mark.parametrize(
    ("cohort", "later"),
    [
        ({"index": {"kind": "condition", "concepts": [1], "at_least": 2}}, True),
        ({"include": [{"kind": "drug", "concepts": [2]}]}, True),
        ({"include": [{"kind": "drug", "concepts": [2], "window": {"from_days": 0, "to_days": 9}}]}, True),
        ({"exclude": [{"kind": "drug", "concepts": [2], "window": {"from_days": -9, "to_days": 0}}]}, False),
        ({"include": [{"kind": "age", "min_years": 18}]}, False),
    ],
)
def test_a_cohort_that_later_records_decide_is_said(cohort: dict[str, Any], later: bool) -> None:
    said = plan_words(over_a_set(cohort=cohort))["as of"]
    assert ("who is in is ALSO decided" in said) is later


def test_an_outcome_without_a_window_is_of_any_day() -> None:
    without = Study.from_json(study_form(outcome=PRESENT))
    assert outcome_words(without) == "whether there is a condition of concept 316139, on any day"
    assert "on any day" not in outcome_words(Study.from_json(study_form(outcome=LATER)))
    assert plan_words(exact_study("kaplan-meier"))["as of"]


def test_a_hospital_reads_a_plan_before_it_approves_it(fedtwin: Fedtwin, hospital: Path) -> None:
    study = Study.from_json(tomllib.loads(EXAMPLE.read_text()))
    Approvals(hospital).propose(study, proposed_by="ada")
    digits = study.plan_hash().hex()
    said = fedtwin("node", "studies", digits[:10], "--home", hospital)
    assert "the index date, by the dates of records" in said.out
    assert "ALSO AFTER" not in said.out
    assert "pending" in said.out
    found = fedtwin("node", "studies", digits, "--home", hospital, "--json").json
    assert Study.from_json(found["plan"]).plan_hash() == study.plan_hash()
    assert (found["status"], found["proposed_by"]) == ("pending", "ada")
    fedtwin("node", "approve", digits, "--home", hospital)
    again = fedtwin("node", "studies", digits, "--home", hospital, "--json").json
    assert (again["status"], again["words"]) == ("approved", found["words"])
    assert fedtwin("node", "studies", "ffffffff", "--home", hospital).code == 2
