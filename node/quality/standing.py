"""The last report on the data, in the node's home: `fedtwin node quality` writes it, studies depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.quality.report import DamagedReport, Standing
from privacy import private_files
from protocols import canonical

MAX_REPORT_BYTES = 16_000_000  # some 2,000 checks of a few hundred bytes


def keep(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report (0600), whole or not at all."""
    private_files.write(path, canonical.encode(dict(report)))


def standing(path: Path) -> Standing | None:
    """Return how good the data were found to be; None without a report, or with one that is damaged."""
    try:
        return Standing.of(canonical.decode(path.read_bytes(), max_bytes=MAX_REPORT_BYTES))
    except (FileNotFoundError, canonical.MalformedJson, DamagedReport):
        return None
