"""The terms of an encrypted sum: the other back-end of a secure sum, with a key-holder that sees sums only.

The protocol of one step (docs/decisions/0009):

    key-holder → all        a public key of this step alone, signed                  SumKeyHolder.key
    party      → collector  commitment: the digest of its ciphertext, signed         seal, commit
    collector  → key-holder the digest of all commitments; signed, once a step       close, SumKeyHolder.fix
    collector  → survivors  the commitments and that signature                       fixed
    party      → collector  the ciphertext itself                                    release, ciphertext
    collector  → those left each other's ciphertexts, and who is left                settle, take
    party      → collector  endorsement: the digest of the sum it has added itself   endorse, endorse
    collector  → key-holder the sum, with the endorsements of at least `threshold`   SumKeyHolder.open
    key-holder → collector  the total                                                total

Parties are privacy.encrypted_party.EncryptedParty, the other sides privacy.encrypted_collector and
privacy.sum_key_holder. Sessions have the same SessionParameters as masked ones.

Guarantee: if the key-holder works with nobody else, and no more parties work with the coordinator than the
colluders that `threshold_for` was given, they learn per step at most one sum over at least max(threshold,
minimum survivors) parties. The coordinator holds no key; the key-holder opens one sum a step, which at least
one honest party has added up itself from inputs that it has verified. Every step has a key of its own and
everybody's input is fixed before any is shown, so nobody enters a copy or a multiple of another's ciphertext.
A ciphertext that nobody encrypted honestly makes the opened numbers fall outside what the scheme allows, and
the step fails. What is not proved: that a failed step tells a colluder less than one bit of that step's key.

The key-holder together with the coordinator, or with any one party of the session, reads every vector of it:
that is the trust a consortium puts into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.errors import BadParameters, BadStatement
from privacy.masks import CONTEXT_BYTES
from protocols import canonical, envelope
from protocols.envelope import BadEnvelope, SignedEnvelope
from protocols.ids import NodeId

MAX_LENGTH = 2**24  # values in a vector; far above what a frame carries


@dataclass(frozen=True, slots=True)
class Form:
    """What is summed in one step: only inputs of one form are added.

    Args: session: the digest of its parameters. context: 32 bytes that name what is summed. key: the digest
    of the step's public key.
    Raises: BadParameters.
    """

    scheme: str
    session: bytes
    step: int
    context: bytes
    length: int
    key: bytes

    def __post_init__(self) -> None:
        if len(self.context) != CONTEXT_BYTES:
            raise BadParameters(f"a context has {CONTEXT_BYTES} bytes")
        if not 1 <= self.length <= MAX_LENGTH:
            raise BadParameters(f"an encrypted vector has 1 to {MAX_LENGTH} values")

    def fields(self) -> dict[str, Any]:
        """Return what is signed about it."""
        return {
            "context": self.context.hex(),
            "key": self.key.hex(),
            "length": self.length,
            "scheme": self.scheme,
            "session": self.session.hex(),
            "step": self.step,
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Form:
        """Return the form in signed fields. Raises: ValueError and its like; KeyError, TypeError."""
        length, step = fields["length"], fields["step"]
        if type(length) is not int or type(step) is not int:
            raise TypeError("length and step are whole numbers")
        return cls(
            scheme=str(fields["scheme"]),
            session=bytes.fromhex(fields["session"]),
            step=step,
            context=bytes.fromhex(fields["context"]),
            length=length,
            key=bytes.fromhex(fields["key"]),
        )


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who makes and keeps the keys of a consortium, as the roster lists it."""

    name: str
    key: Ed25519PublicKey


def digest(data: bytes) -> bytes:
    """Return the SHA-256 that stands for a key, a ciphertext or a sum in a signature."""
    return hashlib.sha256(data).digest()


def sign(fields: Mapping[str, Any], *, purpose: str, signer: str, key: Ed25519PrivateKey) -> bytes:
    """Return a statement: `fields` under a signature for one purpose."""
    return envelope.sign(canonical.encode(dict(fields)), purpose=purpose, signer=signer, key=key).to_bytes()


def verified(statement: bytes, *, purpose: str, signer: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """Return the fields of a statement. Raises: BadStatement unless `signer` made it for `purpose`."""
    try:
        signed = SignedEnvelope.from_bytes(statement)
        payload = envelope.verify(signed, purpose=purpose, signer=signer, key=key)
        fields = canonical.decode(payload, max_bytes=len(payload))
    except (BadEnvelope, canonical.MalformedJson) as error:
        raise BadStatement(f"no {purpose} of {signer}") from error
    if not isinstance(fields, dict):
        raise BadStatement(f"no {purpose} of {signer}")
    return fields


def committed(statement: bytes, *, node: NodeId, key: Ed25519PublicKey) -> tuple[Form, bytes]:
    """Return the form and the digest of the ciphertext that `node` commits to. Raises: BadStatement."""
    fields = verified(statement, purpose=envelope.Purpose.SUM_INPUT, signer=str(node), key=key)
    try:
        form = Form.of(fields)
        ciphertext = bytes.fromhex(fields["ciphertext"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadStatement("not a commitment") from error
    if fields != form.fields() | {"ciphertext": ciphertext.hex()}:
        raise BadStatement("not a commitment")
    return form, ciphertext


def inputs(form: Form, commitments: Mapping[NodeId, bytes]) -> dict[str, Any]:
    """Return what the key-holder signs once a step: the digest of everybody's commitments."""
    listed = [[str(node), digest(commitments[node]).hex()] for node in sorted(commitments)]
    return form.fields() | {"inputs": digest(canonical.encode(listed)).hex()}


def endorsement(form: Form, *, survivors: tuple[NodeId, ...], total: bytes) -> dict[str, Any]:
    """Return what survivors sign: who is in the sum, and the digest of the sum each has added itself."""
    return form.fields() | {"sum": total.hex(), "survivors": [str(node) for node in survivors]}
