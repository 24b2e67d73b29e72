"""Encrypted sums over the nodes' streams, and what is asked of the key-holder for them.

Guarantee: the coordinator holds ciphertexts and no key. A key is asked for before its step is, so that a
question does not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from coordinator.exchange import REVEAL_DEADLINE_S, Members, StepTotal
from coordinator.key_holder import KeyHolderDesk
from privacy.encrypted_collector import EncryptedCollector
from privacy.lanes import LaneVector
from privacy.ring_vector import RingForm
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

KEYS_AHEAD = 2  # steps whose keys are at the nodes before they are given out
SHOW_DEADLINE_S = 60.0  # for ciphertexts, and for adding up everybody's; a million values take seconds


@dataclass
class _Step:
    committed: set[NodeId] = field(default_factory=set)
    inputs: tuple[NodeId, ...] = ()  # whose inputs were fixed
    shown: set[NodeId] = field(default_factory=set)
    settled: tuple[NodeId, ...] = ()
    endorsed: set[NodeId] = field(default_factory=set)
    done: bool = False


class EncryptedExchange:
    """privacy.encrypted_collector behind the broker."""

    def __init__(
        self, members: Members, key_holder: KeyHolderDesk, form: RingForm, *, scheme: str = ""
    ) -> None:
        roster = members.broker.roll.roster
        keys = {node: entry.public_key for node, entry in roster.active_nodes.items()}
        self._members = members
        self._key_holder = key_holder
        self._scheme = scheme  # where it is not the roster's
        self._collector = EncryptedCollector(members.parameters, form=form, peer_keys=keys)
        self._joined: set[NodeId] = set()
        self._steps: dict[int, _Step] = {}
        self._keys: dict[int, asyncio.Task[None]] = {}

    async def open(self, *, deadline_s: float) -> None:
        """Ask who takes part, and make the first keys."""
        members, nodes = self._members, self._members.parameters.participants
        self._key_holder.must_be_there()
        members.send(nodes, pb.CoordinatorFrame(sum_open=members.opening()))
        await members.everybody(lambda: self._joined == set(nodes), deadline_s=deadline_s)
        await self.bring_first_key()

    async def bring_first_key(self) -> None:
        """Have the first keys made, and wait for one. Raises: Refused."""
        self._key_holder.must_be_there()
        self.taken(-1)
        await self._keys[0]

    def taken(self, step: int) -> None:
        """Have the keys of this step and the next ones made."""
        for ahead in range(max(step, 0), min(step + 1 + KEYS_AHEAD, self._members.parameters.steps)):
            if ahead not in self._keys:
                self._keys[ahead] = asyncio.create_task(self._bring_key(ahead))
                self._keys[ahead].add_done_callback(lambda done: done.cancelled() or done.exception())

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take a commitment, a ciphertext or an endorsement; late ones are as if they had not come."""
        match frame.WhichOneof("body"):
            case "sum_advert":
                self._joined.add(node)
            case "sum_commit":
                commit = frame.sum_commit
                state = self._step(commit.step)
                if not state.done and self._collector.commit(node, commit.statement, step=commit.step):
                    state.committed.add(node)
            case "sum_ciphertext":
                shown = frame.sum_ciphertext
                state = self._step(shown.step)
                if not state.done and self._collector.ciphertext(node, shown.ciphertext, step=shown.step):
                    state.shown.add(node)
            case "sum_endorsement":
                endorsed = frame.sum_endorsement
                state = self._step(endorsed.step)
                if not state.done:
                    self._collector.endorse(node, endorsed.statement, step=endorsed.step)
                    state.endorsed.add(node)
            case _:
                raise ValueError("not a frame of an encrypted sum")

    def sent(self, step: int) -> set[NodeId]:
        """Return whose commitments are here."""
        return self._step(step).committed

    def drop(self, node: NodeId) -> None:
        """Wait for a node no longer."""
        self._collector.drop(node)

    async def total(self, step: int) -> StepTotal:
        """Have the inputs fixed, the ciphertexts shown and added up by their owners, and the sum opened."""
        state = self._step(step)
        try:
            await self._show(step, state)
            await self._endorsed(step, state)
            opening = self._collector.opening(step)
            total = await self._key_holder.open(self._members.parameters.session_id, step, opening)
            return StepTotal(LaneVector(total, total.size), opening.survivors)
        except ValueError as error:
            log.warning("session %s step %d failed: %s", self._members.parameters.session_id, step, error)
            raise Refused(RefusalCode.PROTOCOL_VIOLATION) from error
        finally:
            state.done = True
            self._collector.forget(step)

    def close(self) -> None:
        """Let the key-holder forget the session's keys."""
        for task in self._keys.values():
            task.cancel()
        self._key_holder.forget(self._members.parameters.session_id)

    # ---- the steps of a step ----

    async def _bring_key(self, step: int) -> None:
        members = self._members
        made = await self._key_holder.key(members.opening(), step, scheme=self._scheme)
        key = pb.SumKey(
            session_id=members.id, step=step, public_key=made.public_key, statement=made.statement
        )
        members.send(members.parameters.participants, pb.CoordinatorFrame(sum_key=key))

    async def _show(self, step: int, state: _Step) -> None:
        """Fix what came, and wait until its owners have shown it."""
        members = self._members
        state.inputs = members.enough(self._collector.close(step))
        commitments = {str(node): data for node, data in self._collector.commitments(step).items()}
        fixed = await self._key_holder.fix(members.parameters.session_id, step, commitments)
        inputs = pb.SumInputs(session_id=members.id, step=step, commitments=commitments, fixed=fixed)
        members.send(state.inputs, pb.CoordinatorFrame(sum_inputs=inputs))
        await members.bell.until(
            lambda: members.closed or set(state.inputs) & members.alive <= state.shown,
            timeout_s=SHOW_DEADLINE_S,
        )
        members.must_be_open()
        state.done = True  # what comes while it is added up is late
        settled = await asyncio.to_thread(self._collector.settle, step)
        state.done = False
        members.must_be_open()
        state.settled = members.enough(settled)

    async def _endorsed(self, step: int, state: _Step) -> None:
        """Show each survivor the others' ciphertexts, and wait until enough have the same sum."""
        members = self._members
        held = self._collector.ciphertexts(step)
        for owner in state.settled:
            shown = pb.SumCiphertext(
                session_id=members.id, step=step, ciphertext=held.pop(owner), node_id=owner.raw
            )
            others = [node for node in state.settled if node != owner]
            members.send(others, pb.CoordinatorFrame(sum_ciphertext=shown))
        whole = pb.SumEndorse(
            session_id=members.id, step=step, survivors=[node.raw for node in state.settled]
        )
        members.send(state.settled, pb.CoordinatorFrame(sum_endorse=whole))
        await members.enough_of(
            state.endorsed,
            state.settled,
            fewest=members.parameters.threshold,
            timeout_s=SHOW_DEADLINE_S + REVEAL_DEADLINE_S,
        )

    def _step(self, step: int) -> _Step:
        return self._steps.setdefault(step, _Step())
