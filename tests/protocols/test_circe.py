"""A Circe definition is accepted whole or refused with the path of what is wrong, never its content."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from duckcdm.circe import _model as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.circe import MAX_BYTES, CirceCohort, parse_any
from protocols.circe_shapes import DEFINITION, KINDS, Shape
from protocols.cohort import Cohort, MalformedCohort
from tests.circe_forms import concept_set, definition, rule

SECRET = "Jane Roe 1970-02-31"  # stands for whatever somebody pasted into the file


def plain() -> dict[str, Any]:
    return definition(
        {"ConditionOccurrence": {"CodesetId": 0, "OccurrenceStartDate": {"Op": "gt", "Value": "2015-01-31"}}},
        sets=[concept_set(0, [201826, 317576], descendants=True)],
        InclusionRules=[rule({"Measurement": {"CodesetId": 0}}, at_least=2)],
    )


def occurrence(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["PrimaryCriteria"]["CriteriaList"][0]["ConditionOccurrence"]
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown top-level key": (lambda v: v.update(Sql="DROP TABLE person"), "Sql"),
    "unknown key below": (
        lambda v: occurrence(v).update(Nonsense=1),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.Nonsense",
    ),
    "a key that is no word": (lambda v: v.update({SECRET: 1}), "<key>"),
    "unknown kind": (
        lambda v: v["PrimaryCriteria"]["CriteriaList"].append({"Note": {}}),
        "PrimaryCriteria.CriteriaList[1].Note",
    ),
    "two kinds in one": (
        lambda v: v["PrimaryCriteria"]["CriteriaList"].append({"Death": {}, "Specimen": {}}),
        "PrimaryCriteria.CriteriaList[1]",
    ),
    "no such day": (
        lambda v: occurrence(v)["OccurrenceStartDate"].update(Value="2015-02-30"),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.OccurrenceStartDate.Value",
    ),
    "a text for a date": (
        lambda v: v.update(CensorWindow={"StartDate": SECRET}),
        "CensorWindow.StartDate",
    ),
    "SQL for a date": (
        lambda v: v.update(CensorWindow={"EndDate": "2015-01-01'); DROP TABLE person; --"}),
        "CensorWindow.EndDate",
    ),
    "SQL for a number": (
        lambda v: occurrence(v).update(CodesetId="0) OR 1=1 --"),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.CodesetId",
    ),
    "an infinite number": (
        lambda v: occurrence(v).update(Age={"Op": "gt", "Value": 1e300}),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.Age.Value",
    ),
    "between without an end": (
        lambda v: occurrence(v).update(Age={"Op": "bt", "Value": 1}),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.Age.Extent",
    ),
    "an unknown operator": (
        lambda v: occurrence(v).update(Age={"Op": "; --", "Value": 1}),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.Age.Op",
    ),
    "no primary criteria": (lambda v: v.pop("PrimaryCriteria"), "PrimaryCriteria"),
    "no events": (lambda v: v["PrimaryCriteria"].update(CriteriaList=[]), "PrimaryCriteria.CriteriaList"),
    "no window": (
        lambda v: v["InclusionRules"][0]["expression"]["CriteriaList"][0].pop("StartWindow"),
        "InclusionRules[0].expression.CriteriaList[0].StartWindow",
    ),
    "a count that is missing": (
        lambda v: v["InclusionRules"][0]["expression"].update(Type="AT_LEAST"),
        "InclusionRules[0].expression.Count",
    ),
    "one id twice": (lambda v: v["ConceptSets"].append(v["ConceptSets"][0]), "ConceptSets"),
    "a concept beyond 32 bits": (
        lambda v: v["ConceptSets"][0]["expression"]["items"][0]["concept"].update(CONCEPT_ID=2**31),
        "ConceptSets[0].expression.items[0].concept.CONCEPT_ID",
    ),
    "a list for an object": (lambda v: v.update(CollapseSettings=[]), "CollapseSettings"),
    "a text of two lines": (
        lambda v: occurrence(v).update(StopReason={"Op": "contains", "Text": "a\nb"}),
        "PrimaryCriteria.CriteriaList[0].ConditionOccurrence.StopReason.Text",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_definition_is_refused_by_path_and_not_quoted(name: str) -> None:
    spoil, path = WRONG[name]
    value = plain()
    CirceCohort.parse(json.dumps(value))
    spoil(value)
    with pytest.raises(MalformedCohort) as refused:
        CirceCohort.parse(json.dumps(value))
    assert refused.value.path == path
    assert SECRET not in str(refused.value)
    assert "DROP" not in str(refused.value)


def test_names_captions_nulls_and_order_mean_nothing() -> None:
    value = plain()
    other = dict(reversed(plain().items()))
    other["ConceptSets"][0]["name"] = "another name"
    other["ConceptSets"][0]["expression"]["items"].reverse()
    other["InclusionRules"][0]["name"] = None
    other["EndStrategy"] = None
    assert CirceCohort.parse(json.dumps(value)) == CirceCohort.parse(json.dumps(other))
    other["ExpressionLimit"]["Type"] = "All"
    assert CirceCohort.parse(json.dumps(value)) != CirceCohort.parse(json.dumps(other))


def test_a_file_too_large_or_too_deep_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MalformedCohort, match="bytes"):
        parse_any(b'{"Title": "' + b"x" * MAX_BYTES + b'"}')
    with pytest.raises(MalformedCohort, match="nested deeper"):
        parse_any(b"[" * 1_000_000)
    with pytest.raises(MalformedCohort, match="nested deeper"):
        parse_any(b'{"ConceptSets": ' + b'{"a":' * 50 + b"1" + b"}" * 51)


def test_a_small_file_cannot_become_a_huge_query() -> None:
    criterion: dict[str, Any] = {"ConditionEra": {}}
    for _ in range(8):  # each level repeats the one below for every criterion on it
        criterion = {"CustomEra": {"CriteriaList": [criterion] * 2}}
        group = rule({"Death": {}}, at_least=1)["expression"]
        criterion["CustomEra"]["CorrelatedCriteria"] = {**group, "CriteriaList": group["CriteriaList"] * 5}
    with pytest.raises(MalformedCohort, match=r"parts|nested"):
        CirceCohort.parse(json.dumps(definition(criterion, sets=[])))


def test_circe_and_our_form_are_told_apart_by_their_keys() -> None:
    ours = b'{"index": {"kind": "drug", "concepts": [1118084]}}'
    assert isinstance(parse_any(ours), Cohort)
    assert isinstance(parse_any(json.dumps(plain()).encode()), CirceCohort)
    with pytest.raises(MalformedCohort):
        parse_any(b'{"index": {"kind": "drug", "concepts": [1118084]}, "ConceptSets": []}')


def accepts_key(shape: Shape, key: str) -> bool:
    """Whether the shape knows the key: every value is wrong, but the reason tells."""
    try:
        shape({key: object()}, "$")
    except MalformedCohort as refused:
        return refused.reason != "unknown key"
    return True


@pytest.mark.parametrize("kind", sorted(reference.CRITERIA_TYPES))
def test_each_kind_has_the_keys_that_the_reference_reads(kind: str) -> None:
    keys = {field[0] for field in reference.CRITERIA_TYPES[kind]._all_fields()}
    every = {field[0] for other in reference.CRITERIA_TYPES.values() for field in other._all_fields()}
    assert {key for key in every if accepts_key(KINDS[kind], key)} == keys


def test_the_definition_has_the_keys_that_the_reference_reads() -> None:
    assert set(KINDS) == set(reference.CRITERIA_TYPES)
    for key, *_ in reference.CohortExpression._all_fields():
        assert accepts_key(DEFINITION, key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_a_value_gives_a_definition_or_a_clear_refusal(data: st.DataObject) -> None:
    value: Any = plain()
    at = value
    while True:
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        place = data.draw(st.sampled_from(places))
        if isinstance(at[place], dict | list) and at[place] and data.draw(st.booleans()):
            at = at[place]
            continue
        at[place] = data.draw(JSON)
        break
    with contextlib.suppress(MalformedCohort):  # anything else is a failure
        CirceCohort.parse(json.dumps(value))
