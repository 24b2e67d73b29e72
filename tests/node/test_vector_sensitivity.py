"""What one patient can change: nothing in anyone else's membership, and in the vector what is charged for.

The vector of a hospital is the sum of its patients' own vectors, so that leaving one patient out, or adding
one, changes it by that patient's own; none of these is larger than `privacy.sensitivity` says, and for each
statistic one that is as large is here, so that a bound too small or too large fails.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.queries.limits import Limits
from node.queries.vector import vector
from node.queries.warehouse import open_warehouse
from privacy import sensitivity
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.question import Question
from protocols.statistic import (
    KINDS,
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Step,
    Survival,
)
from tests.node.people import LABS, Hospital, Human, Lab, people, small_hospital
from tests.node.some_definitions import definitions
from tests.node.some_statistics import cohorts, of_kind

LIMITS = Limits(time_s=60)
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
Vector = NDArray[np.int64]
Ask = Callable[[Sequence[Human], Cohort | CirceCohort, Statistic], Vector]
EASY = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with small_hospital(tmp_path_factory.mktemp("people")) as found:
        yield found


@pytest.fixture(scope="module")
def ask(hospital: Hospital) -> Ask:
    """The vector of a hospital with these people."""

    def asked(found: Sequence[Human], cohort: Cohort | CirceCohort, statistic: Statistic) -> Vector:
        with hospital.with_people(found) as engine:
            return vector(cohort, statistic, engine)

    return asked


def bound(cohort: Cohort | CirceCohort, statistic: Statistic) -> sensitivity.Sensitivity:
    """What is charged for, at one hospital."""
    question = Question.ask(
        cohort,
        project="demo",
        epsilon=1.0,
        delta=1e-6,
        max_sites_per_patient=1,
        now=NOW,
        statistic=statistic,
    )
    return sensitivity.of(question)


def within(change: Vector, cohort: Cohort | CirceCohort, statistic: Statistic) -> bool:
    """Whether a change is one that is charged for, in L1, in L2 and in each cell."""
    allowed = bound(cohort, statistic)
    return (
        np.abs(change).sum() <= allowed.l1
        and float(np.linalg.norm(change)) <= allowed.l2
        and np.abs(change).max() <= allowed.largest / sensitivity.MOST_PATIENTS
    )


def is_of_the_hospital(statistic: Statistic) -> bool:
    """Whether the cells say something of the hospital instead of adding up its patients."""
    return isinstance(statistic, Feasibility) or (
        isinstance(statistic, Breakdown) and statistic.by is By.SITE_COUNT_BAND
    )


def holds(ask: Ask, found: Sequence[Human], cohort: Cohort | CirceCohort, statistic: Statistic) -> None:
    """Check that the vector adds up its patients' own, each of them within the bound."""
    whole = ask(found, cohort, statistic)
    if is_of_the_hospital(statistic):
        for left_out in found:
            rest = ask([human for human in found if human != left_out], cohort, statistic)
            assert within(whole - rest, cohort, statistic)
        return
    own = [ask([human], cohort, statistic) for human in found]
    assert all(within(change, cohort, statistic) for change in own)
    assert whole.tolist() == np.sum(own, axis=0).tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(EASY, max_examples=12)
@given(data=st.data())
def test_a_vector_adds_up_what_each_patient_brings_within_the_bound(
    ask: Ask, kind: str, data: st.DataObject
) -> None:
    cohort = data.draw(cohorts)
    holds(ask, data.draw(people(most=6)), cohort, data.draw(of_kind(kind, cohort)))


@settings(EASY, max_examples=12)
@given(data=st.data())
def test_so_it_does_for_definitions_of_circe(ask: Ask, data: st.DataObject) -> None:
    cohort, other = data.draw(definitions()), data.draw(st.one_of(definitions(), cohorts))
    statistic = data.draw(
        st.sampled_from(
            [
                Count(),
                Breakdown(By.SEX, total=True),
                Contingency(other),
                Incidence(other, 2019, 2021),
                Survival(other, 300, 30),
                Attrition(),
                Mean(OneValue(LABS[0]), 0.0, 8.0),
                Feasibility(2),
            ]
        )
    )
    holds(ask, data.draw(people(least=2, most=4)), cohort, statistic)


FULL = Human(
    1,
    periods=((date(2019, 1, 1), date(2021, 12, 31)),),
    conditions=((1, date(2019, 1, 1)), (2, date(2021, 12, 31))),
    labs=(Lab(21, date(2019, 1, 1), 0.0, 8840),),
)
INDEX = Cohort.parse({"index": {"kind": "condition", "concepts": [1]}})
OUTCOME = Cohort.parse({"index": {"kind": "condition", "concepts": [2]}})
WORST: dict[str, Statistic] = {
    "count": Count(),
    "breakdown": Breakdown(By.AGE_BAND, edges=(18, 65)),
    "with total": Breakdown(By.SEX, total=True),
    "site band": Breakdown(By.SITE_COUNT_BAND, edges=(1, 5)),
    "histogram": Histogram(OneValue(21), (0.0, 1.0)),
    "mean": Mean(OneValue(21), 0.0, 200.0),  # the patient's value is the lower end: x is -1
    "contingency": Contingency(OUTCOME),
    "incidence": Incidence(OUTCOME, 2019, 2021),
    "incidence by quarter": Incidence(OUTCOME, 2019, 2021, Step.QUARTER),
    "incidence by month": Incidence(OUTCOME, 2019, 2021, Step.MONTH),
    "survival": Survival(OUTCOME, 3650, 30),
    "attrition": Attrition(),
    "feasibility": Feasibility(1),
}


@pytest.mark.parametrize("name", WORST)
def test_one_patient_can_change_as_much_as_is_charged_for(ask: Ask, name: str) -> None:
    statistic = WORST[name]
    others = [] if is_of_the_hospital(statistic) else [Human(2, conditions=((1, date(2020, 2, 29)),))]
    change = ask([FULL, *others], INDEX, statistic) - ask(others, INDEX, statistic)
    allowed = bound(INDEX, statistic)
    assert np.abs(change).sum() == allowed.l1
    assert float(np.linalg.norm(change)) == pytest.approx(allowed.l2, rel=1e-15)
    assert np.abs(change).max() == allowed.largest / sensitivity.MOST_PATIENTS


@settings(EASY, max_examples=10)
@given(data=st.data())
def test_members_and_their_index_dates_are_each_patients_own(hospital: Hospital, data: st.DataObject) -> None:
    found, cohort = data.draw(people(least=2, most=5)), data.draw(definitions())

    def members(there: Sequence[Human]) -> tuple[set[object], set[object]]:
        with hospital.with_people(there) as engine:
            with engine.members(cohort) as made:
                inside = engine.rows(made).to_pylist()
            with engine.passed_rules(cohort) as made:
                passed = engine.rows(made).to_pylist()
        return {tuple(row.values()) for row in inside}, {tuple(row.values()) for row in passed}

    whole, alone = members(found), [members([human]) for human in found]
    assert whole[0] == set().union(*(inside for inside, _ in alone))
    assert whole[1] == set().union(*(passed for _, passed in alone))


def members_of(path: Path, forms: list[CirceCohort]) -> tuple[list[set[tuple[int, date]]], set[int]]:
    """The members of each definition in one store, and the ids of everyone in it."""
    found = []
    with closing(open_warehouse(str(path), schema=None, limits=LIMITS)) as warehouse:
        for form in forms:
            with closing(warehouse.engine(LIMITS)) as engine, engine.members(form) as made:
                rows = engine.rows(made)
                found.append(set(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)))
        with closing(warehouse.engine(LIMITS)) as engine:
            everyone = engine.rows(engine.table("person").select("person_id"))
    return found, set(everyone["person_id"].to_pylist())


def without(source: Path, dropped: set[int], path: Path) -> Path:
    """Copy a store without what these patients have in any table."""
    shutil.copyfile(source, path)
    with duckdb.connect(str(path)) as made:
        made.execute("CREATE TEMP TABLE dropped AS SELECT unnest(?) AS person_id", [sorted(dropped)])
        for schema, name in made.execute(
            "SELECT table_schema, table_name FROM information_schema.columns"
            " WHERE column_name = 'person_id' AND table_catalog = current_database()"
        ).fetchall():
            made.execute(
                f'DELETE FROM "{schema}"."{name}" WHERE person_id IN (SELECT person_id FROM dropped)'
            )
    return path


def test_definitions_that_ohdsi_publishes_leave_everyone_elses_membership_alone(
    shared_data: Path, tmp_path: Path
) -> None:
    """Half of the patients are dropped at once, and of the other half nobody comes, goes or changes date."""
    source = shared_data / "omop_synthetic_5k" / "cdm.duckdb"
    sampled = sorted((shared_data / "cohorts").glob("*.json"))[::9]
    forms = [CirceCohort.parse(file.read_bytes()) for file in sampled]
    before, ids = members_of(source, forms)
    dropped = {who for place, who in enumerate(sorted(ids)) if place % 2}
    after, left = members_of(without(source, dropped, tmp_path / "half.duckdb"), forms)
    assert left == ids - dropped
    assert sum(map(len, before)) > 0
    assert after == [{row for row in inside if row[0] not in dropped} for inside in before]
