"""Each statistic equals what plain Python finds person by person: on random stores, on each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.queries.engine import CdmEngine
from node.queries.vector import vector
from protocols.cohort import Cohort, Window
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
    Which,
)
from tests.bench.stores import concepts_of
from tests.node.engines import CONDITIONS, MEASUREMENTS, PARENT
from tests.node.oracle import Oracle
from tests.node.people import ANCESTORS, Hospital, people, read_back, small_hospital
from tests.node.some_statistics import cohorts, of_kind


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with small_hospital(tmp_path_factory.mktemp("people")) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_statistic_equals_plain_python(hospital: Hospital, kind: str, data: st.DataObject) -> None:
    found = data.draw(people())
    cohort = data.draw(cohorts)
    statistic = data.draw(of_kind(kind, cohort))
    with hospital.with_people(found) as engine:
        assert vector(cohort, statistic, engine).tolist() == Oracle(found, ANCESTORS).vector(
            cohort, statistic
        )


SINCE = {"from_days": -2_000, "to_days": 400}
GENERATED = Cohort.parse(
    {
        "index": {"kind": "condition", "concepts": [PARENT, CONDITIONS[4]], "descendants": True},
        "include": [
            {"kind": "drug", "concepts": concepts_of("drug_exposure", 60), "window": SINCE},
            {"kind": "age", "min_years": 20, "max_years": 80},
        ],
        "exclude": [{"kind": "measurement", "concepts": MEASUREMENTS[30:34], "value": {"min": 150}}],
    }
)
OTHER = Cohort.parse({"index": {"kind": "condition", "concepts": CONDITIONS[6:16], "at_least": 2}})
NEAR = Window(-1_500, 1_500)
ASKED: dict[str, Statistic] = {
    "count": Count(),
    "sex": Breakdown(By.SEX, total=True),
    "age": Breakdown(By.AGE_BAND, edges=(30, 50, 65)),
    "year": Breakdown(By.YEAR, first_year=2011, last_year=2015),
    "site band": Breakdown(By.SITE_COUNT_BAND, edges=(10, 200)),
    "contingency": Contingency(OTHER),
    "by year": Incidence(OTHER, 2010, 2024),
    "by quarter": Incidence(OTHER, 2012, 2020, Step.QUARTER),
    "by month": Incidence(OTHER, 2010, 2023, Step.MONTH),
    "survival": Survival(OTHER, 2_000, 90),
    "attrition": Attrition((2, 0, 1)),
    "feasibility": Feasibility(5),
    **{
        f"histogram, {which}": Histogram(
            OneValue(MEASUREMENTS[0], True, 8840, which, NEAR), (80.0, 90.0, 100.0, 110.0, 120.0)
        )
        for which in Which
    },
    "mean": Mean(OneValue(MEASUREMENTS[0], which=Which.MAX), 0.0, 256.0),
}


@pytest.fixture(scope="module")
def oracle(generated: Path) -> Oracle:
    return Oracle(read_back(generated), [(PARENT, below) for below in (PARENT, *CONDITIONS[:3])])


@pytest.mark.parametrize("name", ASKED)
def test_so_it_does_on_each_database(engine: CdmEngine, oracle: Oracle, name: str) -> None:
    found = vector(GENERATED, ASKED[name], engine).tolist()
    assert found == oracle.vector(GENERATED, ASKED[name])
    assert any(found)
