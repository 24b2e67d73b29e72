"""What the gateway says when it does not do what it was asked: RFC 9457 problems of a closed list.

Guarantee: a problem holds a code, its fixed words, and at most the name of the field that is wrong and our
own words about it; never the text of an exception, a value, or anything of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from protocols.refusal import RefusalCode

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:fedtwin:problem:"  # followed by the code; the same at every gateway and in every version


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem."""

    code: str
    status: HTTPStatus
    title: str


UNAUTHENTICATED = Kind("unauthenticated", HTTPStatus.UNAUTHORIZED, "No valid bearer token came with this.")
INSUFFICIENT_SCOPE = Kind("insufficient-scope", HTTPStatus.FORBIDDEN, "The token lacks the scope for this.")
FOREIGN_PROJECT = Kind("foreign-project", HTTPStatus.FORBIDDEN, "You may not ask under this project here.")
NOT_FOUND = Kind("not-found", HTTPStatus.NOT_FOUND, "There is nothing of yours under this address.")
METHOD = Kind("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "This address does not take this method.")
TOO_LARGE = Kind("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is larger than allowed.")
NOT_JSON = Kind("not-json", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json, not compressed.")
SLOW = Kind("request-timeout", HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.")
RATE = Kind("rate-limited", HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; wait before the next.")
TOO_MANY_OPEN = Kind("too-many-open", HTTPStatus.TOO_MANY_REQUESTS, "Too many questions are still open.")
KEY_MISSING = Kind("idempotency-key-missing", HTTPStatus.BAD_REQUEST, "Send an Idempotency-Key.")
KEY_MALFORMED = Kind(
    "idempotency-key-malformed", HTTPStatus.BAD_REQUEST, 'Idempotency-Key: "1 to 128 printable characters".'
)
KEY_REUSED = Kind(
    "idempotency-key-reused", HTTPStatus.UNPROCESSABLE_ENTITY, "This key was used for another request."
)
KEY_IN_USE = Kind(
    "idempotency-key-in-use", HTTPStatus.CONFLICT, "The first request with this key is still being answered."
)
BUSY = Kind("busy", HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests at once; try again in a moment.")
NO_ISSUER = Kind("issuer-unreachable", HTTPStatus.SERVICE_UNAVAILABLE, "Tokens cannot be checked right now.")
NO_COORDINATOR = Kind(
    "coordinator-unreachable", HTTPStatus.SERVICE_UNAVAILABLE, "The consortium's coordinator does not answer."
)
INTERNAL = Kind(
    "internal", HTTPStatus.INTERNAL_SERVER_ERROR, "An internal fault; the gateway's log says more."
)
OURS = (
    UNAUTHENTICATED, INSUFFICIENT_SCOPE, FOREIGN_PROJECT, NOT_FOUND, METHOD, TOO_LARGE, NOT_JSON, SLOW, RATE,
    TOO_MANY_OPEN, KEY_MISSING, KEY_MALFORMED, KEY_REUSED, KEY_IN_USE, BUSY, NO_ISSUER, NO_COORDINATOR,
    INTERNAL,
)  # fmt: skip

_STATUS_OF_REFUSAL = {
    RefusalCode.MALFORMED: HTTPStatus.BAD_REQUEST,
    RefusalCode.UNKNOWN_CONCEPT: HTTPStatus.UNPROCESSABLE_ENTITY,
    RefusalCode.REPLAYED: HTTPStatus.CONFLICT,
    RefusalCode.EXPIRED: HTTPStatus.CONFLICT,
    RefusalCode.TOO_FEW_SITES: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalCode.TOO_MANY_DROPOUTS: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalCode.NOT_READY: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalCode.NO_DATA: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalCode.KEY_HOLDER_AWAY: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalCode.DEADLINE: HTTPStatus.GATEWAY_TIMEOUT,
    RefusalCode.INTERNAL: HTTPStatus.BAD_GATEWAY,
    RefusalCode.PROTOCOL_VIOLATION: HTTPStatus.BAD_GATEWAY,
}


def refusal(code: RefusalCode) -> Kind:
    """Return the problem that a refusal of the consortium is. What is not an outage is a plain no (403)."""
    return Kind(code.value, _STATUS_OF_REFUSAL.get(code, HTTPStatus.FORBIDDEN), code.help)


class Problem(Exception):
    """End the request with this problem. `field` and `reason` are our words about the caller's request."""

    def __init__(
        self,
        kind: Kind,
        *,
        field: str | None = None,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(kind.code)
        self.kind = kind
        self.field = field
        self.reason = reason
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def to_json(self) -> dict[str, Any]:
        """Return the body."""
        body: dict[str, Any] = {
            "type": TYPE + self.kind.code,
            "title": self.kind.title,
            "status": int(self.kind.status),
            "code": self.kind.code,
        }
        if self.field is not None:
            body["field"] = self.field
        if self.reason is not None:
            body["detail"] = self.reason
        return body | self.more

    def response(self) -> JSONResponse:
        """Return the answer to send."""
        return JSONResponse(
            self.to_json(), status_code=self.kind.status, headers=self.headers, media_type=MEDIA_TYPE
        )


def malformed(where: str, reason: str) -> Problem:
    """Return the problem of a request whose field `where` breaks a rule."""
    return Problem(refusal(RefusalCode.MALFORMED), field=where, reason=reason)
