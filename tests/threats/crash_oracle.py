"""What must hold after each death of a node, judged from outside: its file's rows, and what had left it.

The rows are read with sqlite3 and added up here; of the ledger under test only `verify` and what it says was
spent are used, to be held against that. Composition itself is privacy.accountant's (it has oracles of its
own).
"""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from privacy import release
from privacy.accountant import epsilon, event_from_json
from privacy.budget import Account, Caps, Selection
from privacy.chain import ChainBroken
from privacy.ledger import RESTART, Ledger
from protocols.clock import FixedClock
from protocols.question import Question
from tests.threats.crash_coordinator import TOLERANCE
from tests.threats.crashing_node import Life

ROUNDING = 1e-9  # two ways of adding the same events up may differ in their last digits
FAR = 10  # standard deviations: no honest answer is so far off in a thousand million


class Invariant(StrEnum):
    """What must hold after every life."""

    SPENT = "what was spent never decreases"
    PAID = "every input that left was charged before"
    MARKED = "all shares that left were marked before"
    ONCE = "a question is answered once, and charged as often as it was signed for"
    CAPS = "no cap is exceeded"
    VERIFIES = "the ledger verifies"
    GIVEN_BACK = "what died uncommitted is given back, and nothing else"
    USABLE = "the node opens, and answers rightly"


@dataclass
class Known:
    """One question id, as the rows tell."""

    held: dict[str, Any] | None = None  # the row of its open reservation
    commits: list[int] = field(default_factory=list)  # numbers of rows
    mark: int | None = None
    inputs: int = 0
    shares: int = 0


class Oracle:
    """The judge of one history."""

    def __init__(self, path: Path, *, patients: int) -> None:
        self.broken: list[tuple[Invariant, str]] = []
        self.figures: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        self.known: dict[str, Known] = {}
        self.questions: dict[str, Question] = {}  # by id; those that were never offered are not here
        self.answers: dict[str, dict[str, Any]] = {}
        self._path, self._patients = path, patients
        self._contexts: dict[str, str] = {}  # what a masked input is bound to, and the question's id
        self._sums: dict[tuple[str, int], str] = {}
        self._spent: list[tuple[Account, dict[str, Any], datetime]] = []  # account, event, when
        self._said: dict[Any, float] = {}  # the largest ε that was ever said, by whom

    def offered(self, question: Question) -> None:
        """Let a question reach the node from now on."""
        self.questions[str(question.question_id)] = question
        for attempt in range(1, 4):
            context = question.context(attempt=attempt, tolerance=TOLERANCE)
            self._contexts[context.hex()] = str(question.question_id)

    def accounts(self) -> tuple[Account, ...]:
        """Who was charged so far."""
        return tuple({account for account, _, _ in self._spent})

    def after(self, life: Life, events: list[dict[str, Any]]) -> None:
        """Judge one life by what left in it and by what its file holds now."""
        held = {name for name, known in self.known.items() if known.held is not None}
        self._opened(life, events, held)
        new = self._read()
        for row in new:
            self._row(row, life, held)
        if any(event["what"] == "opened" for event in events):
            self._must(not held, Invariant.GIVEN_BACK, "a node opened and left what no process holds")
        for event in events:
            self._event(event)
        if events and events[-1]["what"] == "stopped":
            left = [name for name, known in self.known.items() if known.held is not None]
            self._must(not left, Invariant.GIVEN_BACK, "a node stopped and left something held")
        self._verify(life)

    # ---- what left ----

    def _opened(self, life: Life, events: list[dict[str, Any]], held: set[str]) -> None:
        """Hold what the opened node believes was spent against the rows of the lives before."""
        for event in (event for event in events if event["what"] == "opened"):
            for project, researcher, dataset, releases, said in event["spent"]:
                account = Account(project, researcher, dataset)
                charged = sum(whose == account for whose, _, _ in self._spent)
                self._must(releases == charged, Invariant.SPENT, f"{charged} charges, {releases} remembered")
                self._no_less(account, said)

    def _event(self, event: dict[str, Any]) -> None:
        match event["what"]:
            case "input":
                self.figures["inputs"] += 1
                name = self._contexts.get(event["context"], "")
                self._sums[event["session"], event["step"]] = name
                known = self.known.get(name, Known())
                known.inputs += 1
                paid = sum(seq <= event["durable"] for seq in known.commits)
                self._must(paid >= known.inputs, Invariant.PAID, f"{known.inputs} inputs, {paid} charges")
                self._must(known.shares == 0, Invariant.ONCE, "an input left after the answer")
            case "shares":
                self.figures["shares"] += 1
                known = self.known.get(self._sums.get((event["session"], event["step"]), ""), Known())
                known.shares += 1
                marked = known.mark is not None and known.mark <= event["durable"]
                self._must(marked, Invariant.MARKED, "shares left and no mark was durable")
                self._must(known.shares == 1, Invariant.ONCE, "shares left twice")
            case "answered":
                self._answered(event)
            case "reply" if event["refusal"]:
                self.figures[f"refused: {event['refusal']}"] += 1
            case "failed":
                self._must(False, Invariant.USABLE, event["trace"])

    def _answered(self, event: dict[str, Any]) -> None:
        name = f"q-{event['question']}"
        question = self.questions[name]
        self._must(name not in self.answers, Invariant.ONCE, "answered twice")
        self.answers[name] = event
        self.figures[f"answered: {question.mechanism}"] += 1
        plan = release.plan(question, participants=4, tolerance=TOLERANCE)
        total = float(plan.decode(np.array(event["totals"], dtype=np.int64).view(np.uint64))[0])
        off = abs(total - self._patients - event["others"])
        near = off <= FAR * plan.standard_deviation(contributors=event["contributors"])
        self._must(near, Invariant.USABLE, f"an answer that is off by {off}")

    # ---- what the file holds ----

    def _read(self) -> list[dict[str, Any]]:
        """Return the rows that this life added."""
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            try:
                rows = file.execute("SELECT body FROM records ORDER BY seq").fetchall()
                found = [json.loads(body) for (body,) in rows]
            except sqlite3.OperationalError:  # killed before the table was made
                found = []
        before = len(self.rows)
        self._must(found[:before] == self.rows, Invariant.SPENT, "a row changed or is gone")
        self.rows = found
        return found[before:]

    def _row(self, row: dict[str, Any], life: Life, held: set[str]) -> None:
        kind, name, seq = row["kind"], row.get("request_id", ""), row["seq"]
        if kind == "opened":
            return
        self.figures[kind] += 1
        known = self.known.setdefault(name, Known())
        match kind:
            case "reserved":
                self._must(name in self.questions, Invariant.GIVEN_BACK, "budget held for what nobody asked")
                self._must(not held, Invariant.GIVEN_BACK, "served before what had died was given back")
                self._must(known.mark is None, Invariant.ONCE, "reserved after its answer")
                self._must(known.held is None, Invariant.GIVEN_BACK, "reserved twice at one time")
                known.held = row
                self._within(row, life, with_held=True)
            case "committed":
                reserved, known.held = known.held, None
                if reserved is None or name in held:
                    self._must(False, Invariant.GIVEN_BACK, "a charge without a reservation of this life")
                    return
                known.commits.append(seq)
                self._spent.append((_account(row), reserved["event"], _moment(row["at"])))
                intime = _moment(row["at"]) < _moment(reserved["expires_at"])
                self._must(intime, Invariant.GIVEN_BACK, "charged after its time")
                signed = self.questions[name].attempts
                self._must(len(known.commits) <= signed, Invariant.ONCE, "charged more often than signed for")
                self._within(row, life, with_held=False)
            case "released":
                self._must(known.held is not None, Invariant.GIVEN_BACK, "given back what was not held")
                known.held = None
                died = name in held
                told = (row["reason"] == RESTART) == died
                self._must(told, Invariant.GIVEN_BACK, f"given back as {row['reason']}")
                self.figures[f"released: {row['reason']}"] += 1
                held.discard(name)
            case "revealed":
                self._must(bool(known.commits), Invariant.PAID, "marked and never charged")
                known.mark = known.mark or seq

    def _within(self, row: dict[str, Any], life: Life, *, with_held: bool) -> None:
        """Add up what counts against each of the four caps at this row."""
        account, now = _account(row), _moment(row["at"])
        caps: Caps = life.policy.caps(account, now=now)
        for cap, selection, since, most in caps.of(account):
            used = Counter(
                json.dumps(event, sort_keys=True)
                for whose, event, at in self._spent
                if selection.holds(whose) and (since is None or at >= since)
            )
            for known in self.known.values() if with_held else ():
                if known.held is not None and selection.holds(_account(known.held)):
                    used[json.dumps(known.held["event"], sort_keys=True)] += 1
            spent = _epsilon(tuple(sorted(used.items())), caps.delta)
            self._must(spent <= most * (1 + ROUNDING), Invariant.CAPS, f"{spent:.4f} of {most} per {cap}")

    def _verify(self, life: Life) -> None:
        if not self._path.exists() or not self.rows:
            return
        try:
            with Ledger(self._path, clock=FixedClock(life.now), read_only=True) as ledger:
                whole = ledger.verify() == len(self.rows)
                self._must(whole, Invariant.VERIFIES, "another number of entries")
                for account in self.accounts():
                    for selection in Selection.around(account):
                        self._spent_by(selection, ledger, life.policy.budget_delta)
        except ChainBroken as error:
            self._must(False, Invariant.VERIFIES, str(error))

    def _spent_by(self, selection: Selection, ledger: Ledger, delta: float) -> None:
        said = ledger.spent(
            selection.project, researcher=selection.researcher, dataset=selection.dataset, delta=delta
        )
        charged = sum(selection.holds(account) for account, _, _ in self._spent)
        self._must(said.events == charged, Invariant.SPENT, f"{charged} charges, {said.events} said")
        self._no_less(selection, said.epsilon)

    def _no_less(self, whose: Account | Selection, said: float) -> None:
        before = self._said.get(whose, 0.0)
        self._must(said >= before * (1 - ROUNDING), Invariant.SPENT, f"{before} before, {said} now")
        self._said[whose] = max(before, said)

    def _must(self, holds: bool, invariant: Invariant, otherwise: str) -> None:
        if not holds:
            self.broken.append((invariant, otherwise))


@lru_cache(maxsize=20_000)
def _epsilon(used: tuple[tuple[str, int], ...], delta: float) -> float:
    return epsilon([event_from_json(json.loads(text)).times(count) for text, count in used], delta=delta)


def _account(row: dict[str, Any]) -> Account:
    return Account(row["project"], row["researcher"], row["dataset"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
