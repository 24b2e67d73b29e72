"""What the OpenAPI document says about bodies and problems, as JSON Schema."""

from __future__ import annotations

from typing import Any

from coordinator.gateway import form
from coordinator.gateway.issuer import WELL_KNOWN
from coordinator.gateway.problems import MEDIA_TYPE, OURS, TYPE
from coordinator.gateway.tokens import ASK, READ
from protocols.question import (
    MAX_ATTEMPTS,
    MAX_DELTA,
    MAX_EPSILON,
    MAX_SITES_PER_PATIENT,
    MIN_EPSILON,
    Mechanism,
)
from protocols.refusal import RefusalCode
from protocols.statistic import KINDS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
EPSILON: Schema = {"type": ["number", "null"], "description": "null if none holds at this delta."}


def _object(
    properties: dict[str, Schema], *, needed: tuple[str, ...] | None = None, closed: bool = True
) -> Schema:
    found: Schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if needed is None else list(needed),
    }
    return found | ({"additionalProperties": False} if closed else {})


QUESTION_BODY = _object(
    {
        "project": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
        "cohort": {
            "type": "object",
            "description": "The form of docs/researcher.md, or a Circe definition as ATLAS exports it.",
        },
        "statistic": {
            "type": "object",
            "properties": {"kind": {"type": "string", "enum": list(KINDS)}},
            "required": ["kind"],
            "default": {"kind": "count"},
        },
        "epsilon": {"type": "number", "minimum": MIN_EPSILON, "maximum": MAX_EPSILON},
        "delta": {
            "type": "number", "minimum": 0, "maximum": MAX_DELTA,
            "description": f"{form.DELTA:g} unless given; 0 for the laplace mechanism.",
        },
        "mechanism": {"type": "string", "enum": list(Mechanism), "default": Mechanism.GAUSSIAN.value},
        "max_sites_per_patient": {
            "type": "integer", "minimum": 1, "maximum": MAX_SITES_PER_PATIENT,
            "default": form.MAX_SITES_PER_PATIENT,
        },
        "attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": MAX_ATTEMPTS},
    },
    needed=("project", "cohort", "epsilon"),
)  # fmt: skip

ANSWER = _object(
    {
        "question_id": TEXT,
        "cells": {"type": "object", "additionalProperties": NUMBER, "description": "Noisy, not clamped."},
        "half_width_95": {"type": "number", "description": "Of each cell's 95 % interval: the noise alone."},
        "standard_deviation": NUMBER,
        "epsilon": NUMBER,
        "delta": NUMBER,
        "mechanism": TEXT,
        "unit_of_privacy": TEXT,
        "contributors": {"type": "integer", "description": "How many hospitals are in it."},
        "releases": WHOLE,
        "cached": {"type": "boolean", "description": "Given before: this time nothing was charged."},
        "charged": _object({"epsilon": NUMBER, "delta": NUMBER}),
        "answered_at": {"type": "string", "format": "date-time"},
    },
    closed=False,
)
QUESTION = _object(
    {
        "question_id": TEXT,
        "status": {"type": "string", "enum": ["open", "answered", "refused"]},
        "project": TEXT,
        "asked_at": {"type": "string", "format": "date-time"},
        "expires_at": {"type": "string", "format": "date-time"},
        "stage": TEXT,
        "sites": WHOLE,
        "answer": ANSWER,
        "refusal": _object({"code": {"type": "string", "enum": list(RefusalCode)}, "title": TEXT}),
    },
    needed=("question_id", "status", "project", "asked_at", "expires_at"),
)
PREVIEW = _object(
    {
        "cost": _object({"epsilon": NUMBER, "delta": NUMBER, "releases_at_most": WHOLE, "charged_to": TEXT}),
        "mechanism": TEXT,
        "cells": {"type": "array", "items": TEXT},
        "sites": WHOLE,
        "minimum_sites": WHOLE,
        "enough_sites": {"type": "boolean"},
        "project": _object({"epsilon": EPSILON, "epsilon_after": EPSILON}),
        "expected_error": {
            "oneOf": [
                {"type": "null"},
                _object({"standard_deviation": NUMBER, "half_width_95": NUMBER, "tolerance": WHOLE}),
            ]
        },
    }
)
BUDGET = _object(
    {
        "project": TEXT,
        "delta": NUMBER,
        "epsilon": EPSILON,
        "releases": WHOLE,
        "cached": WHOLE,
        "lines": {
            "type": "array",
            "items": _object({"kind": TEXT, "releases": WHOLE, "epsilon": EPSILON, "cached": WHOLE}),
        },
        "yours": _object({"answers": WHOLE, "epsilon": NUMBER, "delta": NUMBER}),
    }
)
CONSORTIUM = _object(
    {
        "consortium": TEXT,
        "name": TEXT,
        "minimum_sites": WHOLE,
        "tolerance": WHOLE,
        "hospitals": WHOLE,
        "connected": WHOLE,
        "statistics": {"type": "array", "items": TEXT},
        "mechanisms": {"type": "array", "items": TEXT},
        "projects": {"type": "array", "items": TEXT, "description": "That you may ask under."},
        "account": {"type": "string", "description": "The pseudonym under which hospitals charge you."},
    }
)
HEALTH = _object({"serving": {"type": "boolean"}})
PROBLEM = _object(
    {
        "type": {"type": "string", "format": "uri", "description": f"{TYPE}CODE"},
        "title": TEXT,
        "status": WHOLE,
        "code": {"type": "string", "enum": sorted({kind.code for kind in OURS} | set(RefusalCode))},
        "detail": TEXT,
        "field": TEXT,
        "question_id": TEXT,
    },
    needed=("type", "title", "status", "code"),
)
SCHEMAS = {
    "QuestionBody": QUESTION_BODY,
    "Question": QUESTION,
    "Preview": PREVIEW,
    "Budget": BUDGET,
    "Consortium": CONSORTIUM,
    "Health": HEALTH,
    "Problem": PROBLEM,
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": TEXT,
    "description": 'A new "quoted text" for each new question; the same one when a request is sent again.',
}
WAIT: Schema = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": TEXT,
    "description": "wait=SECONDS (RFC 7240): how long to wait for the answer, up to the gateway's limit.",
}


def answers(name: str, *, status: int = 200, also: tuple[int, ...] = ()) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer: the schema `name`, and problems."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        **{code: {"description": name, "content": content} for code in (status, *also)},
        "default": {"description": "A problem (RFC 9457)", "content": problem},
    }


def needs(scope: str, *, body: bool = False, parameters: tuple[Schema, ...] = ()) -> dict[str, Any]:
    """Return the rest of a route's entry: its scope, its body and headers."""
    found: dict[str, Any] = {"security": [{"openid": [scope]}]}
    if body:
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/QuestionBody"}}}
        found["requestBody"] = {"required": True, "content": content}
    if parameters:
        found["parameters"] = list(parameters)
    return found


def completed(document: dict[str, Any], *, issuer: str) -> dict[str, Any]:
    """Add schemas and the way to sign in to what FastAPI has gathered from the routes."""
    components = document.setdefault("components", {})
    components["schemas"] = SCHEMAS
    components["securitySchemes"] = {
        "openid": {
            "type": "openIdConnect",
            "openIdConnectUrl": issuer.rstrip("/") + WELL_KNOWN,
            "description": f"Scopes: {ASK} to ask questions, {READ} for everything else.",
        }
    }
    return document
