"""Timing: a broad cohort takes longer to find than a rare one, and the moment an answer leaves may tell.

The attacker times one question and says "broad" if it took long; it has learnt what is long from questions
before. The times are those of a hospital's own SQL, in seconds of processor time so that a busy machine does
not decide; the grid is the one that answers leave on (node.ticks). The whole way, over real connections and
by the clock on the wall, is timed in tests/network/test_time_grid.py.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.omop.store import OmopStore
from node.queries.engine import Warehouse
from node.queries.vector import vector
from node.queries.warehouse import open_warehouse
from node.ticks import Ticks
from protocols.cohort import Cohort
from protocols.statistic import Count
from tests.node.engines import LIMITS
from tests.threats.games import Advantage

PEOPLE = 400_000  # two events each
BROAD, RARE = 501, 502
LEARN, JUDGE = 15, 60  # questions of each sort
GRID_S = 1.0  # far above what the slowest of these questions takes, as a hospital should choose it
TOO_FINE_S = 0.002  # far below


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """Half of all events are of a broad condition, ten of a rare one."""
    path: Path = tmp_path_factory.mktemp("timing") / "omop.duckdb"
    with contextlib.closing(OmopStore.open(path)) as store, contextlib.closing(store.cursor()) as cursor:
        cursor.execute(
            "INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id,"
            " condition_start_date, condition_type_concept_id)"
            " SELECT i, i % ?, CASE WHEN i < 10 THEN ? WHEN i % 2 = 0 THEN ? ELSE 503"
            " END, DATE '2020-01-01' + (i % 300)::INTEGER, 32817 FROM range(?) t(i)",
            [PEOPLE, RARE, BROAD, 2 * PEOPLE],
        )
        cursor.execute(
            "INSERT INTO person (person_id, gender_concept_id, year_of_birth, race_concept_id,"
            " ethnicity_concept_id) SELECT i, 8507, 1960, 0, 0 FROM range(?) t(i)",
            [PEOPLE],
        )
        cursor.execute(
            "INSERT INTO observation_period (observation_period_id, person_id, observation_period_start_date,"
            " observation_period_end_date, period_type_concept_id)"
            " SELECT i, i, DATE '2019-01-01', DATE '2022-01-01', 32817 FROM range(?) t(i)",
            [PEOPLE],
        )
    with contextlib.closing(open_warehouse(str(path), schema="main", limits=LIMITS)) as found:
        yield found


def durations(warehouse: Warehouse) -> dict[int, np.ndarray]:
    """Return how long questions about the broad and the rare cohort took, in turn."""
    found: dict[int, list[float]] = {BROAD: [], RARE: []}
    for n in range(2 * (LEARN + JUDGE) + 2):
        concept = (BROAD, RARE)[n % 2]
        cohort = Cohort.parse({"index": {"kind": "condition", "concepts": [concept, 10_000 + n]}})
        start = time.process_time()
        with contextlib.closing(warehouse.engine(LIMITS)) as engine:
            vector(cohort, Count(), engine)
        if n >= 2:  # the first of each compiles the statement
            found[concept].append(time.process_time() - start)
    return {concept: np.array(times) for concept, times in found.items()}


def attack(times: dict[int, np.ndarray]) -> Advantage:
    """Learn from the first questions how long a broad cohort takes, and judge the others by it."""
    broad, rare = (np.median(times[concept][:LEARN]) for concept in (BROAD, RARE))
    threshold = (broad + rare) / 2.0
    return Advantage.of(times[BROAD][LEARN:] > threshold, times[RARE][LEARN:] > threshold)


def test_the_time_of_an_answer_tells_a_rare_cohort_from_a_broad_one_but_not_on_a_grid(
    warehouse: Warehouse,
) -> None:
    taken = durations(warehouse)

    def on_grid(every_s: float) -> Advantage:
        """Each question is accepted at a moment of its own, and its answer leaves at a tick from then on."""
        left = {}
        for concept, times in taken.items():
            accepted = np.random.default_rng(concept).uniform(0.0, 1_000.0, len(times))
            left[concept] = np.array(
                [
                    Ticks(start_s=at, every_s=every_s).next(at + took) - at
                    for at, took in zip(accepted, times, strict=True)
                ]
            ).round(9)
        return attack(left)

    at_once, hidden, fine = on_grid(0.0), on_grid(GRID_S), on_grid(TOO_FINE_S)
    medians = " and ".join(f"{1000 * np.median(taken[concept]):.0f}" for concept in (RARE, BROAD))
    print(
        f"{f'timing, rare or broad ({medians} ms)':<62} {hidden.value:6.3f}"
        f" [{hidden.low:6.3f}, {hidden.high:6.3f}]  bound 0 within one tick of {GRID_S:g} s"
        f"  ticks of {1000 * TOO_FINE_S:g} ms {fine.value:.3f}  unprotected {at_once.value:.3f}"
    )
    assert hidden.value == 0.0, "both leave at the first tick"
    assert at_once.low > 0.2, "the control: without a grid the time tells"
    assert fine.low > 0.2, "a grid finer than the difference hides nothing"
