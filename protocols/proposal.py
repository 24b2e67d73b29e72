"""A study as its lead signs it: the canonical plan in an envelope of purpose `study`."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols import canonical, envelope
from protocols.envelope import Purpose, SignedEnvelope
from protocols.question import UnknownSigner
from protocols.study import Study
from protocols.study_fields import MAX_BYTES, MalformedStudy


def signed(study: Study, *, signer: str, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope that a lead sends."""
    return envelope.sign(study.canonical(), purpose=Purpose.STUDY, signer=signer, key=key).to_bytes()


def opened(data: bytes, *, key_of: Mapping[str, Ed25519PublicKey]) -> tuple[Study, str]:
    """Return the study in a signed envelope and who signed it.

    Args: key_of: the leads of the verified roster and their identity keys.
    Raises: UnknownSigner; BadEnvelope for a wrong signature; MalformedStudy, also for another encoding.
    """
    proposal = SignedEnvelope.from_bytes(data)
    if proposal.signer not in key_of:
        raise UnknownSigner("no such lead in the roster")
    payload = envelope.verify(
        proposal, purpose=Purpose.STUDY, signer=proposal.signer, key=key_of[proposal.signer]
    )
    try:
        study = Study.from_json(canonical.decode(payload, max_bytes=2 * MAX_BYTES))
    except canonical.MalformedJson as error:
        raise MalformedStudy("$", "is not JSON") from error
    if study.canonical() != payload:
        raise MalformedStudy("$", "not the canonical encoding")
    return study, proposal.signer
