"""A statistic is read strictly, says what its cells are, and survives its encoding."""

import pytest

from protocols import statistic_form
from protocols.cohort import Cohort
from protocols.statistic import KINDS, Attrition, MalformedStatistic, check, labels

OUTCOME = {"index": {"kind": "condition", "concepts": [4306655]}}
COHORT = Cohort.parse(
    {
        "index": {"kind": "drug", "concepts": [1118084]},
        "include": [{"kind": "sex", "concepts": [8532]}, {"kind": "age", "min_years": 40}],
        "exclude": [{"kind": "condition", "concepts": [192671]}],
    }
)
FORMS = [
    ({"kind": "count"}, 1),
    ({"kind": "breakdown", "by": "sex"}, 3),
    ({"kind": "breakdown", "by": "sex", "total": True}, 4),
    ({"kind": "breakdown", "by": "age_band", "edges": [18, 40, 65]}, 4),
    ({"kind": "breakdown", "by": "year", "first_year": 2015, "last_year": 2024}, 11),
    ({"kind": "breakdown", "by": "site_count_band", "edges": [1, 11, 101]}, 4),
    ({"kind": "histogram", "concept": 3004249, "unit": 8876, "edges": [90.0, 120.0, 140.0]}, 5),
    ({"kind": "mean", "concept": 3004249, "which": "max", "lower": 60.0, "upper": 240.0}, 3),
    ({"kind": "contingency", "other": OUTCOME}, 4),
    ({"kind": "incidence", "outcome": OUTCOME, "first_year": 2020, "last_year": 2021, "step": "quarter"}, 16),
    ({"kind": "survival", "outcome": OUTCOME, "horizon_days": 365, "interval_days": 30}, 27),
    ({"kind": "attrition"}, 4),
    ({"kind": "attrition", "order": [2, 0, 1]}, 4),
    ({"kind": "feasibility", "at_least": 20}, 1),
]


def test_the_forms_below_cover_every_kind() -> None:
    assert {form["kind"] for form, _ in FORMS} == set(KINDS)


@pytest.mark.parametrize(("form", "cells"), FORMS)
def test_a_statistic_survives_its_encoding_and_knows_its_cells(form: dict, cells: int) -> None:
    statistic = statistic_form.parse(form)
    check(statistic, COHORT)
    assert statistic.to_json() == form
    assert len(labels(statistic, COHORT)) == len(set(labels(statistic, COHORT))) == cells


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "kind"),
        ({"kind": "sum"}, "kind"),
        ({"kind": "count", "by": "sex"}, "by"),
        ({"kind": "breakdown", "by": "ward"}, "by"),
        ({"kind": "breakdown", "by": "sex", "edges": [1]}, "edges"),
        ({"kind": "breakdown", "by": "age_band", "edges": [40, 40]}, "edges"),
        ({"kind": "breakdown", "by": "age_band", "edges": [40, 400]}, "edges"),
        ({"kind": "breakdown", "by": "age_band", "edges": [True]}, "edges"),
        ({"kind": "breakdown", "by": "year", "first_year": 2020, "last_year": 2019}, "last_year"),
        ({"kind": "breakdown", "by": "year", "first_year": 2020}, "first_year"),
        ({"kind": "histogram", "concept": 0, "edges": [1.0, 2.0]}, "concept"),
        ({"kind": "histogram", "concept": 1, "edges": [1.0]}, "edges"),
        ({"kind": "histogram", "concept": 1, "edges": [1.0, float("nan")]}, "edges"),
        ({"kind": "histogram", "concept": 1, "edges": [1.0, 2.0], "window": {"from_days": 1}}, "window"),
        ({"kind": "mean", "concept": 1, "lower": 2.0, "upper": 2.0}, "upper"),
        ({"kind": "mean", "concept": 1, "lower": 1.0, "upper": 10**400}, "upper"),
        ({"kind": "contingency", "other": []}, "other.<key>"),
        ({"kind": "incidence", "outcome": OUTCOME, "first_year": 20, "last_year": 2021}, "first_year"),
        ({"kind": "survival", "outcome": OUTCOME, "horizon_days": 10, "interval_days": 20}, "horizon_days"),
        ({"kind": "attrition", "order": [0, 0]}, "order"),
        ({"kind": "feasibility", "at_least": 0}, "at_least"),
    ],
)
def test_what_is_off_is_named_and_refused(form: dict, field: str) -> None:
    with pytest.raises(MalformedStatistic) as caught:
        statistic_form.parse(form)
    assert caught.value.field == field


def test_a_vector_has_a_bounded_number_of_cells() -> None:
    huge = statistic_form.parse(
        {"kind": "survival", "outcome": OUTCOME, "horizon_days": 36525, "interval_days": 1}
    )
    with pytest.raises(MalformedStatistic):
        check(huge, COHORT)


def test_an_order_of_rules_names_each_rule_once() -> None:
    with pytest.raises(MalformedStatistic):
        check(Attrition((1, 0)), COHORT)


def test_an_order_that_changes_nothing_is_the_same_statistic() -> None:
    assert Attrition((0, 1, 2)) == Attrition()
