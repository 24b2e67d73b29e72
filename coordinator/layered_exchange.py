"""Sums of which some layers are encrypted and all others masked: two sums a step, in one session."""

from __future__ import annotations

from coordinator.encrypted_exchange import EncryptedExchange
from coordinator.exchange import Members, StepTotal
from coordinator.masked_exchange import MaskedExchange
from privacy.lanes import LaneVector
from privacy.layered_sum import Layers
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

_ENCRYPTED = ("sum_commit", "sum_ciphertext", "sum_endorsement")


class LayeredExchange:
    """A masked and an encrypted exchange side by side. Who is in a total is in both of its parts."""

    def __init__(
        self, members: Members, masked: MaskedExchange, encrypted: EncryptedExchange, layers: Layers
    ) -> None:
        self._members = members
        self._masked = masked
        self._encrypted = encrypted
        self._layers = layers

    async def open(self, *, deadline_s: float) -> None:
        """Agree on masks, and make the first keys."""
        await self._masked.open(deadline_s=deadline_s)
        await self._encrypted.bring_first_key()

    def taken(self, step: int) -> None:
        """Have the keys of this step and the next ones made."""
        if step < self._layers.steps:
            self._encrypted.taken(step)

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Pass a frame to its part."""
        part = self._encrypted if frame.WhichOneof("body") in _ENCRYPTED else self._masked
        part.heard(node, frame)

    def sent(self, step: int) -> set[NodeId]:
        """Return whose inputs are here, both parts of them."""
        masked = self._masked.sent(step)
        return masked & self._encrypted.sent(step) if step < self._layers.steps else masked

    def drop(self, node: NodeId) -> None:
        """Wait for a node no longer."""
        self._masked.drop(node)
        self._encrypted.drop(node)

    async def total(self, step: int) -> StepTotal:
        """Have both parts opened, one after the other."""
        masked = await self._masked.total(step)
        if step >= self._layers.steps:
            return masked
        encrypted = await self._encrypted.total(step)
        both = self._members.enough(node for node in masked.contributors if node in encrypted.contributors)
        try:
            joined = self._layers.joined(masked.total, encrypted.total)
            return StepTotal(LaneVector(joined, joined.size), both)
        except ValueError as error:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION) from error

    def close(self) -> None:
        """Let both parts go."""
        self._masked.close()
        self._encrypted.close()
