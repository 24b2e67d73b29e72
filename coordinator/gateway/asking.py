"""Questions that the gateway has signed and asks, each until it has an outcome.

Guarantee: a question is signed once, written down, and asked with these very bytes however often the line or
a process breaks; the coordinator and every hospital answer it once. At most MAX_OPEN are open, MAX_OPEN_EACH
of one account.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.channel import CoordinatorUnreachable, explained
from coordinator.gateway import problems
from coordinator.gateway.book import Book, Kept
from coordinator.gateway.problems import Problem
from coordinator.profile import Profile
from privacy.reading import read_answer
from protocols.clock import Clock
from protocols.envelope import SignedEnvelope
from protocols.ids import QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

MAX_OPEN = 48  # the coordinator takes 64 at one time, from everybody
MAX_OPEN_EACH = 8
CALL_TIMEOUT_S = 300.0  # of one call; the question is asked again after it
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 15.0
PATIENCE = timedelta(minutes=5)  # after a question's own end, for an answer that was made in time
DESCRIBE_TIMEOUT_S = 5.0
BUDGET_DELTA = 1e-6  # at which a budget is stated unless asked otherwise


@dataclass(eq=False)
class Open:
    """A question that is being answered."""

    kept: Kept
    question: Question
    stage: str = "asked"
    sites: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Asker:
    """Signs in the gateway's name and asks. Used from one event loop; `start` first, `stop` last."""

    def __init__(self, profile: Profile, book: Book, channel: grpc.aio.Channel, *, clock: Clock) -> None:
        self._profile = profile
        self._key: Ed25519PrivateKey = profile.identity_key()
        self._book = book
        self._stub: Any = fedtwin_pb2_grpc.ResearchStub(channel)  # type: ignore[no-untyped-call]  # generated
        self._clock = clock
        self._open: dict[QuestionId, Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take up what was open when the process ended."""
        for kept in self._book.open_questions():
            self._ask(Open(kept, self.question_of(kept)))

    async def stop(self) -> None:
        """Leave what is open for the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self, question: Question, *, account: str, key: str, fingerprint: bytes) -> Kept:
        """Sign a question, write it down with the request that wants it, and ask it.

        Raises: Problem (too many are open).
        """
        held = Counter(entry.kept.account for entry in self._open.values())
        if held[account] >= MAX_OPEN_EACH or len(self._open) >= MAX_OPEN:
            raise Problem(problems.TOO_MANY_OPEN, headers={"retry-after": "5"})
        envelope = question.signed(signer=self._profile.name, key=self._key)
        kept = Kept(question.question_id, account, envelope, None)
        self._book.begin(kept, key=key, fingerprint=fingerprint, asked_at=question.asked_at)
        self._ask(Open(kept, question))
        return kept

    async def ended(self, question_id: QuestionId, *, timeout_s: float) -> None:
        """Wait until the question has an outcome, `timeout_s` at most."""
        entry = self._open.get(question_id)
        if entry is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await entry.ended.wait()
            except TimeoutError:
                return

    def progress(self, question_id: QuestionId) -> tuple[str, int]:
        """Return how far an open question is, and with how many hospitals."""
        entry = self._open.get(question_id)
        return (entry.stage, entry.sites) if entry else ("asked", 0)

    def question_of(self, kept: Kept) -> Question:
        """Return the question in a kept envelope. It is our own file: no signature is checked."""
        return Question.parse(SignedEnvelope.from_bytes(kept.envelope).payload)

    async def describe(self) -> pb.DescribeReply:
        """Ask the coordinator about the consortium. Raises: Refused, CoordinatorUnreachable."""
        with explained(self._profile):
            reply: pb.DescribeReply = await self._stub.Describe(
                pb.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_S
            )
        return reply

    async def budget(self, project: str, *, delta: float, thought_of: str = "") -> pb.BudgetReply:
        """Ask the coordinator what a project has cost, and would have with one more event (as JSON).

        Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self._profile):
            request = pb.BudgetRequest(project=project, delta=delta, next=thought_of)
            reply: pb.BudgetReply = await self._stub.Budget(request, timeout=DESCRIBE_TIMEOUT_S)
        return reply

    # ---- one question ----

    def _ask(self, entry: Open) -> None:
        self._open[entry.kept.question_id] = entry
        task = asyncio.create_task(self._run(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, entry: Open) -> None:
        try:
            outcome = await self._outcome(entry)
            question = entry.question
            if isinstance(outcome, RefusalCode):
                self._book.refused(entry.kept.question_id, outcome)
            else:
                self._book.answered(
                    entry.kept,
                    outcome,
                    project=question.project,
                    epsilon=question.epsilon,
                    delta=question.delta,
                )
        except Exception:  # it stays open in the book, and is asked again at the next start
            log.exception("question %s failed", entry.kept.question_id)
        finally:
            del self._open[entry.kept.question_id]
            entry.ended.set()

    async def _outcome(self, entry: Open) -> pb.Answer | RefusalCode:
        pause_s = RETRY_FIRST_S
        while self._clock.now() < entry.question.expires_at + PATIENCE:
            try:
                return await self._call(entry)
            except CoordinatorUnreachable:
                log.warning("question %s waits for the coordinator", entry.kept.question_id)
            except Refused as refused:
                if refused.code is not RefusalCode.DEADLINE:
                    return refused.code
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
        return RefusalCode.DEADLINE

    async def _call(self, entry: Open) -> pb.Answer | RefusalCode:
        """Ask once. Raises: Refused, CoordinatorUnreachable."""
        request = pb.AskRequest(question_envelope=entry.kept.envelope)
        with explained(self._profile):
            async for event in self._stub.Ask(request, timeout=CALL_TIMEOUT_S):
                match event.WhichOneof("body"):
                    case "progress":
                        entry.stage, entry.sites = event.progress.stage, event.progress.sites
                    case "refusal":
                        return _known(event.refusal)
                    case "answer":
                        return _checked(entry.question, event.answer)
        raise Refused(RefusalCode.DEADLINE)  # the stream ended without an outcome: ask again


def _known(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL


def _checked(question: Question, answer: pb.Answer) -> pb.Answer | RefusalCode:
    """Return the answer if its figures can be read."""
    try:
        read_answer(question, answer)
    except ValueError:
        return RefusalCode.PROTOCOL_VIOLATION
    return answer
