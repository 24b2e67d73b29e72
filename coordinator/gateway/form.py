"""The body of a question, as JSON: read in full before anything is signed.

{"project": "stroke", "cohort": {…}, "epsilon": 0.5} and optionally "statistic", "delta", "mechanism",
"max_sites_per_patient", "attempts". The cohort is our own form or a Circe definition.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request

from coordinator.gateway import problems
from coordinator.gateway.problems import Problem, malformed
from protocols import canonical, statistic_form
from protocols.circe import cohort_from_json, decoded
from protocols.cohort import MalformedCohort
from protocols.question import MAX_ATTEMPTS, MAX_BYTES, MalformedQuestion, Mechanism, Question
from protocols.statistic import MalformedStatistic

MAX_BODY_BYTES = 5_600_000  # the largest question (4.3 MB) with the indentation that ATLAS exports have
BODY_TIMEOUT_S = 30.0
DELTA = 1e-6  # below one in the number of patients of any consortium this is built for
MAX_SITES_PER_PATIENT = 2  # until records are linked across hospitals, a patient may be in two
KEYS = frozenset(
    {
        "attempts",
        "cohort",
        "delta",
        "epsilon",
        "max_sites_per_patient",
        "mechanism",
        "project",
        "statistic",
    }
)


@dataclass(frozen=True, slots=True)
class Body:
    """A request's JSON, its size and depth within bounds."""

    value: Any

    @property
    def fingerprint(self) -> bytes:
        """The same for two bodies that differ in white space and the order of keys only."""
        return hashlib.sha256(canonical.encode(self.value)).digest()


async def read_body(request: Request) -> Body:
    """Return the JSON that a request holds. Raises: Problem."""
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].split(";")[0].strip().lower() != "application/json":
        raise Problem(problems.NOT_JSON)
    if "content-encoding" in request.headers:
        raise Problem(problems.NOT_JSON)
    length = request.headers.get("content-length")
    if length is not None and int(length) > MAX_BODY_BYTES:  # the parser has checked that it is a number
        raise Problem(problems.TOO_LARGE)
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                found += part
                if len(found) > MAX_BODY_BYTES:
                    raise Problem(problems.TOO_LARGE)
    except TimeoutError:
        raise Problem(problems.SLOW) from None
    try:
        return Body(await asyncio.to_thread(_decoded, bytes(found)))
    except MalformedCohort as error:
        raise malformed("$", error.reason) from None


def _decoded(data: bytes) -> Any:
    value = decoded(data, max_bytes=MAX_BODY_BYTES)
    try:
        canonical.encode(value)  # half a surrogate pair has no UTF-8
    except ValueError as error:
        raise MalformedCohort("$", "not text that UTF-8 can hold") from error
    return value


def question_of(body: Body, *, account: str, now: datetime) -> Question:
    """Return the question that a body describes, asked for `account`. Raises: Problem, naming the field."""
    value = body.value
    if not isinstance(value, dict):
        raise malformed("$", "a JSON object")
    for name in sorted(value.keys() - KEYS):
        raise malformed(name if name.isidentifier() and len(name) <= 40 else "$", "unknown key")
    for name in ("cohort", "epsilon", "project"):
        if name not in value:
            raise malformed(name, "is missing")
    mechanism = _mechanism(value.get("mechanism", Mechanism.GAUSSIAN.value))
    delta = value.get("delta", DELTA if mechanism is Mechanism.GAUSSIAN else 0)
    try:
        question = Question.ask(
            cohort_from_json(_typed("cohort", value["cohort"], dict)),
            project=_typed("project", value["project"], str),
            epsilon=_real("epsilon", value["epsilon"]),
            delta=_real("delta", delta),
            max_sites_per_patient=_typed(
                "max_sites_per_patient", value.get("max_sites_per_patient", MAX_SITES_PER_PATIENT), int
            ),
            now=now,
            statistic=statistic_form.parse(value.get("statistic", {"kind": "count"})),
            mechanism=mechanism,
            attempts=_typed("attempts", value.get("attempts", MAX_ATTEMPTS), int),
            on_behalf_of=account,
        )
        if len(question.to_bytes()) > MAX_BYTES:
            raise malformed("$", f"a question has at most {MAX_BYTES} bytes")
    except MalformedCohort as error:
        raise malformed(f"cohort.{error.path}", error.reason) from None
    except MalformedStatistic as error:
        raise malformed(f"statistic.{error.field}", error.reason) from None
    except MalformedQuestion as error:
        raise malformed(error.field, error.reason) from None
    return question


def _typed(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {dict: "a JSON object", str: "a text", int: "a whole number"}
        raise malformed(name, words[kind])
    return value


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(name, "a number")
    try:
        return float(value)
    except OverflowError:
        raise malformed(name, "a number that a float can hold") from None


def _mechanism(value: Any) -> Mechanism:
    try:
        return Mechanism(value)
    except ValueError:
        raise malformed("mechanism", f"one of {', '.join(Mechanism)}") from None
