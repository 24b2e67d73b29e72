"""The vector of one hospital, worked out by hand: the edges of each definition, empty stores and refusals."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest

from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.vector import vector
from privacy.sensitivity import person_time_unit
from protocols import statistic as statistics
from protocols.circe import CirceCohort
from protocols.cohort import Cohort, EventCriterion, SexCriterion, Window
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import (
    MEAN_UNIT,
    UNIT,
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
from tests.node.people import Hospital, Human, Lab, empty_store, small_hospital
from tests.node.some_definitions import definition_of

LIMITS = Limits(time_s=60)
INDEXED = Cohort.parse({"index": {"kind": "condition", "concepts": [1]}})
OUTCOME = Cohort.parse({"index": {"kind": "condition", "concepts": [2]}})
DAY = date(2020, 2, 29)
Ask = Callable[..., list[int]]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with small_hospital(tmp_path_factory.mktemp("people")) as found:
        yield found


@pytest.fixture(scope="module")
def ask(hospital: Hospital) -> Ask:
    """The vector of a hospital with these people: `ask(people, statistic)`."""

    def asked(
        found: Sequence[Human], statistic: Statistic, cohort: Cohort | CirceCohort = INDEXED
    ) -> list[int]:
        with hospital.with_people(found) as engine:
            return vector(cohort, statistic, engine).tolist()

    return asked


def after(days: int, since: date = DAY) -> date:
    return since + timedelta(days=days)


def followed(number: int, *, index: date = DAY, outcome: date | None = None, end: date | None) -> Human:
    """Someone with the index event, perhaps an outcome, and observed until `end` (None: not at all)."""
    conditions = ((1, index),) if outcome is None else ((1, index), (2, outcome))
    return Human(number, periods=((date(2015, 1, 1), end),) if end else (), conditions=conditions)


def test_counts_and_breakdowns_of_a_few_patients(ask: Ask) -> None:
    found = [
        Human(1, ((8507, 1960),), conditions=((1, DAY),)),
        Human(2, ((8532, 2002),), conditions=((1, DAY), (1, after(500)))),
        Human(3, ((8551, 1950),), conditions=((1, after(800)),)),
        Human(4, ((8532, 1950),)),
    ]
    assert ask(found, Count()) == [3]
    assert ask(found, Breakdown(By.SEX, total=True)) == [3, 1, 1, 1]
    assert ask(found, Breakdown(By.AGE_BAND, edges=(18, 60, 70))) == [0, 1, 1, 1]
    assert ask(found, Breakdown(By.YEAR, first_year=2020, last_year=2021)) == [2, 0, 1]
    assert ask(found, Breakdown(By.SITE_COUNT_BAND, edges=(3, 4))) == [0, 1, 0]
    assert [ask(found, Feasibility(least)) for least in (3, 4)] == [[1], [0]]
    assert ask(found, Contingency(Cohort.parse({"include": [{"kind": "sex", "concepts": [8532]}]}))) == [
        1,
        2,
        1,
        0,
    ]


def test_two_rows_or_none_in_person_put_nobody_in_two_cells(ask: Ask) -> None:
    found = [
        Human(1, ((8532, 1990), (8507, 1950)), conditions=((1, DAY),)),
        Human(2, (), conditions=((1, DAY),)),
    ]
    assert ask(found, Breakdown(By.SEX, total=True)) == [2, 1, 0, 1]
    assert ask(found, Breakdown(By.AGE_BAND, edges=(50,), total=True)) == [1, 0, 1]


def test_which_of_several_values_is_a_patients_one(ask: Ask) -> None:
    labs = (
        Lab(21, after(-3), 1.0, 8840),
        Lab(21, after(-3), 2.0, 8840),
        Lab(21, after(5), 9.0, 8840),
        Lab(21, after(5), 4.0, 8840),
        Lab(21, after(2), 30.0, 8840),
        Lab(21, after(9), 500.0, 8876),  # of another unit
        Lab(22, after(9), 600.0, 8840),  # of another concept
        Lab(21, after(9), None, 8840),
        Lab(21, after(9), float("inf"), 8840),
    )
    someone = [Human(1, conditions=((1, DAY),), labs=labs)]

    def one(which: Which, **more: object) -> list[int]:
        value = OneValue(21, which=which, unit=8840, **more)  # type: ignore[arg-type]
        return ask(someone, Histogram(value, (1.0, 2.0, 4.0, 9.0, 9.2, 30.0)))

    assert one(Which.FIRST) == [0, 1, 0, 0, 0, 0, 0, 0]  # 1: the smaller of the first day
    assert one(Which.LAST) == [0, 0, 0, 0, 1, 0, 0, 0]  # 9: the larger of the last day; an edge is in its bin
    assert one(Which.MIN) == [0, 1, 0, 0, 0, 0, 0, 0]
    assert one(Which.MAX) == [0, 0, 0, 0, 0, 0, 1, 0]  # 30: at the last edge
    assert one(Which.MEAN) == [0, 0, 0, 0, 0, 1, 0, 0]  # 46/5 = 9.2
    assert one(Which.MAX, window=Window(-3, 1)) == [0, 0, 1, 0, 0, 0, 0, 0]
    assert one(Which.MAX, window=Window(100, 200)) == [0, 0, 0, 0, 0, 0, 0, 1]


def test_values_are_clipped_and_summed_as_whole_numbers(ask: Ask) -> None:
    def valued(number: int, value: float) -> Human:
        return Human(number, conditions=((1, DAY),), labs=(Lab(21, DAY, value, 8840),))

    found = [valued(1, -5.0), valued(2, 1e9), valued(3, 75.0), valued(4, float("nan"))]
    q = MEAN_UNIT
    assert ask(found, Mean(OneValue(21), 0.0, 100.0)) == [3 * q, -q + q + q // 2, q + q + q // 4]


@pytest.mark.parametrize(
    ("lower", "upper"), [(0.1, 0.3), (1e15 - 0.125, 1e15), (-1e15, 1e15), (0.0, 5e-324), (1 / 3, 2 / 3)]
)
def test_no_patient_weighs_more_than_the_unit_whatever_the_range(
    ask: Ask, lower: float, upper: float
) -> None:
    for value in (lower, upper, (lower + upper) / 2, -1e15, 1e15):
        someone = [Human(1, conditions=((1, DAY),), labs=(Lab(21, DAY, value, None),))]
        count, first, second = ask(someone, Mean(OneValue(21), lower, upper))
        assert count == MEAN_UNIT
        assert abs(first) <= MEAN_UNIT
        assert 0 <= second <= MEAN_UNIT


def test_survival_at_the_edges_of_its_intervals(ask: Ask) -> None:
    late = date(2030, 1, 1)
    found = {
        "outcome before": followed(1, outcome=after(-1), end=late),
        "outcome that day": followed(2, outcome=DAY, end=late),
        "end that day": followed(3, end=DAY),
        "outcome on day 29": followed(4, outcome=after(29), end=late),
        "outcome on day 30": followed(5, outcome=after(30), end=late),
        "outcome and end on day 31": followed(6, outcome=after(31), end=after(31)),
        "outcome after the end": followed(7, outcome=after(40), end=after(35)),
        "end on day 69": followed(8, end=after(69)),
        "outcome on day 69": followed(9, outcome=after(69), end=late),
        "outcome on day 70": followed(10, outcome=after(70), end=late),
        "end on day 70": followed(11, end=after(70)),
        "not observed": followed(12, outcome=after(3), end=None),
        "observed before": followed(13, outcome=after(3), end=after(-1)),
    }
    three = Survival(OUTCOME, 70, 30)  # the third interval has ten days
    cells = {name: ask([human], three) for name, human in found.items()}
    place = {name: row.index(1) if any(row) else None for name, row in cells.items()}
    assert place == {
        "outcome before": None,
        "outcome that day": 0,
        "end that day": 3,
        "outcome on day 29": 0,
        "outcome on day 30": 1,
        "outcome and end on day 31": 1,
        "outcome after the end": 4,
        "end on day 69": 5,
        "outcome on day 69": 2,
        "outcome on day 70": 6,
        "end on day 70": 6,
        "not observed": None,
        "observed before": None,
    }
    assert ask(list(found.values()), three) == [2, 2, 1, 1, 1, 1, 2]


def test_overlapping_observation_periods_follow_to_the_latest_end_once(ask: Ask) -> None:
    both = ((date(2020, 1, 1), after(5)), (date(2020, 2, 1), after(40)), (after(60), after(90)))
    assert ask([Human(1, periods=both, conditions=((1, DAY),))], Survival(OUTCOME, 60, 30)) == [0, 0, 0, 1, 0]


def test_person_time_of_leap_years_and_of_parts(ask: Ask) -> None:
    years = Incidence(OUTCOME, 2019, 2021)
    w = person_time_unit(years)
    begin, late = date(2018, 7, 1), date(2022, 3, 1)
    assert ask([followed(1, index=begin, end=late)], years) == [0, 0, 0, w, w, w]
    # from 29 February on, 307 of the 366 days of 2020, and 59 of 2021
    until = date(2021, 2, 28)
    assert ask([followed(1, end=until)], years) == [0, 0, 0, 0, w * 307 // 366, w * 59 // 365]
    # within one period
    assert ask([followed(1, end=after(1))], years) == [0, 0, 0, 0, w * 2 // 366, 0]
    assert ask([followed(1, index=begin, end=date(2018, 12, 31))], years) == [0] * 6
    assert ask([followed(1, index=date(2022, 1, 1), end=late)], years) == [0] * 6
    # February 2020 has 29 days
    months = Incidence(OUTCOME, 2020, 2020, Step.MONTH)
    w = person_time_unit(months)
    found = ask([followed(1, index=date(2020, 2, 15), end=date(2020, 4, 10))], months)
    assert found == [0] * 12 + [0, w * 15 // 29, w, w * 10 // 30] + [0] * 8


def test_events_fall_into_the_period_of_their_day_and_end_the_risk(ask: Ask) -> None:
    years = Incidence(OUTCOME, 2019, 2021)
    w = person_time_unit(years)
    late = date(2030, 1, 1)

    def outcome(day: date) -> list[int]:
        return ask([followed(1, outcome=day, end=late)], years)

    assert outcome(after(-1)) == [0] * 6  # prevalent: not at risk
    assert outcome(DAY) == [0, UNIT, 0, 0, w // 366, 0]
    new_year = date(2021, 1, 1)
    assert outcome(new_year) == [0, 0, UNIT, 0, w * 307 // 366, w // 365]
    # an outcome after the last period is no event in it, and someone at risk throughout
    assert outcome(date(2022, 1, 1)) == [0, 0, 0, 0, w * 307 // 366, w]
    # an outcome that is not observed
    unseen = followed(1, outcome=date(2021, 6, 1), end=date(2020, 12, 31))
    assert ask([unseen], years) == [0, 0, 0, 0, w * 307 // 366, 0]
    # two people: each is rounded down alone
    assert ask([followed(1, end=after(0)), followed(2, end=after(1))], years)[4] == w // 366 + 2 * w // 366


def test_attrition_of_our_form_follows_the_order_asked_for(ask: Ask) -> None:
    cohort = Cohort.parse(
        {
            "index": {"kind": "condition", "concepts": [1]},
            "include": [
                {"kind": "drug", "concepts": [11], "window": {"from_days": 0, "to_days": 30}},
                {"kind": "sex", "concepts": [8532]},
            ],
            "exclude": [{"kind": "condition", "concepts": [3]}],
        }
    )
    drug_first, sex_second = cohort.include
    assert isinstance(drug_first, EventCriterion)
    assert isinstance(sex_second, SexCriterion)
    entry, drug = ((1, DAY),), ((11, after(3)),)
    found = [
        Human(1, ((8532, 1960),), conditions=entry, drugs=drug),
        Human(2, ((8507, 1960),), conditions=entry, drugs=drug),
        Human(3, ((8532, 1960),), conditions=entry, drugs=((11, after(-3)),)),
        Human(4, ((8532, 1960),), conditions=(*entry, (3, DAY)), drugs=drug),
        Human(5, ((8507, 1960),), conditions=(*entry, (3, DAY))),
        Human(6, ((8532, 1960),), drugs=drug),  # without index event: in no cell
    ]
    assert ask(found, Attrition(), cohort) == [2, 1, 1, 1]
    assert ask(found, Attrition((2, 1, 0)), cohort) == [2, 1, 1, 1]
    assert ask(found, Attrition((1, 2, 0)), cohort) == [2, 1, 1, 1]
    assert ask(found[:2], Attrition((1, 0, 2)), cohort) == [1, 0, 0, 1]
    assert ask(found[:2], Attrition((0, 2, 1)), cohort) == [0, 0, 1, 1]
    assert ask(found, Attrition(), INDEXED) == [5]
    assert ask(found, Count(), cohort) == [1]


def test_attrition_of_a_definition_counts_a_patients_best_event(ask: Ask) -> None:
    cohort = definition_of(
        [{"ConditionOccurrence": {"CodesetId": 0}}],
        limit="All",
        rules=[
            ({"DrugExposure": {"CodesetId": 2}}, (0, 10)),
            ({"Measurement": {"CodesetId": 3}}, (0, 10)),
        ],
    )

    def entered(number: int, *events: int, drugs: Sequence[int] = (), labs: Sequence[int] = ()) -> Human:
        return Human(
            number,
            conditions=tuple((1, after(day)) for day in events),
            drugs=tuple((11, after(day)) for day in drugs),
            labs=tuple(Lab(21, after(day), 1.0, 8840) for day in labs),
        )

    found = [
        entered(1, 0, 100, drugs=[105], labs=[106]),  # the second event passes both
        entered(2, 0, 100, drugs=[5], labs=[106]),  # each rule by another event: the first passes one
        entered(3, 0, labs=[5]),  # the second rule alone: none in order
        entered(4, drugs=[5], labs=[5]),  # no event: in no cell
    ]
    assert ask(found, Attrition(), cohort) == [1, 1, 1]
    assert ask(found, Count(), cohort) == [1]


EVERYTHING: tuple[Statistic, ...] = (
    Count(),
    Breakdown(By.SEX, total=True),
    Breakdown(By.AGE_BAND, edges=(18,)),
    Breakdown(By.YEAR, first_year=2020, last_year=2024),
    Histogram(OneValue(21), (0.0, 1.0)),
    Mean(OneValue(21, which=Which.MEAN, window=Window(0, 1)), 0.0, 1.0),
    Contingency(OUTCOME),
    Incidence(OUTCOME, 2020, 2021, Step.MONTH),
    Survival(OUTCOME, 365, 30),
    Attrition(),
    Feasibility(1),
)


@pytest.mark.parametrize("form", ["own", "circe"])
@pytest.mark.parametrize("statistic", EVERYTHING, ids=lambda statistic: statistic.kind)
def test_a_hospital_without_patients_answers_zeros(ask: Ask, statistic: Statistic, form: str) -> None:
    circe = definition_of([{"ConditionOccurrence": {"CodesetId": 0}}], rules=[])
    cohort = INDEXED if form == "own" else circe
    assert ask([], statistic, cohort) == [0] * len(statistics.labels(statistic, cohort))


def test_a_concept_that_nobody_knows_counts_nobody(ask: Ask) -> None:
    unknown = Cohort.parse({"index": {"kind": "condition", "concepts": [999_999], "descendants": True}})
    assert ask([followed(1, end=DAY)], Count(), unknown) == [0]


def test_what_cannot_be_answered_is_refused_with_a_code(tmp_path: Path) -> None:
    circe = definition_of([{"ConditionOccurrence": {"CodesetId": 0}}], rules=[])

    def code(cohort: Cohort | CirceCohort, statistic: Statistic, *, stopped: bool = False) -> RefusalCode:
        with closing(DuckDbWarehouse(store).engine(LIMITS)) as engine:
            if stopped:
                engine.interrupt()
            with pytest.raises(Refused) as refused:
                vector(cohort, statistic, engine)
        return refused.value.code

    with empty_store(tmp_path / "omop.duckdb") as store:
        assert code(INDEXED, Attrition((1, 0))) is RefusalCode.MALFORMED
        assert code(circe, Count()) is RefusalCode.UNKNOWN_CONCEPT  # the vocabulary is empty
        assert code(INDEXED, Count(), stopped=True) is RefusalCode.DEADLINE
        with closing(store.cursor()) as cursor:
            cursor.execute("DROP TABLE measurement")
        assert code(INDEXED, Histogram(OneValue(21), (0.0, 1.0))) is RefusalCode.NO_DATA
