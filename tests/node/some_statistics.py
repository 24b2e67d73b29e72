"""Statistics drawn by hypothesis over the small CDMs of tests.node.people, one strategy for each kind."""

from hypothesis import strategies as st

from protocols.cohort import Cohort, Window
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
    Step,
    Survival,
    Which,
    rules,
)
from tests.node.people import LAB_PARENT, LABS, UNITS, forms, windows

cohorts = forms().map(Cohort.parse)
one_values = st.builds(
    OneValue,
    st.sampled_from([*LABS, LAB_PARENT]),
    st.booleans(),
    st.sampled_from([None, None, *UNITS]),
    st.sampled_from(Which),
    st.one_of(st.none(), windows.map(lambda ends: Window(ends["from_days"], ends["to_days"]))),
)
edges = st.lists(st.integers(0, 16).map(lambda n: n / 2), min_size=2, max_size=5, unique=True).map(
    lambda found: tuple(sorted(found))
)
bands = st.lists(st.integers(1, 60), min_size=1, max_size=3, unique=True).map(
    lambda found: tuple(sorted(found))
)
years = st.sampled_from([(2019, 2021), (2020, 2020), (2021, 2022)])


@st.composite
def attritions(draw: st.DrawFn, cohort: Cohort) -> Attrition:
    return Attrition(tuple(draw(st.permutations(range(rules(cohort))))))


def of_kind(kind: str, cohort: Cohort) -> st.SearchStrategy[Statistic]:
    """Statistics of one kind about the cohort."""
    found: dict[str, st.SearchStrategy[Statistic]] = {
        "count": st.just(Count()),
        "breakdown": st.one_of(
            st.builds(Breakdown, st.just(By.SEX), total=st.booleans()),
            st.builds(Breakdown, st.just(By.AGE_BAND), bands, total=st.booleans()),
            st.builds(
                lambda ends, total: Breakdown(By.YEAR, first_year=ends[0], last_year=ends[1], total=total),
                years,
                st.booleans(),
            ),
            st.builds(
                Breakdown,
                st.just(By.SITE_COUNT_BAND),
                st.sampled_from([(1,), (1, 2), (2, 4), (3,)]),
            ),
        ),
        "histogram": st.builds(Histogram, one_values, edges),
        # powers of two apart: the mapping to [-1, 1] is exact
        "mean": st.builds(Mean, one_values, st.sampled_from([-8.0, 0.0]), st.sampled_from([8.0])),
        "contingency": st.builds(Contingency, cohorts),
        "incidence": st.builds(
            lambda outcome, ends, step: Incidence(outcome, *ends, step),
            cohorts,
            years,
            st.sampled_from(Step),
        ),
        "survival": st.builds(
            lambda outcome, horizon, interval: Survival(outcome, horizon, min(horizon, interval)),
            cohorts,
            st.integers(1, 400),
            st.integers(1, 60),
        ),
        "attrition": attritions(cohort),
        "feasibility": st.builds(Feasibility, st.integers(1, 4)),
    }
    return found[kind]
