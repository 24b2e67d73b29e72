"""One participant of an encrypted sum. Pure: no sockets, no clock; the caller carries the messages.

In order, for each step, the steps in any order and from any thread: take_key, seal, release, take (for each
other survivor), endorse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy import encrypted_sum
from privacy.encrypted_sum import Form, KeyHolder, digest
from privacy.encryption import Scheme
from privacy.errors import (
    BadParameters,
    BadStatement,
    OutOfOrder,
    ProtocolViolation,
    StepReused,
    TooFewSurvivors,
)
from privacy.ring_vector import signed_values
from privacy.rng import Words
from privacy.secure_sum import SessionParameters
from protocols.envelope import Purpose
from protocols.ids import NodeId


@dataclass
class _Step:
    """What one step has come to. Each of these happens once, in this order."""

    public_key: bytes = b""
    sealing: bool = False
    form: Form | None = None
    ciphertext: bytes = b""  # forgotten once it was added to the sum
    commitments: dict[NodeId, bytes] = field(default_factory=dict)  # digests of ciphertexts, once released
    total: Words | None = None
    added: set[NodeId] = field(default_factory=set)
    endorsed: bool = False


class EncryptedParty:
    """One party's side of one session.

    Guarantee, whatever the coordinator sends: each step encrypts one vector, under a key that the key-holder
    signed for this step; the ciphertext leaves only after the key-holder has fixed everybody's commitments,
    this party's among them; one sum a step is endorsed, over at least max(threshold, minimum_survivors)
    parties with this one, added up here from ciphertexts that their owners committed to. Refusals change
    nothing.
    """

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        me: NodeId,
        signing_key: Ed25519PrivateKey,
        peer_keys: Mapping[NodeId, Ed25519PublicKey],
        key_holder: KeyHolder,
        scheme: Scheme,
        minimum_survivors: int,
    ) -> None:
        """Take part as `me`.

        Args: as SumParty; `peer_keys` with this node's own or without. key_holder: from the verified roster.
        Raises: BadParameters; MissingExtra.
        """
        if me not in parameters.participants:
            raise BadParameters("this node is no participant")
        if missing := [node for node in parameters.participants if node != me and node not in peer_keys]:
            raise BadParameters(f"no identity key of {missing[0]}")
        if not 1 <= minimum_survivors <= len(parameters.participants):
            raise BadParameters("minimum_survivors is between 1 and the number of participants")
        scheme.require()
        self.parameters = parameters
        self.fewest = max(parameters.threshold, minimum_survivors)
        self._me = me
        self._signing_key = signing_key
        self._peer_keys = {node: peer_keys[node] for node in parameters.participants if node != me}
        self._key_holder = key_holder
        self._scheme = scheme
        self._session = parameters.digest()
        self._steps: dict[int, _Step] = {}
        self._lock = Lock()  # a step's one use is taken under it

    @property
    def largest_input(self) -> int:
        """The largest absolute value that a vector of this session may hold."""
        return self._scheme.form.largest_input(len(self.parameters.participants))

    def ciphertext_bytes(self, length: int) -> int:
        """Return the size of an encrypted vector of `length` values."""
        return self._scheme.form.ciphertext_bytes(length)

    def take_key(self, step: int, public_key: bytes, statement: bytes) -> None:
        """Take the key of a step if the key-holder signed it for this step. Once; the same again is fine.

        Raises: BadStatement, StepReused, ProtocolViolation.
        """
        state = self._step(step)
        fields = encrypted_sum.verified(
            statement, purpose=Purpose.SUM_KEY, signer=self._key_holder.name, key=self._key_holder.key
        )
        expected = {
            "key": digest(public_key).hex(),
            "scheme": self._scheme.name,
            "session": self._session.hex(),
            "step": step,
        }
        if fields != expected:
            raise BadStatement("a key for something else")
        with self._lock:
            if state.public_key not in (b"", public_key):
                raise StepReused(step=step)
            state.public_key = public_key

    def has_key(self, step: int) -> bool:
        """Return whether `seal` could be called for this step."""
        return bool(self._step(step).public_key)

    def seal(self, vector: Words, *, step: int, context: bytes) -> bytes:
        """Encrypt `vector` and return the signed commitment to its ciphertext. Once per step.

        Raises: DoesNotFit if a value is too large to be added without wrapping; StepReused, OutOfOrder,
            ProtocolViolation, BadParameters.
        """
        state = self._step(step)
        if not state.public_key:
            raise OutOfOrder("the step's key has not come")
        values = signed_values(vector, largest=self.largest_input)
        form = Form(
            scheme=self._scheme.name,
            session=self._session,
            step=step,
            context=context,
            length=vector.size,
            key=digest(state.public_key),
        )
        with self._lock:
            if state.sealing:
                raise StepReused(step=step)
            state.sealing = True
        ciphertext = self._scheme.encryptor(state.public_key).encrypt(values)
        state.ciphertext, state.form = ciphertext, form
        return self._signed(
            form.fields() | {"ciphertext": digest(ciphertext).hex()}, purpose=Purpose.SUM_INPUT
        )

    def release(self, *, step: int, commitments: Mapping[NodeId, bytes], fixed: bytes) -> bytes:
        """Return the ciphertext of `step`, now that nobody's can depend on it any more. Once.

        Args: commitments: of all that are in so far. fixed: the key-holder's signature on exactly these.
        Raises: TooFewSurvivors, BadStatement, StepReused, OutOfOrder, ProtocolViolation.
        """
        state = self._step(step)
        form = state.form
        if form is None:
            raise OutOfOrder(f"no vector was sent for step {step}")
        if state.commitments:
            raise StepReused(step=step)
        if not set(commitments) <= set(self.parameters.participants):
            raise ProtocolViolation("survivors are participants")
        self._enough(commitments)
        digests = {}
        for node, statement in commitments.items():
            key = self._signing_key.public_key() if node == self._me else self._peer_keys[node]
            theirs, digests[node] = encrypted_sum.committed(statement, node=node, key=key)
            if theirs != form:
                raise BadStatement(f"{node} sums something else")
        if digests[self._me] != digest(state.ciphertext):
            raise BadStatement("not what this party sent")
        signed = encrypted_sum.verified(
            fixed, purpose=Purpose.SUM_INPUTS, signer=self._key_holder.name, key=self._key_holder.key
        )
        if signed != encrypted_sum.inputs(form, commitments):
            raise BadStatement("the key-holder has fixed other inputs")
        with self._lock:
            if state.commitments:
                raise StepReused(step=step)
            state.commitments = digests
        ciphertext, state.ciphertext = state.ciphertext, b""
        state.total = self._scheme.form.empty_sum(form.length)
        self._scheme.form.add(state.total, ciphertext, length=form.length)
        state.added.add(self._me)
        return ciphertext

    def take(self, node: NodeId, ciphertext: bytes, *, step: int) -> None:
        """Add another survivor's ciphertext, if it is what it committed to. Once for each.

        Not from several threads for one step. Raises: ProtocolViolation, OutOfOrder.
        """
        state = self._step(step)
        if state.total is None or state.form is None or state.endorsed:
            raise OutOfOrder("ciphertexts follow the release, and precede the endorsement")
        if node in state.added or digest(ciphertext) != state.commitments.get(node):
            raise ProtocolViolation(f"not what {node} committed to, or twice")
        self._scheme.form.add(state.total, ciphertext, length=state.form.length)
        state.added.add(node)

    def endorse(self, *, step: int, survivors: Collection[NodeId]) -> bytes:
        """Return the signed digest of the sum that was added here. Once.

        Args: survivors: who is in it; exactly those whose ciphertexts were taken, and this party.
        Raises: TooFewSurvivors, StepReused, OutOfOrder, ProtocolViolation.
        """
        state = self._step(step)
        if state.total is None or state.form is None:
            raise OutOfOrder(f"nothing was released for step {step}")
        if len(set(survivors)) != len(survivors) or set(survivors) != state.added:
            raise ProtocolViolation("survivors are those whose ciphertexts were shown")
        self._enough(survivors)
        with self._lock:
            if state.endorsed:
                raise StepReused(step=step)
            state.endorsed = True
        total = digest(self._scheme.form.pack(state.total))
        state.total = None
        fields = encrypted_sum.endorsement(state.form, survivors=tuple(sorted(survivors)), total=total)
        return self._signed(fields, purpose=Purpose.SUM_ENDORSEMENT)

    # ---- the rest ----

    def _signed(self, fields: Mapping[str, object], *, purpose: str) -> bytes:
        return encrypted_sum.sign(fields, purpose=purpose, signer=str(self._me), key=self._signing_key)

    def _step(self, step: int) -> _Step:
        if type(step) is not int or not 0 <= step < self.parameters.steps:
            raise ProtocolViolation(f"steps are 0 to {self.parameters.steps - 1}")
        with self._lock:
            return self._steps.setdefault(step, _Step())

    def _enough(self, parties: Collection[NodeId]) -> None:
        if self._me not in parties:
            raise ProtocolViolation("this party sent its vector and is no survivor")
        if len(parties) < self.fewest:
            raise TooFewSurvivors(got=len(parties), fewest=self.fewest)

    def __repr__(self) -> str:
        return f"EncryptedParty(<hidden>, {self._me} in {self.parameters.session_id})"
