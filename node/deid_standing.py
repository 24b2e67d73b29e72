"""What is known of how well identity is taken out here: in the node's home, and the policy may ask for it.

`fedtwin deid evaluate --home` writes how well identity was found in texts in which people marked it, and
`fedtwin deid canary --home` whether planted identities came out anywhere. Both hold for the version of the
software they were made with: after an update they are made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from privacy import private_files
from protocols import canonical

MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class DeidStanding:
    """The last evaluation and the last canary; None: there was none."""

    char_recall: float | None = None
    over_redaction: float | None = None
    evaluated_at: datetime | None = None
    canary_leaks: int | None = None
    canary_at: datetime | None = None


def keep_evaluation(
    path: Path, *, char_recall: float | None, over_redaction: float | None, version: str, now: datetime
) -> None:
    """Write the figures of an evaluation (0600) beside what else is known."""
    _keep(
        path,
        "evaluation",
        {
            "char_recall": char_recall,
            "over_redaction": over_redaction,
            "version": version,
            "at": now.isoformat(),
        },
    )


def keep_canary(path: Path, *, leaks: int, version: str, now: datetime) -> None:
    """Write how often planted identities came out (0600) beside what else is known."""
    _keep(path, "canary", {"leaks": leaks, "version": version, "at": now.isoformat()})


def deid_standing(path: Path, *, version: str) -> DeidStanding:
    """Return what is known, of this version of the software; a damaged file says nothing."""
    found = _read(path)
    evaluation, canary = (_of_version(found.get(name), version) for name in ("evaluation", "canary"))
    return DeidStanding(
        char_recall=_share(evaluation.get("char_recall")),
        over_redaction=_share(evaluation.get("over_redaction")),
        evaluated_at=_moment(evaluation.get("at")),
        canary_leaks=canary.get("leaks") if type(canary.get("leaks")) is int else None,
        canary_at=_moment(canary.get("at")),
    )


def _keep(path: Path, name: str, value: dict[str, Any]) -> None:
    private_files.write(path, canonical.encode(_read(path) | {name: value}))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = canonical.decode(path.read_bytes(), max_bytes=MAX_BYTES)
    except (FileNotFoundError, canonical.MalformedJson):
        return {}
    return found if isinstance(found, dict) else {}


def _of_version(found: Any, version: str) -> dict[str, Any]:
    return found if isinstance(found, dict) and found.get("version") == version else {}


def _share(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None


def _moment(value: Any) -> datetime | None:
    try:
        made = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return made if made.tzinfo is not None else None
