"""The vector of one hospital: its cells for small stores that are worked out by hand, on each database."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from node.omop.store import OmopStore
from node.queries.vector import vector
from node.queries.warehouse import open_warehouse
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import Attrition, Breakdown, By, Count, Feasibility
from tests.node.engines import LIMITS
from tests.node.patients import AF, DAY, Patient, fill

INDEXED = Cohort.parse({"index": {"kind": "condition", "concepts": [AF]}})


@pytest.fixture
def filled(tmp_path: Path) -> Callable[..., Callable[..., list[int]]]:
    """A store of these patients, to be asked: `filled(*patients)(statistic, cohort)`."""

    def made(*patients: Patient) -> Callable[..., list[int]]:
        with OmopStore.open(tmp_path / "omop.duckdb") as store:
            if patients:
                fill(store, patients)

        def asked(statistic, cohort=INDEXED) -> list[int]:
            with (
                closing(
                    open_warehouse(str(tmp_path / "omop.duckdb"), schema="main", limits=LIMITS)
                ) as opened,
                closing(opened.engine(LIMITS)) as engine,
            ):
                return vector(cohort, statistic, engine).tolist()

        return asked

    return made


def test_counts_and_breakdowns_of_a_few_patients(filled) -> None:
    ask = filled(
        Patient(1, born=1960, sex=8507, conditions=[(AF, DAY)]),
        Patient(2, born=2002, sex=8532, conditions=[(AF, DAY), (AF, DAY.replace(year=2021))]),
        Patient(3, born=1950, sex=0, conditions=[(AF, DAY.replace(year=2022))]),
        Patient(4, born=1950, sex=8532),
    )
    assert ask(Count()) == [3]
    assert ask(Breakdown(By.SEX, total=True)) == [3, 1, 1, 1]
    assert ask(Breakdown(By.AGE_BAND, edges=(18, 60, 70))) == [0, 1, 1, 1]
    assert ask(Breakdown(By.YEAR, first_year=2020, last_year=2021)) == [2, 0, 1]
    assert ask(Breakdown(By.SITE_COUNT_BAND, edges=(3, 4))) == [0, 1, 0]
    assert [ask(Feasibility(least)) for least in (3, 4)] == [[1], [0]]


def test_a_statistic_that_does_not_fit_its_cohort_is_refused(filled) -> None:
    with pytest.raises(Refused) as refused:
        filled()(Attrition(order=(1, 0)))
    assert refused.value.code is RefusalCode.MALFORMED
