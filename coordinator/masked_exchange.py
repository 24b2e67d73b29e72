"""Masked sums over the nodes' streams: key agreement, masked vectors, shares that open the masks' sum."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator.exchange import REVEAL_DEADLINE_S, Members, StepTotal
from privacy.errors import UnopenedMask
from privacy.lanes import WORD_BYTES, LaneVector, words_for
from privacy.secure_sum import SealedShares
from privacy.sum_channel import verify_survivors
from privacy.sum_collector import SumCollector
from protocols.ids import NodeId
from protocols.pieces import PIECE_BYTES
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)


@dataclass
class _Step:
    """What has come in for one step."""

    sent: set[NodeId] = field(default_factory=set)
    survivors: tuple[NodeId, ...] = ()
    agreements: dict[NodeId, bytes] = field(default_factory=dict)  # signed, where two or more are missing
    revealed: set[NodeId] = field(default_factory=set)
    adding: set[asyncio.Task[None]] = field(default_factory=set)  # long vectors that are all here
    closed: bool = False


class MaskedExchange:
    """privacy.sum_collector behind the broker.

    Args:
        most_values: of a vector of this session; a longer one breaks the protocol with its first piece.
        folder: where pieces of long vectors wait, in files without a name.
    """

    def __init__(self, members: Members, *, most_values: int, folder: Path | None = None) -> None:
        self._members = members
        self._most_values = most_values
        self._collector = SumCollector(members.parameters, folder=folder)
        self._digest = members.parameters.digest()
        self._advertised: set[NodeId] = set()
        self._shared: set[NodeId] = set()
        self._steps: dict[int, _Step] = {}

    async def open(self, *, deadline_s: float) -> None:
        """Agree on keys and hand out everybody's shares."""
        members, nodes = self._members, self._members.parameters.participants
        everybody = set(nodes)
        members.send(nodes, pb.CoordinatorFrame(sum_open=members.opening()))
        await members.everybody(lambda: self._advertised == everybody, deadline_s=deadline_s)
        envelopes = {str(node): advert for node, advert in self._collector.adverts().items()}
        adverts = pb.SumAdverts(session_id=members.id, envelopes=envelopes)
        members.send(nodes, pb.CoordinatorFrame(sum_adverts=adverts))
        await members.everybody(lambda: self._shared == everybody, deadline_s=deadline_s)
        for node in nodes:
            sealed = {str(sender): data for sender, data in self._collector.outgoing(node).items()}
            delivery = pb.SumDeliver(session_id=members.id, sealed=sealed)
            members.send((node,), pb.CoordinatorFrame(sum_deliver=delivery))

    def taken(self, step: int) -> None:
        """Nothing: every step's keys are there."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take an advert, shares, an input, an agreement or a reveal."""
        match frame.WhichOneof("body"):
            case "sum_advert":
                self._collector.advert(node, frame.sum_advert.envelope)
                self._advertised.add(node)
            case "sum_shares":
                sealed = {NodeId.parse(peer): data for peer, data in frame.sum_shares.sealed.items()}
                self._collector.shares(node, SealedShares(sealed=sealed, wraps=frame.sum_shares.wraps))
                self._shared.add(node)
            case "sum_input":
                self._input(node, frame.sum_input)
            case "sum_agreement":
                self._agreement(node, frame.sum_agreement)
            case "sum_reveal":
                self._reveal(node, frame.sum_reveal)
            case _:
                raise ValueError("not a frame of a masked sum")

    def sent(self, step: int) -> set[NodeId]:
        """Return whose masked vectors are here."""
        return self._step(step).sent

    def drop(self, node: NodeId) -> None:
        """Wait for a node no longer."""
        self._collector.drop(node)

    async def total(self, step: int) -> StepTotal:
        """Announce who is in, have them compare it where it matters, collect shares, subtract the masks."""
        state, members = self._step(step), self._members
        while state.adding:
            await asyncio.wait(state.adding)
        state.survivors = self._collector.close(step)
        state.closed = True
        members.enough(state.survivors)
        if members.parameters.must_agree(state.survivors):
            await self._agree(step, state)
        announcement = pb.SumSurvivors(
            session_id=members.id, step=step, survivors=[node.raw for node in state.survivors]
        )
        for node, statement in state.agreements.items():
            announcement.agreements[str(node)] = statement
        members.send(state.survivors, pb.CoordinatorFrame(sum_survivors=announcement))
        return StepTotal(await self._opened_total(step, state), state.survivors)

    def close(self) -> None:
        """Drop what waits to be added."""
        self._collector.end()

    def _step(self, step: int) -> _Step:
        return self._steps.setdefault(step, _Step())

    def _input(self, node: NodeId, sent: pb.SumInput) -> None:
        state = self._step(sent.step)
        if state.closed:
            return  # late: a dropout of this step
        data = sent.masked  # each look at a field of bytes copies it
        if not 0 < len(data) <= PIECE_BYTES or not 0 < sent.length <= self._most_values:
            raise ValueError("not a piece of a vector of this session")
        step, context, lanes, length = sent.step, sent.context, sent.lanes, sent.length
        words = words_for(length, lanes=lanes)
        if len(data) != min(PIECE_BYTES, WORD_BYTES * (words - sent.offset)):
            raise ValueError("a piece that is not the last is a full one")
        if len(data) == WORD_BYTES * words:
            vector = np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
            if self._collector.input(node, vector, step=step, context=context, lanes=lanes, length=length):
                state.sent.add(node)
            return
        if self._collector.piece(
            node, data, step=step, context=context, lanes=lanes, length=length, offset=sent.offset
        ):
            task = asyncio.create_task(self._add(node, sent.step, state))
            state.adding.add(task)
            task.add_done_callback(state.adding.discard)

    async def _add(self, node: NodeId, step: int, state: _Step) -> None:
        """Put a long vector that is all here into the sum, while others arrive."""
        try:
            if await asyncio.to_thread(self._collector.add, node, step=step):
                state.sent.add(node)
        except (OSError, ValueError):  # no room on the disk, or the session was closed meanwhile
            log.exception(
                "session %s step %d: a vector could not be added", self._members.parameters.session_id, step
            )
        self._members.bell.ring()

    def _agreement(self, node: NodeId, sent: pb.SumAgreement) -> None:
        state, entry = self._steps.get(sent.step), self._members.broker.roll.roster.active_nodes.get(node)
        if state is None or not state.closed or node not in state.survivors or entry is None:
            raise ValueError("nothing to agree on")
        verify_survivors(
            sent.statement,
            state.survivors,
            digest=self._digest,
            step=sent.step,
            node=node,
            key=entry.public_key,
        )
        state.agreements[node] = sent.statement

    async def _agree(self, step: int, state: _Step) -> None:
        """Have survivors sign that they were told the same, and wait for enough of them. Raises: Refused."""
        members, named = self._members, [node.raw for node in state.survivors]
        ask = pb.SumAgree(session_id=members.id, step=step, survivors=named)
        members.send(state.survivors, pb.CoordinatorFrame(sum_agree=ask))
        await members.enough_of(
            state.agreements.keys(),
            state.survivors,
            fewest=members.parameters.threshold,
            timeout_s=REVEAL_DEADLINE_S,
        )

    def _reveal(self, node: NodeId, sent: pb.SumReveal) -> None:
        state = self._steps.get(sent.step)
        if state is None or not state.closed:
            raise ValueError("nothing to reveal yet")
        shares = {NodeId.parse(peer): share for peer, share in sent.shares.items()}
        self._collector.reveal(node, shares, step=sent.step)
        state.revealed.add(node)

    async def _opened_total(self, step: int, state: _Step) -> LaneVector:
        """Wait until enough survivors have opened their shares, and for more if those do not fit."""
        members = self._members
        enough, refusal = members.parameters.threshold, RefusalCode.TOO_MANY_DROPOUTS
        while True:
            await members.enough_of(
                state.revealed,
                state.survivors,
                fewest=enough,
                timeout_s=REVEAL_DEADLINE_S,
                refusal=refusal,
            )
            try:
                return await asyncio.to_thread(self._collector.opened, step)
            except UnopenedMask:
                log.warning(
                    "session %s step %d: shares do not fit, waiting for more",
                    members.parameters.session_id,
                    step,
                )
                enough, refusal = len(state.revealed) + 1, RefusalCode.PROTOCOL_VIOLATION
