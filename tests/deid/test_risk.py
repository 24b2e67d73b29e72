"""What a table lets others do, against counting by hand; and generalization that keeps its promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.risk import Hierarchy, bands, plan, risk
from deid.risk_columns import hierarchy_of

TABLE = {
    "sex": ["F", "F", "F", "M", "M", "F"],
    "born": ["1950", "1950", "1950", "1950", "1960", None],
    "illness": ["a", "a", "b", "a", "a", "c"],
}


def test_classes_uniqueness_small_cells_and_diversity_by_hand() -> None:
    found = risk(TABLE, quasi=["sex", "born"], sensitive=["illness"], small_cell=3)
    assert (found.records, found.classes, found.k, found.unique, found.in_small_cells) == (6, 4, 1, 3, 3)
    assert found.highest == 1.0
    assert found.mean == 4 / 6
    assert found.diversity == {"illness": 1}
    assert found.sizes == {1: 3, 3: 3}
    plain = found.as_json()
    assert plain["records_by_class_size"]["1"] == 3
    assert sum(plain["records_by_class_size"].values()) == 6
    assert risk(TABLE, quasi=["sex"]).k == 2


def test_l_diversity_is_of_the_least_diverse_class() -> None:
    table = {"q": list("aaabbb"), "s": list("xyzxxy")}
    assert risk(table, quasi=["q"], sensitive=["s"]).diversity == {"s": 2}


def test_what_is_missing_or_uneven_is_an_error() -> None:
    for wrong in ({"quasi": []}, {"quasi": ["no"]}, {"quasi": ["sex"], "sensitive": ["no"]}):
        with pytest.raises(ValueError, match=r"no column|name the"):
            risk(TABLE, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lengths"):
        risk({"a": [1], "b": [1, 2]}, quasi=["a", "b"])
    assert risk({"a": []}, quasi=["a"]).highest == 0.0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
def test_the_figures_are_those_of_counting_pairs(rows: list[tuple[int, int, int]]) -> None:
    table = {name: [row[at] for row in rows] for at, name in enumerate("abc")}
    found = risk(table, quasi=["a", "b"], sensitive=["c"])
    groups = [list(group) for _, group in itertools.groupby(sorted(rows), key=lambda row: row[:2])]
    assert found.classes == len(groups)
    assert found.k == min(map(len, groups))
    assert found.unique == sum(len(group) == 1 for group in groups)
    assert found.diversity["c"] == min(len({row[2] for row in group}) for group in groups)
    # the mean of one over the size of the class, record by record
    assert found.mean == pytest.approx(sum(1 / len(group) for group in groups for _ in group) / len(rows))


HIERARCHIES = {
    "born": Hierarchy((("exact", str), ("decades", bands(10)), ("out", lambda _: "*"))),
    "sex": Hierarchy((("exact", str), ("out", lambda _: "*"))),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("FM"), st.integers(1930, 1965)), min_size=4, max_size=40),
    st.integers(2, 5),
    st.sampled_from([0.0, 0.1, 0.3]),
)
def test_a_plan_keeps_k_in_every_class_that_stays_and_no_plan_loses_less(
    rows: list[tuple[str, int]], k: int, most: float
) -> None:
    table = {"sex": [row[0] for row in rows], "born": [str(row[1]) for row in rows]}
    made = plan(table, HIERARCHIES, k=k, most_suppressed=most)
    losses = []
    for levels in itertools.product(range(3), range(2)):
        keys = [
            (HIERARCHIES["born"].levels[levels[0]][1](born), HIERARCHIES["sex"].levels[levels[1]][1](sex))
            for sex, born in zip(table["sex"], table["born"], strict=True)
        ]
        gone = sum(keys.count(key) < k for key in keys) / len(keys)
        if gone <= most:
            losses.append((levels[0] / 2 + levels[1]) / 2 + gone)
    if made is None:
        assert not losses
        return
    assert made.loss == pytest.approx(min(1.0, min(losses)))
    stay = [
        row
        for row, gone in zip(zip(*made.columns.values(), strict=True), made.suppressed, strict=True)
        if not gone
    ]
    assert all(stay.count(row) >= k for row in stay)
    assert made.suppressed.mean() <= most
    assert all(
        value == "*" for column in made.columns.values()
        for value, gone in zip(column, made.suppressed, strict=True) if gone
    )  # fmt: skip


def test_a_plan_that_asks_too_much_or_the_impossible() -> None:
    assert plan({"born": ["1950"]}, {"born": HIERARCHIES["born"]}, k=2, most_suppressed=0.0) is None
    for wrong in ({"k": 1, "most_suppressed": 0.0}, {"k": 5, "most_suppressed": 1.0}):
        with pytest.raises(ValueError, match="k is 2"):
            plan({"born": ["1950"]}, {"born": HIERARCHIES["born"]}, **wrong)  # type: ignore[arg-type]
    wide = Hierarchy(tuple((str(n), str) for n in range(200)))
    with pytest.raises(ValueError, match="combinations"):
        plan({"a": ["1"], "b": ["1"]}, {"a": wide, "b": wide}, k=2, most_suppressed=0.0)


def test_a_column_says_itself_how_it_can_be_coarser() -> None:
    def names(name: str, values: list[object]) -> list[str]:
        return [level for level, _ in hierarchy_of(name, values).levels]

    assert names("zip", ["02139", "02140"]) == ["exact", "3 digits", "2 digits", "1 digits", "left out"]
    assert names("birth_year", [1950, 1951, 1960, 1961, None])[1] == "bands of 5"
    assert names("sex", ["F", "M"]) == ["exact", "left out"]
    zips = hierarchy_of("zip3", ["021", "022"]).levels
    assert names("zip3", ["021", "022"]) == ["exact", "2 digits", "1 digits", "left out"]
    assert [change("021") for _, change in zips] == ["021", "02", "0", "*"]


def test_many_records_take_seconds() -> None:
    rng = np.random.default_rng(1)
    table = {name: rng.integers(0, size, 100_000).tolist() for name, size in (("a", 50), ("b", 90), ("c", 5))}
    assert risk(table, quasi=["a", "b", "c"]).classes == len(set(zip(*table.values(), strict=True)))
