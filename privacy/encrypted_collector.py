"""The coordinator's side of an encrypted sum. Pure: no sockets, no clock, no key, no library.

As SumCollector: late and repeated messages change nothing, the first of each kind counts; what breaks the
protocol raises and is as if it had not come; the caller decides how long to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy import encrypted_sum
from privacy.encrypted_sum import Form, digest
from privacy.errors import BadStatement, OutOfOrder, ProtocolViolation, TooFewReveals
from privacy.ring_vector import RingForm
from privacy.secure_sum import SessionParameters
from protocols.envelope import Purpose
from protocols.ids import NodeId

Nodes = tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """What the key-holder is asked to open: a sum, who is in it, and who has added it up too."""

    form: Form
    survivors: Nodes
    total: bytes
    endorsements: Mapping[NodeId, bytes]


@dataclass
class _Step:
    commitments: dict[NodeId, tuple[Form, bytes, bytes]] = field(default_factory=dict)
    survivors: Nodes | None = None  # None: open for commitments
    form: Form | None = None
    ciphertexts: dict[NodeId, bytes] = field(default_factory=dict)
    settled: Nodes | None = None  # None: open for ciphertexts
    total: bytes = b""  # of those who are settled, as it is endorsed and opened
    total_digest: bytes = b""
    endorsements: dict[NodeId, bytes] = field(default_factory=dict)


class EncryptedCollector:
    """Collects what the parties of one session send. What it holds of a party is a ciphertext.

    Args: peer_keys: the participants' identity keys; a message that its sender did not sign is refused here
    already, so that one liar cannot spoil a step for the others.
    """

    def __init__(
        self, parameters: SessionParameters, *, form: RingForm, peer_keys: Mapping[NodeId, Ed25519PublicKey]
    ) -> None:
        self.parameters = parameters
        self._ring = form
        self._session = parameters.digest()
        self._peer_keys = {node: peer_keys[node] for node in parameters.participants}
        self._gone: set[NodeId] = set()
        self._steps: dict[int, _Step] = {}

    # ---- what the parties send ----

    def commit(self, node: NodeId, statement: bytes, *, step: int) -> bool:
        """Take a party's commitment; return whether it counts. Raises: ProtocolViolation."""
        if self._ignored(node):
            return False
        state = self._step(step)
        form, ciphertext = encrypted_sum.committed(statement, node=node, key=self._peer_keys[node])
        if (form.scheme, form.session, form.step) != (self._ring.scheme, self._session, step):
            raise BadStatement("a commitment for another step")
        if state.survivors is not None or node in state.commitments:
            return False
        state.commitments[node] = (form, ciphertext, statement)
        return True

    def close(self, step: int) -> Nodes:
        """Return who has committed to an input of the most common form. The first call fixes it."""
        state = self._step(step)
        if state.survivors is None:
            by_form: dict[Form, list[NodeId]] = {}
            for node in sorted(state.commitments):
                by_form.setdefault(state.commitments[node][0], []).append(node)
            if by_form:
                state.form = max(by_form, key=lambda form: len(by_form[form]))
                state.survivors = tuple(by_form[state.form])
            else:
                state.survivors = ()
        return state.survivors

    def form(self, step: int) -> Form:
        """Return what is summed. Raises: OutOfOrder before `close`, or if nobody committed."""
        form = self._step(step).form
        if form is None:
            raise OutOfOrder(f"step {step} is still open or empty")
        return form

    def commitments(self, step: int) -> dict[NodeId, bytes]:
        """Return the survivors' commitments, for the key-holder to fix and for the survivors to see."""
        state = self._step(step)
        return {node: state.commitments[node][2] for node in state.survivors or ()}

    def ciphertext(self, node: NodeId, ciphertext: bytes, *, step: int) -> bool:
        """Take a survivor's ciphertext; return whether it counts. Raises: ProtocolViolation."""
        if self._ignored(node):
            return False
        state = self._step(step)
        if state.form is None or node not in (state.survivors or ()):
            raise OutOfOrder("ciphertexts follow the commitments")
        if state.settled is not None or node in state.ciphertexts:
            return False
        if digest(ciphertext) != state.commitments[node][1]:
            raise BadStatement("not the ciphertext it committed to")
        state.ciphertexts[node] = ciphertext
        return True

    def settle(self, step: int) -> Nodes:
        """Return who is in the sum: whose ciphertext came and is one. From the first call on it is fixed.

        It adds them up, which takes a while for long vectors; nothing else may be called for this step then.
        """
        state = self._step(step)
        if state.settled is None and state.form is not None:
            total = self._ring.empty_sum(state.form.length)
            for node in sorted(state.ciphertexts):
                try:
                    self._ring.add(total, state.ciphertexts[node], length=state.form.length)
                except ProtocolViolation:
                    del state.ciphertexts[node]
            state.settled = tuple(sorted(state.ciphertexts))
            state.total = self._ring.pack(total)
            state.total_digest = digest(state.total)
        return state.settled or ()

    def ciphertexts(self, step: int) -> dict[NodeId, bytes]:
        """Return what goes to every party of the sum but its own sender, and forget it here."""
        state = self._step(step)
        held, state.ciphertexts = state.ciphertexts, {}
        return held

    def endorse(self, node: NodeId, statement: bytes, *, step: int) -> None:
        """Take a survivor's endorsement. Raises: ProtocolViolation if it has another sum."""
        if self._ignored(node):
            return
        state = self._step(step)
        if state.settled is None or node not in state.settled:
            raise OutOfOrder("only who is in the sum endorses it")
        key = self._peer_keys[node]
        fields = encrypted_sum.verified(statement, purpose=Purpose.SUM_ENDORSEMENT, signer=str(node), key=key)
        expected = encrypted_sum.endorsement(
            self.form(step), survivors=state.settled, total=state.total_digest
        )
        if fields != expected:
            raise BadStatement("it has another sum")
        state.endorsements.setdefault(node, statement)

    def opening(self, step: int) -> Opening:
        """Return what to ask the key-holder. Raises: TooFewReveals, OutOfOrder."""
        state, threshold = self._step(step), self.parameters.threshold
        if state.settled is None:
            raise OutOfOrder(f"step {step} is still open or empty")
        if len(state.endorsements) < threshold:
            raise TooFewReveals(got=len(state.endorsements), threshold=threshold)
        return Opening(self.form(step), state.settled, state.total, dict(state.endorsements))

    def drop(self, node: NodeId) -> None:
        """Ignore what `node` sends from now on. What it has sent stands."""
        if node not in self._peer_keys:
            raise ProtocolViolation(f"{node} is no participant")
        self._gone.add(node)

    def forget(self, step: int) -> None:
        """Let go of a step that has ended."""
        self._steps[step] = _Step(survivors=(), settled=())

    # ---- the rest ----

    def _ignored(self, node: NodeId) -> bool:
        if node not in self._peer_keys:
            raise ProtocolViolation(f"{node} is no participant")
        return node in self._gone

    def _step(self, step: int) -> _Step:
        if type(step) is not int or not 0 <= step < self.parameters.steps:
            raise ProtocolViolation(f"steps are 0 to {self.parameters.steps - 1}")
        return self._steps.setdefault(step, _Step())

    def __repr__(self) -> str:
        return f"EncryptedCollector({self.parameters.session_id})"
