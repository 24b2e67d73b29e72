"""One training round as it crosses Flower: what a site is asked, what it says when it is done.

The request names an approved plan by its hash and a secure-sum session; clip norm, noise and learning rate
never travel. The reply says which model the site holds (a digest) and how many steps it took, nothing else:
what was learned left through the secure sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protocols.ids import ID_BYTES, SessionId

DIGEST_BYTES = 32  # SHA-256
MAX_ROUND = 10_000  # as many as a plan may have (protocols.study.MAX_STEPS)
MAX_STEPS = 10_000
MAX_PARAMETERS = 4_000_000  # 32 MB of float64: more than a plan can describe, little for a node
BYTES_PER_PARAMETER = 8
MESSAGE_TYPE = "train"  # the one Flower message type that a node answers
RECORD = "round"  # name of the one record of a message


class MalformedRound(ValueError):
    """A request or a reply has an unknown, missing, mistyped or out-of-range field."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundRequest:
    """What the coordinator asks of each site in one round. `parameters` is one finite row of float64."""

    plan_hash: bytes
    round: int
    session_id: SessionId
    parameters: NDArray[np.float64]

    def __post_init__(self) -> None:
        _checked_digest(self.plan_hash, "plan_hash")
        _checked_int(self.round, "round", low=1, high=MAX_ROUND)
        if not isinstance(self.session_id, SessionId):
            raise MalformedRound("session_id is no session id")
        found = self.parameters
        if not isinstance(found, np.ndarray) or found.dtype != np.dtype("<f8") or found.ndim != 1:
            raise MalformedRound("parameters must be one row of float64")
        if not 1 <= len(found) <= MAX_PARAMETERS:
            raise MalformedRound(f"needs 1 to {MAX_PARAMETERS} parameters, got {len(found)}")
        if not np.isfinite(found).all():
            raise MalformedRound("a parameter is not finite")

    def fields(self) -> dict[str, Any]:
        """Return the request as the record of a Flower message holds it; the parameters are little-endian.

        They travel as bytes, not as a Flower array: code that believes its header puts an array together.
        """
        return {
            "plan_hash": self.plan_hash,
            "round": self.round,
            "session_id": self.session_id.raw,
            "parameters": self.parameters.astype("<f8").tobytes(),
        }

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Return the request, refusing unknown and missing fields. Raises: MalformedRound."""
        _checked_keys(fields, {"plan_hash", "round", "session_id", "parameters"})
        session, row = fields["session_id"], fields["parameters"]
        if not isinstance(session, bytes) or len(session) != ID_BYTES:
            raise MalformedRound(f"session_id needs {ID_BYTES} bytes")
        if not isinstance(row, bytes) or len(row) % BYTES_PER_PARAMETER:
            raise MalformedRound("parameters must be whole float64 values")
        return cls(fields["plan_hash"], fields["round"], SessionId(session), np.frombuffer(row, dtype="<f8"))


@dataclass(frozen=True, slots=True)
class RoundReply:
    """What a site says after its round: the SHA-256 of its parameters (privacy.descent.digest), its steps."""

    parameters_digest: bytes
    steps: int

    def __post_init__(self) -> None:
        _checked_digest(self.parameters_digest, "parameters_digest")
        _checked_int(self.steps, "steps", low=0, high=MAX_STEPS)

    def fields(self) -> dict[str, Any]:
        """Return the reply as the record of a Flower message holds it."""
        return {"parameters_digest": self.parameters_digest, "steps": self.steps}

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Return the reply, refusing unknown and missing fields. Raises: MalformedRound."""
        _checked_keys(fields, {"parameters_digest", "steps"})
        return cls(fields["parameters_digest"], fields["steps"])


def _checked_keys(fields: Mapping[str, Any], expected: set[str]) -> None:
    if set(fields) != expected:
        raise MalformedRound(f"needs exactly {', '.join(sorted(expected))}")


def _checked_digest(value: object, name: str) -> None:
    if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
        raise MalformedRound(f"{name} needs {DIGEST_BYTES} bytes")


def _checked_int(value: object, name: str, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MalformedRound(f"{name} must be a whole number from {low} to {high}")
