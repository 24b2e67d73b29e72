"""One encoding of a JSON value, so that a hash or a signature over it means one thing.

Sorted keys, no white space, UTF-8, finite numbers only (RFC 8785 in spirit: both ends are this code).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

JsonValue = Any  # None, bool, int, float, str, list or dict with str keys


class MalformedJson(ValueError):
    """The bytes are not one JSON value with unique keys and finite numbers."""


def encode(value: JsonValue) -> bytes:
    """Return the canonical bytes of `value`.

    >>> encode({"b": 1, "a": [True, None, 0.5]})
    b'{"a":[true,null,0.5],"b":1}'

    Raises: ValueError for NaN or an infinity; TypeError for a value that is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def decode(data: bytes, *, max_bytes: int) -> JsonValue:
    """Return the value of `data`, refusing repeated keys, NaN and anything longer than `max_bytes`.

    Raises: MalformedJson.
    """
    if len(data) > max_bytes:
        raise MalformedJson(f"at most {max_bytes} bytes, got {len(data)}")
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedJson("not one JSON value with unique keys and finite numbers") from error


def digest(value: JsonValue) -> bytes:
    """Return the SHA-256 of the canonical bytes of `value` (32 bytes)."""
    return hashlib.sha256(encode(value)).digest()


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedJson("a key stands twice")
    return found


def _refuse_constant(name: str) -> JsonValue:
    raise MalformedJson(f"{name} is not JSON")
