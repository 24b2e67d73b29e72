"""One participant of a secure sum. Pure: no sockets, no clock; the caller carries the messages.

In order: advert, shares, deliver; then for each step, in any order and from any thread: (prepare,) masked, or
masking for a vector that is sent in pieces; (agree,) reveal. What a step no longer needs is forgotten, so
that a later look into the memory opens nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from types import MappingProxyType

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy import shamir
from privacy.errors import (
    BadAdvert,
    BadParameters,
    BadShares,
    BadStatement,
    Disagreement,
    OutOfOrder,
    ProtocolViolation,
    StepReused,
    TooFewSurvivors,
)
from privacy.masks import (
    CONTEXT_BYTES,
    MAX_WORDS,
    SEED_BYTES,
    MaskStream,
    Stream,
    apply_all,
)
from privacy.rng import SecureBits, Words
from privacy.secure_sum import STEP_SHARES_BYTES, SealedShares, SessionParameters, sealed_bytes
from privacy.shamir import SHARE_BYTES
from privacy.sum_channel import (
    KEY_BYTES,
    PairChannel,
    sign_advert,
    sign_survivors,
    verify_advert,
    verify_survivors,
    wrap,
)
from protocols.ids import NodeId


class _Prepared:
    """A mask that was computed ahead, read from its beginning."""

    def __init__(self, mask: Words) -> None:
        self._mask = mask
        self._used = 0

    def apply(self, words: Words, *, scratch: Words | None = None) -> None:
        used = self._mask[self._used : self._used + words.size]
        words += used
        used.fill(0)  # freed memory may stay with the process
        self._used += words.size


class Masking:
    """The masks of one step, laid over one vector piece by piece: each word once, from first to last.

    It holds no more than a piece, however long the vector. Not from several threads at once.
    """

    def __init__(self, streams: Sequence[Stream], *, length: int) -> None:
        self._streams = streams
        self._left = length

    @property
    def finished(self) -> bool:
        """Whether the whole vector has been masked."""
        return self._left == 0

    def over(self, part: Words) -> Words:
        """Return the vector's next words under the masks, in a new array. Raises: BadParameters."""
        _check_words(part)
        masked = part.copy()
        self.lay_over(masked)
        return masked

    def lay_over(self, part: Words) -> None:
        """Add the masks to the vector's next words, in place. Raises: BadParameters."""
        _check_words(part)
        if not 1 <= part.size <= self._left:
            raise BadParameters("a piece lies within what is left of the vector")
        self._left -= part.size
        apply_all(self._streams, part)
        if self.finished:
            self._streams = ()

    def __repr__(self) -> str:
        return "Masking(<hidden>)"


class SumParty:
    """One party's side of one session.

    Guarantee, whatever the coordinator sends: each step's mask covers one vector; for one peer and step a
    share of the self seed or of the wrap key is revealed, never both; each step is revealed once, only after
    its vector was sent, and only if told of at least max(threshold, minimum_survivors) survivors, this one
    among them; if two or more are missing, only if `threshold` survivors signed that they were told the same
    (why: privacy.secure_sum). Refusals change nothing.
    """

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        me: NodeId,
        signing_key: Ed25519PrivateKey,
        peer_keys: Mapping[NodeId, Ed25519PublicKey],
        bits: SecureBits,
        minimum_survivors: int,
    ) -> None:
        """Take part as `me`.

        Args:
            signing_key: this node's identity key.
            peer_keys: the other participants' identity keys, from the verified roster; others are ignored.
            bits: where the secrets of the session come from.
            minimum_survivors: the fewest parties in a sum, if more than the threshold; 1 to all.
        Raises: BadParameters. Whether the threshold allows for the colluders that the hospital fears is the
            caller's to check, with `threshold_for`.
        """
        others = [node for node in parameters.participants if node != me]
        if len(others) != len(parameters.participants) - 1:
            raise BadParameters("this node is no participant")
        if missing := [node for node in others if node not in peer_keys]:
            raise BadParameters(f"no identity key of {missing[0]}")
        if not 1 <= minimum_survivors <= len(parameters.participants):
            raise BadParameters("minimum_survivors is between 1 and the number of participants")
        self.parameters = parameters
        self.fewest = max(parameters.threshold, minimum_survivors)
        self._me = me
        self._signing_key = signing_key
        self._peer_keys = {node: peer_keys[node] for node in others}
        self._bits = bits
        self._digest = parameters.digest()
        self._private: X25519PrivateKey | None = None
        self._advert = b""
        self._channels: dict[NodeId, PairChannel] = {}  # by peer that advertised, until deliver
        self._self_seeds: dict[int, bytes] = {}  # by step, until masked
        self._pair_seeds: dict[int, dict[NodeId, bytes]] = {}  # by step and peer, until masked
        self._held: dict[NodeId, bytearray] = {}  # the shares of all steps by owner, zeroed as revealed
        self._delivered = False
        self._prepared: dict[int, tuple[bytes, Words]] = {}
        self._masked: dict[int, Masking] = {}  # whose masks are used up, or about to be
        self._revealed: set[int] = set()
        self._agreed: dict[int, frozenset[NodeId]] = {}  # survivors by step, as signed
        self._lock = Lock()  # a step's one use is taken under it

    def advert(self) -> bytes:
        """Return this party's signed channel key, the same each time."""
        with self._lock:
            if not self._advert:
                self._private = X25519PrivateKey.from_private_bytes(self._bits.bytes(KEY_BYTES))
                public = self._private.public_key().public_bytes_raw()
                self._advert = sign_advert(public, digest=self._digest, me=self._me, key=self._signing_key)
        return self._advert

    def shares(self, adverts: Mapping[NodeId, bytes]) -> SealedShares:
        """Check the others' adverts and return the shares of all steps' secrets, sealed to each. Once.

        Args:
            adverts: of those that take part, with or without mine.
        Raises: BadAdvert, TooFewSurvivors, OutOfOrder, ProtocolViolation.
        """
        if self._private is None or self._channels or self._delivered:
            raise OutOfOrder("shares follow the advert, once")
        if strangers := set(adverts) - set(self.parameters.participants):
            raise ProtocolViolation(f"{min(strangers)} is no participant")
        if adverts.get(self._me, self._advert) != self._advert:
            raise BadAdvert("not what this party sent", node=self._me)
        peers = sorted(set(adverts) - {self._me})
        self._enough(len(peers) + 1)
        channels = {}
        for peer in peers:
            public = verify_advert(adverts[peer], digest=self._digest, node=peer, key=self._peer_keys[peer])
            channels[peer] = PairChannel(self._private, public, digest=self._digest, me=self._me, peer=peer)
        with self._lock:
            if self._channels or self._delivered:
                raise OutOfOrder("shares follow the advert, once")
            self._channels = channels
        self._private = None
        return self._share_out()

    def deliver(self, sealed: Mapping[NodeId, bytes]) -> None:
        """Take what the others sealed for this party. Once; masks are agreed with exactly these senders.

        Who advertised and is missing here never takes part in a mask of this session. If the coordinator
        tells two parties different sets their masks do not cancel: the total is noise, not a leak.
        Raises: BadShares, TooFewSurvivors, OutOfOrder, ProtocolViolation.
        """
        if not self._channels or self._delivered:
            raise OutOfOrder("delivery follows the shares, once")
        if strangers := set(sealed) - set(self._channels):
            raise ProtocolViolation(f"{min(strangers)} did not advertise")
        self._enough(len(sealed) + 1)
        opened = {}
        for sender, data in sealed.items():
            if len(data) != sealed_bytes(self.parameters.steps):
                raise BadShares(f"{sealed_bytes(self.parameters.steps)} bytes are expected", node=sender)
            opened[sender] = bytearray(self._channels[sender].open(data))
        with self._lock:
            if self._delivered:
                raise OutOfOrder("delivery follows the shares, once")
            self._held |= opened
            self._delivered = True
        self._channels = {}
        for seeds in self._pair_seeds.values():
            for absent in set(seeds) - set(self._held):
                del seeds[absent]

    def prepare(self, *, step: int, context: bytes, length: int) -> None:
        """Compute the mask of a step ahead of its vector, while something else takes time.

        Raises: as `masked`.
        """
        self._must_be_open(step)
        self._check_form(length, context)
        seeds = self._pair_seeds.get(step)
        self_seed = self._self_seeds.get(step)
        if seeds is None or self_seed is None:
            raise StepReused(step=step)
        mask = np.zeros(length, dtype=np.uint64)
        apply_all(self._streams(self_seed, seeds, context=context), mask)
        with self._lock:
            if step not in self._masked:
                self._prepared[step] = (context, mask)

    def masked(self, vector: Words, *, step: int, context: bytes) -> Words:
        """Return `vector` under the masks of `step`, in a new array. Once per step.

        Args:
            vector: one-dimensional uint64, not empty.
            step: 0 to steps - 1, in any order.
            context: 32 bytes that name what is summed; masks of parties with another context do not cancel.
        Raises: StepReused, OutOfOrder, ProtocolViolation, BadParameters.
        """
        self._must_be_open(step)
        _check_words(vector)
        return self.masking(step=step, context=context, length=vector.size).over(vector)

    def masking(self, *, step: int, context: bytes, length: int) -> Masking:
        """Return the masks of `step` for a vector that is sent in pieces. Once per step, as `masked`.

        Nothing is revealed of a step whose vector was not masked to its end: half a vector is none.
        Raises: as `masked`.
        """
        self._must_be_open(step)
        self._check_form(length, context)
        with self._lock:
            if step in self._masked:
                raise StepReused(step=step)
            prepared = self._prepared.pop(step, None)
            self_seed, seeds = self._self_seeds.pop(step), self._pair_seeds.pop(step)
            streams: Sequence[Stream]
            if prepared is not None and _is_for(prepared, context, length):
                streams = [_Prepared(prepared[1])]
            else:
                streams = self._streams(self_seed, seeds, context=context)
            masking = self._masked[step] = Masking(streams, length=length)
        return masking

    def agree(self, *, step: int, survivors: Collection[NodeId]) -> bytes:
        """Return the signed word that this party was told of exactly these survivors. Once a step.

        From then on it reveals for no others. Raises: TooFewSurvivors, StepReused, OutOfOrder,
            ProtocolViolation, also where so few are missing that no word is needed.
        """
        left = self._survivors(step, survivors)
        if not self.parameters.must_agree(left):
            raise ProtocolViolation("as many are there as need no agreement")
        with self._lock:
            self._must_be_unrevealed(step)
            if step in self._agreed:
                raise StepReused(step=step)
            self._agreed[step] = left
        return sign_survivors(left, digest=self._digest, step=step, me=self._me, key=self._signing_key)

    def reveal(
        self,
        *,
        step: int,
        survivors: Collection[NodeId],
        agreements: Mapping[NodeId, bytes] = MappingProxyType({}),
    ) -> dict[NodeId, bytes]:
        """Return one share by participant: of a survivor's self seed, of anybody else's wrap key. Once.

        Args: agreements: what survivors signed, where they must (`SessionParameters.must_agree`); wrong ones
            do not count.
        Raises: Disagreement, TooFewSurvivors, StepReused, OutOfOrder, ProtocolViolation.
        """
        left = self._survivors(step, survivors)
        if self.parameters.must_agree(left):
            signed = sum(
                self._signed(agreements[node], left, step=step, node=node) for node in left & set(agreements)
            )
            if signed < self.parameters.threshold:
                raise Disagreement(got=signed, threshold=self.parameters.threshold)
        with self._lock:
            self._must_be_unrevealed(step)
            if self._agreed.get(step, left) != left:
                raise ProtocolViolation("this party signed for other survivors")
            self._revealed.add(step)
            shares = {}
            for owner, held in self._held.items():
                start = step * STEP_SHARES_BYTES
                middle, end = start + SHARE_BYTES, start + STEP_SHARES_BYTES
                shares[owner] = bytes(held[start:middle] if owner in left else held[middle:end])
                held[start:end] = bytes(STEP_SHARES_BYTES)
        return shares

    def _survivors(self, step: int, survivors: Collection[NodeId]) -> frozenset[NodeId]:
        self._must_be_open(step)
        left = frozenset(survivors)
        if len(left) != len(survivors) or not left <= set(self._held):
            raise ProtocolViolation("survivors are participants and each stands once")
        if self._me not in left:
            raise ProtocolViolation("this party sent its vector and is no survivor")
        self._enough(len(left))
        return left

    def _signed(self, statement: bytes, survivors: frozenset[NodeId], *, step: int, node: NodeId) -> bool:
        key = self._signing_key.public_key() if node == self._me else self._peer_keys[node]
        try:
            verify_survivors(statement, survivors, digest=self._digest, step=step, node=node, key=key)
        except BadStatement:
            return False
        return True

    def _must_be_unrevealed(self, step: int) -> None:
        if step not in self._masked or not self._masked[step].finished:
            raise OutOfOrder(f"no whole vector was sent for step {step}")
        if step in self._revealed:
            raise StepReused(step=step)

    def _share_out(self) -> SealedShares:
        """Draw the secrets of all steps and return them shared, sealed and wrapped."""
        nodes = self.parameters.participants
        columns = [bytearray() for _ in nodes]
        wraps = bytearray()
        for step in range(self.parameters.steps):
            drawn = self._bits.bytes(2 * SEED_BYTES)
            self_seed, wrap_key = drawn[:SEED_BYTES], drawn[SEED_BYTES:]
            for secret in (self_seed, wrap_key):
                split = shamir.split(
                    secret, threshold=self.parameters.threshold, shares=len(nodes), bits=self._bits
                )
                for column, share in zip(columns, split, strict=True):
                    column += share
            pair_seeds = {peer: channel.pair_seed(step) for peer, channel in self._channels.items()}
            wraps += wrap(
                list(pair_seeds.values()),
                self_seed=self_seed,
                wrap_key=wrap_key,
                digest=self._digest,
                node=self._me,
                step=step,
            )
            self._self_seeds[step] = self_seed
            self._pair_seeds[step] = pair_seeds
        by_node = dict(zip(nodes, columns, strict=True))
        self._held[self._me] = by_node[self._me]
        sealed = {peer: channel.seal(bytes(by_node[peer])) for peer, channel in self._channels.items()}
        return SealedShares(sealed=sealed, wraps=bytes(wraps))

    def _streams(
        self, self_seed: bytes, pair_seeds: Mapping[NodeId, bytes], *, context: bytes
    ) -> list[MaskStream]:
        own = MaskStream(seed=self_seed, context=context)
        pairs = [
            MaskStream(seed=seed, context=context, subtract=peer < self._me)
            for peer, seed in pair_seeds.items()
        ]
        return [own, *pairs]

    def _must_be_open(self, step: int) -> None:
        if not self._delivered:
            raise OutOfOrder("shares have not been delivered")
        if type(step) is not int or not 0 <= step < self.parameters.steps:
            raise ProtocolViolation(f"steps are 0 to {self.parameters.steps - 1}")

    def _check_form(self, length: int, context: bytes) -> None:
        if not isinstance(context, bytes) or len(context) != CONTEXT_BYTES:
            raise BadParameters(f"a context has {CONTEXT_BYTES} bytes")
        if not 1 <= length <= MAX_WORDS:
            raise BadParameters(f"a vector has 1 to {MAX_WORDS} words")

    def _enough(self, got: int) -> None:
        if got < self.fewest:
            raise TooFewSurvivors(got=got, fewest=self.fewest)

    def __repr__(self) -> str:
        return f"SumParty(<hidden>, {self._me} in {self.parameters.session_id})"


def _is_for(prepared: tuple[bytes, Words], context: bytes, length: int) -> bool:
    """Return whether a mask that was computed ahead is the one that is needed."""
    ahead, mask = prepared
    return ahead == context and mask.size == length


def _check_words(vector: Words) -> None:
    if not isinstance(vector, np.ndarray) or vector.dtype != np.uint64 or vector.ndim != 1:
        raise BadParameters("a vector is a one-dimensional array of uint64")
