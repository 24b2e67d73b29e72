"""What can go wrong while an export is pulled from a FHIR server. None of these holds what a server said.

ExportError (an IngestError)
├── UnsafeAddress   the caller's mistake, or a server that points to an unsafe place
├── BadKey          the caller's mistake: the key file cannot sign
├── ExportRefused   a refusal: the server said no (`status`); asking again gives the same
├── UnsafeAddress   the caller's mistake, or where a server points is not safe
"""

from __future__ import annotations

from node.ingest.errors import IngestError


class ExportError(IngestError):
    """Anything about pulling an export. `step` is what was being done."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"FHIR export, {step}: {reason}")
        self.step = step
        self.reason = reason


class UnsafeAddress(ExportError, ValueError):
    """An address that is not https, or not where secrets may go."""


class BadKey(ExportError, ValueError):
    """A key file that cannot sign requests."""


class ExportRefused(ExportError):
    """The server said no."""

    def __init__(self, step: str, status: int, reason: str = "") -> None:
        super().__init__(step, reason or f"the server answered {status}")
        self.status = status


class ExportFailed(ExportError):
    """It did not work this time; what has come is kept."""
