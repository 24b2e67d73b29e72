"""Circe definitions drawn by hypothesis over the small CDMs of tests.node.people."""

import json
from typing import Any

from hypothesis import strategies as st

from protocols.circe import CirceCohort
from tests.circe_forms import concept_set, definition, rule
from tests.node.people import CONDITIONS, DRUGS, LABS, PARENT

SETS = [
    concept_set(0, [CONDITIONS[0], CONDITIONS[2]]),
    concept_set(1, [PARENT], descendants=True),
    concept_set(2, [*DRUGS]),
    concept_set(3, [*LABS]),
]
primary = st.sampled_from(
    [
        {"ConditionOccurrence": {"CodesetId": 0}},
        {"ConditionOccurrence": {"CodesetId": 1, "First": True}},
        {"DrugExposure": {"CodesetId": 2}},
        {"Measurement": {"CodesetId": 3, "ValueAsNumber": {"Value": 2, "Op": "gte"}}},
    ]
)
windows = st.tuples(st.integers(0, 400), st.integers(0, 400)).map(
    lambda days: {"Start": {"Days": days[0], "Coeff": -1}, "End": {"Days": days[1], "Coeff": 1}}
)
rules = st.builds(
    lambda criterion, at_least, window: rule(criterion, at_least=at_least, window=window),
    primary,
    st.integers(1, 2),
    windows,
)
limits = st.sampled_from(["First", "Last", "All"])


@st.composite
def definitions(draw: st.DrawFn) -> CirceCohort:
    """A definition with limits, up to two inclusion rules, and perhaps an end strategy."""
    more: dict[str, Any] = {"InclusionRules": draw(st.lists(rules, max_size=2))}
    more["QualifiedLimit"], more["ExpressionLimit"] = {"Type": draw(limits)}, {"Type": draw(limits)}
    if draw(st.booleans()):
        more["EndStrategy"] = {"DateOffset": {"DateField": "StartDate", "Offset": draw(st.integers(0, 60))}}
    if draw(st.booleans()):
        more["CensoringCriteria"] = [draw(primary)]
    made = definition(*draw(st.lists(primary, min_size=1, max_size=2)), sets=SETS, **more)
    made["PrimaryCriteria"]["PrimaryCriteriaLimit"] = {"Type": draw(limits)}
    made["PrimaryCriteria"]["ObservationWindow"]["PriorDays"] = draw(st.sampled_from([0, 30]))
    return CirceCohort.parse(json.dumps(made))


def definition_of(
    criteria: list[dict[str, Any]],
    *,
    rules: list[tuple[dict[str, Any], tuple[int, int]]],
    limit: str = "First",
) -> CirceCohort:
    """A definition with these inclusion rules, each at least once within so many days of the event."""
    made = [
        rule(
            criterion,
            at_least=1,
            window={"Start": {"Days": -first, "Coeff": -1}, "End": {"Days": last, "Coeff": 1}},
        )
        for criterion, (first, last) in rules
    ]
    more = {"InclusionRules": made, "QualifiedLimit": {"Type": limit}, "ExpressionLimit": {"Type": limit}}
    form = definition(*criteria, sets=SETS, **more)
    form["PrimaryCriteria"]["PrimaryCriteriaLimit"] = {"Type": limit}
    return CirceCohort.parse(json.dumps(form))
