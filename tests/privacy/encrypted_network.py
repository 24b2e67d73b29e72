"""Encrypted sums in one process: real keys, real ciphertexts, real memory; a dictionary for the wire."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyholder.memory import StepMemory
from privacy.encrypted_collector import EncryptedCollector
from privacy.encrypted_party import EncryptedParty
from privacy.encrypted_sum import KeyHolder
from privacy.encryption import SCHEMES
from privacy.rng import Words
from privacy.sum_key_holder import SumKeyHolder
from protocols.clock import FixedClock
from protocols.ids import ConsortiumId, NodeId
from protocols.roster import KeyHolderEntry, NodeEntry, Roster, Settings
from tests.privacy.sum_network import CONTEXT, identity, node, session_of

MOMENT = datetime(2026, 11, 21, tzinfo=UTC)
HOLDER = "holder"
HOLDER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)


def roster_of(parties: int, *, scheme: str, minimum_sites: int = 2) -> Roster:
    """Return a roster of so many hospitals and the key-holder."""
    return Roster(
        consortium=ConsortiumId(bytes(16)),
        version=1,
        issued_at=MOMENT,
        settings=Settings("Test", minimum_sites, 1, scheme),
        nodes=tuple(
            NodeEntry(node(i), f"H{i}", identity(i).public_key().public_bytes_raw(), f"key {i}")
            for i in range(parties)
        ),
        key_holders=(KeyHolderEntry(HOLDER, HOLDER_KEY.public_key().public_bytes_raw()),),
    )


class EncryptedNetwork:
    """Parties by index, their collector and the key-holder. Same verbs as SumNetwork."""

    def __init__(
        self,
        parties: int,
        *,
        scheme: str,
        folder: Path,
        steps: int = 1,
        colluders: int = 0,
        minimum_survivors: int = 1,
        session: int = 1,
    ) -> None:
        self.parameters = session_of(parties, steps=steps, colluders=colluders, session=session)
        self.colluders = colluders
        self.scheme = SCHEMES[scheme]
        self.roster = roster_of(parties, scheme=scheme)
        self.folder = folder
        self.memory = StepMemory(folder / "steps.sqlite", clock=FixedClock(MOMENT))
        self.holder = self.new_holder()
        keys = {node(i): identity(i).public_key() for i in range(parties)}
        self.parties = [
            EncryptedParty(
                self.parameters,
                me=node(i),
                signing_key=identity(i),
                peer_keys=keys,
                key_holder=KeyHolder(HOLDER, HOLDER_KEY.public_key()),
                scheme=self.scheme,
                minimum_survivors=minimum_survivors,
            )
            for i in range(parties)
        ]
        self.collector = EncryptedCollector(self.parameters, form=self.scheme.form, peer_keys=keys)
        self.alive = set(range(parties))
        self.sent: dict[tuple[int, int], bytes] = {}  # ciphertexts by (party, step)

    def new_holder(self) -> SumKeyHolder:
        """Return a key-holder as after a restart: the same identity and memory, no keys."""
        return SumKeyHolder(
            self.scheme,
            name=HOLDER,
            signing_key=HOLDER_KEY,
            roster=lambda: self.roster,
            memory=self.memory,
        )

    def die(self, index: int) -> None:
        self.alive.discard(index)
        self.collector.drop(node(index))

    def open(self) -> "EncryptedNetwork":
        """Nothing to agree on ahead."""
        return self

    def keys(self, step: int = 0) -> tuple[bytes, bytes]:
        """The key-holder makes the key of a step and every living party takes it."""
        made = self.holder.key(self.parameters, step=step, tolerance=self.colluders)
        for index in sorted(self.alive):
            self.parties[index].take_key(step, *made)
        return made

    def send(self, index: int, vector: Words, *, step: int = 0, context: bytes = CONTEXT) -> bytes:
        """The party encrypts its vector and commits to it. Returns the commitment."""
        statement = self.parties[index].seal(vector, step=step, context=context)
        self.collector.commit(node(index), statement, step=step)
        return statement

    def fix(self, step: int = 0) -> tuple[dict[NodeId, bytes], bytes]:
        """The collector closes the step and the key-holder fixes its inputs."""
        self.collector.close(step)
        commitments = self.collector.commitments(step)
        return commitments, self.holder.fix(self.parameters, commitments, step=step)

    def release(
        self, index: int, commitments: Mapping[NodeId, bytes], fixed: bytes, *, step: int = 0
    ) -> bytes:
        """The party shows its ciphertext."""
        found = self.parties[index].release(step=step, commitments=commitments, fixed=fixed)
        self.sent[index, step] = found
        self.collector.ciphertext(node(index), found, step=step)
        return found

    def reveal(self, index: int, *, step: int = 0, survivors: Collection[NodeId] | None = None) -> None:
        """The party takes the others' ciphertexts and endorses their sum."""
        told = self.collector.settle(step) if survivors is None else survivors
        for other in told:
            if other != node(index):
                shown = self.sent[int.from_bytes(other.raw, "big"), step]
                self.parties[index].take(other, shown, step=step)
        endorsement = self.parties[index].endorse(step=step, survivors=told)
        self.collector.endorse(node(index), endorsement, step=step)

    def total(self, step: int = 0) -> Words:
        """The key-holder opens what was endorsed."""
        asked = self.collector.opening(step)
        return self.holder.open(
            self.parameters,
            step=step,
            survivors=asked.survivors,
            total=asked.total,
            endorsements=asked.endorsements,
        )

    def run(
        self,
        vectors: Mapping[int, Words],
        *,
        step: int = 0,
        context: bytes = CONTEXT,
        late: Collection[int] = (),
    ) -> Words:
        """Run one whole step with those who have a vector; `late` ones commit and then vanish."""
        self.keys(step)
        for index in sorted(self.alive & vectors.keys()):
            self.send(index, vectors[index], step=step, context=context)
        commitments, fixed = self.fix(step)
        for survivor in sorted(commitments):
            index = int.from_bytes(survivor.raw, "big")
            if index in self.alive and index not in late:
                self.release(index, commitments, fixed, step=step)
        for survivor in self.collector.settle(step):
            self.reveal(int.from_bytes(survivor.raw, "big"), step=step)
        return self.total(step)

    def close(self) -> None:
        self.memory.close()
