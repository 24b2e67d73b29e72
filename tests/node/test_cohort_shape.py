"""Questions of one shape share a statement; each still counts what its own numbers say."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.omop.store import OmopStore
from node.queries.cohort import count, persons
from node.queries.shape import compiled, shape_of
from protocols.cohort import Cohort
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cohort=cohorts())
def test_a_bound_statement_counts_what_the_whole_one_does(store: OmopStore, cohort: Cohort) -> None:
    assert count(cohort, store) == persons(cohort, store).count().to_pyarrow().as_py()


def test_questions_that_differ_in_numbers_have_one_shape_and_their_own_answers(store: OmopStore) -> None:
    first, second = concepts_of("condition_occurrence", 2)
    asked = [Cohort.parse({"index": {"kind": "condition", "concepts": [c]}}) for c in (first, second)]
    assert shape_of(asked[0])[0] == shape_of(asked[1])[0]
    assert count(asked[0], store) != count(asked[1], store)


def test_a_statement_that_lost_a_parameter_is_never_run() -> None:
    shape, parameters = shape_of(Cohort.parse({"index": {"kind": "drug", "concepts": [1, 2]}}))
    with pytest.raises(RuntimeError, match="each parameter"):
        compiled(shape, parameters, compile=lambda _: "SELECT 1 WHERE 2147000000 = 1")
