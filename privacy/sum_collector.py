"""The coordinator's side of a secure sum. Pure: no sockets, no clock; the caller carries the messages.

Late and repeated messages change nothing; the first of each kind counts. What breaks the protocol raises and
is as if it had not come. The caller decides how long to wait: the `missing_*` queries say for whom.

A vector may come in pieces. They wait outside the sum, beyond a few megabytes in a file without a name,
until the last one is here: of a party that falls out half-way nothing is in the sum. So memory holds one
running sum and a few pieces, however many parties send at the same time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations, islice
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np

from privacy.errors import BadShares, OutOfOrder, ProtocolViolation, StepReused, TooFewReveals, UnopenedMask
from privacy.lanes import WORD_BYTES, LaneVector
from privacy.masks import MaskStream, apply_all
from privacy.rng import Words
from privacy.secure_sum import SealedShares, SessionParameters, sealed_bytes, wrap_bytes
from privacy.shamir import is_share, recover
from privacy.sum_channel import advertised_key, check_of, self_check, unwrap
from privacy.waiting_vector import Form, WaitingVector, form_of
from protocols.envelope import BadEnvelope, SignedEnvelope
from protocols.ids import NodeId

MAX_SUBSETS = 2000  # tried when shares are wrong: a second or two for 50 parties, then it is given up

Nodes: TypeAlias = tuple[NodeId, ...]


@dataclass
class _Step:
    """One step: running sums by form until it is closed, then the reveals."""

    forms: dict[NodeId, Form] = field(default_factory=dict)
    sums: dict[Form, Words] = field(default_factory=dict)
    waiting: dict[NodeId, WaitingVector] = field(default_factory=dict)
    adding: Lock = field(default_factory=Lock)  # of what changes `forms` and `sums`
    form: Form | None = None
    survivors: Nodes | None = None  # None: open
    revealed: dict[NodeId, dict[NodeId, bytes]] = field(default_factory=dict)
    done: bool = False


class SumCollector:
    """Collects what the parties of one session send, and gives each step's total.

    Guarantee: of a party's vector it holds nothing but masked words. It cannot judge signatures; the parties
    do. What is named `folder` takes the files of vectors that come in pieces; None: where the system keeps
    temporary files.
    """

    def __init__(self, parameters: SessionParameters, *, folder: Path | None = None) -> None:
        self.parameters = parameters
        self._folder = folder
        self._digest = parameters.digest()
        self._adverts: dict[NodeId, bytes] = {}
        self._shares: dict[NodeId, SealedShares] = {}
        self._advertised: Nodes | None = None  # fixed when adverts are handed on
        self._members: Nodes | None = None  # fixed when shares are handed on
        self._gone: set[NodeId] = set()
        self._steps: dict[int, _Step] = {}

    # ---- what the parties send ----

    def advert(self, node: NodeId, advert: bytes) -> None:
        """Take a party's signed channel key. Ignored after `adverts`. Raises: ProtocolViolation."""
        if self._ignored(node) or self._advertised is not None or node in self._adverts:
            return
        try:
            envelope = SignedEnvelope.from_bytes(advert)
        except BadEnvelope as error:
            raise ProtocolViolation("an advert is a signed envelope") from error
        advertised_key(envelope, digest=self._digest, node=node)
        self._adverts[node] = advert

    def adverts(self) -> dict[NodeId, bytes]:
        """Return the adverts that came, for every party that sent one. The first call fixes who they are."""
        if self._advertised is None:
            self._advertised = tuple(sorted(set(self._adverts) - self._gone))
        return {node: self._adverts[node] for node in self._advertised}

    def shares(self, node: NodeId, shares: SealedShares) -> None:
        """Take a party's sealed shares. Ignored after `outgoing`. Raises: BadShares, OutOfOrder."""
        if self._ignored(node) or self._members is not None or node in self._shares:
            return
        if self._advertised is None or node not in self._advertised:
            raise OutOfOrder("shares follow the adverts")
        peers, steps = len(self._advertised) - 1, self.parameters.steps
        if set(shares.sealed) != set(self._advertised) - {node}:
            raise BadShares("not one for each other party that advertised", node=node)
        if {len(data) for data in shares.sealed.values()} != {sealed_bytes(steps)}:
            raise BadShares("shares of another size", node=node)
        if len(shares.wraps) != steps * wrap_bytes(peers):
            raise BadShares("wraps of another size", node=node)
        self._shares[node] = shares

    def outgoing(self, node: NodeId) -> dict[NodeId, bytes]:
        """Return what the others sealed for `node`, by sender. The first call fixes who takes part."""
        if self._advertised is None:
            raise OutOfOrder("delivery follows the shares")
        if self._members is None:
            self._members = tuple(sorted(set(self._shares) - self._gone))
        return {sender: self._shares[sender].sealed[node] for sender in self._members if sender != node}

    def input(
        self,
        node: NodeId,
        vector: Words,
        *,
        step: int,
        context: bytes,
        lanes: int = 1,
        length: int | None = None,
    ) -> bool:
        """Take a party's masked vector and return whether it counts: it is its first and the step is open.

        A vector of another length, context or number of lanes than most is left out at `close`, as if it had
        not come. Args: length: in numbers, `lanes` of them to a word (privacy.lanes); None: all words full.
        Raises: ProtocolViolation, OutOfOrder.
        """
        state = self._open_to(node, step)
        if not isinstance(vector, np.ndarray) or vector.dtype != np.uint64 or vector.ndim != 1:
            raise ProtocolViolation("a masked vector is a one-dimensional array of uint64")
        form = form_of(bytes(context), vector.size * lanes if length is None else length, lanes)
        if form.words != vector.size:
            raise ProtocolViolation("another number of words than the numbers take")
        return state is not None and self._add(
            state, node, form, lambda total: np.add(total, vector, out=total)
        )

    def piece(
        self, node: NodeId, data: bytes, *, step: int, context: bytes, lanes: int, length: int, offset: int
    ) -> bool:
        """Take the next words of a party's masked vector; return whether the vector is whole now.

        Then `add` puts it into the sum. Args: data: words, least significant byte first; length: in numbers;
        offset: in words. Raises: ProtocolViolation, OutOfOrder; a party that breaks off, or whose pieces do
        not fit together, is a dropout.
        """
        state = self._open_to(node, step)
        form = form_of(bytes(context), length, lanes)
        if len(data) % WORD_BYTES or not 0 < len(data) <= (form.words - offset) * WORD_BYTES:
            raise ProtocolViolation("a piece is whole words of the vector")
        if state is None:
            return False
        waiting = state.waiting.get(node)
        if waiting is None:
            waiting = state.waiting[node] = WaitingVector(form, self._folder)
        if waiting.whole:
            return False
        if waiting.form != form or not waiting.take(data, offset=offset):
            self._forget(state, node)
            raise ProtocolViolation("a piece does not follow the one before it, or is not as long")
        return waiting.whole

    def add(self, node: NodeId, *, step: int) -> bool:
        """Put a vector whose pieces are all here into the sum; return whether it counts. From any thread."""
        state = self._open_to(node, step)
        waiting = None if state is None else state.waiting.get(node)
        if state is None or waiting is None or not waiting.whole:
            return False
        counts = self._add(state, node, waiting.form, waiting.add_to)
        self._forget(state, node)
        return counts

    def _add(self, state: _Step, node: NodeId, form: Form, put_into: Callable[[Words], object]) -> bool:
        with state.adding:
            if state.survivors is not None or node in state.forms:
                return False
            total = state.sums.get(form)
            if total is None:
                total = state.sums[form] = np.zeros(form.words, dtype=np.uint64)
            try:
                put_into(total)
            except BaseException:  # a file that cannot be read: half a vector is in, so there is no sum
                state.sums.clear()
                state.survivors = ()
                raise
            state.forms[node] = form
            return True

    def _open_to(self, node: NodeId, step: int) -> _Step | None:
        """Return the step if this party's vector can still come."""
        if self._ignored(node):
            return None
        state = self._step(step, node)
        return None if state.survivors is not None or node in state.forms else state

    def _forget(self, state: _Step, node: NodeId) -> None:
        waiting = state.waiting.pop(node, None)
        if waiting is not None:
            waiting.close()

    def close(self, step: int) -> Nodes:
        """Return who is in the sum of `step`, ascending; from the first call on this is fixed.

        Parties whose vectors are whole and have the most common form; on a tie that of the lowest node id.
        """
        state = self._step(step)
        with state.adding:
            if state.survivors is None:
                by_form: dict[Form, list[NodeId]] = {}
                for node in sorted(state.forms):
                    by_form.setdefault(state.forms[node], []).append(node)
                if by_form:
                    state.form = max(by_form, key=lambda form: len(by_form[form]))
                state.survivors = tuple(by_form[state.form]) if state.form else ()
                state.sums = {form: total for form, total in state.sums.items() if form == state.form}
        for node in tuple(state.waiting):
            self._forget(state, node)
        return state.survivors

    def form(self, step: int) -> Form | None:
        """Return the form of the vectors in the sum of `step`; None while it is open, or empty."""
        return self._step(step).form

    def reveal(self, node: NodeId, shares: Mapping[NodeId, bytes], *, step: int) -> None:
        """Take the shares that a survivor opens for `step`; its first count. Raises: ProtocolViolation."""
        if self._ignored(node):
            return
        state = self._step(step, node)
        if state.survivors is None:
            raise OutOfOrder(f"step {step} is still open")
        if node not in state.survivors:
            raise BadShares("it is no survivor of this step", node=node)
        if set(shares) != set(self._members or ()) or not all(is_share(share) for share in shares.values()):
            raise BadShares("not one share for each participant", node=node)
        if not state.done:
            state.revealed.setdefault(node, dict(shares))

    def drop(self, node: NodeId) -> None:
        """Wait for `node` no longer and ignore what it sends from now on. What is in a sum stands."""
        self._known(node)
        self._gone.add(node)
        for state in self._steps.values():
            waiting = state.waiting.get(node)
            if waiting is not None and not waiting.whole:  # a whole one may just be being added
                self._forget(state, node)

    def end(self) -> None:
        """Forget what waits to be added: the session is over."""
        for state in self._steps.values():
            for node in tuple(state.waiting):
                self._forget(state, node)

    # ---- what is missing ----

    def missing_adverts(self) -> frozenset[NodeId]:
        """Return who has not advertised and was not dropped."""
        return frozenset(self.parameters.participants) - self._adverts.keys() - self._gone

    def missing_shares(self) -> frozenset[NodeId]:
        """Return who has advertised, has not sent its shares and was not dropped."""
        return frozenset(self._adverts) - self._shares.keys() - self._gone

    def missing_inputs(self, step: int) -> frozenset[NodeId]:
        """Return whose vector for `step` can still come; nobody's once it is closed."""
        state = self._step(step)
        if state.survivors is not None:
            return frozenset()
        return frozenset(self._members or ()) - state.forms.keys() - self._gone

    def missing_reveals(self, step: int) -> frozenset[NodeId]:
        """Return which survivors of `step` have not revealed and were not dropped."""
        state = self._step(step)
        return frozenset(state.survivors or ()) - state.revealed.keys() - self._gone

    def enough_reveals(self, step: int) -> bool:
        """Return whether a total of `step` can be tried."""
        return len(self._step(step).revealed) >= self.parameters.threshold

    # ---- the total ----

    def total(self, step: int) -> Words:
        """Return the numbers of `opened`, each in a word of its own."""
        return self.opened(step).signed()

    def opened(self, step: int) -> LaneVector:
        """Return the sum of the survivors' vectors modulo 2^64. Once; a failed try may be repeated.

        If shares are wrong, other sets of them are tried, so one liar among more than `threshold` reveals
        does no harm.
        Raises: OutOfOrder, TooFewReveals, UnopenedMask, StepReused.
        """
        state = self._step(step)
        if state.form is None or not state.survivors:
            raise OutOfOrder(f"step {step} is still open or empty")
        if state.done:
            raise StepReused(step=step)
        threshold = self.parameters.threshold
        if len(state.revealed) < threshold:
            raise TooFewReveals(got=len(state.revealed), threshold=threshold)
        self_seeds, pair_seeds = self._open(state, step)
        state.done = True
        total = state.sums.pop(state.form)
        context = state.form.context
        streams = [MaskStream(seed=seed, context=context, subtract=True) for seed in self_seeds]
        for survivor, absent, seed in pair_seeds:
            streams.append(MaskStream(seed=seed, context=context, subtract=survivor < absent))
        apply_all(streams, total)
        state.revealed.clear()
        return LaneVector(total, state.form.length, state.form.lanes)

    def _open(self, state: _Step, step: int) -> tuple[list[bytes], list[tuple[NodeId, NodeId, bytes]]]:
        """Return the survivors' self seeds, and what nobody cancels: (survivor, absent, pair seed)."""
        survivors = state.survivors or ()
        good: Nodes = ()  # revealers whose shares fitted for the last peer
        self_seeds, pair_seeds = [], []
        for peer in self._members or ():
            for revealers in self._subsets(tuple(state.revealed), first=good):
                secret = self._recover(state, peer, revealers)
                if secret is None:
                    continue
                if peer in survivors:
                    check = check_of(self._shares[peer].wraps, step=step, peers=self._peers())
                    if hmac.compare_digest(self_check(secret), check):
                        self_seeds.append(secret)
                        break
                elif (seeds := self._pairs(peer, secret, step)) is not None:
                    pair_seeds += [(survivor, peer, seeds[survivor]) for survivor in survivors]
                    break
            else:
                raise UnopenedMask(peer=peer, step=step)
            good = revealers
        return self_seeds, pair_seeds

    def _recover(self, state: _Step, peer: NodeId, revealers: Nodes) -> bytes | None:
        index = self.parameters.participants.index
        return recover({index(node) + 1: state.revealed[node][peer] for node in revealers})

    def _pairs(self, node: NodeId, wrap_key: bytes, step: int) -> dict[NodeId, bytes] | None:
        """Return the pair seeds of `node` in `step` by peer, or None if the key is wrong."""
        seeds = unwrap(
            self._shares[node].wraps,
            wrap_key=wrap_key,
            digest=self._digest,
            node=node,
            step=step,
            peers=self._peers(),
        )
        others = [peer for peer in self._advertised or () if peer != node]
        return None if seeds is None else dict(zip(others, seeds, strict=True))

    def _subsets(self, nodes: Nodes, *, first: Nodes) -> Iterator[Nodes]:
        """Yield sets of `threshold` revealers: what fitted last, then neighbours in a ring, then any."""
        size = self.parameters.threshold
        if first:
            yield first
        ring = (tuple(islice(nodes + nodes, start, start + size)) for start in range(len(nodes)))
        yield from islice(chain(ring, combinations(nodes, size)), MAX_SUBSETS)

    # ---- who and when ----

    def _peers(self) -> int:
        return len(self._advertised or ()) - 1

    def _known(self, node: NodeId) -> None:
        if node not in self.parameters.participants:
            raise ProtocolViolation(f"{node} is no participant")

    def _ignored(self, node: NodeId) -> bool:
        self._known(node)
        return node in self._gone

    def _step(self, step: int, node: NodeId | None = None) -> _Step:
        if type(step) is not int or not 0 <= step < self.parameters.steps:
            raise ProtocolViolation(f"steps are 0 to {self.parameters.steps - 1}")
        if self._members is None or (node is not None and node not in self._members):
            raise OutOfOrder("only who has delivered shares takes part in steps")
        return self._steps.setdefault(step, _Step())

    def __repr__(self) -> str:
        return f"SumCollector({self.parameters.session_id})"
