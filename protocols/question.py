"""A cohort count as its researcher signs it, and the answer as its researcher reads it.

The signature covers everything that a hospital charges for: cohort, epsilon, delta, project, the largest
number of sites a patient may be in, how often the question may be attempted, an id and an expiry.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols import canonical, envelope
from protocols.cohort import MAX_BYTES as MAX_COHORT_BYTES
from protocols.cohort import Cohort, MalformedCohort
from protocols.envelope import BadEnvelope, Purpose, SignedEnvelope
from protocols.ids import MalformedId, QuestionId

VERSION = 1
MAX_BYTES = MAX_COHORT_BYTES + 4_096  # the cohort and a handful of short fields
MAX_EPSILON = 64.0  # beyond it a number protects nobody; the hospital's own cap lies far below
MAX_DELTA = 0.01  # one patient in a hundred may be exposed: nobody should sign more
MAX_SITES_PER_PATIENT = 1_000
MAX_ATTEMPTS = 2  # the first, and one more after dropouts: the second is a second release and is charged
MAX_LIFETIME = timedelta(hours=24)  # an unanswered question is asked again, not kept
CLOCK_SKEW = timedelta(minutes=5)  # how far two hospitals' clocks may stand apart

_PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEYS = {
    "asked_at",
    "attempts",
    "cohort",
    "delta",
    "epsilon",
    "expires_at",
    "kind",
    "max_sites_per_patient",
    "project",
    "question_id",
    "version",
}
_CONTEXT_DOMAIN = b"fedtwin-count-context-v1"


class MalformedQuestion(ValueError):
    """The question breaks a rule. `field` names the key, never a value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnknownSigner(BadEnvelope):
    """The signer is not among those who may sign this."""


@dataclass(frozen=True, slots=True)
class CountQuestion:
    """How many patients are in `cohort`, across the sites, at (epsilon, delta) for one patient.

    Args:
        epsilon, delta: of one release. `attempts` releases at most are made and charged.
        max_sites_per_patient: the sensitivity of the total: one patient adds at most this.
        attempts: 1 or 2. With 2 the sites may be asked once more when too many dropped out after their
            masked input had left: that input may have been opened, so the second one is charged again.
        asked_at, expires_at: aware, in UTC, whole seconds; at most a day apart.
    """

    question_id: QuestionId
    project: str
    cohort: Cohort
    epsilon: float
    delta: float
    max_sites_per_patient: int
    asked_at: datetime
    expires_at: datetime
    attempts: int = MAX_ATTEMPTS

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise MalformedQuestion("project", "1 to 64 of a-z, 0-9, '.', '_' and '-'")
        if not (math.isfinite(self.epsilon) and 0 < self.epsilon <= MAX_EPSILON):
            raise MalformedQuestion("epsilon", f"above 0, at most {MAX_EPSILON:g}")
        if not (math.isfinite(self.delta) and 0 < self.delta <= MAX_DELTA):
            raise MalformedQuestion("delta", f"above 0, at most {MAX_DELTA:g}")
        if not 1 <= self.max_sites_per_patient <= MAX_SITES_PER_PATIENT:
            raise MalformedQuestion("max_sites_per_patient", f"1 to {MAX_SITES_PER_PATIENT}")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise MalformedQuestion("attempts", f"1 to {MAX_ATTEMPTS}")
        for field in ("asked_at", "expires_at"):
            moment: datetime = getattr(self, field)
            if moment.tzinfo is None or moment.utcoffset() != timedelta(0) or moment.microsecond:
                raise MalformedQuestion(field, "UTC, whole seconds")
        if not timedelta(0) < self.expires_at - self.asked_at <= MAX_LIFETIME:
            raise MalformedQuestion("expires_at", "after asked_at, by a day at most")

    @classmethod
    def ask(
        cls,
        cohort: Cohort,
        *,
        project: str,
        epsilon: float,
        delta: float,
        max_sites_per_patient: int,
        now: datetime,
        lifetime: timedelta = timedelta(minutes=15),
        attempts: int = MAX_ATTEMPTS,
    ) -> Self:
        """Return a new question with a fresh id, asked `now`. Raises: MalformedQuestion."""
        asked_at = now.astimezone(UTC).replace(microsecond=0)
        return cls(
            question_id=QuestionId.new(),
            project=project,
            cohort=cohort,
            epsilon=float(epsilon),
            delta=float(delta),
            max_sites_per_patient=max_sites_per_patient,
            asked_at=asked_at,
            expires_at=asked_at + lifetime,
            attempts=attempts,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the question encoded in `data`.

        Raises: MalformedQuestion, for anything but the canonical encoding of a valid question.
        """
        try:
            fields = canonical.decode(data, max_bytes=MAX_BYTES)
        except canonical.MalformedJson as error:
            raise MalformedQuestion("$", str(error)) from error
        if not isinstance(fields, dict) or set(fields) != _KEYS:
            raise MalformedQuestion("$", "unknown or missing keys")
        if fields["kind"] != "count" or fields["version"] != VERSION:
            raise MalformedQuestion("kind", f"only 'count' in version {VERSION}")
        try:
            question = cls(
                question_id=QuestionId.parse(_typed(fields, "question_id", str)),
                project=_typed(fields, "project", str),
                cohort=Cohort.parse(_typed(fields, "cohort", dict)),
                epsilon=float(_typed(fields, "epsilon", float)),
                delta=float(_typed(fields, "delta", float)),
                max_sites_per_patient=_typed(fields, "max_sites_per_patient", int),
                asked_at=_moment(fields, "asked_at"),
                expires_at=_moment(fields, "expires_at"),
                attempts=_typed(fields, "attempts", int),
            )
        except MalformedId as error:
            raise MalformedQuestion("question_id", "not a question id") from error
        except MalformedCohort as error:
            raise MalformedQuestion(f"cohort.{error.path}", error.reason) from error
        if question.to_bytes() != data:
            raise MalformedQuestion("$", "not the canonical encoding")
        return question

    def to_bytes(self) -> bytes:
        """Return the canonical encoding: what is signed."""
        return canonical.encode(
            {
                "asked_at": self.asked_at.isoformat(),
                "attempts": self.attempts,
                "cohort": self.cohort.to_json(),
                "delta": self.delta,
                "epsilon": self.epsilon,
                "expires_at": self.expires_at.isoformat(),
                "kind": "count",
                "max_sites_per_patient": self.max_sites_per_patient,
                "project": self.project,
                "question_id": str(self.question_id),
                "version": VERSION,
            }
        )

    def context(self, *, attempt: int, tolerance: int) -> bytes:
        """Return the 32 bytes that bind a masked input to this question, attempt and noise share.

        Guarantee: nodes that were told another question, attempt or tolerance derive other masks, so their
        inputs do not add up to anything but noise.
        """
        bound = canonical.encode({"attempt": attempt, "tolerance": tolerance})
        return hashlib.sha256(
            _CONTEXT_DOMAIN + len(bound).to_bytes(8, "big") + bound + self.to_bytes()
        ).digest()

    def expired(self, now: datetime) -> bool:
        """Return whether `now` lies outside the question's life, clocks allowed to differ a little."""
        return not self.asked_at - CLOCK_SKEW <= now < self.expires_at

    def signed(self, *, signer: str, key: Ed25519PrivateKey) -> bytes:
        """Return the envelope that a researcher sends."""
        return envelope.sign(self.to_bytes(), purpose=Purpose.QUESTION, signer=signer, key=key).to_bytes()


def opened(data: bytes, *, key_of: Mapping[str, Ed25519PublicKey]) -> tuple[CountQuestion, str]:
    """Return the question in a signed envelope and who signed it.

    Args: key_of: the researchers of the verified roster and their identity keys.
    Raises: UnknownSigner; BadEnvelope for a wrong signature; MalformedQuestion.
    """
    signed = SignedEnvelope.from_bytes(data)
    if signed.signer not in key_of:
        raise UnknownSigner("no such researcher in the roster")
    payload = envelope.verify(
        signed, purpose=Purpose.QUESTION, signer=signed.signer, key=key_of[signed.signer]
    )
    return CountQuestion.parse(payload), signed.signer


@dataclass(frozen=True, slots=True)
class CountAnswer:
    """A noisy total. `estimate` is unbiased and may be negative; rounding and clamping are the reader's.

    `ci95` covers the noise only: the count of the contributing sites lies in it 95 times in 100.
    `releases` is how often the sites were charged (epsilon, delta) for it: 1, or 2 after a retry.
    """

    question_id: QuestionId
    estimate: float
    ci95: tuple[float, float]
    standard_deviation: float
    epsilon: float
    delta: float
    max_sites_per_patient: int
    contributors: int
    participants: int
    tolerance: int
    releases: int
    mechanism: str = "discrete Gaussian shares under secure sum"

    @property
    def unit_of_privacy(self) -> str:
        """What the (epsilon, delta) protects, in words."""
        sites = self.max_sites_per_patient
        where = "one hospital" if sites == 1 else f"at most {sites} hospitals"
        return f"one patient: all of their records, in {where}"

    def to_json(self) -> dict[str, Any]:
        """Return the answer for a machine to read."""
        return {
            "question_id": str(self.question_id),
            "estimate": self.estimate,
            "ci95": list(self.ci95),
            "standard_deviation": self.standard_deviation,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "unit_of_privacy": self.unit_of_privacy,
            "mechanism": self.mechanism,
            "contributors": self.contributors,
            "participants": self.participants,
            "tolerance": self.tolerance,
            "releases": self.releases,
        }


def _typed(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = fields[name]
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MalformedQuestion(name, "must be a number")
    elif not isinstance(value, kind) or isinstance(value, bool):
        raise MalformedQuestion(name, f"must be {kind.__name__}")
    return value


def _moment(fields: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromisoformat(_typed(fields, name, str))
    except ValueError as error:
        raise MalformedQuestion(name, "not an ISO 8601 time") from error
