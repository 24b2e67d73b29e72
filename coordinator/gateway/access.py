"""Which of the issuer's people may ask under which project. Whoever is not named may not."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.gateway.tokens import Caller
from protocols.peer import PERSON_NAME


@dataclass(frozen=True, slots=True)
class Grant:
    """One project, and the subjects and groups of the issuer that may ask under it."""

    project: str
    subjects: frozenset[str]
    groups: frozenset[str]

    def __post_init__(self) -> None:
        if not PERSON_NAME.fullmatch(self.project):
            raise ValueError("access: a project is 1 to 64 of a-z, 0-9, '.', '_' and '-'")
        if not self.subjects and not self.groups:
            raise ValueError(f"access: nobody is named for the project {self.project}")

    def covers(self, caller: Caller) -> bool:
        """Return whether the caller is named, by subject or by group."""
        return caller.subject in self.subjects or bool(caller.groups & self.groups)


@dataclass(frozen=True, slots=True)
class Access:
    """All grants. A hospital's policy and the gateway's own entry in the roster may allow less."""

    grants: tuple[Grant, ...]

    def projects(self, caller: Caller) -> frozenset[str]:
        """Return every project the caller may use."""
        return frozenset(grant.project for grant in self.grants if grant.covers(caller))

    def may_use(self, caller: Caller, project: str) -> bool:
        """Return whether the caller may ask under `project`."""
        return project in self.projects(caller)
