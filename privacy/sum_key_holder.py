"""The key-holder's side of encrypted sums: a key for each step, used for one sum, and then gone.

Guarantee, whatever the coordinator sends: a key is made once for each session and step, among hospitals of
the roster; everybody's inputs are fixed once; one sum is opened, over survivors of those inputs, that at
least `threshold` of them have endorsed. What has been done is durable before anything leaves. Secret keys
stand in memory only: after a restart nothing of before can be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import encrypted_sum
from privacy.encrypted_sum import Form, digest
from privacy.encryption import Scheme, Secret
from privacy.errors import (
    BadParameters,
    BadStatement,
    OutOfOrder,
    ProtocolViolation,
    TooFewReveals,
    TooFewSurvivors,
)
from privacy.rng import Words
from privacy.secure_sum import SessionParameters, threshold_for
from protocols.envelope import Purpose
from protocols.ids import NodeId
from protocols.roster import MASKED, Roster

TRAINING = "training:"  # purpose of a session that trains, followed by the plan's hash
MAX_KEYS = 256  # held at one time, 3 MB each; the oldest goes first


class Memory(Protocol):
    """What must survive a restart. Each call is durable when it returns, and raises StepReused twice."""

    def made(self, session: bytes, step: int) -> None:
        """Note that a key was made."""

    def fixed(self, session: bytes, step: int) -> None:
        """Note that inputs were fixed."""

    def opened(self, session: bytes, step: int) -> None:
        """Note that a sum was opened."""


@dataclass
class _Held:
    secret: Secret
    key: bytes  # its digest
    form: Form | None = None  # as fixed
    inputs: frozenset[NodeId] = frozenset()


class SumKeyHolder:
    """One consortium's keys.

    Args: roster: the newest verified one. memory: what it has done.
    Raises: MissingExtra.
    """

    def __init__(
        self,
        scheme: Scheme,
        *,
        name: str,
        signing_key: Ed25519PrivateKey,
        roster: Callable[[], Roster],
        memory: Memory,
    ) -> None:
        scheme.require()
        self._scheme = scheme
        self._name = name
        self._signing_key = signing_key
        self._roster = roster
        self._memory = memory
        self._held: dict[tuple[bytes, int], _Held] = {}  # oldest first
        self._lock = Lock()

    def key(self, parameters: SessionParameters, *, step: int, tolerance: int) -> tuple[bytes, bytes]:
        """Make the key of a step. Returns its public half and the statement about it.

        Raises: BadParameters for a session that hospitals of this consortium would not join; StepReused.
        """
        self._admit(parameters, tolerance=tolerance)
        if not 0 <= step < parameters.steps:
            raise ProtocolViolation(f"steps are 0 to {parameters.steps - 1}")
        session = parameters.digest()
        self._memory.made(session, step)
        secret = self._scheme.new_secret()
        public = secret.public_key
        fields = {
            "key": digest(public).hex(),
            "scheme": self._scheme.name,
            "session": session.hex(),
            "step": step,
        }
        with self._lock:
            self._held[session, step] = _Held(secret, digest(public))
            while len(self._held) > MAX_KEYS:
                del self._held[next(iter(self._held))]
        return public, self._signed(fields, Purpose.SUM_KEY)

    def fix(self, parameters: SessionParameters, commitments: Mapping[NodeId, bytes], *, step: int) -> bytes:
        """Fix the inputs of a step. Returns the statement that lets their owners show them.

        Raises: BadStatement, OutOfOrder, StepReused, TooFewSurvivors, ProtocolViolation.
        """
        held = self._holding(parameters, step)
        keys = {node: entry.public_key for node, entry in self._roster().active_nodes.items()}
        if not set(commitments) <= set(parameters.participants) & set(keys):
            raise ProtocolViolation("inputs are those of participants that the roster lists")
        if len(commitments) < parameters.threshold:
            raise TooFewSurvivors(got=len(commitments), fewest=parameters.threshold)
        forms = {
            encrypted_sum.committed(statement, node=node, key=keys[node])[0]
            for node, statement in commitments.items()
        }
        if len(forms) != 1:
            raise BadStatement("inputs of several forms")
        (form,) = forms
        expected = (self._scheme.name, parameters.digest(), step, held.key)
        if (form.scheme, form.session, form.step, form.key) != expected:
            raise BadStatement("inputs of another step")
        self._memory.fixed(form.session, step)
        held.form, held.inputs = form, frozenset(commitments)
        return self._signed(encrypted_sum.inputs(form, commitments), Purpose.SUM_INPUTS)

    def open(
        self,
        parameters: SessionParameters,
        *,
        step: int,
        survivors: tuple[NodeId, ...],
        total: bytes,
        endorsements: Mapping[NodeId, bytes],
    ) -> Words:
        """Return the integers in an endorsed sum, and forget the key.

        Raises: TooFewReveals, BadStatement, OutOfOrder, StepReused, ProtocolViolation.
        """
        held = self._holding(parameters, step)
        form = held.form
        if form is None:
            raise OutOfOrder("a sum is opened after its inputs were fixed")
        if tuple(sorted(set(survivors))) != survivors or not set(survivors) <= held.inputs:
            raise ProtocolViolation("survivors ascend, and their inputs were fixed")
        keys = {node: entry.public_key for node, entry in self._roster().active_nodes.items()}
        if not set(endorsements) <= set(survivors) & set(keys):
            raise ProtocolViolation("survivors that the roster lists endorse a sum")
        if len(endorsements) < parameters.threshold:
            raise TooFewReveals(got=len(endorsements), threshold=parameters.threshold)
        expected = encrypted_sum.endorsement(form, survivors=survivors, total=digest(total))
        for node, statement in endorsements.items():
            signed = encrypted_sum.verified(
                statement, purpose=Purpose.SUM_ENDORSEMENT, signer=str(node), key=keys[node]
            )
            if signed != expected:
                raise BadStatement(f"{node} endorses another sum")
        self._memory.opened(form.session, step)
        self.forget(parameters, step=step)
        return held.secret.decrypt(total, length=form.length)

    def forget(self, parameters: SessionParameters, *, step: int) -> None:
        """Let go of a step's key."""
        with self._lock:
            self._held.pop((parameters.digest(), step), None)

    def _admit(self, parameters: SessionParameters, *, tolerance: int) -> None:
        roster, nodes = self._roster(), parameters.participants
        usual = roster.settings.secure_sum
        layers = usual == MASKED and parameters.purpose.startswith(TRAINING)  # of a study, encrypted besides
        if usual != self._scheme.name and not layers:
            raise BadParameters("the consortium sums in another way")
        if not set(nodes) <= set(roster.active_nodes):
            raise BadParameters("participants are hospitals of the roster")
        if len(nodes) < roster.settings.minimum_sites:
            raise BadParameters("fewer hospitals than the consortium agreed on")
        if parameters.threshold != threshold_for(len(nodes), colluders=tolerance):
            raise BadParameters("another threshold than the tolerance asks for")

    def _holding(self, parameters: SessionParameters, step: int) -> _Held:
        with self._lock:
            held = self._held.get((parameters.digest(), step))
        if held is None:
            raise OutOfOrder(f"no key is held for step {step}")
        return held

    def _signed(self, fields: Mapping[str, object], purpose: str) -> bytes:
        return encrypted_sum.sign(fields, purpose=purpose, signer=self._name, key=self._signing_key)

    def __repr__(self) -> str:
        return f"SumKeyHolder({self._name}, keys=<hidden>)"
