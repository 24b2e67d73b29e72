"""Signed envelopes: Ed25519 over a purpose label, the signer and the payload.

The purpose keeps a signature made for one use from being shown for another; lengths are part of what is
signed, so no two field splits share an encoding.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols import canonical

DOMAIN = b"fedtwin-envelope-v1"
SIGNATURE_BYTES = 64  # RFC 8032, section 5.1.6
MAX_ENVELOPE_BYTES = 8 * 2**20  # a roster of thousands of nodes fits; a flood does not


class Purpose:
    """The closed list of what a signature may mean."""

    ROSTER = "roster"
    QUESTION = "question"
    STUDY = "study"
    MODEL = "trained model"
    SUM_ADVERT = "secure-sum advert"
    RENEWAL = "certificate renewal"
    SUM_KEY = "secure-sum key"
    SUM_INPUT = "secure-sum input"
    SUM_INPUTS = "secure-sum inputs"
    SUM_ENDORSEMENT = "secure-sum endorsement"
    SUM_AGREEMENT = "secure-sum agreement"
    ALL = frozenset(
        {
            *(ROSTER, QUESTION, STUDY, MODEL, RENEWAL),
            *(SUM_ADVERT, SUM_KEY, SUM_INPUT, SUM_INPUTS, SUM_ENDORSEMENT, SUM_AGREEMENT),
        }
    )


class BadEnvelope(ValueError):
    """The envelope is malformed, for another purpose, by another signer, or its signature is wrong."""


@dataclass(frozen=True, slots=True)
class SignedEnvelope:
    """A payload and who signed it for what. `signer` is an identifier's text, never a secret."""

    purpose: str
    signer: str
    payload: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if self.purpose not in Purpose.ALL:
            raise BadEnvelope("unknown purpose")
        if not self.signer or len(self.signer) > 200:
            raise BadEnvelope("signer needs 1 to 200 characters")
        if len(self.signature) != SIGNATURE_BYTES:
            raise BadEnvelope(f"signature needs {SIGNATURE_BYTES} bytes, got {len(self.signature)}")

    def to_bytes(self) -> bytes:
        """Return the envelope as canonical JSON."""
        return canonical.encode(
            {
                "payload": base64.b64encode(self.payload).decode(),
                "purpose": self.purpose,
                "signature": base64.b64encode(self.signature).decode(),
                "signer": self.signer,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedEnvelope:
        """Parse an envelope without judging its signature. Raises: BadEnvelope."""
        try:
            fields: Any = canonical.decode(data, max_bytes=MAX_ENVELOPE_BYTES)
            if not isinstance(fields, dict) or set(fields) != {"payload", "purpose", "signature", "signer"}:
                raise BadEnvelope("an envelope has payload, purpose, signature and signer")
            if not all(isinstance(v, str) for v in fields.values()):
                raise BadEnvelope("every field of an envelope is text")
            return cls(
                purpose=fields["purpose"],
                signer=fields["signer"],
                payload=base64.b64decode(fields["payload"], validate=True),
                signature=base64.b64decode(fields["signature"], validate=True),
            )
        except BadEnvelope:
            raise
        except ValueError as error:
            raise BadEnvelope("not a signed envelope") from error


def sign(payload: bytes, *, purpose: str, signer: str, key: Ed25519PrivateKey) -> SignedEnvelope:
    """Return `payload` signed by `key` for `purpose`. Raises: BadEnvelope for an unknown purpose."""
    return SignedEnvelope(purpose, signer, payload, key.sign(_signed_bytes(purpose, signer, payload)))


def verify(envelope: SignedEnvelope, *, purpose: str, signer: str, key: Ed25519PublicKey) -> bytes:
    """Return the payload if `signer` signed it with `key` for `purpose`.

    Raises: BadEnvelope for another purpose, another signer or a wrong signature.
    """
    if envelope.purpose != purpose:
        raise BadEnvelope(f"signed for '{envelope.purpose}', not for '{purpose}'")
    if envelope.signer != signer:
        raise BadEnvelope("signed by somebody else")
    try:
        key.verify(envelope.signature, _signed_bytes(envelope.purpose, envelope.signer, envelope.payload))
    except InvalidSignature as error:
        raise BadEnvelope("wrong signature") from error
    return envelope.payload


def _signed_bytes(purpose: str, signer: str, payload: bytes) -> bytes:
    parts = (DOMAIN, purpose.encode(), signer.encode(), payload)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
