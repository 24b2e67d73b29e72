"""A question as its researcher signs it: a statistic of a cohort, at a price.

The signature covers everything that a hospital charges for: cohort, statistic, mechanism, epsilon, delta,
project, the largest number of sites a patient may be in, how often it may be attempted, an id and an expiry.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols import canonical, envelope, statistic_form
from protocols import statistic as statistics
from protocols.circe import MAX_BYTES as MAX_COHORT_BYTES
from protocols.circe import CirceCohort, cohort_from_json, decoded
from protocols.cohort import Cohort, MalformedCohort
from protocols.envelope import BadEnvelope, Purpose, SignedEnvelope
from protocols.ids import MalformedId, QuestionId
from protocols.statistic import Count, MalformedStatistic, Statistic

VERSION = 2
MAX_BYTES = MAX_COHORT_BYTES + 65_536  # one large cohort, and a statistic with thousands of edges
MAX_EPSILON = 64.0  # beyond it a number protects nobody; the hospital's own cap lies far below
MIN_EPSILON = 1e-3  # below it the error is thousands of patients
MAX_DELTA = 0.01  # one patient in a hundred may be exposed: nobody should sign more
MAX_SITES_PER_PATIENT = 1_000
MAX_ATTEMPTS = 2  # the first, and one more after dropouts: the second is a second release and is charged
MAX_LIFETIME = timedelta(hours=24)  # an unanswered question is asked again, not kept
CLOCK_SKEW = timedelta(minutes=5)  # how far two hospitals' clocks may stand apart

_PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SUBJECT = re.compile(r"[\x21-\x7e]{1,128}")
_KEYS = {
    "asked_at",
    "attempts",
    "cohort",
    "delta",
    "epsilon",
    "expires_at",
    "max_sites_per_patient",
    "mechanism",
    "on_behalf_of",
    "project",
    "question_id",
    "statistic",
    "version",
}
_CONTEXT_DOMAIN = b"fedtwin-question-context-v2"
_MEANING_DOMAIN = b"fedtwin-question-meaning-v1"


class MalformedQuestion(ValueError):
    """The question breaks a rule. `field` names the key, never a value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnknownSigner(BadEnvelope):
    """The signer is not among those who may sign this."""


class Mechanism(StrEnum):
    """Which noise is added."""

    GAUSSIAN = "gaussian"  # shares of discrete Gaussian noise; (epsilon, delta)
    LAPLACE = "laplace"  # Polya shares of discrete Laplace noise; pure epsilon


@dataclass(frozen=True, slots=True)
class Question:
    """One statistic of the patients in `cohort`, across the sites, at (epsilon, delta) for one patient.

    Args:
        epsilon, delta: of one release. `attempts` releases at most are made and charged. delta is 0 for the
            laplace mechanism and above 0 for the gaussian one.
        max_sites_per_patient: in how many of the sites one patient may have records.
        attempts: 1 or 2. With 2 the sites may be asked once more when too many dropped out after their
            masked input had left: that input may have been opened, so the second one is charged again.
        on_behalf_of: for whom a gateway asks, 1 to 128 printable characters, or None for the signer.
        asked_at, expires_at: aware, in UTC, whole seconds; at most a day apart.
    """

    question_id: QuestionId
    project: str
    cohort: Cohort | CirceCohort
    epsilon: float
    delta: float
    max_sites_per_patient: int
    asked_at: datetime
    expires_at: datetime
    statistic: Statistic = Count()  # noqa: RUF009 (frozen and without state)
    mechanism: Mechanism = Mechanism.GAUSSIAN
    attempts: int = MAX_ATTEMPTS
    on_behalf_of: str | None = None

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise MalformedQuestion("project", "1 to 64 of a-z, 0-9, '.', '_' and '-'")
        if not (math.isfinite(self.epsilon) and MIN_EPSILON <= self.epsilon <= MAX_EPSILON):
            raise MalformedQuestion("epsilon", f"{MIN_EPSILON:g} to {MAX_EPSILON:g}")
        _check_delta(self.delta, self.mechanism)
        if not 1 <= self.max_sites_per_patient <= MAX_SITES_PER_PATIENT:
            raise MalformedQuestion("max_sites_per_patient", f"1 to {MAX_SITES_PER_PATIENT}")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise MalformedQuestion("attempts", f"1 to {MAX_ATTEMPTS}")
        if self.on_behalf_of is not None and not _SUBJECT.fullmatch(self.on_behalf_of):
            raise MalformedQuestion("on_behalf_of", "1 to 128 printable ASCII characters without blanks")
        _check_life(self.asked_at, self.expires_at)
        try:
            statistics.check(self.statistic, self.cohort)
        except MalformedStatistic as error:
            raise MalformedQuestion(f"statistic.{error.field}", error.reason) from error

    @classmethod
    def ask(
        cls,
        cohort: Cohort | CirceCohort,
        *,
        project: str,
        epsilon: float,
        delta: float,
        max_sites_per_patient: int,
        now: datetime,
        statistic: Statistic = Count(),  # noqa: B008 (frozen and without state)
        mechanism: Mechanism = Mechanism.GAUSSIAN,
        lifetime: timedelta = timedelta(minutes=15),
        attempts: int = MAX_ATTEMPTS,
        on_behalf_of: str | None = None,
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
            statistic=statistic,
            mechanism=mechanism,
            attempts=attempts,
            on_behalf_of=on_behalf_of,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the question encoded in `data`.

        Raises: MalformedQuestion, for anything but the canonical encoding of a valid question.
        """
        try:
            fields = decoded(data, max_bytes=MAX_BYTES)
        except MalformedCohort as error:
            raise MalformedQuestion("$", error.reason) from error
        if not isinstance(fields, dict) or set(fields) != _KEYS:
            raise MalformedQuestion("$", "unknown or missing keys")
        if fields["version"] != VERSION or isinstance(fields["version"], bool):
            raise MalformedQuestion("version", f"only version {VERSION}")
        try:
            question = cls(
                question_id=QuestionId.parse(_typed(fields, "question_id", str)),
                project=_typed(fields, "project", str),
                cohort=cohort_from_json(_typed(fields, "cohort", dict)),
                epsilon=float(_typed(fields, "epsilon", float)),
                delta=float(_typed(fields, "delta", float)),
                max_sites_per_patient=_typed(fields, "max_sites_per_patient", int),
                asked_at=_moment(fields, "asked_at"),
                expires_at=_moment(fields, "expires_at"),
                statistic=statistic_form.parse(_typed(fields, "statistic", dict)),
                mechanism=_mechanism(_typed(fields, "mechanism", str)),
                attempts=_typed(fields, "attempts", int),
                on_behalf_of=(
                    None if fields["on_behalf_of"] is None else _typed(fields, "on_behalf_of", str)
                ),
            )
        except MalformedId as error:
            raise MalformedQuestion("question_id", "not a question id") from error
        except MalformedCohort as error:
            raise MalformedQuestion(f"cohort.{error.path}", error.reason) from error
        except MalformedStatistic as error:
            raise MalformedQuestion(f"statistic.{error.field}", error.reason) from error
        except OverflowError as error:
            raise MalformedQuestion("$", "a number is too large") from error
        if question.to_bytes() != data:
            raise MalformedQuestion("$", "not the canonical encoding")
        return question

    def to_bytes(self) -> bytes:
        """Return the canonical encoding: what is signed."""
        return canonical.encode(
            {
                "asked_at": self.asked_at.isoformat(),
                "attempts": self.attempts,
                "expires_at": self.expires_at.isoformat(),
                "on_behalf_of": self.on_behalf_of,
                "question_id": str(self.question_id),
                "version": VERSION,
                **self._meant(),
            }
        )

    def meaning(self) -> bytes:
        """Return 32 bytes that two questions share exactly when they ask for the same release.

        The order of keys and criteria, names and comments of the cohort do not matter; neither do the id,
        the times, the attempts and for whom it is asked.
        """
        return hashlib.sha256(_MEANING_DOMAIN + canonical.encode(self._meant())).digest()

    @property
    def labels(self) -> tuple[str, ...]:
        """What each cell of the summed vector means, in order."""
        return statistics.labels(self.statistic, self.cohort)

    def _meant(self) -> dict[str, Any]:
        return {
            "cohort": self.cohort.to_json(),
            "delta": self.delta,
            "epsilon": self.epsilon,
            "max_sites_per_patient": self.max_sites_per_patient,
            "mechanism": self.mechanism.value,
            "project": self.project,
            "statistic": self.statistic.to_json(),
        }

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


def opened(data: bytes, *, key_of: Mapping[str, Ed25519PublicKey]) -> tuple[Question, str]:
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
    return Question.parse(payload), signed.signer


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


def _mechanism(text: str) -> Mechanism:
    try:
        return Mechanism(text)
    except ValueError as error:
        raise MalformedQuestion("mechanism", f"one of {', '.join(Mechanism)}") from error


def _check_delta(delta: float, mechanism: Mechanism) -> None:
    if mechanism is Mechanism.LAPLACE:
        if delta != 0:
            raise MalformedQuestion("delta", "0 for the laplace mechanism")
    elif not (math.isfinite(delta) and 0 < delta <= MAX_DELTA):
        raise MalformedQuestion("delta", f"above 0, at most {MAX_DELTA:g}")


def _check_life(asked_at: datetime, expires_at: datetime) -> None:
    for field, moment in (("asked_at", asked_at), ("expires_at", expires_at)):
        if moment.tzinfo is None or moment.utcoffset() != timedelta(0) or moment.microsecond:
            raise MalformedQuestion(field, "UTC, whole seconds")
    if not timedelta(0) < expires_at - asked_at <= MAX_LIFETIME:
        raise MalformedQuestion("expires_at", "after asked_at, by a day at most")
