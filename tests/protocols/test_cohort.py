"""The cohort form means one thing, refuses what it does not know, and says where."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.cohort import MAX_BYTES, MAX_CONCEPTS, MAX_CRITERIA, Cohort, MalformedCohort

FORM: dict[str, Any] = {
    "index": {"kind": "condition", "concepts": [317576, 4329847], "descendants": True},
    "include": [
        {
            "kind": "measurement",
            "concepts": [3004249],
            "unit": 8876,
            "value": {"min": 140, "max": 200.5},
            "window": {"from_days": -365, "to_days": 0},
            "at_least": 2,
        },
        {"kind": "age", "min_years": 40, "max_years": 75},
        {"kind": "sex", "concepts": [8532]},
    ],
    "exclude": [{"kind": "drug", "concepts": [1118084]}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return FORM with the key at `path` set, or taken out for `...`."""
    form: Any = json.loads(json.dumps(FORM))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    spot = form
    for part in parents:
        spot = spot[part]
    if value is ...:
        del spot[last]
    else:
        spot[last] = value
    return form


def test_the_canonical_form_is_a_fixed_point() -> None:
    cohort = Cohort.parse(FORM)
    assert Cohort.parse(cohort.canonical()) == cohort
    assert Cohort.parse(cohort.canonical()).canonical() == cohort.canonical()


def test_defaults_spelled_out_mean_the_same() -> None:
    spelled = changed("include/0/at_least", 2)
    spelled["index"] |= {"at_least": 1}
    spelled["exclude"][0] |= {"descendants": False}
    spelled["include"][0]["value"] = {"min": 140.0, "max": 200.5}
    assert Cohort.parse(spelled).canonical() == Cohort.parse(FORM).canonical()


def test_another_meaning_is_another_encoding() -> None:
    for path, value in [("include/0/at_least", 3), ("include/1/max_years", 76), ("index/descendants", False)]:
        assert Cohort.parse(changed(path, value)).canonical() != Cohort.parse(FORM).canonical()


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, draw) for item in draw(st.permutations(value))]
    return value


@given(st.data())
def test_the_order_of_keys_criteria_and_concepts_means_nothing(data: st.DataObject) -> None:
    mixed = shuffled(FORM, data.draw)
    mixed["include"].append(mixed["include"][0])  # the same twice is the same once
    assert Cohort.parse(json.dumps(mixed)).canonical() == Cohort.parse(FORM).canonical()
    assert Cohort.parse(mixed) == Cohort.parse(FORM)
    assert hash(Cohort.parse(mixed)) == hash(Cohort.parse(FORM))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("limit", 5, "limit"),
        ("index/sql", "drop", "index.sql"),
        ("index/kind", "visit", "index.kind"),
        ("index/kind", "age", "index.kind"),
        ("index/kind", ["condition"], "index.kind"),
        ("index/concepts", [], "index"),
        ("index/concepts", ..., "index.concepts"),
        ("index/concepts", ["317576"], "index.concepts[0]"),
        ("index/concepts", [True], "index.concepts[0]"),
        ("index/concepts", [0], "index.concepts"),
        ("index/concepts", [2**31], "index.concepts"),
        ("index/concepts", list(range(1, MAX_CONCEPTS + 2)), "index.concepts"),
        ("index/descendants", 1, "index.descendants"),
        ("index/window", {"from_days": 0, "to_days": 1}, "index.window"),
        ("index/value", {"min": 1}, "index.value"),
        ("include/0/unit", "mmHg", "include[0].unit"),
        ("include/0/unit", 0, "include[0]"),
        ("include/0/value", {}, "include[0].value"),
        ("include/0/value", {"min": 2, "max": 1}, "include[0].value"),
        ("include/0/value", {"min": float("nan")}, "include[0].value"),
        ("include/0/value", {"min": 10**400}, "include[0].value.min"),
        ("include/0/value", {"above": 1}, "include[0].value.above"),
        ("include/0/window", {"from_days": 1, "to_days": 0}, "include[0].window"),
        ("include/0/window", {"from_days": -40_000, "to_days": 0}, "include[0].window"),
        ("include/0/window", {"from_days": 0}, "include[0].window.to_days"),
        ("include/0/window", {"from_days": 0.5, "to_days": 1}, "include[0].window.from_days"),
        ("include/0/at_least", 0, "include[0]"),
        ("include/1/min_years", -1, "include[1]"),
        ("include/1/min_years", 40.5, "include[1]"),
        ("include/1/concepts", [1], "include[1].concepts"),
        ("include/2/concepts", [], "include[2]"),
        ("include/2", "sex", "include[2]"),
        ("include", {"kind": "sex"}, "include"),
        ("exclude/0/value", {"min": 1}, "exclude[0].value"),
    ],
)
def test_a_wrong_form_is_refused_at_the_key_that_is_wrong(path: str, value: Any, named: str) -> None:
    with pytest.raises(MalformedCohort) as caught:
        Cohort.parse(changed(path, value))
    assert caught.value.path == named


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"null", b'{"index": 1}', b'{"index":{},"index":{}}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_form_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedCohort):
        Cohort.parse(data)


def test_size_is_limited_before_parsing() -> None:
    with pytest.raises(MalformedCohort, match=f"at most {MAX_BYTES} bytes"):
        Cohort.parse(b" " * (MAX_BYTES + 1))
    many = [{"kind": "sex", "concepts": [number]} for number in range(1, MAX_CRITERIA + 1)]
    Cohort.parse({"include": many})
    with pytest.raises(MalformedCohort, match="criteria in all"):
        Cohort.parse({"include": many, "exclude": many[:1]})


def test_an_error_repeats_no_strange_key() -> None:
    with pytest.raises(MalformedCohort) as caught:
        Cohort.parse({"index": FORM["index"], "Robert'); DROP TABLE person;--": 1})
    assert "DROP" not in str(caught.value)
