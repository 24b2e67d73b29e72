"""A secure sum among real parties and a real collector, with nobody between them but the test."""

from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.rng import SecureBits, Words
from privacy.secure_sum import SealedShares, SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from privacy.sum_party import SumParty
from protocols.ids import NodeId, SessionId
from tests.privacy.seeded_bits import SeededBits

CONTEXT = bytes(range(32))
OTHER_CONTEXT = bytes(32)


def node(index: int) -> NodeId:
    """Return the id of the party at `index`; ids ascend with the index."""
    return NodeId(index.to_bytes(16, "big"))


def session_of(
    parties: int, *, steps: int, colluders: int, session: int = 1, purpose: str = "questions"
) -> SessionParameters:
    """Return the terms of a session of the parties 0 to `parties` - 1."""
    return SessionParameters(
        session_id=SessionId(session.to_bytes(16, "big")),
        participants=tuple(node(index) for index in range(parties)),
        threshold=threshold_for(parties, colluders=colluders),
        steps=steps,
        purpose=purpose,
        round=0,
    )


def identity(index: int) -> Ed25519PrivateKey:
    """Return the identity key of the party at `index`: a test key, the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(bytes([7]) * 31 + bytes([index]))


def agreed(survivors: Mapping[NodeId, SumParty], *, step: int) -> dict[NodeId, bytes]:
    """Have all survivors sign who is left, where they must."""
    return {
        node: party.agree(step=step, survivors=list(survivors))
        for node, party in survivors.items()
        if party.parameters.must_agree(survivors)
    }


class SumNetwork:
    """Parties by index and their collector. A party that dies sends nothing from then on."""

    def __init__(
        self,
        parties: int,
        *,
        steps: int = 1,
        colluders: int = 0,
        minimum_survivors: int = 1,
        seed: int | None = None,
        session: int = 1,
    ) -> None:
        """Make the parties, before any message. With a seed everything repeats."""
        self.parameters = session_of(parties, steps=steps, colluders=colluders, session=session)
        keys = {node(index): identity(index).public_key() for index in range(parties)}
        self.parties = [
            SumParty(
                self.parameters,
                me=node(index),
                signing_key=identity(index),
                peer_keys=keys,
                bits=SecureBits() if seed is None else SeededBits(1000 * seed + index),
                minimum_survivors=minimum_survivors,
            )
            for index in range(parties)
        ]
        self.collector = SumCollector(self.parameters)
        self.alive = set(range(parties))
        self.deposits: dict[int, SealedShares] = {}
        self.sent: dict[tuple[int, int], Words] = {}  # masked vectors by (party, step)
        self.revealed: dict[tuple[int, int], dict[NodeId, bytes]] = {}  # by (party, step)
        self.agreements: dict[int, dict[NodeId, bytes]] = {}  # of all survivors by step, once one reveals

    def die(self, index: int) -> None:
        """The party sends nothing from now on, and the collector knows."""
        self.alive.discard(index)
        self.collector.drop(node(index))

    def advertise(self) -> None:
        """Every living party sends its key."""
        for index in sorted(self.alive):
            self.collector.advert(node(index), self.parties[index].advert())

    def share(self) -> None:
        """Every living party takes the adverts and deposits its shares."""
        adverts = self.collector.adverts()
        for index in sorted(self.alive):
            self.deposits[index] = self.parties[index].shares(adverts)
            self.collector.shares(node(index), self.deposits[index])

    def deliver(self) -> None:
        """Every living party takes what the others sealed for it."""
        for index in sorted(self.alive):
            self.parties[index].deliver(self.collector.outgoing(node(index)))

    def open(self) -> "SumNetwork":
        """Set the session up."""
        self.advertise()
        self.share()
        self.deliver()
        return self

    def send(self, index: int, vector: Words, *, step: int = 0, context: bytes = CONTEXT) -> Words:
        """The party masks its vector and sends it. Returns what went over the wire."""
        masked = self.parties[index].masked(vector, step=step, context=context)
        self.sent[index, step] = masked
        self.collector.input(node(index), masked, step=step, context=context)
        return masked

    def reveal(self, index: int, *, step: int = 0, survivors: Collection[NodeId] | None = None) -> None:
        """The party opens its shares for the collector's survivors, or for those it is told."""
        left = self.collector.close(step)
        if step not in self.agreements and len(left) >= self.parties[index].fewest:
            self.agreements[step] = agreed(
                {each: self.parties[int.from_bytes(each.raw, "big")] for each in left}, step=step
            )
        told = left if survivors is None else survivors
        self.revealed[index, step] = self.parties[index].reveal(
            step=step, survivors=told, agreements=self.agreements.get(step, {})
        )
        self.collector.reveal(node(index), self.revealed[index, step], step=step)

    def run(self, vectors: Mapping[int, Words], *, step: int = 0, context: bytes = CONTEXT) -> Words:
        """Run one whole step with those who have a vector and are alive."""
        for index in sorted(self.alive & vectors.keys()):
            self.send(index, vectors[index], step=step, context=context)
        self.open_masks(step=step)
        return self.collector.total(step)

    def open_masks(self, *, step: int = 0) -> None:
        """Have all survivors of a step that are alive open their shares."""
        for survivor in self.collector.close(step):
            index = int.from_bytes(survivor.raw, "big")
            if index in self.alive:
                self.reveal(index, step=step)


def vectors_of(parties: int, *, length: int, seed: int = 1) -> dict[int, Words]:
    """Return a vector per party, uniform over all 64-bit words."""
    rng = np.random.default_rng(seed)
    return {index: rng.integers(0, 2**64, length, dtype=np.uint64) for index in range(parties)}


def plain_sum(vectors: Mapping[int, Words], of: Collection[int]) -> Words:
    """Return the sum modulo 2^64 that a trusted party would give."""
    total: Words = np.sum([vectors[index] for index in of], axis=0, dtype=np.uint64)
    return total
