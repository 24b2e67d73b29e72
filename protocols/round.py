"""One training round as it crosses Flower: what a site is asked, what it says when it is done.

The request names an approved plan by its hash and a secure-sum session; clip norm, noise and learning rate
never travel. A large model crosses in several records of one message, each a part of its own for Flower, so
that nothing holds or sends it as one. The reply says which model the site holds (a digest) and how many steps
it took, nothing else: what was learned left through the secure sum.
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
MAX_PARAMETERS = 200_000_000  # a model of 1e8, and what its steps left beside it: 1.6 GB of float64
BYTES_PER_PARAMETER = 8
PIECE_BYTES = 2**22  # of the parameters in one record: below the 5 MB in which Flower itself sends arrays
MAX_PIECES = -(-MAX_PARAMETERS * BYTES_PER_PARAMETER // PIECE_BYTES)
MESSAGE_TYPE = "train"  # the one Flower message type that a node answers
RECORD = "round"  # name of a message's record; that of a large model has more
MORE = "parameters."  # of these, followed by the place of what they hold


class MalformedRound(ValueError):
    """A request or a reply has an unknown, missing, mistyped or out-of-range field."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundRequest:
    """What the coordinator asks of each site in one round.

    `parameters` is one finite row of float64: the model, and what the steps so far left beside it, as much as
    the plan says (protocols.study.Study.carried).
    """

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

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the request as the records of a Flower message hold it; the parameters are little-endian.

        They travel as bytes, not as a Flower array: code that believes its header puts an array together.
        """
        row, each = self.parameters, PIECE_BYTES // BYTES_PER_PARAMETER
        pieces = [row[at : at + each].astype("<f8").tobytes() for at in range(0, len(row), each)]
        head = {
            "plan_hash": self.plan_hash,
            "round": self.round,
            "session_id": self.session_id.raw,
            "parameters": pieces[0],
        }
        more = {
            f"{MORE}{place}": {"place": place, "parameters": piece}
            for place, piece in enumerate(pieces[1:], start=1)
        }
        return {RECORD: head | ({"pieces": len(pieces)} if more else {}), **more}

    @classmethod
    def parse(cls, records: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the request, refusing unknown and missing records and fields. Raises: MalformedRound."""
        if RECORD not in records:
            raise MalformedRound(f"needs a record named {RECORD}")
        head = records[RECORD]
        several = {"pieces"} if len(records) > 1 else set()
        _checked_keys(head, {"plan_hash", "round", "session_id", "parameters"} | several)
        session = head["session_id"]
        if not isinstance(session, bytes) or len(session) != ID_BYTES:
            raise MalformedRound(f"session_id needs {ID_BYTES} bytes")
        if several:
            _checked_int(head["pieces"], "pieces", low=2, high=MAX_PIECES)
        row = _joined(head["parameters"], records, pieces=head.get("pieces", 1))
        return cls(head["plan_hash"], head["round"], SessionId(session), row)


@dataclass(frozen=True, slots=True)
class RoundReply:
    """What a site says after its round: the SHA-256 of what the next would start from, and its steps.

    The digest (privacy.descent.digest) is of the model, and of what goes with it from round to round.
    """

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


def _joined(first: object, records: Mapping[str, Mapping[str, Any]], *, pieces: int) -> NDArray[np.float64]:
    """Return the parameters of all pieces, each whole but the last. Raises: MalformedRound."""
    names = {RECORD, *(f"{MORE}{place}" for place in range(1, pieces))}
    if set(records) != names:
        raise MalformedRound("needs exactly the records of its pieces")
    parts = [first]
    for place in range(1, pieces):
        fields = records[f"{MORE}{place}"]
        _checked_keys(fields, {"place", "parameters"})
        if fields["place"] != place:
            raise MalformedRound("a piece stands in another place")
        parts.append(fields["parameters"])
    for place, part in enumerate(parts):
        last = place == pieces - 1
        if not isinstance(part, bytes) or not (last or len(part) == PIECE_BYTES) or len(part) > PIECE_BYTES:
            raise MalformedRound("a piece of the parameters has another size")
        if not part or len(part) % BYTES_PER_PARAMETER:
            raise MalformedRound("parameters must be whole float64 values")
    row = np.empty(sum(map(len, parts)) // BYTES_PER_PARAMETER, dtype="<f8")  # type: ignore[arg-type]  # bytes
    for place, part in enumerate(parts):
        found = np.frombuffer(part, dtype="<f8")  # type: ignore[call-overload]  # bytes
        row[place * (PIECE_BYTES // BYTES_PER_PARAMETER) :][: len(found)] = found
    return row


def _checked_keys(fields: Mapping[str, Any], expected: set[str]) -> None:
    if set(fields) != expected:
        raise MalformedRound(f"needs exactly {', '.join(sorted(expected))}")


def _checked_digest(value: object, name: str) -> None:
    if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
        raise MalformedRound(f"{name} needs {DIGEST_BYTES} bytes")


def _checked_int(value: object, name: str, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MalformedRound(f"{name} must be a whole number from {low} to {high}")
