"""What `fedtwin node evaluate` kept, read again: only what it writes is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocols import canonical

FORMAT = "fedtwin-local-evaluation-v1"
MAX_BYTES = 2**20
KEYS = frozenset(
    {
        *("format", "stays", "study", "plan_hash", "parameters_digest", "made_at", "data", "task"),
        *("own_part", "held_out_share", "overall", "calibration", "groups"),
    }
)
OF_EXACT = frozenset({"exact"})  # besides, of an exact study


class MalformedEvaluation(ValueError):
    """The file is not what `fedtwin node evaluate` writes."""

    def __init__(self) -> None:
        super().__init__("not a file that `fedtwin node evaluate` writes")


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the evaluation in `path`. Raises: MalformedEvaluation; OSError."""
    try:
        found = canonical.decode(path.read_bytes(), max_bytes=MAX_BYTES)
    except canonical.MalformedJson as error:
        raise MalformedEvaluation from error
    if not isinstance(found, dict) or set(found) - OF_EXACT != KEYS or found["format"] != FORMAT:
        raise MalformedEvaluation
    return found
