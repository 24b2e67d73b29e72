"""The tables that a policy decides about are those that answering reads: no more, no fewer."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.omop.store import OmopStore
from node.policy import VOCABULARY
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.tables import tables
from node.queries.vector import vector
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import (
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
    Survival,
)
from tests.node.people import add_vocabulary, empty_store
from tests.node.some_definitions import definition_of

LIMITS = Limits(time_s=60)
DRUG = Cohort.parse(
    {
        "index": {"kind": "drug", "concepts": [11]},
        "include": [{"kind": "observation", "concepts": [31], "descendants": True}],
    }
)
EVERYONE = Cohort.parse({"include": [{"kind": "sex", "concepts": [8507]}]})
CIRCE = definition_of([{"ConditionOccurrence": {"CodesetId": 1}}], rules=[])
OTHER = Cohort.parse({"index": {"kind": "procedure", "concepts": [41]}})
IN_DRUG = {"drug_exposure", "observation", "concept_ancestor"}
IN_CIRCE = {"condition_occurrence", "observation_period", "concept", "concept_ancestor"}
VALUE, EXACT = OneValue(21), OneValue(21, descendants=False)
CASES: dict[str, tuple[Cohort | CirceCohort, Statistic, set[str]]] = {
    "count": (DRUG, Count(), IN_DRUG),
    "count of everyone": (EVERYONE, Count(), {"person", "observation_period"}),
    "count of circe": (CIRCE, Count(), IN_CIRCE),
    "sex": (DRUG, Breakdown(By.SEX), IN_DRUG | {"person"}),
    "age": (CIRCE, Breakdown(By.AGE_BAND, edges=(18,)), IN_CIRCE | {"person"}),
    "year": (DRUG, Breakdown(By.YEAR, first_year=2020, last_year=2021), IN_DRUG),
    "site band": (DRUG, Breakdown(By.SITE_COUNT_BAND, edges=(10,)), IN_DRUG),
    "histogram": (DRUG, Histogram(VALUE, (0.0, 1.0)), IN_DRUG | {"measurement"}),
    "mean": (OTHER, Mean(EXACT, 0.0, 1.0), {"procedure_occurrence", "measurement"}),
    "mean with descendants": (
        OTHER,
        Mean(VALUE, 0.0, 1.0),
        {"procedure_occurrence", "measurement", "concept_ancestor"},
    ),
    "contingency": (DRUG, Contingency(OTHER), IN_DRUG | {"procedure_occurrence", "observation_period"}),
    "incidence": (DRUG, Incidence(CIRCE, 2020, 2021), IN_DRUG | IN_CIRCE),
    "survival": (OTHER, Survival(DRUG, 365, 30), IN_DRUG | {"procedure_occurrence", "observation_period"}),
    "attrition": (DRUG, Attrition(), IN_DRUG),
    "attrition of circe": (CIRCE, Attrition(), IN_CIRCE),
    "feasibility": (OTHER, Feasibility(10), {"procedure_occurrence"}),
}


def question(cohort: Cohort | CirceCohort, statistic: Statistic) -> Question:
    return Question.ask(
        cohort,
        project="demo",
        epsilon=1.0,
        delta=1e-6,
        max_sites_per_patient=1,
        now=datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
        statistic=statistic,
    )


def answer_with(store: OmopStore, kept: set[str], cohort: Cohort | CirceCohort, asked: Statistic) -> None:
    """Answer from a store that has lost all tables but these; they are back afterwards."""
    with closing(store.cursor()) as cursor:
        lost = [
            name
            for (name,) in cursor.execute("SELECT table_name FROM information_schema.tables").fetchall()
            if name not in kept and not name.startswith("fedtwin")
        ]
        for name in lost:
            cursor.execute(f"ALTER TABLE {name} RENAME TO fedtwin_lost_{name}")
        try:
            with closing(DuckDbWarehouse(store).engine(LIMITS)) as engine:
                vector(cohort, asked, engine)
        finally:
            for name in lost:
                cursor.execute(f"ALTER TABLE fedtwin_lost_{name} RENAME TO {name}")


@pytest.mark.parametrize("name", CASES)
def test_answering_needs_exactly_the_tables_that_the_policy_is_asked_about(tmp_path: Path, name: str) -> None:
    cohort, statistic, expected = CASES[name]
    found = set(tables(question(cohort, statistic)))
    assert found == expected
    with empty_store(tmp_path / "omop.duckdb") as store:
        add_vocabulary(store)
        answer_with(store, found, cohort, statistic)
        for lost in sorted(found - VOCABULARY):
            with pytest.raises(Refused) as refused:
                answer_with(store, found - {lost}, cohort, statistic)
            assert refused.value.code is RefusalCode.NO_DATA
