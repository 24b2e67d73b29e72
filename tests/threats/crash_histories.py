"""Runs seeded histories of a node that is killed again and again, and prints what was found as JSON.

    python -m tests.threats.crash_histories FOLDER FIRST LAST VARIANT...

A process of its own that runs nothing but this: each life is a fork of it, so that nothing is imported twice.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.question_book import QuestionBook
from node.omop.store import OmopStore
from node.policy import Policy, starter
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.vector import vector
from privacy import release
from privacy.accountant import GaussianEvent, PureEvent, epsilon
from protocols.cohort import Cohort
from protocols.ids import ConsortiumId, NodeId, QuestionId
from protocols.peer import Role
from protocols.question import Mechanism, Question
from protocols.roster import PersonEntry, Roster, Settings
from protocols.statistic import Breakdown, By, Count
from protocols.wire import fedtwin_pb2 as pb
from tests.node.patients import AF, DAY, Patient, fill
from tests.threats.crash_coordinator import Ask
from tests.threats.crash_oracle import Invariant, Oracle
from tests.threats.crash_points import FLOW, IDLE, LEDGER, NOWHERE, OPENING, RECORDS
from tests.threats.crash_variants import VARIANTS
from tests.threats.crashing_node import LIMITS, Consortium, Life, Parts, Step, live

PATIENTS = 57  # with the condition, at the hospital that is killed
COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [AF]}})
STATISTICS = (Count(), Breakdown(By.SEX, total=True))
PEOPLE = {"ada": ("heart", "lung"), "bo": ("lung",), "desk": ("heart",), "zoe": ("last",)}
ASKERS = (("ada", None), ("bo", None), ("desk", "eve"), ("desk", "fay"))  # who signs, and for whom
PRICES = (0.2, 0.3, 0.5)
DELTA = 1e-6
CAPS = {"node": 1.8, "dataset": 1.6, "project": 1.2, "researcher": 0.9}
MEANT = ("project", "statistic", "mechanism", "epsilon", "delta", "on_behalf_of")
SETTING = bytes(32)  # the hospitals and their data stay as they are
MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)  # a month ends in many histories
HOWS = (
    ("answer", 1, 4),
    ("answer", 2, 3),
    ("answer_without_one", 1, 2),
    ("abandon", 1, 2),
    ("try_again", 1, 3),
    ("hold", 1, 1),
    ("cancel", 1, 1),
    ("cancel_late", 1, 1),
    ("expire", 1, 1),
    ("expire_beside", 2, 1),
    ("repeat_everything", 1, 1),
    ("lose_the_stream", 1, 1),
)  # what a coordinator does, with how many questions, and how often
TEAR = 4_120  # bytes: one page of SQLite's log with its header; a record takes one at least
GROUPS = ((FLOW, 8), (LEDGER, 5), (RECORDS, 9), (OPENING, 1), ((IDLE,), 1), ((NOWHERE,), 1))


def policy(*, more: float = 0.0) -> Policy:
    """The demo policy without a grid of time and with caps that are reached, two of them by the month."""
    text = starter("demo").decode().replace("answer_grid_ms = 50", "answer_grid_ms = 0")
    text = text.replace('projects = "never"', 'projects = "monthly"')
    text = text.replace('researchers = "never"', 'researchers = "monthly"')
    found = Policy.parse(text.encode())
    return replace(
        found,
        epsilon_total=CAPS["node"] + more,
        epsilon_by_dataset={"*": CAPS["dataset"] + more},
        epsilon_by_project={"*": CAPS["project"]},
        epsilon_by_researcher={"*": CAPS["researcher"]},
    )


def found(folder: Path) -> tuple[Consortium, dict[str, Ed25519PrivateKey]]:
    """Make the hospital's store, everybody's keys, and what is warm in a node that was asked before."""
    store = folder / "omop.duckdb"
    with closing(OmopStore.open(store, threads=1)) as filling:
        fill(filling, [Patient(n + 1, conditions=[(AF, DAY)] if n < PATIENTS else []) for n in range(80)])
    with closing(DuckDbWarehouse.open(store, schema="main", limits=LIMITS)) as warehouse:
        for statistic in STATISTICS:
            with closing(warehouse.engine(LIMITS)) as engine:
                vector(COHORT, statistic, engine)
        statements = warehouse._statements
    keys = {NodeId.new(): Ed25519PrivateKey.generate() for _ in range(4)}
    people = {name: Ed25519PrivateKey.generate() for name in sorted(PEOPLE)}
    entries = tuple(
        PersonEntry(name, Role.RESEARCHER, key.public_key().public_bytes_raw(), PEOPLE[name])
        for name, key in people.items()
    )
    settings = Settings("Crashes", minimum_sites=3, tolerance=1)
    roster = Roster(ConsortiumId.new(), 1, MIDNIGHT - timedelta(days=30), settings, people=entries)
    return Consortium(keys, sorted(keys)[1], roster, store, statements), people


class History:
    """One ledger, several lives. `figures` counts what happened, `broken` what should not have."""

    def __init__(
        self,
        seed: int,
        parts: Parts,
        consortium: Consortium,
        people: dict[str, Ed25519PrivateKey],
        folder: Path,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.parts = parts
        self.consortium, self.people = consortium, people
        self.path = folder / f"{seed}.sqlite"
        self.now = MIDNIGHT - timedelta(minutes=int(self.rng.integers(5, 60)))
        self.oracle = Oracle(self.path, patients=PATIENTS)
        self.book = QuestionBook(Path(":memory:"))
        self.signed: list[tuple[Question, bytes, str]] = []  # question, envelope, signer: what was asked
        self.offers: Counter[QuestionId] = Counter()
        self.kills: Counter[str] = Counter()

    def run(self) -> None:
        """Live until the end or until something is broken."""
        untouched = self._sign(self._question("zoe", None, "last"), "zoe")
        for _ in range(int(self.rng.integers(3, 6))):
            self._life(self._plan(), *self._crash(), policy())
            if self.oracle.broken:
                return
            self.now += timedelta(minutes=int(self.rng.choice([0, 1, 3, 12])))
        self._must_answer(untouched)
        self.book.close()

    def _must_answer(self, asked: tuple[Question, bytes]) -> None:
        """At the end, in a life that is not cut short, a question that no life has seen is answered."""
        self._life([self._step("answer", [asked])], NOWHERE, 1, policy(more=1.0))
        usable = str(asked[0].question_id) in self.oracle.answers
        held = [name for name, known in self.oracle.known.items() if known.held is not None]
        if not self.oracle.broken and (not usable or held):
            self.oracle.broken.append((Invariant.USABLE, f"the last question: {usable}, still held: {held}"))

    # ---- what is asked ----

    def _plan(self) -> list[Step]:
        steps = []
        for _ in range(int(self.rng.integers(2, 5))):
            weights = np.array([weight for _, _, weight in HOWS], dtype=float)
            how, count, _ = HOWS[int(self.rng.choice(len(HOWS), p=weights / weights.sum()))]
            asked = [pair for pair in (self._next() for _ in range(count)) if pair is not None]
            if len({question.question_id for question, _ in asked}) == count:
                steps.append(self._step(how, asked))
        return steps

    def _next(self) -> tuple[Question, bytes] | None:
        """Return a new question, or an earlier one again; None if the coordinator has the answer stored."""
        if self.signed and self.rng.random() < 0.4:
            question, envelope, _ = self.signed[int(self.rng.integers(len(self.signed)))]
            return question, envelope
        signer, subject = ASKERS[int(self.rng.integers(len(ASKERS)))]
        question = self._question(signer, subject, str(self.rng.choice(PEOPLE[signer])))
        if self.signed and self.rng.random() < 0.2:  # the same in other words, by who asked it before
            earlier, _, signer = self.signed[int(self.rng.integers(len(self.signed)))]
            question = replace(question, **{name: getattr(earlier, name) for name in MEANT})
        envelope = self._sign(question, signer)[1]
        stored = self.book.stored(question.meaning(), setting=SETTING)
        meaning = question.meaning()
        self.book.asked(
            question, researcher=signer, envelope=envelope, meaning=meaning, price=release.price(question)
        )
        if stored is not None:
            self.oracle.figures["given again from the store"] += 1
            self.book.repeated(question.question_id, stored)
            return None
        self.signed.append((question, envelope, signer))
        return question, envelope

    def _question(self, signer: str, subject: str | None, project: str) -> Question:
        mechanism = Mechanism.LAPLACE if self.rng.random() < 0.4 else Mechanism.GAUSSIAN
        asked = Question.ask(
            COHORT,
            project=project,
            epsilon=float(self.rng.choice(PRICES)),
            delta=0.0 if mechanism is Mechanism.LAPLACE else DELTA,
            max_sites_per_patient=1,
            now=self.now,
            statistic=STATISTICS[int(self.rng.integers(len(STATISTICS)))],
            mechanism=mechanism,
            lifetime=timedelta(minutes=20) if project != "last" else timedelta(hours=20),
            attempts=int(self.rng.integers(1, 3)),
            on_behalf_of=subject,
        )
        return replace(asked, question_id=QuestionId(self.rng.bytes(16)))

    def _sign(self, question: Question, signer: str) -> tuple[Question, bytes]:
        return question, question.signed(signer=signer, key=self.people[signer])

    def _step(self, how: str, asked: list[tuple[Question, bytes]]) -> Step:
        asks = []
        for question, envelope in asked:
            self.oracle.offered(question)
            before = self.offers[question.question_id]
            self.offers[question.question_id] += 1
            attempt = before + 1 if before < 2 and self.rng.random() < 0.9 else 1
            asks.append(Ask(question, envelope, attempt))
        return Step(how, tuple(asks))

    # ---- lives ----

    def _crash(self) -> tuple[str, int]:
        weights = np.array([weight for _, weight in GROUPS], dtype=float)
        points: tuple[str, ...] = GROUPS[int(self.rng.choice(len(GROUPS), p=weights / weights.sum()))][0]
        if points is RECORDS and self.path.exists():
            points = tuple(point for point in points if not point.startswith("opened"))
        return points[int(self.rng.integers(len(points)))], int(self.rng.choice([1, 1, 1, 2]))

    def _life(self, steps: list[Step], point: str, nth: int, rules: Policy) -> None:
        life = Life(
            steps=tuple(steps),
            point=point,
            nth=nth,
            tear=int(self.rng.integers(1, TEAR)),
            now=self.now,
            policy=rules,
            dataset="registry" if self.rng.random() < 0.1 else "cdm",
            accounts=self.oracle.accounts(),
        )
        events, status = forked(lambda handle: live(self.consortium, self.path, life, self.parts, handle))
        self.oracle.after(life, events)
        self._count(life, events, status)
        self.now += timedelta(minutes=4 * sum(step.how.startswith("expire") for step in steps))
        for event in (event for event in events if event["what"] == "answered"):
            name = QuestionId(bytes.fromhex(event["question"]))
            answer = pb.Answer(question_id=name.raw, scaled_totals=event["totals"])
            self.book.finished(name, answer, setting=SETTING)

    def _count(self, life: Life, events: list[dict[str, Any]], status: int) -> None:
        """Note where the life ended. What neither died of a signal nor stopped is a fault."""
        said = [event["what"] for event in events]
        self.oracle.figures["lives"] += 1
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXFSZ):
            self.kills[life.point if "dying" in said else IDLE] += 1
            self.oracle.figures["writes torn by the kernel"] += os.WTERMSIG(status) == signal.SIGXFSZ
        elif status == 0 and said[-1:] == ["stopped"]:
            self.kills[NOWHERE] += 1
        elif "failed" not in said:
            self.oracle.broken.append((Invariant.USABLE, f"a life ended with status {status}"))


def forked(work: Any) -> tuple[list[dict[str, Any]], int]:
    """Do `work(handle)` in a child. Returns the lines that it wrote and how it ended."""
    listen, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listen)
        status = 1
        try:
            work(say)
            status = 0
        except BaseException:
            trace = traceback.format_exc()[-2_000:]
            os.write(say, json.dumps({"what": "failed", "trace": trace}).encode() + b"\n")
        finally:
            os._exit(status)
    os.close(say)
    with os.fdopen(listen) as lines:
        events = [json.loads(line) for line in lines]
    return events, os.waitpid(child, 0)[1]


def many(
    seeds: range,
    variant: str,
    consortium: Consortium,
    people: dict[str, Ed25519PrivateKey],
    folder: Path,
) -> dict[str, Any]:
    """Run these histories of one variant. One that is wrong is left once it was caught as it must be."""
    parts, caught = VARIANTS[variant]
    kills: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    broken: list[tuple[int, str, str]] = []
    begun = time.monotonic()
    for seed in seeds:
        history = History(seed, parts, consortium, people, folder)
        history.run()
        kills += history.kills
        figures += history.oracle.figures
        figures["histories"] += 1
        broken += [(seed, invariant.value, text) for invariant, text in history.oracle.broken]
        for file in folder.glob(f"{seed}.sqlite*"):
            file.unlink()
        if caught and caught <= {invariant for _, invariant, _ in broken}:
            break
    seconds = time.monotonic() - begun
    return {"kills": kills, "figures": figures, "broken": broken, "seconds": seconds}


def main() -> None:
    folder, first, last, variants = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    consortium, people = found(folder)
    epsilon([PureEvent(0.2), GaussianEvent(9.0)], delta=DELTA)  # takes seconds the first time
    gc.collect()
    gc.freeze()  # so that a child's collector copies nothing
    done = {name: many(range(first, last), name, consortium, people, folder) for name in variants}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
