"""What one session of a secure sum needs of its back-end: masks, or encryption.

`node.sums` keeps sessions, deadlines and what a contribution does to the ledger; an exchange knows which
messages pass. Both take their refusals from the pure parties in privacy/.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.encrypted_party import EncryptedParty
from privacy.errors import DoesNotFit
from privacy.lanes import laid, words_for
from privacy.sum_party import SumParty
from protocols.ids import NodeId
from protocols.pieces import pieces
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

INLINE_VALUES = 4_096  # up to here masking takes less than handing it to a thread
PREPARED_WORDS = 2**22  # of a mask that is held ahead: 32 MiB
KEY_DEADLINE_S = 30.0  # for a step's key: it is asked for before the step is
MAX_SHOWN_BYTES = 400 * 2**20  # ciphertexts of the others that a node is shown in one step
MAX_CIPHERTEXT_BYTES = 240 * 2**20  # below the largest frame


@dataclass(frozen=True, slots=True)
class Revealing:
    """What is sent to let a step's total be opened, once the mark that it was opened is durable."""

    step: int
    frame: pb.NodeFrame


class Exchange(Protocol):
    """One session's messages. Frames and inputs of a session are given one after another."""

    @property
    def largest_input(self) -> int | None:
        """The largest absolute value that may be added; None: whatever a plan allows."""

    def fits(self, length: int) -> bool:
        """Return whether a vector of so many values can pass."""

    def opening(self) -> pb.NodeFrame:
        """Return what is said to a session that is joined."""

    async def follow(self, body: object) -> bool:
        """Take a frame; return whether the session became ready by it. Raises: Refused, SecureSumError."""

    async def prepare(self, step: int, context: bytes, length: int, *, lanes: int) -> None:
        """Do ahead what can be done ahead of a vector. Raises: SecureSumError."""

    async def keyed(self, step: int) -> None:
        """Wait until a vector for this step could be sent. Raises: Refused(DEADLINE)."""

    def inputs(
        self, step: int, context: bytes, vector: NDArray[np.uint64], *, lanes: int
    ) -> AsyncIterator[pb.NodeFrame]:
        """Yield the frames that carry a vector, hidden. The first uses the step up. Raises: SecureSumError.

        Args: lanes: how many numbers of a masked vector travel in a word (privacy.lanes).
        """

    async def reveal(self, body: object) -> Revealing | None:
        """Return what a frame asks this node to open, or None for every other frame.

        Raises: SecureSumError, and then nothing was opened.
        """


class MaskedExchange:
    """Pairwise masks: privacy.sum_party."""

    largest_input = None

    def __init__(self, party: SumParty, send: Callable[[pb.NodeFrame], None]) -> None:
        self._party = party
        self._send = send
        self._id = party.parameters.session_id.raw
        self._adverts_seen = False
        self._delivered = False

    def fits(self, length: int) -> bool:
        """Return True: a masked vector has the size of the vector."""
        return True

    def opening(self) -> pb.NodeFrame:
        """Return this party's advert."""
        return pb.NodeFrame(sum_advert=pb.SumAdvert(session_id=self._id, envelope=self._party.advert()))

    async def follow(self, body: object) -> bool:
        """Take adverts, shares, or who is left of a step; ready once the shares are here."""
        match body:
            case pb.SumAdverts():
                if self._adverts_seen:
                    raise Refused(RefusalCode.PROTOCOL_VIOLATION)
                self._adverts_seen = True
                adverts = {NodeId.parse(node): data for node, data in body.envelopes.items()}
                made = await asyncio.to_thread(self._party.shares, adverts)
                sealed = {str(node): data for node, data in made.sealed.items()}
                shares = pb.SumShares(session_id=self._id, sealed=sealed, wraps=made.wraps)
                self._send(pb.NodeFrame(sum_shares=shares))
                return False
            case pb.SumDeliver():
                if self._delivered:
                    raise Refused(RefusalCode.PROTOCOL_VIOLATION)
                self._delivered = True
                delivered = {NodeId.parse(node): data for node, data in body.sealed.items()}
                await asyncio.to_thread(self._party.deliver, delivered)
                return True
            case pb.SumAgree():
                survivors = [NodeId(raw) for raw in body.survivors]
                statement = self._party.agree(step=body.step, survivors=survivors)
                agreement = pb.SumAgreement(session_id=self._id, step=body.step, statement=statement)
                self._send(pb.NodeFrame(sum_agreement=agreement))
                return False
            case _:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)

    async def prepare(self, step: int, context: bytes, length: int, *, lanes: int) -> None:
        """Compute the mask, unless it is so long that it is better made piece by piece."""
        words = words_for(length, lanes=lanes)
        if words <= PREPARED_WORDS:
            await asyncio.to_thread(self._party.prepare, step=step, context=context, length=words)

    async def keyed(self, step: int) -> None:
        """Nothing: every step's keys came with the shares."""

    async def inputs(
        self, step: int, context: bytes, vector: NDArray[np.uint64], *, lanes: int
    ) -> AsyncIterator[pb.NodeFrame]:
        """Yield the vector under its masks, piece by piece."""
        words = words_for(len(vector), lanes=lanes)
        masking = self._party.masking(step=step, context=context, length=words)

        def hidden(part: NDArray[np.uint64]) -> bytes:
            masked = laid(part, lanes=lanes)
            masking.lay_over(masked)
            return masked.tobytes()

        for piece in pieces(words):
            part = vector[piece.start * lanes : piece.stop * lanes]
            data = hidden(part) if len(part) <= INLINE_VALUES else await asyncio.to_thread(hidden, part)
            sent = pb.SumInput(session_id=self._id, step=step, context=context, masked=data)
            sent.offset, sent.length, sent.lanes = piece.start, len(vector), lanes
            yield pb.NodeFrame(sum_input=sent)

    async def reveal(self, body: object) -> Revealing | None:
        """Return shares for the survivors named."""
        if not isinstance(body, pb.SumSurvivors):
            return None
        survivors = [NodeId(raw) for raw in body.survivors]
        if len(set(survivors)) != len(survivors):
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        agreements = {NodeId.parse(node): data for node, data in body.agreements.items()}
        shares = self._party.reveal(step=body.step, survivors=survivors, agreements=agreements)
        by_peer = {str(peer): share for peer, share in shares.items()}
        frame = pb.SumReveal(session_id=self._id, step=body.step, shares=by_peer)
        return Revealing(body.step, pb.NodeFrame(sum_reveal=frame))


@dataclass
class EncryptedExchange:
    """Encryption under the key of each step: privacy.encrypted_party."""

    party: EncryptedParty
    send: Callable[[pb.NodeFrame], None]
    _keyed: dict[int, asyncio.Event] = field(default_factory=dict)

    @property
    def largest_input(self) -> int:
        """What one of so many participants may add without wrapping."""
        return self.party.largest_input

    def fits(self, length: int) -> bool:
        """Return whether this node's ciphertext fits a frame, and the others' what a node is shown."""
        size, others = self.party.ciphertext_bytes(length), len(self.party.parameters.participants) - 1
        return size <= MAX_CIPHERTEXT_BYTES and size * others <= MAX_SHOWN_BYTES

    def opening(self) -> pb.NodeFrame:
        """Return that this node takes part: there is nothing to agree on."""
        return pb.NodeFrame(sum_advert=pb.SumAdvert(session_id=self._id))

    async def follow(self, body: object) -> bool:
        """Take a step's key, another's ciphertext, or the word that the sum is whole."""
        match body:
            case pb.SumKey():
                await asyncio.to_thread(self.party.take_key, body.step, body.public_key, body.statement)
                self._event(body.step).set()
            case pb.SumCiphertext():
                node, data, step = NodeId(body.node_id), body.ciphertext, body.step
                await asyncio.to_thread(self.party.take, node, data, step=step)
            case pb.SumEndorse():
                survivors = [NodeId(raw) for raw in body.survivors]
                statement = await asyncio.to_thread(self.party.endorse, step=body.step, survivors=survivors)
                frame = pb.SumEndorsement(session_id=self._id, step=body.step, statement=statement)
                self.send(pb.NodeFrame(sum_endorsement=frame))
            case _:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        return False

    async def prepare(self, step: int, context: bytes, length: int, *, lanes: int) -> None:
        """Nothing: a ciphertext is made of its vector."""

    async def keyed(self, step: int) -> None:
        """Wait for the step's key."""
        if self.party.has_key(step):
            return
        try:
            async with asyncio.timeout(KEY_DEADLINE_S):
                await self._event(step).wait()
        except TimeoutError as error:
            raise Refused(RefusalCode.DEADLINE) from error

    async def inputs(
        self, step: int, context: bytes, vector: NDArray[np.uint64], *, lanes: int
    ) -> AsyncIterator[pb.NodeFrame]:
        """Yield the commitment to the encrypted vector."""
        if not self.fits(len(vector)):
            raise DoesNotFit(largest=self.largest_input)
        statement = await asyncio.to_thread(self.party.seal, vector, step=step, context=context)
        yield pb.NodeFrame(sum_commit=pb.SumCommit(session_id=self._id, step=step, statement=statement))

    async def reveal(self, body: object) -> Revealing | None:
        """Return the ciphertext, now that everybody's inputs are fixed."""
        if not isinstance(body, pb.SumInputs):
            return None
        commitments = {NodeId.parse(node): data for node, data in body.commitments.items()}
        ciphertext = await asyncio.to_thread(
            self.party.release, step=body.step, commitments=commitments, fixed=body.fixed
        )
        frame = pb.SumCiphertext(session_id=self._id, step=body.step, ciphertext=ciphertext)
        return Revealing(body.step, pb.NodeFrame(sum_ciphertext=frame))

    @property
    def _id(self) -> bytes:
        return self.party.parameters.session_id.raw

    def _event(self, step: int) -> asyncio.Event:
        if not 0 <= step < self.party.parameters.steps:
            raise Refused(RefusalCode.PROTOCOL_VIOLATION)
        return self._keyed.setdefault(step, asyncio.Event())
