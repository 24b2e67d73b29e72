"""Sixteen bytes that change when this hospital would answer from something else, and say nothing else.

The coordinator gives a stored answer again while they stay. They are an HMAC, under a key that never leaves
the node, of the engine's name for its content and of what the policy says: whoever reads them learns that one
of the two has changed, and when, which also shows in what the hospital answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from node.policy import Policy
from node.queries.engine import Warehouse
from protocols import canonical
from protocols.refusal import RefusalCode, Refused

EPOCH_BYTES = 16
LABEL = b"fedtwin data epoch v1"


def epoch_key(pseudonym_key: bytes) -> bytes:
    """Return the key for epochs, told apart from the pseudonyms' own."""
    return hmac.new(pseudonym_key, LABEL, hashlib.sha256).digest()


def data_epoch(key: bytes, *, warehouse: Callable[[], Warehouse], policy: Callable[[], Policy]) -> bytes:
    """Return the present epoch; empty while it cannot be told, so that nothing stored is given again.

    Reads the database: to be called in a thread. A hospital without data or policy has an epoch too.
    """
    try:
        content = warehouse().epoch()
    except Refused as refused:
        if refused.code is not RefusalCode.NO_DATA:
            return b""
        content = ""
    named = canonical.encode({"content": content, "policy": _allowed(policy)})
    return hmac.new(key, named, hashlib.sha256).digest()[:EPOCH_BYTES]


def _allowed(policy: Callable[[], Policy]) -> dict[str, Any] | None:
    """Return what the policy says, as JSON; None where there is none that can be read."""
    try:
        found = policy()
    except Exception as error:
        if getattr(error, "code", None) is not RefusalCode.NO_POLICY:
            raise
        return None
    return {field.name: _json(getattr(found, field.name)) for field in dataclasses.fields(found)}


def _json(value: object) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    return dict(value) if isinstance(value, Mapping) else value
