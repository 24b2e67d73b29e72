"""Questions of one shape share a statement; each still counts what its own numbers say."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.omop.store import OmopStore
from node.queries.cohort import count
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.shape import StandIns, shape_of, with_marks
from node.queries.vector import vector
from protocols.cohort import MAX_CRITERIA, Cohort, EventCriterion, Kind, Range
from protocols.statistic import Count
from tests.bench.stores import concepts_of, make_store

TABLE = {"condition": "condition_occurrence", "drug": "drug_exposure", "measurement": "measurement"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OmopStore]:
    path = make_store(tmp_path_factory.mktemp("store") / "omop.duckdb", 300, 8_000, seed=2)
    with OmopStore.open(path, read_only=True) as found:
        yield found


@st.composite
def events(draw: st.DrawFn, *, indexed: bool) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(TABLE)))
    chosen = draw(
        st.lists(st.sampled_from(concepts_of(TABLE[kind], 40)), min_size=1, max_size=3, unique=True)
    )
    form: dict[str, Any] = {"kind": kind, "concepts": chosen, "at_least": draw(st.sampled_from([1, 1, 2]))}
    if kind == "measurement":
        form["value"] = draw(st.sampled_from([{"min": 95}, {"max": 110.5}, {"min": 90, "max": 120}]))
        form["unit"] = draw(st.sampled_from([8840, 8876]))
    if not indexed and draw(st.booleans()):
        form["window"] = {"from_days": -draw(st.integers(0, 2000)), "to_days": draw(st.integers(0, 2000))}
    return form


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    others = st.one_of(
        events(indexed=False),
        st.just({"kind": "sex", "concepts": [8532]}),
        st.just({"kind": "age", "min_years": 30, "max_years": 60}),
    )
    return Cohort.parse(
        {
            "index": draw(events(indexed=True)),
            "include": draw(st.lists(others, max_size=2)),
            "exclude": draw(st.lists(others, max_size=1)),
        }
    )


def bound_count(cohort: Cohort, warehouse: DuckDbWarehouse) -> int:
    """How many a hospital finds with the statement of the cohort's shape."""
    with closing(warehouse.engine(Limits(time_s=60))) as engine:
        return int(vector(cohort, Count(), engine)[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cohort=cohorts())
def test_a_bound_statement_counts_what_the_whole_one_does(store: OmopStore, cohort: Cohort) -> None:
    assert bound_count(cohort, DuckDbWarehouse(store)) == count(cohort, store)


def test_questions_that_differ_in_numbers_have_one_shape_and_their_own_answers(store: OmopStore) -> None:
    first, second = concepts_of("condition_occurrence", 2)
    asked = [Cohort.parse({"index": {"kind": "condition", "concepts": [c]}}) for c in (first, second)]
    assert shape_of(asked[0])[0] == shape_of(asked[1])[0]
    warehouse = DuckDbWarehouse(store)
    assert [bound_count(cohort, warehouse) for cohort in asked] == [count(cohort, store) for cohort in asked]
    assert count(asked[0], store) != count(asked[1], store)


@given(cohort=cohorts())
def test_criteria_keep_their_places_in_a_shape(cohort: Cohort) -> None:
    """The order of attrition names criteria by their places."""
    shape, parameters = shape_of(cohort)

    def restored(criterion: Any) -> Any:
        concepts = getattr(criterion, "concepts", ())
        return tuple(parameters[f"n{concept}"] for concept in concepts), getattr(criterion, "window", None)

    for name in ("include", "exclude"):
        found = [restored(criterion) for criterion in getattr(shape, name)]
        assert found == [
            (getattr(criterion, "concepts", ()), getattr(criterion, "window", None))
            for criterion in getattr(cohort, name)
        ]


def test_a_statement_that_lost_a_parameter_is_never_run() -> None:
    parameters = shape_of(Cohort.parse({"index": {"kind": "drug", "concepts": [1, 2]}}))[1]
    with pytest.raises(RuntimeError, match="each parameter"):
        with_marks("SELECT 1 WHERE 2147000000 = 1", parameters)


def test_the_largest_questions_have_a_stand_in_for_each_number() -> None:
    def largest(first: int) -> Cohort:
        many = [
            EventCriterion(
                Kind.MEASUREMENT,
                tuple(range(first + 1_000 * k, first + 1_000 * (k + 1))),
                value=Range(0.0, 1.0),
            )
            for k in range(MAX_CRITERIA)
        ]
        return Cohort(include=tuple(many))

    stand_ins = StandIns()
    shapes = [stand_ins.cohort(largest(1)), stand_ins.cohort(largest(500_000))]
    assert len(stand_ins.parameters) == 2 * MAX_CRITERIA * 1_002
    numbers = [
        number
        for shape in shapes
        for criterion in shape.include
        if isinstance(criterion, EventCriterion) and criterion.value is not None
        for number in (*criterion.concepts, criterion.value.minimum, criterion.value.maximum)
    ]
    assert with_marks(" ".join(map(str, numbers)), stand_ins.parameters).count("$") == len(numbers)
