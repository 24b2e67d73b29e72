"""The closed lists of what an audit trail records: events, fields, and the form of each field's values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from protocols.refusal import RefusalCode


class NotAuditable(ValueError):
    """The event, a field or the form of a value is not on the list. Names the field, never the value."""


class AuditEvent(StrEnum):
    """The closed list of what is recorded."""

    NODE_STARTED = "node-started"
    NODE_STOPPED = "node-stopped"
    ENROLLED = "enrolled"
    CERTIFICATE_RENEWED = "certificate-renewed"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ROSTER_ACCEPTED = "roster-accepted"
    ROSTER_REFUSED = "roster-refused"
    POLICY_LOADED = "policy-loaded"
    INGESTED = "ingested"
    TIMELINE_READ = "timeline-read"  # one person's, by staff
    EVENTS_EXPORTED = "events-exported"  # everybody's, into files of this hospital
    PROVENANCE_READ = "provenance-read"
    QUALITY_CHECKED = "quality-checked"
    MODEL_EVALUATED = "model-evaluated"  # on held-out patients, by staff, for the hospital's own eyes
    QUESTION_ACCEPTED = "question-accepted"
    QUESTION_REFUSED = "question-refused"
    QUESTION_CANCELLED = "question-cancelled"
    ANSWERED_EMPTY = "answered-empty"  # computing failed: noise around zeros went out instead
    STUDY_PROPOSED = "study-proposed"
    STUDY_APPROVED = "study-approved"
    STUDY_WITHDRAWN = "study-withdrawn"
    ROUND_STARTED = "round-started"
    ROUND_FINISHED = "round-finished"
    ROUND_REFUSED = "round-refused"
    SESSION_JOINED = "session-joined"
    SESSION_REFUSED = "session-refused"
    EXACT_RELEASED = "exact-released"  # a sum without noise: no budget covers it
    BUDGET_RESERVED = "budget-reserved"
    BUDGET_COMMITTED = "budget-committed"
    INPUT_SENT = "input-sent"
    SHARES_REVEALED = "shares-revealed"
    REVEAL_REFUSED = "reveal-refused"
    LINE_RECOVERED = "line-recovered"  # a crash had cut the last line off; nothing had been acknowledged


def _pattern(form: str) -> Callable[[Any], bool]:
    compiled = re.compile(form)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


_digest = _pattern(r"[0-9a-f]{64}")
_share = _pattern(r"0\.[0-9]{1,6}|1\.0")

# Identifiers and names that the consortium gives, never the hospital's data. None may hold a blank, and so no
# sentence; numbers are about the protocol, the budget and the size of files.
FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "request_id": _pattern(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,199}"),
    "question_id": _pattern(r"q-[0-9a-f]{32}"),
    "session_id": _pattern(r"s-[0-9a-f]{32}"),
    "node_id": _pattern(r"n-[0-9a-f]{32}"),
    "project": _pattern(r"[a-z0-9][a-z0-9._-]{0,63}"),
    "signer": _pattern(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,119}"),
    "mapping": _pattern(r"[a-z0-9][a-z0-9._-]{0,63}"),
    "on_behalf_of": _pattern(r"[\x21-\x7e]{1,128}"),  # whom a gateway asks for, by the name it gives them
    "kind": _pattern(r"[a-z][a-z0-9-]{0,39}"),
    "statistic": _pattern(r"[a-z][a-z0-9-]{0,39}"),
    "mechanism": _pattern(r"[a-z][a-z0-9-]{0,39}"),
    "purpose": _pattern(r"[a-z][a-z0-9-]{0,39}"),
    "table": _pattern(r"[a-z][a-z0-9_]{0,62}"),
    "version": _pattern(r"[0-9][0-9A-Za-z.+-]{0,39}"),
    "code": lambda value: isinstance(value, str) and value in set(RefusalCode),
    "plan_hash": _digest,
    "model_hash": _digest,  # of the noisy, public model that a round starts from, or ends with
    "model_from": _pattern(r"[a-z][a-z0-9-]{0,39}"),  # what that is here: node.training.held_models
    "policy_hash": _digest,
    "ledger_head": _digest,
    "payload_hash": _digest,
    "source_hash": _digest,
    "person": _digest,  # a keyed hash of the pseudonym: only this hospital's key leads from one to the other
    "staff": _pattern(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}"),  # the account of the machine that ran a command
    "reads": _pattern(r"[a-z][a-z0-9_]{0,62}(,[a-z][a-z0-9_]{0,62}){0,39}"),  # tables
    "pass_rate": _share,
    "mapping_coverage": _share,
    "ledger_seq": _count,
    "roster_version": _count,
    "attempt": _count,
    "round": _count,
    "step": _count,
    "steps": _count,
    "count": _count,
    "participants": _count,
    "survivors": _count,
    "tolerance": _count,
    "threshold": _count,
    "cells": _count,
    "bytes_sent": _count,
    "bytes_received": _count,
    "rows_loaded": _count,
    "rows_quarantined": _count,
    "max_sites_per_patient": _count,
    "epsilon": _number,
    "delta": _number,
    "noise_multiplier": _number,
    "epsilon_left": _number,
    "duration_s": _number,
}
