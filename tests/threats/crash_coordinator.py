"""What a coordinator does with one hospital that may die at any moment, and the three other hospitals.

All of it runs in the process of the node under test (tests/threats/crashing_node.py) and dies with it.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from node.admission import HOLD
from node.sums import QUESTIONS
from privacy import release
from privacy.rng import SecureBits
from privacy.secure_sum import SealedShares, SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from privacy.sum_party import SumParty
from protocols.ids import NodeId, SessionId
from protocols.question import Question
from protocols.wire import fedtwin_pb2 as pb

TOLERANCE = 1
STEPS = 12  # of the one session that a life has
ELSEWHERE = 40  # patients at each other hospital, in every cell


@dataclass(frozen=True)
class Ask:
    """A question as the coordinator offers it."""

    question: Question
    envelope: bytes
    attempt: int


class Coordinator:
    """An unhurried coordinator and the three other hospitals, which answer at once."""

    def __init__(self, node: Any) -> None:
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
