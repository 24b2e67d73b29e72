"""A consortium that stands while the tests of one module ask it: people whose statistics an oracle knows."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from node import running
from node.running import Parts, RunningNode
from privacy.reading import Answer
from protocols import statistic_form
from protocols.circe import CirceCohort, cohort_from_json
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
from tests.circe_forms import NEW_CONCEPT, concept_set, definition
from tests.consortium import LoopThread, T
from tests.network.consortium import CLOCK, PROJECT, Consortium, until
from tests.node.oracle import Oracle
from tests.node.people import (
    ANCESTORS,
    CONDITIONS,
    DAY_0,
    DRUGS,
    LABS,
    UNITS,
    Human,
    Lab,
    cleared,
    empty_store,
)

SITES = 4
EPOCH_EVERY_S = 0.2
LATE = {"index": {"kind": "condition", "concepts": [1, 2]}, "include": [{"kind": "age", "min_years": 30}]}
DRUG = {"index": {"kind": "drug", "concepts": [11]}}
CIRCE = definition(
    {"ConditionOccurrence": {"CodesetId": 0}},
    sets=[concept_set(0, [1, 2])],
    AdditionalCriteria={
        "Type": "ALL",
        "CriteriaList": [],
        "DemographicCriteriaList": [{"Age": {"Value": 30, "Op": "gte"}}],
        "Groups": [],
    },
)


def people(site: int) -> list[Human]:
    """The people of one hospital: other ones and more of them at each, the same in every run."""
    rng = np.random.default_rng(1_000 + site)

    def day() -> date:
        return DAY_0 + timedelta(days=int(rng.integers(0, 500)))

    return [
        Human(
            n + 1,
            rows=((int(rng.choice([8507, 8532, 8551], p=[0.45, 0.45, 0.1])), int(rng.integers(1940, 2005))),),
            conditions=tuple((int(rng.choice(CONDITIONS)), day()) for _ in range(rng.integers(0, 4))),
            drugs=tuple((int(rng.choice(DRUGS)), day()) for _ in range(rng.integers(0, 2))),
            labs=tuple(
                Lab(int(rng.choice(LABS)), day(), int(rng.integers(0, 65)) / 8, UNITS[0])
                for _ in range(rng.integers(0, 3))
            ),
        )
        for n in range(300 + 100 * site)
    ]


class Standing:
    """A consortium that serves in a thread of its own. Its parts may be stopped and started."""

    def __init__(self, consortium: Consortium, loop: LoopThread, *, grid_ms: int) -> None:
        self.consortium = consortium
        self.loop = loop
        self.nodes: dict[int, RunningNode] = {}
        self._running: dict[int | str, AbstractAsyncContextManager[Any]] = {}
        self.start_coordinator()
        self.do(consortium.enrol_all())
        for site in range(consortium.sites):
            fill(consortium, site)
            generous(consortium, site, grid_ms=grid_ms)
            self.start(site, wait=False)
        self.connected(consortium.sites)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(what, timeout_s=120)

    def until(self, holds: Callable[[], bool]) -> None:
        self.do(until(holds))

    def connected(self, sites: int) -> None:
        """Wait until so many nodes are connected, each with an epoch."""
        self.until(lambda: len(self.serving.desk._epochs._of) == sites)

    # ---- parts ----

    def start_coordinator(self) -> None:
        context = self._running["coordinator"] = self.consortium.coordinator()
        self.serving = self.do(_entered(context))

    def start(
        self, site: int, make: Callable[[Parts], RunningNode] = RunningNode, *, wait: bool = True
    ) -> None:
        """Start a node; with `wait`, until it is connected."""
        before = len(self.serving.broker.connected())
        context = self._running[site] = self.consortium.nodes(site, make=make)
        (self.nodes[site],) = self.do(_entered(context))
        if wait:
            self.until(lambda: len(self.serving.broker.connected()) == before + 1)

    def stop(self, part: int | str) -> None:
        """Stop a node, by its site, or the coordinator, and wait until everybody knows."""
        self.do(_left(self._running.pop(part)))
        if part != "coordinator":
            running = len(self._running) - ("coordinator" in self._running)
            self.until(lambda: len(self.serving.broker.connected()) == running)

    def end(self) -> None:
        for part in reversed(list(self._running)):
            self.do(_left(self._running.pop(part)))

    # ---- what tests look at ----

    def ask(self, question: Question) -> Answer:
        return self.do(self.consortium.ask(question))

    def knows(self, person: str) -> None:
        """Wait until every node has the roster with this person."""
        for node in self.nodes.values():
            self.until(lambda node=node: person in node._parts.roster().active_people)  # type: ignore[misc]

    def spent(self) -> list[int]:
        return [self.consortium.spent(site) for site in range(self.consortium.sites)]


async def _entered(context: AbstractAsyncContextManager[T]) -> T:
    return await context.__aenter__()


async def _left(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aexit__(None, None, None)


def question(
    statistic: dict[str, Any],
    *,
    cohort: dict[str, Any] = LATE,
    pure: bool = False,
    epsilon: float = 1.0,
    **changes: Any,
) -> Question:
    """A question about one of the forms above."""
    fields: dict[str, Any] = {"project": PROJECT, "max_sites_per_patient": 1, "now": CLOCK.now()}
    fields["delta"] = 0.0 if pure else 1e-6
    return Question.ask(
        cohort_from_json(cohort),
        statistic=statistic_form.parse(statistic),
        mechanism=Mechanism.LAPLACE if pure else Mechanism.GAUSSIAN,
        epsilon=epsilon,
        **(fields | changes),
    )


def truth(asked: Question, *sites: int) -> np.ndarray:
    """The exact total over the hospitals, from the definitions in plain Python."""
    cohort = asked.cohort
    if isinstance(cohort, CirceCohort):
        cohort = Cohort.parse(LATE)
    vectors = [
        Oracle(people(site), ANCESTORS).vector(cohort, asked.statistic) for site in sites or range(SITES)
    ]
    return np.array(vectors).sum(axis=0)


def generous(consortium: Consortium, site: int, *, grid_ms: int = 0) -> None:
    """Let a hospital's policy allow what a module full of tests asks for."""
    path = consortium.node(site).policy
    text = path.read_text()
    for before, after in (
        ("max_epsilon = 2.0", "max_epsilon = 8.0"),
        ("epsilon_total = 20.0", "epsilon_total = 70.0"),
        ('"*" = 10.0', '"*" = 70.0'),
        ('"*" = 20.0', '"*" = 70.0'),
        ("answer_grid_ms = 50", f"answer_grid_ms = {grid_ms}"),
    ):
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def fill(consortium: Consortium, site: int) -> None:
    """Put the people of one hospital, and words for their conditions, into its store."""
    path = consortium.node(site).store
    path.unlink(missing_ok=True)
    with contextlib.closing(empty_store(path)) as store, contextlib.closing(store.cursor()) as cursor:
        cursor.executemany(NEW_CONCEPT, [(concept,) for concept in CONDITIONS])
        cleared(cursor, people(site))


@contextlib.contextmanager
def standing(folder: Path, *, sites: int = SITES, grid_ms: int = 0) -> Iterator[Standing]:
    """Found a consortium, fill its stores, serve all of it until the block is left."""
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    loop = LoopThread()
    before, running.EPOCH_EVERY_S = running.EPOCH_EVERY_S, EPOCH_EVERY_S
    found = None
    try:
        found = Standing(consortium, loop, grid_ms=grid_ms)
        yield found
    finally:
        running.EPOCH_EVERY_S = before
        if found is not None:
            found.end()
        loop.close()


async def together(*what: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines at the same time."""
    return list(await asyncio.gather(*what))
