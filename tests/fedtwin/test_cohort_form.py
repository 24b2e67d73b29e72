"""Cohorts are taken as researchers have them, and their rules keep the order they were written in."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedtwin import cohort_form
from protocols.circe import CirceCohort
from protocols.cohort import Cohort, MalformedCohort
from protocols.statistic import Attrition, Count, rules
from tests.circe_forms import concept_set, definition, rule

OURS: dict[str, Any] = {
    "index": {"kind": "condition", "concepts": [201826]},
    "include": [
        {"kind": "sex", "concepts": [8532]},
        {"kind": "measurement", "concepts": [3004410], "value": {"min": 7.5}},
        {"kind": "age", "min_years": 40, "max_years": 75},
    ],
    "exclude": [{"kind": "drug", "concepts": [1503297]}],
}
CONDITION = {"ConditionOccurrence": {"CodesetId": 0}}
CIRCE = definition(
    CONDITION,
    sets=[concept_set(0, [201826])],
    InclusionRules=[rule(CONDITION, at_least=1) | {"name": "seen <twice>"}, rule(CONDITION, at_least=2)],
)


def test_one_cohort_is_the_same_as_value_text_bytes_path_and_parsed(tmp_path: Path) -> None:
    text = json.dumps(OURS, indent=2)
    file = tmp_path / "cohort.json"
    file.write_text(text)
    expected = Cohort.parse(OURS)
    for given in (OURS, text, text.encode(), file, str(file), expected):
        assert cohort_form.read(given).cohort == expected


def test_an_export_of_atlas_is_taken_with_and_without_its_record() -> None:
    bare = cohort_form.read(CIRCE)
    assert isinstance(bare.cohort, CirceCohort)
    assert bare.rules == ("seen <twice>", "a rule")
    for expression in (CIRCE, json.dumps(CIRCE)):
        record = {"id": 7, "name": "T2D", "expressionType": "SIMPLE_EXPRESSION", "expression": expression}
        assert cohort_form.read(record) == bare
    assert cohort_form.read(CirceCohort.parse(json.dumps(CIRCE))).cohort == bare.cohort


def test_attrition_keeps_the_written_order_of_the_criteria() -> None:
    form = cohort_form.read(OURS)
    assert form.rules == (
        "sex female",
        "measurement 3004410, 7.5 or more",
        "age 40 to 75",
        "without drug 1503297",
    )
    assert isinstance(form.cohort, Cohort)
    applied = form.asked_for(Attrition())
    assert isinstance(applied, Attrition)
    order = applied.order or tuple(range(rules(form.cohort)))
    canonical = (*form.cohort.include, *form.cohort.exclude)
    written = [*OURS["include"], *OURS["exclude"]]
    for place, raw in zip(order, written, strict=True):
        (criterion,) = Cohort.parse({"include": [raw]}).include
        assert canonical[place] == criterion
    assert form.rules_of(applied) == form.rules


@pytest.mark.parametrize("turned", [False, True])
def test_another_written_order_is_another_attrition(turned: bool) -> None:
    include = OURS["include"][::-1] if turned else OURS["include"]
    form = cohort_form.read({**OURS, "include": include})
    words = ["sex female", "measurement 3004410, 7.5 or more", "age 40 to 75"]
    assert list(form.rules[:3]) == (words[::-1] if turned else words)
    assert form.cohort == cohort_form.read(OURS).cohort


def test_an_order_that_is_asked_for_is_kept_and_other_statistics_have_none() -> None:
    form = cohort_form.read(OURS)
    asked = Attrition((3, 2, 1, 0))
    assert form.asked_for(asked) == asked
    words = cohort_form.read(Cohort.parse(OURS)).rules
    assert form.rules_of(asked) == words[::-1]
    assert form.asked_for(Count()) == Count()


def test_a_criterion_that_stands_twice_is_one_rule() -> None:
    form = cohort_form.read({"include": [*OURS["include"], OURS["include"][0]]})
    assert len(form.rules) == len(form.order) == 3


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"index": {"kind": "condition"}}, "index.concepts"),
        ({"expression": 3}, "expression"),
        ("{}", "index"),
        (b"[1]", "$"),
        ({"expression": "{"}, "$"),
        ("{not json", "$"),
        ({"include": [{"kind": "age", "min_years": float("nan")}]}, "$"),
        ({"PrimaryCriteria": {}}, "PrimaryCriteria"),
        (b"[" * 100_000, "$"),
    ],
)
def test_what_is_no_cohort_is_refused_by_the_path_of_its_key(given: Any, path: str) -> None:
    with pytest.raises(MalformedCohort) as refused:
        cohort_form.read(given)
    assert path in refused.value.path


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cohort_form.read(tmp_path / "no.json")
