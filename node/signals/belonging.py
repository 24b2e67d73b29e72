"""Whose a file of signals is, and on which clock: wearables say neither.

A `signals.toml` beside the files, or up to three folders above, says it:

    [source]
    namespace = "mrn"                # whose ids the patients' are; "mrn" unless it says otherwise
    # of clocks on the wall; without it, times without an offset stay as written
    timezone = "Europe/Berlin"
    [patients]
    # a pattern of the path from here, as a shell has it, and the patient's id
    "export.xml" = "0042"
    "anna/*" = "0077"

The first pattern that fits decides. A file that none fits is turned away, each record as "no-patient": a
person who came in under two ids would count twice, and what privacy promises is per person.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from node.ingest.errors import MalformedMapping

FILE = "signals.toml"
LEVELS = 4  # the file's folder, and three above it
MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Belonging:
    """What one signals.toml says."""

    namespace: str = "mrn"
    zone: ZoneInfo | None = None
    patients: tuple[tuple[str, str], ...] = ()

    def patient(self, relative: str) -> str | None:
        """Return whose the file is; None if nobody said."""
        return next((patient for pattern, patient in self.patients if fnmatchcase(relative, pattern)), None)


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose one file is. `patient` None: the file has to say, or is turned away."""

    patient: str | None
    namespace: str
    zone: ZoneInfo | None


def whose(path: Path) -> Whose:
    """Return whose the file is. Raises: MalformedMapping for a signals.toml that breaks a rule."""
    folder = path.resolve().parent
    for above in (folder, *folder.parents)[:LEVELS]:
        file = above / FILE
        if file.is_file():
            stamp = file.stat()
            said = _parsed(file, stamp.st_mtime_ns, stamp.st_size)
            return Whose(
                said.patient(path.resolve().relative_to(above).as_posix()), said.namespace, said.zone
            )
    return Whose(None, Belonging().namespace, None)


@lru_cache(maxsize=64)
def _parsed(file: Path, _mtime_ns: int, size: int) -> Belonging:
    if size > MAX_BYTES:
        raise MalformedMapping(FILE, "$", "is too large")
    return parse(file.read_bytes())


def parse(raw: bytes) -> Belonging:
    """Return what a signals.toml says. Raises: MalformedMapping; unknown keys are errors."""
    try:
        found = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedMapping(FILE, "$", "is not TOML") from None
    source, patients = found.pop("source", {}), found.pop("patients", {})
    if found or not isinstance(source, dict) or not isinstance(patients, dict):
        raise MalformedMapping(FILE, "$", "has [source] and [patients], and nothing else")
    namespace, zone = source.pop("namespace", "mrn"), source.pop("timezone", None)
    if source or not isinstance(namespace, str) or not namespace:
        raise MalformedMapping(FILE, "source", "has a namespace and a timezone, and nothing else")
    if not all(isinstance(patient, str) and patient for patient in patients.values()):
        raise MalformedMapping(FILE, "patients", "each pattern has a patient's id, a text")
    return Belonging(namespace, None if zone is None else _zone(zone), tuple(patients.items()))


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(name) if isinstance(name, str) else ZoneInfo("")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise MalformedMapping(
            FILE, "source.timezone", "is no time zone of IANA, like Europe/Berlin"
        ) from None
