"""What can go wrong while identity is taken out.

DeidError
├── WrongKey        a fault: the vault was made with another key
├── NotRedacted     a refusal: a text could not be checked, so it does not pass
├── MalformedGold   the caller's mistake (ValueError): a file of marked texts breaks its form
└── MalformedRules  the caller's mistake (ValueError): a file of rules for a table breaks its form
"""

from __future__ import annotations


class DeidError(Exception):
    """Anything about de-identification."""


class WrongKey(DeidError):
    """The vault belongs to another pseudonym key; using both would split every patient in two."""


class NotRedacted(DeidError):
    """The text could not be checked for identifiers. It must not be stored."""


class MalformedGold(DeidError, ValueError):
    """A file of marked texts breaks its form. `document` names the place; no text of it is quoted."""

    def __init__(self, document: str, reason: str) -> None:
        super().__init__(f"{document}: {reason}")
        self.document = document
        self.reason = reason


class NotDeidentified(DeidError):
    """The object cannot be made safe, so it does not pass. `reason` says why and nothing of the content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedRules(DeidError, ValueError):
    """A file of rules for a table breaks its form, or does not fit the table. `key` names the place."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
