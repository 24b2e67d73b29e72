"""One life of a hospital's node that is killed at a point: real parts, and a coordinator in the same process.

What leaves the node is written into a pipe as it leaves, with the number of the last record that was durable
by then, read by a connection of its own: whoever holds the other end knows it, however the node dies.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import privacy.ledger
from node import boundary
from node.admission import HOLD, Admission
from node.answering import Answering
from node.policy import Policy
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.statements import Statements
from node.sums import QUESTIONS, SumSessions
from privacy import release
from privacy.budget import Account
from privacy.chain import Chain
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from privacy.secure_sum import SealedShares, SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from privacy.sum_party import SumParty
from protocols.clock import FixedClock
from protocols.ids import NodeId, SessionId
from protocols.question import Question
from protocols.roster import Roster, fingerprint
from protocols.wire import fedtwin_pb2 as pb
from tests.threats.crash_points import (
    IDLE,
    NOWHERE,
    Crash,
    DyingBits,
    DyingWarehouse,
    Witness,
    armed,
    dying_chain,
    dying_ledger,
)

TOLERANCE = 1
LONGEST_S = 60  # a life that takes longer hangs: it ends by a signal that no history expects
STEPS = 12  # of the one session that a life has
ELSEWHERE = 40  # patients at each other hospital, in every cell
LIMITS = Limits(time_s=30, memory="100MB", threads=1)


@dataclass(frozen=True)
class Consortium:
    """What does not change in a history. `keys` holds everybody's, `me` is the hospital that is killed."""

    keys: Mapping[NodeId, Ed25519PrivateKey]
    me: NodeId
    roster: Roster
    store: Path
    statements: Statements  # compiled before, as they are in a node that has been asked before


@dataclass(frozen=True)
class Parts:
    """Which ledger, chain and sums the node works with: production's, or broken ones."""

    ledger: type[Ledger] = Ledger
    chain: type[Chain] = Chain
    sums: type[SumSessions] = SumSessions


@dataclass(frozen=True)
class Step:
    """One thing that the coordinator does with questions. `how` names a method of `Coordinator`."""

    how: str
    asks: tuple["Ask", ...]


@dataclass(frozen=True)
class Ask:
    """A question as the coordinator offers it."""

    question: Question
    envelope: bytes
    attempt: int


@dataclass(frozen=True)
class Life:
    """From one opening of the node to its death."""

    steps: tuple[Step, ...]
    point: str
    nth: int
    tear: int
    now: datetime
    policy: Policy
    dataset: str
    accounts: tuple[Account, ...] = ()  # whose spending the node is asked for when it has opened


@dataclass
class Pipe:
    """Tells the other end, a line at a time. A line is shorter than what a pipe takes at once."""

    handle: int
    witness: Witness

    def tell(self, what: str, **fields: Any) -> None:
        os.write(self.handle, json.dumps({"what": what, **fields}).encode() + b"\n")


def live(consortium: Consortium, path: Path, life: Life, parts: Parts, handle: int) -> None:
    """Be the node, in a process of its own, until killed or through with the life's steps."""
    armed()
    signal.alarm(LONGEST_S)
    pipe = Pipe(handle, Witness(path))
    crash = Crash(life.point, life.nth, life.tear, last_words=lambda: pipe.tell("dying"))
    privacy.ledger.Chain = dying_chain(parts.chain, crash)  # type: ignore[misc]  # in this process alone
    clock = FixedClock(life.now)
    ledger = dying_ledger(parts.ledger, crash)(path, clock=clock)
    pipe.tell("opened", spent=_spent(ledger, life))
    crash.passing("after opening")

    def opening() -> DuckDbWarehouse:
        warehouse = DuckDbWarehouse.open(consortium.store, schema="main", limits=LIMITS)
        warehouse._statements = consortium.statements
        return warehouse

    node = Node(consortium, life, parts, ledger, clock, DyingWarehouse(opening, crash), crash, pipe)
    asyncio.run(node.work(life))
    ledger.close()
    pipe.tell("stopped")


def _spent(ledger: Ledger, life: Life) -> list[tuple[str, str, str, int, float]]:
    """What the node itself believes that each account has spent."""
    found = []
    for account in life.accounts:
        spent = ledger.spent(
            account.project,
            researcher=account.researcher,
            dataset=account.dataset,
            delta=life.policy.budget_delta,
        )
        found.append((account.project, account.researcher, account.dataset, spent.events, spent.epsilon))
    return found


class Node:
    """The hospital's side, with the coordinator and the other hospitals behind its `send`."""

    def __init__(
        self,
        consortium: Consortium,
        life: Life,
        parts: Parts,
        ledger: Ledger,
        clock: FixedClock,
        warehouse: DyingWarehouse,
        crash: Crash,
        pipe: Pipe,
    ) -> None:
        self.consortium, self.clock, self.crash, self.pipe = consortium, clock, crash, pipe
        self.inbox: list[pb.NodeFrame] = []  # what has left
        public = {node: key.public_key() for node, key in consortium.keys.items()}

        def admit(session: SessionParameters, tolerance: int) -> int:
            keys = [fingerprint(public[node].public_bytes_raw()) for node in session.participants]
            life.policy.check_participants(keys, tolerance=tolerance)
            return life.policy.fewest_survivors(participants=len(keys), tolerance=tolerance)

        self.sums = parts.sums(
            me=consortium.me,
            signing_key=consortium.keys[consortium.me],
            peers=lambda: public,
            admit=admit,
            send=self.send,
            left=lambda session, frame, code: None,
        )
        record = lambda event, **fields: None  # noqa: E731 (the audit trail has tests of its own)
        self.answering = Answering(
            admission=Admission(
                roster=lambda: consortium.roster,
                policy=lambda: life.policy,
                ledger=ledger,
                record=record,
                clock=clock,
                dataset=life.dataset,
            ),
            ledger=ledger,
            warehouse=lambda: warehouse,  # type: ignore[arg-type, return-value]  # never closed by who asks
            sums=self.sums,
            send=self.send,
            record=record,
            to_code=boundary.to_code,
            threads=ThreadPoolExecutor(2),
            clock=clock,
            bits=DyingBits(crash),
        )

    def send(self, frame: pb.NodeFrame) -> None:
        """The wire: what is given here has left the hospital."""
        name = frame.WhichOneof("body") or ""
        if name == "sum_input":
            self.crash.passing("before an input leaves")
            body = frame.sum_input
            named = {"session": body.session_id.hex(), "step": body.step, "context": body.context.hex()}
            self.pipe.tell("input", durable=self.pipe.witness.last(), **named)
        elif name == "sum_reveal":
            self.crash.passing("before shares leave")
            named = {"session": frame.sum_reveal.session_id.hex(), "step": frame.sum_reveal.step}
            self.pipe.tell("shares", durable=self.pipe.witness.last(), **named)
        elif name == "offer_reply":
            reply = frame.offer_reply
            self.pipe.tell("reply", question=reply.question_id.hex(), refusal=reply.refusal)
        self.inbox.append(frame)
        if name == "sum_input":
            self.crash.passing("after an input left")
        elif name == "sum_reveal":
            self.crash.passing("after shares left")

    async def work(self, life: Life) -> None:
        """Let the coordinator do what the life says; then stop, or die with whatever is open."""
        coordinator = Coordinator(self)
        for step in life.steps:
            await coordinator.have_session()
            await getattr(coordinator, step.how)(*step.asks)
        self.crash.passing(IDLE)
        if life.point != NOWHERE:
            os.kill(os.getpid(), signal.SIGKILL)  # the point was not reached
        await self.answering.stop()


class Coordinator:
    """An unhurried coordinator and the three other hospitals, which answer at once."""

    def __init__(self, node: Node) -> None:
        self._node, self._me = node, node.consortium.me
        self._terms: Any = None  # of the newest session

    async def open_session(self) -> None:
        """Set up a new session among all."""
        keys = self._node.consortium.keys
        self._terms = terms = SessionParameters(
            session_id=SessionId.new(),
            participants=tuple(sorted(keys)),
            threshold=threshold_for(len(keys), colluders=TOLERANCE),
            steps=STEPS,
            purpose=QUESTIONS,
            round=0,
        )
        public = {name: key.public_key() for name, key in keys.items()}
        self._collector = SumCollector(terms)
        self._others = {
            name: SumParty(
                terms,
                me=name,
                signing_key=key,
                peer_keys=public,
                bits=SecureBits(),
                minimum_survivors=len(keys) - TOLERANCE,
            )
            for name, key in keys.items()
            if name != self._me
        }
        self._next_step = 0
        session = terms.session_id.raw
        opening = pb.SumOpen(
            session_id=session,
            participants=[name.raw for name in terms.participants],
            threshold=terms.threshold,
            steps=terms.steps,
            purpose=terms.purpose,
            round=terms.round,
            tolerance=TOLERANCE,
        )
        await self._tell(sum_open=opening)
        self._collector.advert(self._me, self._said("sum_advert").sum_advert.envelope)
        for name, party in self._others.items():
            self._collector.advert(name, party.advert())
        adverts = self._collector.adverts()
        envelopes = {str(name): data for name, data in adverts.items()}
        await self._tell(sum_adverts=pb.SumAdverts(session_id=session, envelopes=envelopes))
        mine = self._said("sum_shares").sum_shares
        sealed = {NodeId.parse(name): data for name, data in mine.sealed.items()}
        self._collector.shares(self._me, SealedShares(sealed=sealed, wraps=mine.wraps))
        for name, party in self._others.items():
            self._collector.shares(name, party.shares(adverts))
        for name, party in self._others.items():
            party.deliver(self._collector.outgoing(name))
        delivered = {str(name): data for name, data in self._collector.outgoing(self._me).items()}
        await self._tell(sum_deliver=pb.SumDeliver(session_id=session, sealed=delivered))

    async def have_session(self) -> None:
        """Open a session unless the node is in one: it leaves one in which it was asked too much."""
        left = [f.sum_withdraw for f in self._node.inbox if f.WhichOneof("body") == "sum_withdraw"]
        if self._terms is None or self._terms.session_id.raw in [frame.session_id for frame in left]:
            await self.open_session()

    # ---- what a life's steps name ----

    async def answer(self, *asks: Ask) -> None:
        """Ask all of them at one time, and open each sum."""
        accepted = [ask for ask in asks if await self._offer(ask)]
        await asyncio.gather(*(self._run_and_open(ask) for ask in accepted))

    async def answer_without_one(self, ask: Ask) -> None:
        """Another hospital has dropped out."""
        if await self._offer(ask):
            await self._run_and_open(ask, absent=1)

    async def abandon(self, *asks: Ask) -> None:
        """Let inputs leave and open no sum: too many others dropped out, or the coordinator says so."""
        for ask in asks:
            if await self._offer(ask):
                await self._run(ask)

    async def try_again(self, ask: Ask) -> None:
        """Let an input leave, open no sum, and attempt the question once more at once."""
        await self.abandon(ask)
        await self.answer(Ask(ask.question, ask.envelope, ask.attempt + 1))

    async def hold(self, *asks: Ask) -> None:
        """Offer and go no further."""
        for ask in asks:
            await self._offer(ask)

    async def cancel(self, ask: Ask) -> None:
        """Offer and take it back."""
        if await self._offer(ask):
            await self._node.answering.cancel(pb.Cancel(question_id=ask.question.question_id.raw))

    async def cancel_late(self, ask: Ask) -> None:
        """Take it back once the input has left, then try to open it all the same."""
        if await self._offer(ask) and (step := await self._run(ask)) is not None:
            await self._node.answering.cancel(pb.Cancel(question_id=ask.question.question_id.raw))
            await self._survivors(ask, step, absent=0)

    async def expire(self, ask: Ask) -> None:
        """Wait longer than budget is held, then run it."""
        if await self._offer(ask):
            self._node.clock.advance(HOLD + timedelta(seconds=1))
            await self._run_and_open(ask)

    async def expire_beside(self, late: Ask, other: Ask) -> None:
        """Wait longer than budget is held, then ask another question, then run the first."""
        accepted = await self._offer(late)
        self._node.clock.advance(HOLD + timedelta(seconds=1))
        await self.answer(other)
        if accepted:
            await self._run_and_open(late)

    async def repeat_everything(self, ask: Ask) -> None:
        """Offer twice, run twice, name the survivors twice, and offer it again."""
        if await self._offer(ask) and await self._offer(ask) and (step := await self._run(ask)) is not None:
            await self._run(ask)
            await self._survivors(ask, step, absent=0)
            await self._survivors(ask, step, absent=0)
            await self._offer(Ask(ask.question, ask.envelope, 2))

    async def lose_the_stream(self, *asks: Ask) -> None:
        """Cut the connection once inputs have left."""
        await self.abandon(*asks)
        self._node.sums.disconnected()
        await self.open_session()

    # ---- moves ----

    async def _offer(self, ask: Ask) -> bool:
        offer = pb.Offer(
            question_id=ask.question.question_id.raw, question_envelope=ask.envelope, attempt=ask.attempt
        )
        await self._node.answering.offer(offer)
        return not self._said("offer_reply").offer_reply.refusal

    async def _run(self, ask: Ask) -> int | None:
        """Let the node answer. Returns the step if an input left."""
        step, self._next_step = self._next_step, self._next_step + 1
        run = pb.Run(
            question_id=ask.question.question_id.raw,
            attempt=ask.attempt,
            session_id=self._terms.session_id.raw,
            step=step,
        )
        await self._node.answering.run(run)
        sent = [f.sum_input for f in self._node.inbox if f.WhichOneof("body") == "sum_input"]
        sent = [f for f in sent if (f.session_id, f.step) == (self._terms.session_id.raw, step)]
        if not sent:
            return None
        masked = np.frombuffer(sent[0].masked, dtype="<u8").astype(np.uint64)
        self._collector.input(self._me, masked, step=step, context=sent[0].context)
        return step

    async def _run_and_open(self, ask: Ask, *, absent: int = 0) -> None:
        step = await self._run(ask)
        if step is not None:
            await self._survivors(ask, step, absent=absent)

    async def _survivors(self, ask: Ask, step: int, *, absent: int) -> None:
        """Add the others' inputs, ask for shares, and open the sum if the node gives its own."""
        question, terms = ask.question, self._terms
        context = question.context(attempt=ask.attempt, tolerance=TOLERANCE)
        plan = release.plan(question, participants=len(terms.participants), tolerance=TOLERANCE)
        cells = np.full(len(question.labels), ELSEWHERE)
        present = list(self._others)[absent:]
        for name in present if self._collector.missing_inputs(step) else ():
            vector = plan.contribution(cells, bits=SecureBits())
            masked = self._others[name].masked(vector, step=step, context=context)
            self._collector.input(name, masked, step=step, context=context)
        survivors = self._collector.close(step)
        named = [name.raw for name in survivors]
        session = terms.session_id.raw
        before = len(self._node.inbox)
        await self._tell(sum_survivors=pb.SumSurvivors(session_id=session, step=step, survivors=named))
        revealed = [f.sum_reveal for f in self._node.inbox[before:] if f.WhichOneof("body") == "sum_reveal"]
        mine = [f for f in revealed if (f.session_id, f.step) == (session, step)]
        if not mine:
            return
        shares = {NodeId.parse(name): data for name, data in mine[0].shares.items()}
        self._collector.reveal(self._me, shares, step=step)
        for name in present:
            shares = self._others[name].reveal(step=step, survivors=survivors)
            self._collector.reveal(name, shares, step=step)
        total = self._collector.total(step)
        self._node.pipe.tell(
            "answered",
            question=question.question_id.raw.hex(),
            totals=total.view(np.int64).tolist(),
            contributors=len(survivors),
            others=ELSEWHERE * len(present),
        )

    async def _tell(self, **body: Any) -> None:
        await self._node.sums.handle(pb.CoordinatorFrame(**body))

    def _said(self, name: str) -> pb.NodeFrame:
        """The newest frame of this name."""
        return next(f for f in reversed(self._node.inbox) if f.WhichOneof("body") == name)
