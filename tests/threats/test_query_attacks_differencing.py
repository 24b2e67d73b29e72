"""Differencing: two nested cohorts, of which one patient is the difference, in each of the nine statistics.

The patient is the only one aged 91 of those with the index event. The attacker asks about the whole cohort
and about the cohort without that age, at two of whose four hospitals the patient may be known; it knows the
records of everybody else, and judges by both answers at once. Both are charged.
"""

from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from node.omop.store import OmopStore
from node.queries.vector import vector
from node.queries.warehouse import open_warehouse
from privacy import sensitivity
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
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
    Survival,
)
from tests.node.engines import LIMITS
from tests.node.patients import AF, DAY, HEART_FAILURE, SBP, Patient, fill
from tests.threats import peers
from tests.threats.games import Advantage, Cells, bounds, evidence, question, released, report

PEOPLE, GAMES = 30, 25_000
INDEX = {"kind": "condition", "concepts": [AF]}
WHOLE = Cohort.parse({"index": INDEX})
NESTED = Cohort.parse({"index": INDEX, "exclude": [{"kind": "age", "min_years": 91, "max_years": 91}]})
OUTCOME = Cohort.parse({"index": {"kind": "condition", "concepts": [HEART_FAILURE]}})
PRESSURE = OneValue(SBP)
STATISTICS: tuple[Statistic, ...] = (
    Count(),
    Breakdown(By.SEX, total=True),
    Breakdown(By.SITE_COUNT_BAND, edges=(PEOPLE + 1,)),
    Histogram(PRESSURE, (100.0, 120.0, 140.0, 160.0)),
    Mean(PRESSURE, 80.0, 200.0),
    Contingency(OUTCOME),
    Incidence(OUTCOME, 2020, 2022),
    Survival(OUTCOME, 360, 90),
    Attrition(),
    Feasibility(PEOPLE + 1),
)


def named(statistic: Statistic) -> str:
    """Return its kind, and by what it splits."""
    return f"{statistic.kind} by {statistic.by}" if isinstance(statistic, Breakdown) else statistic.kind


def someone(number: int) -> Patient:
    """A patient between 40 and 69 with a blood pressure, every third with the outcome."""
    ill = [(HEART_FAILURE, DAY + timedelta(days=30 * number))] if number % 3 == 0 else []
    pressure = [(SBP, 100.0 + 2 * number, DAY)]
    return Patient(number, born=1951 + number, sex=8507 + 25 * (number % 2), measurements=pressure,
                   conditions=[(AF, DAY), *ill])  # fmt: skip


TARGET = Patient(
    1_000,
    born=DAY.year - 91,
    sex=8507,
    measurements=[(SBP, 200.0, DAY)],
    conditions=[(AF, DAY), (HEART_FAILURE, date(2020, 12, 24))],
)


class World:
    """The exact totals of four hospitals, two of which know the patient if there is one."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[tuple[Statistic, Cohort, bool], Cells] = {}
        self._paths = {}
        for target in (True, False):
            self._paths[target] = folder / f"{target}.duckdb"
            with OmopStore.open(self._paths[target], threads=1) as store:
                fill(store, [someone(number) for number in range(PEOPLE)] + [TARGET] * target)

    def one(self, asked: Question, *, target: bool) -> Cells:
        """Return the exact vector of one hospital, by the node's own queries."""
        key = (asked.statistic, asked.cohort, target)
        if key not in self._found:
            path = str(self._paths[target])
            with (
                closing(open_warehouse(path, schema="main", limits=LIMITS)) as opened,
                closing(opened.engine(LIMITS)) as engine,
            ):
                self._found[key] = vector(asked.cohort, asked.statistic, engine)
        return self._found[key]

    def vectors(self, asked: Question, *, target: bool) -> list[Cells]:
        """Return the exact vectors of the four hospitals."""
        return [self.one(asked, target=target and site < 2) for site in range(4)]

    def totals(self, asked: Question) -> tuple[Cells, Cells]:
        """Return the exact totals with the patient and without."""
        found = [np.sum(self.vectors(asked, target=target), axis=0) for target in (True, False)]
        return found[0], found[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("differencing"))


def attack(world: World, pair: list[Question], *, seed: int, games: int = GAMES) -> Advantage:
    """Ask both questions and weigh both answers."""
    says = []
    for target in (True, False):
        heard = np.zeros(games)
        for place, asked in enumerate(pair):
            when_in, when_out = world.totals(asked)
            vectors = world.vectors(asked, target=target)
            totals = released(asked, vectors, games=games, seed=seed + 2 * place + target)
            heard += evidence(asked, totals, when_in=when_in, when_out=when_out)
        says.append(heard > 0)
    return Advantage.of(*says)


def unblurred(world: World, pair: list[Question]) -> float:
    """Return the advantage of the same attack on exact totals."""
    says = []
    for target in (0, 1):  # places in `totals`
        heard = 0.0
        for asked in pair:
            when_in, when_out = found = world.totals(asked)
            exact = found[target][np.newaxis].astype(float)
            heard += float(evidence(asked, exact, when_in=when_in, when_out=when_out)[0])
        says.append(heard > 0)
    return float(says[0]) - float(says[1])


def test_every_statistic_is_attacked() -> None:
    assert {statistic.kind for statistic in STATISTICS} == set(KINDS)


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda statistic: named(statistic))
def test_differencing_nested_cohorts_stays_within_what_both_were_charged(
    world: World, statistic: Statistic, mechanism: Mechanism
) -> None:
    """And exact answers, as behind a threshold alone, show the patient every time."""
    pair = [
        question(statistic, cohort=cohort, mechanism=mechanism, epsilon=1.0) for cohort in (WHOLE, NESTED)
    ]
    for asked in pair:
        when_in, when_out = world.totals(asked)
        assert np.abs(when_in - when_out).sum() <= sensitivity.of(asked).l1
        assert np.linalg.norm(when_in - when_out) <= sensitivity.of(asked).l2

    reached = attack(world, pair, seed=100 + 10 * STATISTICS.index(statistic))
    exact, allowed = bounds(pair[0], releases=2)
    report(
        f"differencing, {named(statistic)}, {mechanism}, 2 × ε 1",
        reached,
        bound=exact,
        promised=allowed,
        without=unblurred(world, pair),
    )
    assert unblurred(world, pair) == 1.0
    assert reached.low > 0.0, "the attack gains something: that is what ε says"


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda statistic: named(statistic))
def test_differencing_in_many_more_games(world: World, statistic: Statistic, mechanism: Mechanism) -> None:
    pair = [
        question(statistic, cohort=cohort, mechanism=mechanism, epsilon=2.0) for cohort in (WHOLE, NESTED)
    ]
    reached = attack(world, pair, seed=500 + 10 * STATISTICS.index(statistic), games=150_000)
    exact, allowed = bounds(pair[0], releases=2)
    title = f"differencing, {named(statistic)}, {mechanism}, 2 × ε 2"
    report(title, reached, bound=exact, promised=allowed, without=unblurred(world, pair))
    assert reached.low > 0.3 * exact


def test_differencing_finds_the_patient_behind_thresholds_and_noise_that_follows_the_count() -> None:
    """The same two questions to others: DataSHIELD's threshold, SHRINE's noise, Focus's cache."""
    rng, games = np.random.default_rng(5), 20_000
    exact = [peers.datashield(PEOPLE + 1) != peers.datashield(PEOPLE), False]
    print(f"{'differencing, DataSHIELD':<62} {float(exact[0] and not exact[1]):6.3f}")
    assert exact == [True, False]

    equal = []
    for target in (1, 0):  # Focus: answers to equal counts are equal, to others they need not be
        answers = peers.focus([PEOPLE + 5 + target, PEOPLE + 5], games, rng=rng)
        equal.append(answers[:, 0] == answers[:, 1])
    focus = Advantage.of(~equal[0], ~equal[1])
    tens = Advantage.of(~equal[0].reshape(-1, 10).all(axis=1), ~equal[1].reshape(-1, 10).all(axis=1))
    print(f"{'differencing, Focus, one pair':<62} {focus.value:6.3f}")
    print(f"{'differencing, Focus, ten pairs':<62} {tens.value:6.3f}")
    assert focus.low > 0.4
    assert tens.low > 0.98

    differences = []
    for target in (1, 0):
        pairs = [peers.shrine(count, (1_000, 2_000), rng=rng) for count in (PEOPLE + target, PEOPLE)]
        differences.append((pairs[0] - pairs[1]).mean(axis=1))
    shrine = Advantage.of(differences[0] > 0.5, differences[1] > 0.5)
    print(f"{'differencing, SHRINE, 2,000 pairs':<62} {shrine.value:6.3f}")
    assert shrine.low > 0.9
